"""Chroma energy normalised statistics (Müller, Kurth and Clausen 2005) of a constant-Q spectrum."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import convolve1d

from embedding.audio.constant_q import BINS_PER_OCTAVE

#: A pitch class gets a point for each of these shares of the energy that it exceeds.
STEPS = (0.05, 0.1, 0.2, 0.4)

#: Smoothed over half a second, as the 41 frames of Da-TACOS are.
SMOOTHING_FRAMES = 5


def octave(magnitudes: np.ndarray) -> np.ndarray:
    """Add up the octaves of a constant-Q spectrum, shape=(T, bins), to (T, 36) from C."""
    return np.asarray(magnitudes.reshape(len(magnitudes), -1, BINS_PER_OCTAVE).sum(axis=1))


def pitch_classes(octave: np.ndarray, offset: int) -> np.ndarray:
    """Add up the bins of pitch classes that are `offset` bins sharp, to shape=(T, 12) from C."""
    per_class = BINS_PER_OCTAVE // 12
    centred = np.roll(octave, per_class // 2 - offset, axis=1)
    return np.asarray(centred.reshape(-1, 12, per_class).sum(axis=2))


def smoothed(energies: np.ndarray) -> np.ndarray:
    """Return CENS from pitch classes, shape=(T, 12), float32, of unit length or 0."""
    shares = energies / np.maximum(energies.sum(axis=1, keepdims=True), 1e-9)
    points = sum((shares > step).astype(np.float32) for step in STEPS)
    window = np.hanning(SMOOTHING_FRAMES + 2)
    cens = convolve1d(points, window, axis=0, mode="constant")
    return np.asarray(cens / np.maximum(np.linalg.norm(cens, axis=1, keepdims=True), 1e-9))
