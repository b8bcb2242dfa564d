"""Styles: what works of one kind share, which is all but the tune and the order of its chords."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Semitones above the tonic.
SCALES = {
    "major": (0, 2, 4, 5, 7, 9, 11),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "harmonic minor": (0, 2, 3, 5, 7, 8, 11),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "mixolydian": (0, 2, 4, 5, 7, 9, 10),
}

#: Degrees of the scale that a tune uses: all, or five of them.
ALL = (0, 1, 2, 3, 4, 5, 6)
FIVE = {"major": (0, 1, 2, 4, 5), "mixolydian": (0, 1, 2, 4, 5)}
FIVE_OF_MINOR = (0, 2, 3, 4, 6)

#: The twelve bars of a blues, as degrees.
BLUES = (0, 0, 0, 0, 3, 3, 0, 0, 4, 3, 0, 4)

#: Chord progressions of popular music, as degrees, a bar each.
LOOPS = (
    (0, 4, 5, 3), (5, 3, 0, 4), (0, 5, 3, 4), (0, 3, 4, 4), (0, 5, 1, 4), (3, 4, 2, 5),
    (0, 4, 3, 3), (5, 4, 3, 4), (0, 2, 3, 4), (0, 6, 3, 0), (0, 6, 5, 4), (0, 3, 0, 4),
    (0, 4, 5, 2, 3, 0, 3, 4), (1, 4, 0, 0), (3, 3, 0, 0), (0, 0, 3, 4), (5, 1, 4, 0),
)  # fmt: skip


@dataclass(frozen=True)
class Genre:
    """What styles of a genre have in common."""

    weight: float  # how often the genre is drawn, relative to the others
    beats: tuple[int, ...]  # in a bar
    divisions: tuple[int, ...]  # of a beat
    beat_seconds: tuple[float, float]
    on_beat: tuple[float, float]  # probability of a note
    off_beat: tuple[float, float]
    strain_bars: tuple[int, ...]
    forms: tuple[str, ...]  # a letter for each strain
    slot_beats: tuple[float, ...]  # of a chord; 0 for a bar
    harmony: str = "tune"  # what comes first: the "tune", or a "loop" or "blues" of chords
    five: float = 0.2  # probability of a tune of five degrees


GENRES = {
    "dance": Genre(
        3, (2, 3, 4), (2, 3), (0.38, 0.6), (0.9, 1), (0.45, 0.95), (8,),
        ("AABB", "AABB", "AB", "AABBCC", "ABAB", "ABCB"), (0, 0, 2, 1),
    ),
    "hymn": Genre(
        2, (3, 4, 4), (2,), (0.55, 1.0), (0.8, 1), (0.02, 0.25), (4,),
        ("AAB", "AABC", "ABCD", "AABCD", "ABAC", "ABCDE"), (1, 1, 2), five=0.02,
    ),
    "song": Genre(
        4, (4,), (2, 2, 4), (0.45, 0.8), (0.5, 0.9), (0.25, 0.6), (8,),
        ("AABAB", "AABB", "ABABCB", "AABCB", "ABAB"), (0, 0, 2), "loop", 0.3,
    ),
    "ballad": Genre(
        2, (3, 4), (2, 3), (0.5, 0.9), (0.55, 0.9), (0.1, 0.45), (8,),
        ("AABA", "ABAC", "AABAB"), (0, 2), "tune", 0.15,
    ),
    "blues": Genre(
        0.5, (4,), (2, 3), (0.4, 0.65), (0.4, 0.8), (0.3, 0.6), (12,),
        ("AAB", "AA", "AB"), (0,), "blues", 0.7,
    ),
    "riff": Genre(
        0.7, (3, 4), (2, 4), (0.4, 0.7), (0.6, 0.95), (0.2, 0.6), (4, 8),
        ("AAAABB", "AABBAACC", "AABA"), (0, 2), "loop", 0.4,
    ),
    "through": Genre(
        1, (2, 3, 4), (2, 3), (0.4, 0.8), (0.7, 1), (0.1, 0.6), (8,),
        ("ABCDE", "ABCD"), (0, 1, 2), "tune", 0.1,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Style:
    """What works of a style share."""

    genre: str
    scale: tuple[int, ...]  # 7 semitones above the tonic
    degrees: tuple[int, ...]  # of the scale that tunes use
    beats: int  # in a bar
    division: int  # of a beat
    beat_seconds: float
    slot: float  # beats of a chord
    rhythms: tuple[np.ndarray, ...]  # onsets in a bar, in beats
    loops: tuple[tuple[int, ...], ...]  # chords of a strain, as degrees, a bar each
    leaps: float  # spread of the steps of a tune, in degrees

    @property
    def bars(self) -> tuple[int, ...]:
        """The lengths that a strain can have."""
        return GENRES[self.genre].strain_bars

    def pitch(self, step: int) -> int:
        """Return the semitones above the tonic of a step of the tune; step 0 is the tonic."""
        octave, degree = divmod(step, len(self.degrees))
        return 12 * octave + self.scale[self.degrees[degree]]

    def triad(self, degree: int) -> tuple[int, int, int]:
        """Return the pitch classes above the tonic of the chord on a degree: its root first."""
        root, third, fifth = (self.scale[(degree + up) % 7] for up in (0, 2, 4))
        return root, third, fifth


def draw_style(rng: np.random.Generator) -> Style:
    """Draw a style at random."""
    weights = np.array([genre.weight for genre in GENRES.values()])
    name = str(rng.choice(list(GENRES), p=weights / weights.sum()))
    genre = GENRES[name]
    scale = str(rng.choice(list(SCALES), p=[0.5, 0.18, 0.1, 0.12, 0.1]))
    degrees = FIVE.get(scale, FIVE_OF_MINOR) if rng.random() < genre.five else ALL
    beats, division = int(rng.choice(genre.beats)), int(rng.choice(genre.divisions))
    slot = float(rng.choice(genre.slot_beats)) or float(beats)
    on, off = rng.uniform(*genre.on_beat), rng.uniform(*genre.off_beat)
    rhythms = tuple(_rhythm(beats, division, on, off, rng) for _ in range(int(rng.integers(3, 7))))
    loops = [LOOPS[i] for i in rng.choice(len(LOOPS), 3, replace=False)]
    return Style(
        genre=name,
        scale=SCALES[scale],
        degrees=degrees,
        beats=beats,
        division=division,
        beat_seconds=rng.uniform(*genre.beat_seconds),
        slot=min(slot, float(beats)),
        rhythms=rhythms,
        loops=(BLUES,) if genre.harmony == "blues" else tuple(loops),
        leaps=rng.uniform(0.9, 2.2),
    )


def _rhythm(
    beats: int, division: int, on: float, off: float, rng: np.random.Generator
) -> np.ndarray:
    """Return the onsets of the notes of a bar, in beats."""
    grid = np.arange(beats * division)
    chance = np.where(grid % division == 0, on, off)
    chance[0] = 0.95
    onsets = grid[rng.random(len(grid)) < chance]
    return (onsets if len(onsets) else grid[:1]) / division
