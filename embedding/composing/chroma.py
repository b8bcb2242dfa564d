"""From a spectrum to HPCP and CREMA, by the computations that recordings go through.

HPCP is essentia's, with whitening and 8 harmonics: the peaks of a spectrum, each relative to what
surrounds it, folded into an octave (Gómez, "Tonal description of polyphonic audio for music content
processing", INFORMS Journal on Computing 18, 2006). CREMA is the output of its model.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from embedding.audio import crema
from embedding.composing.spectrum import BINS, BINS_PER_SEMITONE, FREQUENCIES, LOWEST

#: Hertz between which HPCP looks for peaks, and between its two bands, which count the same.
MIN_HZ, SPLIT_HZ, MAX_HZ = 100.0, 500.0, 3500.0

#: The bins in which it looks, and one more on each side.
BAND = slice(int(np.argmax(FREQUENCIES >= MIN_HZ)) - 1, int(np.argmax(FREQUENCIES >= MAX_HZ)) + 1)

#: Standard deviation in hertz of the peak of a sine, with a window of 4096 samples.
PEAK_HZ = 6.0

#: Hertz around a peak in which whitening looks for higher peaks.
ENVELOPE_HZ = 300.0

#: Decibels below the loudest bin at which sound is silence.
RANGE_DB = 80.0


def chroma(energies: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return HPCP and CREMA of the spectra of several performances.

    Each spectrum, shape=(T, BINS), is from `spectrum.render`. The results have shape=(T // 2, 2,
    12), float32, in [0, 1], at `CHROMA_RATE`, with pitch classes as in `embedding.data.chroma`.
    """
    chords = crema.pitch_classes_of_many([_constant_q(energy) for energy in energies])
    sequences = []
    for energy, channel in zip(energies, chords, strict=True):
        frames = len(energy) // 2 * 2
        both = np.stack([_hpcp(energy), channel], axis=1)[:frames]
        sequences.append(both.reshape(-1, 2, 2, 12).mean(axis=1).astype(np.float32))
    return sequences


def _hpcp(energy: np.ndarray) -> np.ndarray:
    """Return HPCP in each frame, shape=(T, 12), from A."""
    x = energy @ _BLUR  # (T, BAND.stop - BAND.start)
    inner = x[:, 1:-1]
    is_peak = (inner >= x[:, :-2]) & (inner > x[:, 2:])
    is_peak &= inner > x.max() * np.float32(10 ** (-RANGE_DB / 10))
    # About the highest energy around each bin: a mean that favours high values.
    scaled = x / max(float(x.max()), 1e-12)
    around = np.cbrt((scaled * scaled * scaled) @ _SURROUNDINGS)[:, 1:-1]
    relative = np.minimum(scaled[:, 1:-1] / np.maximum(around, 1e-12), 1) * is_peak
    profiles = _unit(_unit(relative @ _FOLDS[0]) + _unit(relative @ _FOLDS[1]))
    # A frame of a recording is the mean of two windows, of which one reaches half a frame back.
    return np.asarray(0.75 * profiles + 0.25 * np.concatenate([profiles[:1], profiles[:-1]]))


def _unit(x: np.ndarray) -> np.ndarray:
    return np.asarray(x / np.maximum(x.max(axis=1, keepdims=True), 1e-9))


def _constant_q(energy: np.ndarray) -> np.ndarray:
    """Return magnitudes, smeared over the windows of a constant-Q transform, shape=(T, BINS)."""
    smeared = energy.copy()
    total = np.concatenate([np.zeros((1, BINS), energy.dtype), np.cumsum(energy, axis=0)])
    for octave, reach in enumerate((5, 3, 1)):  # frames before and after; higher bins have none
        bins = slice(36 * octave, 36 * octave + 36)
        start = np.maximum(np.arange(len(energy)) - reach, 0)
        stop = np.minimum(np.arange(len(energy)) + reach + 1, len(energy))
        smeared[:, bins] = (total[stop, bins] - total[start, bins]) / (stop - start)[:, None]
    return np.asarray(np.sqrt(np.maximum(smeared, 0)))


def _blur() -> np.ndarray:
    """Return by how much the energy of a bin reaches those of `BAND` within the window of HPCP."""
    away = (FREQUENCIES[:, None] - FREQUENCIES[BAND]) / PEAK_HZ
    return np.exp(-0.5 * away**2).astype(np.float32)


def _surroundings() -> np.ndarray:
    away = np.abs(FREQUENCIES[BAND][:, None] - FREQUENCIES[BAND])
    return (away < ENVELOPE_HZ).astype(np.float32)


def _fold(low: float, high: float) -> np.ndarray:
    """Return by how much a peak in each bin adds to each pitch class from A.

    A peak also adds to the pitch classes of which it may be a harmonic. Bins that are not between
    the two frequencies add nothing.
    """
    strengths: dict[float, float] = {}
    for harmonic in range(1, 10):
        up = 12 * np.log2(harmonic)
        key = round(float(up % 12), 5)
        strengths[key] = strengths.get(key, 0) + 1 / max(1, up / 24)
    pitch = LOWEST - 69 + np.arange(BINS) / BINS_PER_SEMITONE
    table = np.zeros((BINS, 12))
    for down, strength in strengths.items():
        away = (pitch[:, None] - down - np.arange(12) + 6) % 12 - 6
        table += strength**2 * np.where(np.abs(away) < 0.5, np.cos(np.pi * away), 0) ** 2
    inside = (low <= FREQUENCIES) & (high > FREQUENCIES)
    return np.where(inside[:, None], table, 0)[BAND][1:-1].astype(np.float32)


_BLUR = _blur()
_SURROUNDINGS = _surroundings()
_FOLDS = (_fold(MIN_HZ, SPLIT_HZ), _fold(SPLIT_HZ, MAX_HZ))
