"""Standardise the 52 feature means with the statistics of the training performances."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.preprocessing import StandardScaler

from embedding.data.features import FEATURE_NAMES

#: A column that varies by less than this share of its largest value is constant up to rounding.
ROUNDING = 1e-9


@dataclass(frozen=True)
class Standardizer:
    """Shift and scale each column to mean 0 and standard deviation 1.

    The statistics are of columns, not of rows. If each performance were normalised over its own
    values, the tempo would decide everything: it is a hundred times larger than chroma.

    Attributes
    ----------
    mean : np.ndarray, shape=(52,), float64
        In the order of `FEATURE_NAMES`.
    scale : np.ndarray, shape=(52,), float64
        The standard deviation. It is 0 for a column that is constant in training; such a column
        becomes 0 everywhere, as the scale of its differences is unknown.
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]

    @classmethod
    def fit(cls, features: np.ndarray) -> Standardizer:
        """Take the statistics of the training performances, shape=(n, 52).

        Raises
        ------
        ValueError
            If there are fewer than two performances, or no column varies.
        """
        if len(features) < 2:
            raise ValueError(
                "Training needs at least 2 performances to learn from, and there is "
                f"{len(features)}: aggregate more."
            )
        scaler = StandardScaler().fit(features)
        scale = np.sqrt(scaler.var_)
        scale[scale <= ROUNDING * np.abs(features).max(axis=0)] = 0
        if not scale.any():
            raise ValueError(
                f"All {len(features)} training performances have the same features, so there is "
                "nothing to learn from them: aggregate others."
            )
        return cls(scaler.mean_, scale)

    def transform(self, features: np.ndarray) -> NDArray[np.float64]:
        """Standardise features, shape=(n, 52)."""
        centred = features - self.mean
        return np.divide(centred, self.scale, out=np.zeros_like(centred), where=self.scale > 0)

    def tensors(self) -> dict[str, np.ndarray]:
        """Return what a bundle keeps."""
        return {"scaling.mean": self.mean, "scaling.scale": self.scale}

    @classmethod
    def from_tensors(cls, tensors: dict[str, np.ndarray]) -> Standardizer:
        """Make it again; raises ValueError if a tensor does not hold 52 numbers."""
        standardizer = cls(tensors["scaling.mean"], tensors["scaling.scale"])
        for name, tensor in standardizer.tensors().items():
            if tensor.shape != (len(FEATURE_NAMES),):
                raise ValueError(
                    f"tensor {name} has shape {tensor.shape}, expected {(len(FEATURE_NAMES),)}"
                )
        return standardizer
