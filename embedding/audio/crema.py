"""CREMA's chord model: how likely each pitch class sounds, from a constant-Q spectrum.

The model and its weights are those of the package `crema` 0.2.0 (McFee and Bello, "Structured
training for large-vocabulary chord recognition", ISMIR 2017), which Da-TACOS used; its licence is
in `crema_LICENSE.md`. `crema_weights.py` in `docs/` converted them. The package itself needs
libraries that no longer work, so this module repeats its forward pass in numpy.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from embedding.audio.constant_q import BINS_PER_OCTAVE

WEIGHTS = Path(__file__).with_name("crema.safetensors")

#: The model was trained on this constant-Q spectrum, and on its shift by an octave as a second
#: channel. Their frequencies start at C1.
OCTAVES = 6

#: A long recording is computed in parts of five minutes, with half a minute before and after them.
PART_FRAMES = 3230
MARGIN_FRAMES = 323

#: Decibels below the loudest value of a recording that are kept, and the smallest magnitude.
RANGE_DB = 80
MIN_MAGNITUDE = 1e-5

#: Keras' BatchNormalization adds it to the variance.
EPSILON = 1e-3


def pitch_classes(magnitudes: np.ndarray) -> np.ndarray:
    """Return the probability of each pitch class in each frame.

    Parameters
    ----------
    magnitudes : np.ndarray, shape=(T, 252)
        The magnitude of a constant-Q transform of seven octaves from C1, 36 bins per octave, at
        44100/4096 frames per second.

    Returns
    -------
    np.ndarray, shape=(T, 12)
        Float32 in [0, 1]; the first is C. They do not add up to 1.
    """
    bins = BINS_PER_OCTAVE * OCTAVES
    channels = [slice(0, bins), slice(BINS_PER_OCTAVE, BINS_PER_OCTAVE + bins)]
    loudest = [float(magnitudes[:, channel].max()) for channel in channels]

    results = []
    for start in range(0, len(magnitudes), PART_FRAMES):
        first = max(start - MARGIN_FRAMES, 0)
        part = magnitudes[first : start + PART_FRAMES + MARGIN_FRAMES]
        decibels = [
            _decibels(part[:, channel], reference)
            for channel, reference in zip(channels, loudest, strict=True)
        ]
        result = _forward(np.stack(decibels, axis=-1))
        results.append(result[start - first : start - first + PART_FRAMES])
    return np.concatenate(results)


def _decibels(magnitudes: np.ndarray, loudest: float) -> np.ndarray:
    reference = 20 * np.log10(max(loudest, MIN_MAGNITUDE))
    decibels = 20 * np.log10(np.maximum(magnitudes.astype(np.float32), MIN_MAGNITUDE))
    return np.asarray(np.maximum(decibels - reference, -RANGE_DB))


@cache
def _weights() -> dict[str, np.ndarray]:
    weights: dict[str, np.ndarray] = load_file(WEIGHTS)
    return weights


def _forward(x: np.ndarray) -> np.ndarray:
    """Apply the network to (T, 216, 2) decibels."""
    x = _normalised("batch_normalization_1", x)
    x = np.maximum(_convolved(x), 0)  # (T, 216)
    x = _normalised("batch_normalization_2", x[..., None])[..., 0]
    weights = _weights()
    x = np.maximum(x @ weights["conv2d_2.kernel"] + weights["conv2d_2.bias"], 0)  # (T, 72)
    x = _normalised("batch_normalization_3", x)
    x = _bidirectional("1", x)  # (T, 256)
    x = _normalised("batch_normalization_4", x)
    x = _bidirectional("2", x)
    logits = x @ weights["chord_pitch.kernel"] + weights["chord_pitch.bias"]
    return np.asarray(1 / (1 + np.exp(-logits)))


def _normalised(name: str, x: np.ndarray) -> np.ndarray:
    w = _weights()
    scale = w[f"{name}.gamma"] / np.sqrt(w[f"{name}.moving_variance"] + EPSILON)
    return np.asarray((x - w[f"{name}.moving_mean"]) * scale + w[f"{name}.beta"])


def _convolved(x: np.ndarray) -> np.ndarray:
    """Convolve (T, 216, 2) with one filter of 5 x 5 x 2, padded with zeros."""
    kernel = _weights()["conv2d_1.kernel"]
    padded = np.pad(x, ((2, 2), (2, 2), (0, 0)))
    result = np.full(x.shape[:2], _weights()["conv2d_1.bias"][0], np.float32)
    for i in range(5):
        for j in range(5):
            result += padded[i : i + x.shape[0], j : j + x.shape[1]] @ kernel[i, j, :, 0]
    return result


def _bidirectional(layer: str, x: np.ndarray) -> np.ndarray:
    ahead = _recurrent(f"forward_gru_{layer}", x)
    back = _recurrent(f"backward_gru_{layer}", x[::-1])[::-1]
    return np.concatenate([ahead, back], axis=1)


def _recurrent(name: str, x: np.ndarray) -> np.ndarray:
    """Run Keras 2's GRU of 128 units: a hard sigmoid, and the reset gate before its product."""
    w = _weights()
    recurrent = w[f"{name}.recurrent_kernel"]
    gates, candidate = recurrent[:, :256].copy(), recurrent[:, 256:].copy()
    inputs = x @ w[f"{name}.kernel"] + w[f"{name}.bias"]
    states = np.empty((len(x), 128), np.float32)
    state = np.zeros(128, np.float32)
    for t, given in enumerate(inputs.astype(np.float32)):
        opened = np.clip(0.2 * (given[:256] + state @ gates) + 0.5, 0, 1)
        update, reset = opened[:128], opened[128:]
        proposed = np.tanh(given[256:] + (reset * state) @ candidate)
        state = update * state + (1 - update) * proposed
        states[t] = state
    return states
