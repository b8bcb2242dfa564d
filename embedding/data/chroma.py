"""Chroma sequences: HPCP and CREMA over time, at about five frames per second."""

from __future__ import annotations

import numpy as np

from embedding.data.frames import Chroma, Frames

#: The second axis of a sequence. The 12 pitch classes ascend by semitones, from A in HPCP and from
#: C in CREMA (and CENS) of Da-TACOS: bin i of CREMA is the pitch class of bin (i + 3) % 12 of HPCP.
#: They are stored as in the files, so code that combines both channels has to roll one of them.
CHANNELS = ("hpcp", "crema")

#: Frames per second of every sequence: 44100 / 512 (Da-TACOS) divided by 16. A chord lasts longer
#: than a fifth of a second.
CHROMA_RATE = 44100 / 8192


def reduce(frames: Frames | Chroma, frame_rate: float) -> np.ndarray:
    """Average HPCP and CREMA over consecutive stretches of 1 / `CHROMA_RATE` seconds.

    Both are cut to their common length first. A last stretch is kept if at least half of it is
    there, or if it is the only one. Frames with a NaN or an infinity are left out of the mean; a
    stretch without any other frame becomes 0, which is silence.

    `frame_rate` is the data set's, in frames per second; it need not be a multiple of
    `CHROMA_RATE`. The result has shape=(F, 2, 12), float16, and is finite.
    """
    hop = frame_rate / CHROMA_RATE
    length = min(len(getattr(frames, name)) for name in CHANNELS)
    count = max(int(length / hop + 0.5), 1) if length else 0
    borders = np.minimum(np.arange(count + 1) * hop, length)
    limit = float(np.finfo(np.float16).max)
    sequence = np.empty((count, len(CHANNELS), 12), dtype=np.float16)
    for channel, name in enumerate(CHANNELS):
        values = getattr(frames, name)[:length].astype(np.float64)
        finite = np.isfinite(values).all(axis=1)
        values[~finite] = 0
        weights = _integrals(finite.astype(np.float64)[:, None], borders)
        mean = _integrals(values, borders) / np.maximum(weights, 1e-9)
        sequence[:, channel] = np.clip(mean, -limit, limit)
    return sequence


def resample(x: np.ndarray, factor: float) -> np.ndarray:
    """Average consecutive stretches of about `factor` frames, time first; below 1 they overlap."""
    count = max(round(len(x) / factor), 1)
    if count == len(x):
        return x
    borders = np.linspace(0, len(x), count + 1)
    return np.asarray(_integrals(x.astype(np.float64), borders) / (len(x) / count))


def _integrals(x: np.ndarray, borders: np.ndarray) -> np.ndarray:
    """Integrate frames, time first, between consecutive borders (in frames, within the array)."""
    total = np.concatenate([np.zeros_like(x[:1]), np.cumsum(x, axis=0)])
    whole = np.minimum(borders.astype(int), max(len(x) - 1, 0))
    share = (borders - whole).reshape(-1, *[1] * (x.ndim - 1))
    return np.diff(total[whole] + share * x[whole], axis=0) if len(x) else total[:0]
