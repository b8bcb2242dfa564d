"""Versions: what a performer makes of a work before it sounds.

The form, the ornaments and the chords of a version differ from those of the work, and so does the
time of each note.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embedding.composing.config import ComposingConfig
from embedding.composing.styles import Style
from embedding.composing.works import Strain, Work, harmonise


@dataclass(frozen=True)
class Score:
    """What is played: all strains of a version one after the other.

    Attributes
    ----------
    tune : np.ndarray, shape=(n, 3)
        Onset and length in beats, and semitones above the tonic, for each note.
    chords : np.ndarray, shape=(m, 5)
        Onset and length in beats, and three pitch classes above the tonic, the root first.
    times : np.ndarray, shape=(b + 1,)
        Seconds at which each beat starts.
    style : Style
        Of the work.
    """

    tune: np.ndarray
    chords: np.ndarray
    times: np.ndarray
    style: Style

    def seconds(self, beats: np.ndarray) -> np.ndarray:
        """Return when beats, which may be fractions, are played."""
        return np.asarray(np.interp(beats, np.arange(len(self.times)), self.times))


def arrange(work: Work, config: ComposingConfig, rng: np.random.Generator) -> Score:
    """Make a version of a work, apart from its sound."""
    style = work.style
    tempo = _tempo(config, rng)
    beat_seconds = style.beat_seconds / tempo
    beats_wanted = rng.uniform(*config.seconds) / beat_seconds
    strains = [_own(strain, style, config, rng) for strain in work.strains]
    form = _form(work.form, config, rng)
    intro = float(style.beats * rng.integers(1, 5)) if rng.random() < config.intro else 0.0
    tunes, chords, start = [], [_cut(strains[form[0]].chords, intro)], intro
    amount = config.ornaments * rng.random() ** 1.5
    turn = 0
    while start < beats_wanted:
        strain = strains[form[turn % len(form)]]
        tunes.append(_moved(_ornamented(strain.tune, style, amount, rng), start))
        chords.append(_moved(strain.chords, start))
        start += strain.beats
        turn += 1
    beats = int(beats_wanted)
    times = _clock(beats, beat_seconds, config.rubato * rng.random(), rng)
    return Score(
        _cut(np.concatenate(tunes), beats), _cut(np.concatenate(chords), beats), times, style
    )


def _tempo(config: ComposingConfig, rng: np.random.Generator) -> float:
    """Draw a tempo, more often from the middle of the range than from its ends."""
    low, high = np.log(config.tempo)
    return float(np.exp(low if low == high else rng.triangular(low, (low + high) / 2, high)))


def _own(strain: Strain, style: Style, config: ComposingConfig, rng: np.random.Generator) -> Strain:
    """Return a strain with other chords, or with some."""
    if rng.random() >= config.reharmonisation:
        return strain
    other = harmonise(strain.tune, strain.beats, style, rng.uniform(0.1, 0.4), rng)
    return Strain(strain.beats, strain.tune, other)


def _form(
    form: tuple[int, ...], config: ComposingConfig, rng: np.random.Generator
) -> tuple[int, ...]:
    """Return the order in which the strains are played."""
    if rng.random() >= config.restructuring:
        return form
    order = list(form)
    if rng.random() < 0.5:  # without repeats
        order = [s for i, s in enumerate(order) if i == 0 or s != order[i - 1]]
    if rng.random() < 0.4:  # from another strain on
        first = int(rng.integers(len(order)))
        order = order[first:] + order[:first]
    if rng.random() < 0.2:
        order = [order[i] for i in rng.permutation(len(order))]
    if rng.random() < 0.2 and len(order) > 2:
        order.pop(int(rng.integers(len(order))))
    return tuple(order)


def _moved(notes: np.ndarray, beats: float) -> np.ndarray:
    moved = notes.copy()
    moved[:, 0] += beats
    return moved


def _cut(notes: np.ndarray, beats: float) -> np.ndarray:
    """Return what starts before a beat, and end it there."""
    kept = notes[notes[:, 0] < beats].copy()
    kept[:, 1] = np.minimum(kept[:, 1], beats - kept[:, 0])
    return kept


def _ornamented(
    tune: np.ndarray, style: Style, amount: float, rng: np.random.Generator
) -> np.ndarray:
    """Add notes between, beside and before those of a tune, leave some out, and shift others."""
    draws = rng.random((len(tune), 2))
    notes: list[tuple[float, float, float]] = []
    for i, (onset, length, pitch) in enumerate(tune):
        if draws[i, 0] >= amount:
            notes.append((onset, length, pitch))
            continue
        following = tune[i + 1, 2] if i + 1 < len(tune) else pitch
        kind = draws[i, 1]
        if kind < 0.3 and length >= 0.5:  # passing, or neighbouring if the note is repeated
            between = _in_scale((pitch + following) / 2 + (pitch == following) * 2, style)
            notes += [(onset, length / 2, pitch), (onset + length / 2, length / 2, between)]
        elif kind < 0.45:  # a grace note
            grace = min(0.2, length / 3)
            above = _in_scale(pitch + 2, style)
            notes += [(onset, grace, above), (onset + grace, length - grace, pitch)]
        elif kind < 0.6 and length >= 1:  # repeated
            notes += [(onset, length / 2, pitch), (onset + length / 2, length / 2, pitch)]
        elif kind < 0.7 and length >= 0.75:  # a turn
            third = length / 4
            for j, p in enumerate((pitch, _in_scale(pitch + 2, style), pitch, following)):
                notes.append((onset + j * third, third, p))
        elif kind < 0.85 and onset % 1:  # left out, and the note before lasts on
            if notes:
                notes[-1] = (notes[-1][0], onset + length - notes[-1][0], notes[-1][2])
        else:  # late
            late = min(0.5, length / 2)
            notes.append((onset + late, length - late, pitch))
    return np.array(notes).reshape(-1, 3)


def _in_scale(pitch: float, style: Style) -> float:
    """Return the note of the scale nearest to a pitch, in semitones above the tonic."""
    octave = 12 * np.floor(pitch / 12)
    notes = np.array((*style.scale, 12 + style.scale[0]))
    return float(octave + notes[np.abs(notes - (pitch - octave)).argmin()])


def _clock(beats: int, beat_seconds: float, rubato: float, rng: np.random.Generator) -> np.ndarray:
    """Return the seconds at which each beat starts, for a tempo that wanders and returns.

    Some silence comes before the first beat.
    """
    noise = rng.normal(size=beats + 8)
    wander = np.convolve(noise, np.ones(8) / np.sqrt(8), mode="valid")[:beats]
    lead = rng.exponential(0.4)
    return lead + np.concatenate([[0], np.cumsum(beat_seconds * np.exp(rubato * wander))])
