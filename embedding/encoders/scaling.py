"""Standardise the 52 feature means with the statistics of the training performances."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from sklearn.preprocessing import StandardScaler

#: A column that varies by less than this share of its largest value is constant up to rounding.
ROUNDING_SHARE = 1e-9


@dataclass(frozen=True)
class Standardizer:
    """Shift and scale each column, in the order of `FEATURE_NAMES`, to mean 0 and deviation 1.

    The statistics are of columns, as normalising each row would let tempo drown chroma, which is a
    hundred times smaller. A column that is constant in training has scale 0, and becomes 0
    everywhere, as the scale of its differences is unknown.
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]

    @classmethod
    def fit(cls, features: np.ndarray) -> Self:
        """Take the statistics of at least two training performances that differ, shape=(n, 52)."""
        if len(features) < 2:
            raise ValueError(
                "Training needs at least 2 performances to learn from, and there is "
                f"{len(features)}: aggregate more."
            )
        scaler = StandardScaler().fit(features)
        scale = np.sqrt(scaler.var_)
        scale[scale <= ROUNDING_SHARE * np.abs(features).max(axis=0)] = 0
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
    def from_tensors(cls, tensors: dict[str, np.ndarray]) -> Self:
        """Make it again from what a bundle kept."""
        return cls(tensors["scaling.mean"], tensors["scaling.scale"])
