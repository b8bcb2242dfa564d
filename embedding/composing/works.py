"""Works: a tune and its chords, in strains, without key, tempo or instruments."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embedding.composing.styles import GENRES, Style

#: Bars of a phrase, as indices of motifs. The last bar of a phrase is a cadence.
PHRASES = ((0, 1, 0, 2), (0, 0, 1, 2), (0, 1, 2, 3), (0, 1, 0, 1), (0, 0, 0, 1), (0, 1, 1, 2))

#: Steps of the lowest and the highest note of a tune, above the tonic.
LOWEST, HIGHEST = -4, 10

#: How well the chord on each degree stands without regard to the tune.
PRIORS = np.array([0.5, 0.05, -0.15, 0.35, 0.45, 0.15, -0.6])


@dataclass(frozen=True)
class Strain:
    """A part of a work, of 4 to 12 bars.

    Attributes
    ----------
    beats : float
        Its length.
    tune : np.ndarray, shape=(n, 3)
        Onset and length in beats, and semitones above the tonic, for each note.
    chords : np.ndarray, shape=(m, 5)
        Onset and length in beats, and three pitch classes above the tonic, the root first.
    """

    beats: float
    tune: np.ndarray
    chords: np.ndarray


@dataclass(frozen=True)
class Work:
    """What all versions of a work go back to."""

    style: Style
    strains: tuple[Strain, ...]
    form: tuple[int, ...]  # indices of strains, in the order in which they are played


def compose_tune(style: Style, rng: np.random.Generator) -> Work:
    """Compose a work in a style."""
    form = tuple(ord(c) - ord("A") for c in rng.choice(GENRES[style.genre].forms))
    motifs = [_motif(style, rng) for _ in range(6)]
    strains = tuple(_strain(style, motifs, rng) for _ in range(max(form) + 1))
    return Work(style, strains, form)


def harmonise(
    tune: np.ndarray, beats: float, style: Style, freedom: float, rng: np.random.Generator
) -> np.ndarray:
    """Choose a chord for each slot of a tune, by the notes that sound and by what came before.

    `freedom` is the weight of chance. The result is as `Strain.chords`.
    """
    starts = np.arange(0, beats, style.slot)
    overlap = np.minimum(tune[:, :1] + tune[:, 1:2], starts + style.slot)
    overlap = np.maximum(overlap - np.maximum(tune[:, :1], starts), 0)  # (notes, slots)
    weights = np.zeros((len(starts), 12))
    np.add.at(weights.T, tune[:, 2].astype(int) % 12, overlap)
    weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1e-9)
    triads = np.array([style.triad(degree) for degree in range(7)])
    fit = (
        4.5 * weights[:, triads].sum(axis=2) + PRIORS + freedom * rng.gumbel(size=(len(starts), 7))
    )
    fit[-1, 0] += 2
    chosen, last = [], 0
    for scores in fit:
        moved = scores.copy()
        moved[(last + 3) % 7] += 0.3  # up a fourth, as from the dominant to the tonic
        moved[last] += 0.1
        last = int(moved.argmax())
        chosen.append(last)
    lengths = np.minimum(starts + style.slot, beats) - starts
    return np.column_stack([starts, lengths, triads[chosen]])


def _motif(style: Style, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return onsets in a bar, and the step from each note to the next."""
    onsets = style.rhythms[rng.integers(len(style.rhythms))]
    steps = np.rint(rng.normal(0, style.leaps, len(onsets))).astype(int)
    repeated = (steps == 0) & (rng.random(len(steps)) < 0.6)
    return onsets, np.where(repeated, rng.choice([-1, 1], len(steps)), steps)


def _strain(
    style: Style, motifs: list[tuple[np.ndarray, np.ndarray]], rng: np.random.Generator
) -> Strain:
    bars = int(rng.choice(style.bars))
    beats = float(bars * style.beats)
    if GENRES[style.genre].harmony == "tune":
        tune = _tune(style, None, bars, motifs, rng)
        return Strain(beats, tune, harmonise(tune, beats, style, 0.15, rng))
    loop = style.loops[rng.integers(len(style.loops))]
    degrees = [loop[bar % len(loop)] for bar in range(bars)]
    chords = np.array(
        [[bar * style.beats, style.beats, *style.triad(d)] for bar, d in enumerate(degrees)], float
    )
    return Strain(beats, _tune(style, chords, bars, motifs, rng), chords)


def _tune(
    style: Style,
    chords: np.ndarray | None,
    bars: int,
    motifs: list[tuple[np.ndarray, np.ndarray]],
    rng: np.random.Generator,
) -> np.ndarray:
    """Return the notes of a strain, as `Strain.tune`: phrases of four bars made of motifs."""
    own = [motifs[i] for i in rng.permutation(len(motifs))[:4]]
    phrase = PHRASES[rng.integers(len(PHRASES))]
    notes: list[tuple[float, float, int]] = []
    starts: dict[int, int] = {}
    step = int(rng.choice([0, 2, 4]))
    for bar in range(bars):
        if bar % 4 == 0 and bar and rng.random() < 0.5:
            phrase = PHRASES[rng.integers(len(PHRASES))]
        which = phrase[bar % 4]
        onsets, steps = own[which]
        # A motif that comes back starts at the same note, or higher or lower than before.
        if which in starts and rng.random() < 0.6:
            step = starts[which]
        starts[which] = step
        tones = None if chords is None else chords[bar, 2:].astype(int)
        cadence = bar % 4 == 3
        if cadence:
            keep = onsets < style.beats * rng.choice([0.3, 0.5, 0.75])
            onsets, steps = onsets[keep], steps[keep]
        for i, onset in enumerate(onsets):
            strong = onset % 2 == 0
            if tones is not None and strong and rng.random() < 0.7:
                step = _nearest(style, step, tones)
            if cadence and i == len(onsets) - 1:
                step = _nearest(style, step, _ending(style, bar == bars - 1, rng))
            end = onsets[i + 1] if i + 1 < len(onsets) else style.beats
            notes.append((bar * style.beats + onset, end - onset, style.pitch(step)))
            step += steps[i]
            if not LOWEST <= step <= HIGHEST:
                step = int(np.clip(step - 2 * steps[i], LOWEST, HIGHEST))
    return np.array(notes, dtype=np.float64).reshape(-1, 3)


def _ending(style: Style, last: bool, rng: np.random.Generator) -> np.ndarray:
    """Return the pitch classes on which a phrase may end: the tonic at the end of a strain."""
    if last and rng.random() < 0.7:
        return np.array([0])
    return np.array(style.triad(int(rng.choice([0, 4]))))


def _nearest(style: Style, step: int, tones: np.ndarray) -> int:
    """Return the step nearest to a step that is one of the pitch classes, or the step itself."""
    for away in (0, 1, -1, 2, -2, 3, -3):
        if style.pitch(step + away) % 12 in tones:
            return step + away
    return step
