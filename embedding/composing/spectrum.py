"""From notes to a spectrum with a logarithmic frequency axis, without audio."""

from __future__ import annotations

import numpy as np

from embedding.composing.config import ComposingConfig
from embedding.composing.textures import PARTIALS, Part

#: Frames per second, twice `CHROMA_RATE`: CREMA's model expects them.
FRAME_RATE = 44100 / 4096

#: Bins of a semitone, and in all: seven octaves from C1.
BINS_PER_SEMITONE, BINS = 3, 252

#: MIDI number of C1, and the number of pitches from there.
LOWEST, PITCHES = 24, 84

FREQUENCIES = 440 * 2 ** ((LOWEST - 69) / 12 + np.arange(BINS) / (12 * BINS_PER_SEMITONE))


def render(
    parts: list[Part],
    seconds: float,
    beats: np.ndarray,
    config: ComposingConfig,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return the energy of a performance, shape=(T, BINS), float32.

    `beats` are the seconds at which drums may sound.
    """
    frames = int(np.ceil(seconds * FRAME_RATE))
    cents = config.detuning_cents * (rng.random() - rng.random())
    tone = _tone(rng)
    energy, onsets = np.zeros((frames, BINS), np.float32), np.zeros(frames, np.float32)
    for part in parts:
        played = _played(part, frames)
        onsets += _onsets(part, frames)
        energy += played**2 @ (_harmonics(part.instrument.partials, cents, rng) * tone)
    # Partials of several notes in one bin beat, as their phases differ.
    energy *= np.exp(0.1 * rng.standard_normal(energy.shape, dtype=np.float32))
    level = float(energy.mean())
    # The noise of fingers, hammers and breath, and what sudden starts spread over all frequencies.
    strength = level * 10 ** rng.uniform(-3, -1) / max(float(onsets.max()), 1e-9)
    burst = rng.standard_exponential(energy.shape, dtype=np.float32)
    energy += strength * onsets[:, None] * burst
    if rng.random() < config.percussion:
        energy += level * _drums(beats, frames, rng)
    noise_db = rng.uniform(*config.noise_db)
    shape = (FREQUENCIES / 500) ** rng.uniform(-0.5, 1)
    floor = level * 10 ** (noise_db / 10) * (shape / shape.mean()).astype(np.float32)
    energy += floor * rng.standard_exponential(energy.shape, dtype=np.float32)
    return energy


def _played(part: Part, frames: int) -> np.ndarray:
    """Return the amplitude of each pitch in each frame, shape=(T, PITCHES), float32."""
    roll = np.zeros((frames, PITCHES), np.float32)
    decay, release = part.instrument.decay, part.instrument.release
    tail = 4 * release
    clock = np.arange(frames) / FRAME_RATE
    pitch = part.notes[:, 2].astype(int) - LOWEST
    pitch = np.where(
        pitch < 0, pitch % 12, np.where(pitch >= PITCHES, PITCHES - 12 + pitch % 12, pitch)
    )
    starts = np.maximum((part.notes[:, 0] * FRAME_RATE).astype(int), 0)
    stops = np.minimum(((part.notes[:, 1] + tail) * FRAME_RATE).astype(int) + 1, frames)
    for (onset, end, _, amplitude), p, start, stop in zip(
        part.notes, pitch, starts, stops, strict=True
    ):
        t = clock[start:stop] - onset
        envelope = amplitude * np.exp(-t / decay - np.maximum(t - (end - onset), 0) / release)
        if start < stop:
            # A frame in which a note starts or ends has a share of it.
            envelope[0] *= min(max(1 - onset * FRAME_RATE + start, 0.1), 1)
            np.maximum(roll[start:stop, p], envelope, out=roll[start:stop, p])
    return roll


def _onsets(part: Part, frames: int) -> np.ndarray:
    """Return the energy of the notes that start in each frame, shape=(T,), float32."""
    start = (part.notes[:, 0] * FRAME_RATE).astype(int)
    inside = (start >= 0) & (start < frames)
    energy = np.bincount(start[inside], part.notes[inside, 3] ** 2, frames)
    return energy.astype(np.float32)


def _harmonics(partials: np.ndarray, cents: float, rng: np.random.Generator) -> np.ndarray:
    """Return the energy in each bin of a note of each pitch, shape=(PITCHES, BINS), float32."""
    bins = BINS_PER_SEMITONE * (12 * np.log2(np.arange(1, PARTIALS + 1)) + cents / 100)
    grid = np.arange(-3, BINS_PER_SEMITONE * 12 * 4)
    away = np.abs(grid[:, None] - bins)
    kernel = np.where(away < 2, np.cos(np.pi * away / 4) ** 2, 0) ** 2  # of a Hann window
    profile = np.zeros(2 * BINS + PITCHES * BINS_PER_SEMITONE)
    profile[BINS - 3 : BINS - 3 + len(grid)] = kernel @ partials**2
    first = BINS - BINS_PER_SEMITONE * np.arange(PITCHES)
    return np.asarray(profile[first[:, None] + np.arange(BINS)], np.float32)


def _tone(rng: np.random.Generator) -> np.ndarray:
    """Return how much of the energy of each bin a room and a recording keep."""
    curve = np.exp(np.interp(np.arange(BINS), np.linspace(0, BINS, 8), rng.normal(0, 0.5, 8)))
    if rng.random() < 0.3:
        curve /= 1 + (FREQUENCIES / rng.uniform(1200, 4000)) ** 4
    if rng.random() < 0.2:
        curve /= 1 + (rng.uniform(80, 250) / FREQUENCIES) ** 4
    return curve.astype(np.float32)


def _drums(beats: np.ndarray, frames: int, rng: np.random.Generator) -> np.ndarray:
    """Return the energy of drums on beats and between them, relative to the mean of the music."""
    energy = np.zeros((frames, BINS), np.float32)
    level = np.exp(rng.uniform(np.log(0.1), np.log(3)))
    for centre, width, every in ((60, 0.5, 2), (300, 1.0, 2), (3500, 1.2, 1)):
        shape = np.exp(-0.5 * (np.log(FREQUENCIES / centre) / width) ** 2)
        first = int(rng.integers(every)) if centre > 100 else 0
        fall = rng.uniform(0.03, 0.12)
        for second in beats[first::every]:
            start = int(second * FRAME_RATE)
            t = np.arange(6) / FRAME_RATE
            hit = np.exp(-2 * t / fall)[: max(frames - start, 0)]
            burst = rng.standard_exponential((len(hit), BINS)) * shape
            energy[start : start + len(hit)] += level * hit[:, None] * burst
    return energy
