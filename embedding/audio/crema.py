"""CREMA's chord model: how likely each pitch class sounds, from a constant-Q spectrum.

The model and its weights are those of the package `crema` 0.2.0 (McFee and Bello, "Structured
training for large-vocabulary chord recognition", ISMIR 2017), which Da-TACOS used; its licence is
in `crema_LICENSE.md`. `crema_weights.py` in `docs/` converted them. The package itself needs
libraries that no longer work, so this module repeats its forward pass in numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
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

#: The bins of each channel, of a constant-Q spectrum of seven octaves.
CHANNEL_BINS = tuple(
    slice(first, first + BINS_PER_OCTAVE * OCTAVES) for first in (0, BINS_PER_OCTAVE)
)

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
    loudest = _loudest(magnitudes)
    results = []
    for start in range(0, len(magnitudes), PART_FRAMES):
        first = max(start - MARGIN_FRAMES, 0)
        part = magnitudes[first : start + PART_FRAMES + MARGIN_FRAMES]
        result = _forward([_decibels(part, loudest)])[0]
        results.append(result[start - first : start - first + PART_FRAMES])
    return np.concatenate(results)


def pitch_classes_of_many(magnitudes: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Apply `pitch_classes` to short recordings, which is faster than one after the other."""
    return _forward([_decibels(each, _loudest(each)) for each in magnitudes])


def _loudest(magnitudes: np.ndarray) -> list[float]:
    return [float(magnitudes[:, bins].max()) for bins in CHANNEL_BINS]


def _decibels(magnitudes: np.ndarray, loudest: Sequence[float]) -> np.ndarray:
    """Return both channels relative to their loudest value, (T, 252) -> (2, T, 216)."""
    all_bins = 20 * np.log10(np.maximum(magnitudes.astype(np.float32), MIN_MAGNITUDE))
    channels = []
    for bins, most in zip(CHANNEL_BINS, loudest, strict=True):
        reference = 20 * np.log10(max(most, MIN_MAGNITUDE))
        channels.append(np.maximum(all_bins[:, bins] - reference, -RANGE_DB))
    return np.stack(channels)


@cache
def _weights() -> dict[str, np.ndarray]:
    weights: dict[str, np.ndarray] = load_file(WEIGHTS)
    return weights


def _forward(sequences: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Apply the network to sequences of decibels, each (2, T, 216) -> (T, 12)."""
    lengths = [x.shape[1] for x in sequences]
    x = np.zeros((len(sequences), max(lengths), 72), np.float32)
    for row, length, sequence in zip(x, lengths, sequences, strict=True):
        row[:length] = _convolutions(sequence)
    x = _bidirectional("1", x, lengths)  # (n, T, 256)
    x = _normalised("batch_normalization_4", x)
    x = _bidirectional("2", x, lengths)
    weights = _weights()
    logits = x @ weights["chord_pitch.kernel"] + weights["chord_pitch.bias"]
    likely = 1 / (1 + np.exp(-logits))
    return [row[:length] for row, length in zip(likely, lengths, strict=True)]


def _convolutions(x: np.ndarray) -> np.ndarray:
    """Apply the first layers to (2, T, 216) decibels; the result has shape=(T, 72)."""
    x = np.moveaxis(_normalised("batch_normalization_1", np.moveaxis(x, 0, -1)), -1, 0)
    x = np.maximum(_convolved(x), 0)  # (T, 216)
    x = _normalised("batch_normalization_2", x[..., None])[..., 0]
    weights = _weights()
    x = np.maximum(x @ weights["conv2d_2.kernel"] + weights["conv2d_2.bias"], 0)
    return _normalised("batch_normalization_3", x)


def _normalised(name: str, x: np.ndarray) -> np.ndarray:
    w = _weights()
    scale = w[f"{name}.gamma"] / np.sqrt(w[f"{name}.moving_variance"] + EPSILON)
    return np.asarray((x - w[f"{name}.moving_mean"]) * scale + w[f"{name}.beta"])


def _convolved(x: np.ndarray) -> np.ndarray:
    """Convolve (2, T, 216) with one filter of 5 x 5 x 2, padded with zeros."""
    kernel = _weights()["conv2d_1.kernel"]
    channels, frames, bins = x.shape
    padded = np.pad(x, ((0, 0), (2, 2), (2, 2)))
    result = np.full((frames, bins), _weights()["conv2d_1.bias"][0], np.float32)
    product = np.empty_like(result)
    for channel, i, j in np.ndindex(channels, 5, 5):
        part = padded[channel, i : i + frames, j : j + bins]
        result += np.multiply(part, kernel[i, j, channel, 0], out=product)
    return result


def _bidirectional(layer: str, x: np.ndarray, lengths: Sequence[int]) -> np.ndarray:
    """Run a layer ahead and back through sequences, (n, T, D) -> (n, T, 256).

    Both directions go side by side, and zeros past the end of a sequence come last in both.
    """
    directions = (f"forward_gru_{layer}", f"backward_gru_{layer}")
    states = _recurrent(directions, np.stack([x, _turned(x, lengths)]))
    return np.concatenate([states[0], _turned(states[1], lengths)], axis=2)


def _turned(x: np.ndarray, lengths: Sequence[int]) -> np.ndarray:
    """Reverse each sequence, and leave what follows its end."""
    turned = x.copy()
    for row, source, length in zip(turned, x, lengths, strict=True):
        row[:length] = source[:length][::-1]
    return turned


def _recurrent(names: Sequence[str], x: np.ndarray) -> np.ndarray:
    """Run Keras 2's GRU of 128 units: a hard sigmoid, and the reset gate before its product.

    Each name is of a network that runs through its own sequences, (m, n, T, D) -> (m, n, T, 128).
    """
    w = _weights()
    recurrent = np.stack([w[f"{name}.recurrent_kernel"] for name in names])
    gates, candidate = recurrent[..., :256].copy(), recurrent[..., 256:].copy()
    kernels = np.stack([w[f"{name}.kernel"] for name in names])[:, None]
    biases = np.stack([w[f"{name}.bias"] for name in names])[:, None, None]
    inputs = np.moveaxis((x @ kernels + biases).astype(np.float32), 2, 0).copy()  # (T, m, n, 384)
    states = np.empty((*inputs.shape[:3], 128), np.float32)
    state = np.zeros(states.shape[1:], np.float32)
    for t, given in enumerate(inputs):
        opened = 0.2 * (given[..., :256] + state @ gates) + 0.5
        opened = np.minimum(np.maximum(opened, 0), 1)
        update, reset = opened[..., :128], opened[..., 128:]
        proposed = np.tanh(given[..., 256:] + (reset * state) @ candidate)
        state = update * state + (1 - update) * proposed
        states[t] = state
    return np.moveaxis(states, 0, 2)
