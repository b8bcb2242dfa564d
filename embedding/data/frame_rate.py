"""The frame rate of a data set: stated beside the data, or measured from its beats."""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

#: 44.1 kHz audio with hops of a power of two, which every extractor of these features uses.
#: (22,050 Hz with half the hop is the same rate.)
COMMON_RATES = {f"44100/{hop}": 44100 / hop for hop in (128, 256, 512, 1024, 2048, 4096, 8192)}

#: Share of the performances that must agree on a measured rate.
MIN_AGREEMENT = 2 / 3

#: Rates that differ by less are called alike: hops double, and trackers are not exact.
ALIKE = 1.5


class Measured(NamedTuple):
    """A frame rate that was measured from beats."""

    rate: float  # frames per second
    name: str  # such as "44100/512"
    performances: int  # that have beats
    agreeing: int

    def __str__(self) -> str:
        return (
            f"{self.name} = {self.rate:.3f} per second as measured from the beats of "
            f"{self.performances} performances ({self.agreeing} agree)"
        )


def differs(rate: float, other: float) -> bool:
    """Whether two frame rates contradict each other."""
    return max(rate / other, other / rate) >= ALIKE


def parse_frame_rate(text: str | float) -> float:
    """Read a frame rate, in frames per second.

    Raises
    ------
    ValueError
        If the text is not a positive, finite number or fraction.

    Examples
    --------
    >>> parse_frame_rate("44100/512")
    86.1328125
    """
    try:
        rate = float(Fraction(text.replace(" ", ""))) if isinstance(text, str) else float(text)
    except (ValueError, TypeError, ZeroDivisionError, OverflowError):
        rate = math.nan
    if isinstance(text, bool) or not (math.isfinite(rate) and rate > 0):
        raise ValueError(
            f"{text!r} is not a frame rate: give frames per second as a number or as sample rate "
            "over hop, such as 44100/512"
        )
    return rate


def from_provenance(entries: dict[str, Any]) -> float | None:
    """Divide frames by seconds of a `provenance.json`, `{track: {"T": frames, "sec": seconds}}`.

    A result within 1 % of a common rate is that rate, because seconds are rounded and the last
    frame of a recording is not full. The result is None if no entry has both numbers.
    """
    lengths = [
        (entry["T"], entry["sec"])
        for entry in entries.values()
        if isinstance(entry, dict)
        and all(isinstance(entry.get(key), int | float) for key in ("T", "sec"))
    ]
    frames, seconds = (sum(column) for column in zip(*lengths, strict=True)) if lengths else (0, 0)
    if not (frames > 0 and seconds > 0):
        return None
    rate = float(frames / seconds)
    nearest = min(COMMON_RATES.values(), key=lambda common: abs(math.log(common / rate)))
    return nearest if abs(nearest / rate - 1) < 0.01 else rate


def measure(beats: Iterable[tuple[float, np.ndarray]]) -> Measured:
    """Find the frame rate at which the beats of performances have their tempo.

    Each performance votes for the common rate nearest to bpm x (median frames between beats) / 60.
    One performance may be off by a factor of two, if its tracker follows every second beat. `beats`
    gives, for each performance, the tempo in bpm and the frames of its beats.

    Raises
    ------
    ValueError
        If no performance has a tempo and four beats, or less than `MIN_AGREEMENT` of them agree.
    """
    rates = list(COMMON_RATES.values())
    votes = np.zeros(len(rates), dtype=int)
    for tempo, onsets in beats:
        if len(onsets) < 4:
            continue
        estimate = tempo * float(np.median(np.diff(onsets))) / 60
        if math.isfinite(estimate) and estimate > 0:
            votes[int(np.argmin(np.abs(np.log(np.array(rates) / estimate))))] += 1
    best = int(votes.argmax())
    if votes[best] < max(1, MIN_AGREEMENT * votes.sum()):
        shares = ", ".join(f"{name} {n}" for name, n in zip(COMMON_RATES, votes, strict=True) if n)
        raise ValueError(f"measuring it from the beats is inconclusive ({shares or 'no beats'})")
    return Measured(rates[best], list(COMMON_RATES)[best], int(votes.sum()), int(votes[best]))
