"""Textures: which parts play a version, in which register, and on which instrument."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embedding.composing.config import ComposingConfig
from embedding.composing.versions import Score

#: Overtones of an instrument, the fundamental included.
PARTIALS = 12

#: MIDI number of the A below middle C, around which keys are chosen.
CENTRE = 57


@dataclass(frozen=True)
class Instrument:
    """How a note sounds.

    Attributes
    ----------
    partials : np.ndarray, shape=(PARTIALS,)
        Amplitude of the fundamental and its overtones.
    decay : float
        Seconds in which a held note loses 8.7 dB; infinity for a sustained sound.
    release : float
        Seconds in which a note that has ended loses 8.7 dB.
    """

    partials: np.ndarray
    decay: float
    release: float


@dataclass(frozen=True)
class Part:
    """What an instrument plays.

    `notes`, shape=(n, 4), has the onset and end in seconds, the MIDI number, and the amplitude.
    """

    notes: np.ndarray
    instrument: Instrument


def orchestrate(score: Score, config: ComposingConfig, rng: np.random.Generator) -> list[Part]:
    """Choose a key, and give the tune and its accompaniment to instruments."""
    key = CENTRE + int(rng.integers(-6, 6))
    reverb = np.exp(rng.uniform(*np.log(config.reverb_seconds)))
    loudness = np.exp(np.cumsum(rng.normal(0, 0.05, len(score.times))))
    held = rng.uniform(0.7, 1)

    def part(notes: np.ndarray, level: float, length: float = 1.0) -> Part:
        """Time (onset, length, MIDI number) in beats, with a little imprecision."""
        onsets = score.seconds(notes[:, 0]) + rng.normal(0, 0.012, len(notes))
        ends = np.maximum(score.seconds(notes[:, 0] + length * notes[:, 1]), onsets + 0.06)
        accent = np.where(notes[:, 0] % 1 == 0, 1.1, 0.9) * np.exp(rng.normal(0, 0.15, len(notes)))
        dynamics = np.interp(notes[:, 0], np.arange(len(loudness)), loudness)
        amplitude = level * accent * dynamics
        return Part(
            np.column_stack([onsets, ends, notes[:, 2], amplitude]), _instrument(reverb, rng)
        )

    octave = int(rng.choice([-12, 0, 12, 24], p=[0.05, 0.25, 0.5, 0.2]))
    tune = score.tune + np.array([0, 0, key + octave])
    parts = [part(tune, 1.0, held)]
    if rng.random() < config.solo and len(tune):
        return parts
    chords = score.chords + np.array([0, 0, key, key, key])
    balance = np.exp(rng.uniform(np.log(0.3), np.log(1.1)))
    parts.append(part(_accompaniment(chords, score.style.beats, rng), balance))
    if rng.random() < 0.65:
        parts.append(part(_bass(chords, score.style.beats, rng), rng.uniform(0.3, 0.9)))
    if rng.random() < 0.2:
        pad = _block(chords, 12 * int(rng.integers(0, 2)))
        parts.append(part(pad, rng.uniform(0.2, 0.6)))
    if rng.random() < 0.2 and len(tune):
        parts.append(part(_second_voice(tune, score, key, rng), rng.uniform(0.3, 0.8), held))
    if rng.random() < 0.1:
        parts.append(part(_drone(len(score.times) - 1, key, rng), rng.uniform(0.2, 0.6)))
    if rng.random() < 0.15 and len(tune):  # the tune in octaves
        parts.append(
            part(tune + np.array([0, 0, rng.choice([-12, 12])]), rng.uniform(0.3, 0.9), held)
        )
    return parts


def _instrument(reverb: float, rng: np.random.Generator) -> Instrument:
    """Draw an instrument: plucked or sustained, dull or bright, with uneven overtones."""
    number = np.arange(1, PARTIALS + 1)
    partials = number ** -rng.uniform(1.0, 3.0) * np.exp(rng.normal(0, 0.5, PARTIALS))
    if rng.random() < 0.15:  # a clarinet or a stopped pipe
        partials[1::2] *= rng.uniform(0.05, 0.5)
    sustained = rng.random() < 0.5
    decay = np.inf if sustained else np.exp(rng.uniform(np.log(0.25), np.log(2.5)))
    return Instrument(partials / np.linalg.norm(partials), decay, reverb)


def _accompaniment(chords: np.ndarray, bar: int, rng: np.random.Generator) -> np.ndarray:
    """Return notes that play the chords: held, repeated, off the beat, or broken."""
    low = CENTRE + int(rng.integers(-10, 4))
    kind = rng.choice(
        ["held", "beats", "offbeat", "broken", "voices"], p=[0.25, 0.2, 0.15, 0.25, 0.15]
    )
    voicing = low + (chords[:, 2:] - low) % 12  # the nearest notes above the lowest
    if kind in ("held", "voices"):
        return _stack(chords[:, 0], chords[:, 1], voicing)
    step = float(rng.choice([0.5, 1.0])) if kind == "broken" else 1.0
    onset, which = _repeated(chords, step)
    if kind == "beats":
        return _stack(onset, np.full(len(onset), 0.9), voicing[which])
    if kind == "offbeat":
        off = onset % bar != 0
        return _stack(onset[off], np.full(off.sum(), 0.6), voicing[which[off]])
    order = np.array(rng.choice([(0, 1, 2, 1), (0, 2, 1, 2), (0, 1, 2, 0), (2, 1, 0, 1)]))
    voice = order[np.rint(onset / step).astype(int) % 4]
    length = step * (1 if rng.random() < 0.5 else 2)
    return np.column_stack([onset, np.full(len(onset), length), voicing[which, voice]])


def _bass(chords: np.ndarray, bar: int, rng: np.random.Generator) -> np.ndarray:
    """Return a bass: roots held or repeated, roots and fifths, or walking through the chord."""
    low = CENTRE - 24 + int(rng.integers(-5, 6))
    kind = rng.choice(["held", "beats", "fifths", "walking"], p=[0.4, 0.2, 0.25, 0.15])
    tones = low + (chords[:, 2:] - low) % 12
    if kind == "held":
        return np.column_stack([chords[:, :2], tones[:, 0]])
    onset, which = _repeated(chords, 1.0)
    beat = np.rint(onset - chords[which, 0]).astype(int)
    tone = {"beats": 0 * beat, "fifths": 2 * (beat % 2), "walking": beat % 3}[str(kind)]
    return np.column_stack([onset, np.full(len(onset), 0.9), tones[which, tone]])


def _second_voice(tune: np.ndarray, score: Score, key: int, rng: np.random.Generator) -> np.ndarray:
    """Return a voice a third or a sixth below the tune, in its scale."""
    scale = np.array([12 * octave + s for octave in range(-4, 6) for s in score.style.scale])
    place = np.searchsorted(scale, tune[:, 2] - key, side="right") - 1
    below = scale[np.clip(place - int(rng.choice([2, 5])), 0, len(scale) - 1)]
    return np.column_stack([tune[:, :2], key + below])


def _block(chords: np.ndarray, octave: int) -> np.ndarray:
    low = CENTRE - 6 + octave
    return _stack(chords[:, 0], chords[:, 1], low + (chords[:, 2:] - low) % 12)


def _drone(beats: int, key: int, rng: np.random.Generator) -> np.ndarray:
    """Return the tonic, perhaps with its fifth, struck again every few beats."""
    onset = np.arange(0, beats, 4.0)
    pitches = [key - 12] if rng.random() < 0.5 else [key - 12, key - 5]
    return _stack(onset, np.full(len(onset), 4.0), np.tile(pitches, (len(onset), 1)))


def _stack(onset: np.ndarray, length: np.ndarray, pitches: np.ndarray) -> np.ndarray:
    """Return a note for each onset and pitch, shape=(n, k)."""
    k = pitches.shape[1]
    return np.column_stack([np.repeat(onset, k), np.repeat(length, k), pitches.ravel()])


def _repeated(chords: np.ndarray, step: float) -> tuple[np.ndarray, np.ndarray]:
    """Return an onset every `step` beats while a chord lasts, and the number of the chord."""
    counts = np.maximum(np.ceil(chords[:, 1] / step - 1e-6).astype(int), 1)
    which = np.repeat(np.arange(len(chords)), counts)
    place = np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)
    return chords[which, 0] + step * place, which
