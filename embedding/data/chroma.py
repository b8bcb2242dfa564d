"""Chroma sequences: what happens in time, at about five frames a second."""

from __future__ import annotations

import numpy as np

from embedding.data.features import Frames

#: The second axis of a sequence.
CHANNELS = ("hpcp", "crema")

#: Frames a second aimed at: a chord lasts longer than a fifth of a second.
TARGET_RATE = 5.0


def hop(frame_rate: float) -> int:
    """How many of the data set's frames are averaged into one."""
    return max(1, round(frame_rate / TARGET_RATE))


def rate(frame_rate: float) -> float:
    """Frames a second of a sequence made from `frame_rate` frames a second."""
    return frame_rate / hop(frame_rate)


def reduce(frames: Frames, frame_rate: float) -> tuple[np.ndarray, float]:
    """Average HPCP and CREMA over blocks of `hop` frames.

    The two are cut to their common length first. A last block is kept if it is at least half
    full, or the only one. Frames with a NaN or an infinity are left out of the mean; a block with
    nothing else is silence, 0.

    Parameters
    ----------
    frames : Frames
        One performance, time first.
    frame_rate : float
        Frames a second of the data set.

    Returns
    -------
    sequence : np.ndarray, shape=(F, 2, 12), float16
        Channels as in `CHANNELS`; finite.
    rate : float
        Frames a second of the sequence, about 5.
    """
    width = hop(frame_rate)
    length = min(len(getattr(frames, name)) for name in CHANNELS)
    starts = np.arange(0, length, width)
    if len(starts) > 1 and 2 * (length - starts[-1]) < width:
        length = int(starts[-1])
        starts = starts[:-1]

    sequence = np.empty((len(starts), len(CHANNELS), 12), dtype=np.float16)
    for channel, name in enumerate(CHANNELS):
        values = getattr(frames, name)[:length]
        counts = np.diff(starts, append=length)
        with np.errstate(over="ignore", invalid="ignore"):
            sums = np.add.reduceat(values, starts, axis=0, dtype=np.float64)
            if not np.isfinite(sums).all():  # a look at the sums is cheaper than one at the values
                finite = np.isfinite(values).all(axis=1)
                counts = np.add.reduceat(finite, starts, dtype=np.int64)
                values = np.where(finite[:, None], values, 0)
                sums = np.add.reduceat(values, starts, axis=0, dtype=np.float64)
        mean = np.nan_to_num(sums / np.maximum(counts, 1)[:, None])
        largest = float(np.finfo(np.float16).max)
        sequence[:, channel] = np.clip(mean, -largest, largest)
    return sequence, rate(frame_rate)
