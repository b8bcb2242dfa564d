"""What the generator of works and versions can be told."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

Range = tuple[float, float]

#: Limits of each field, inclusive. Other probabilities are in [0, 1].
LIMITS: dict[str, Range] = {
    "works_per_style": (1, math.inf),
    "seconds": (20, 600),
    "tempo": (0.4, 2.5),
    "reverb_seconds": (0.01, 5),
    "noise_db": (-90, 0),
    "detuning_cents": (0, 50),
    "rubato": (0, 0.5),
}

EXPECTED = {int: "a whole number", float: "a number", tuple: "two numbers, the lower first,"}


@dataclass(frozen=True)
class ComposingConfig:
    """How works and their versions are composed.

    A range is (lowest, highest); each version draws a value from it. A probability is for each
    version, unless it says otherwise. Raises ValueError if a value is out of its limits.

    Attributes
    ----------
    works_per_style : int
        Consecutive works that share scale, meter, rhythms and chord loops, but not the tune. They
        are hard to tell apart, as works of one composer are.
    seconds : range
        Length of a version. A longer arrangement is cut, a shorter one starts over.
    tempo : range
        Speed of a version divided by the speed of its work, more often from the
        middle of the range than from its ends.
    rubato : float
        Standard deviation of the logarithm of the local tempo.
    restructuring : float in [0, 1]
        Probability that a version leaves out repeats, changes the order of strains, or starts with
        a later strain.
    intro : float in [0, 1]
        Probability of a few bars of accompaniment before the tune.
    ornaments : float in [0, 1]
        Share of the notes that a richly ornamented version changes. A version draws its share from
        0 to this value.
    reharmonisation : float in [0, 1]
        Probability that a version has chords of its own instead of those of the work.
    solo : float in [0, 1]
        Probability that only the tune sounds.
    percussion : float in [0, 1]
        Probability of drums.
    reverb_seconds : range
        Time in which a note that has ended loses 8.7 dB.
    noise_db : range
        Level of the background noise, relative to the mean level of the music.
    detuning_cents : float
        A version is up to this much above or below A = 440 Hz, and mostly nearer.
    """

    works_per_style: int = 4
    seconds: Range = (45, 75)
    tempo: Range = (0.65, 1.55)
    rubato: float = 0.05
    restructuring: float = 0.5
    intro: float = 0.3
    ornaments: float = 0.25
    reharmonisation: float = 0.5
    solo: float = 0.08
    percussion: float = 0.35
    reverb_seconds: Range = (0.03, 0.3)
    noise_db: Range = (-60, -18)
    detuning_cents: float = 25.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value, kind = getattr(self, field.name), type(field.default)
            low, high = LIMITS.get(field.name, (0, 1))
            numbers = list(value) if kind is tuple and isinstance(value, list | tuple) else [value]
            types = int if kind is int else (int, float)
            if (
                len(numbers) != (2 if kind is tuple else 1)
                or any(isinstance(n, bool) or not isinstance(n, types) for n in numbers)
                or not all(low <= n <= high for n in numbers)
                or numbers != sorted(numbers)
            ):
                limit = f"of at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
                raise ValueError(f"{field.name} is {value!r}, expected {EXPECTED[kind]} {limit}")
            if kind is tuple:
                object.__setattr__(self, field.name, tuple(numbers))  # JSON has lists only
