"""The 52 means of a performance: the prototype's columns, by its names and in its order.

The prototype is the repository alexliap/audio_embeddings, which this project continues.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from embedding.data.frames import Frames

#: The averaged arrays and their numbers of coefficients, in column order.
ARRAYS = {"chroma_cens": 12, "crema": 12, "hpcp": 12, "mfcc_htk": 13, "novfn": 1, "snovfn": 1}

FEATURE_NAMES: tuple[str, ...] = (
    *(f"chroma_cens_{i}" for i in range(12)),
    *(f"crema_{i}" for i in range(12)),
    *(f"hpcp_{i}" for i in range(12)),
    *(f"mfcc_htk_{i}" for i in range(13)),
    "novfn",
    "snovfn",
    "tempo",
)


class Averages(NamedTuple):
    """The means of one performance."""

    means: np.ndarray  # shape=(52,), float64, in the order of FEATURE_NAMES; tempo in bpm
    nonfinite: float  # share of the values that are NaN or infinite, in [0, 1]


def average(frames: Frames) -> Averages:
    """Average each coefficient over its finite frames.

    Raises
    ------
    ValueError
        If a coefficient has no finite value, or the tempo is not finite: an invented mean would
        put the performance in a wrong place.
    """
    arrays = [(name, getattr(frames, name)) for name in ARRAYS]
    averaged = [_finite_mean(name, values) for name, values in arrays]
    if not np.isfinite(frames.tempo):
        raise ValueError(
            f"tempo is {frames.tempo}, which is not a number of beats per minute: correct it, or "
            "leave the file out"
        )
    return Averages(
        np.concatenate([*(mean for mean, _ in averaged), [frames.tempo]]),
        sum(nonfinite for _, nonfinite in averaged) / sum(values.size for _, values in arrays),
    )


def _finite_mean(name: str, values: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the mean of each column over its finite values, and the number of the others."""
    # Summed in float64: float32 sums of 15,000 frames are wrong in the sixth digit.
    columns = values.reshape(len(values), -1)
    with np.errstate(over="ignore", invalid="ignore"):
        mean = columns.mean(axis=0, dtype=np.float64)
        if np.isfinite(mean).all():  # checks 13 sums instead of 200,000 values
            return np.asarray(mean), 0
        finite = np.isfinite(columns)
        count = finite.sum(axis=0)
        if not count.all():
            empty = int(np.flatnonzero(count == 0)[0])
            what = name if (count == 0).all() else f"coefficient {empty} of {name}"
            raise ValueError(f"{what} has no finite value in {len(columns)} frames")
        mean = np.where(finite, columns, 0).sum(axis=0, dtype=np.float64) / count
    if not np.isfinite(mean).all():
        raise ValueError(f"{name} has values too large to average")
    return np.asarray(mean), int(columns.size - count.sum())
