"""The baseline encoder: the standardised feature means as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from embedding.data.features import FEATURE_NAMES
from embedding.data.store import FeatureStore
from embedding.encoders.scaling import Standardizer


@dataclass(frozen=True)
class MeansConfig:
    """There is nothing to choose."""


@dataclass(frozen=True)
class Means:
    """Distances between these vectors compare every coefficient in its own standard deviation."""

    columns: ClassVar[tuple[str, ...]] = FEATURE_NAMES
    settings: ClassVar[type[MeansConfig]] = MeansConfig

    config: MeansConfig
    standardizer: Standardizer

    @property
    def dimension(self) -> int:
        """Components of a vector: 52."""
        return len(FEATURE_NAMES)

    @staticmethod
    def unusable(store: FeatureStore) -> dict[str, str]:
        """No performance: the features of each are in its row."""
        return {}

    def embed(self, store: FeatureStore) -> np.ndarray:
        """Return the vectors, shape=(n, 52), float32; raises ValueError as `Standardizer`."""
        with np.errstate(over="ignore"):  # beyond float32 lies infinity, which a bundle refuses
            return self.standardizer.transform(store.table).astype(np.float32)

    def tensors(self) -> dict[str, np.ndarray]:
        """The training statistics."""
        return self.standardizer.tensors()

    @classmethod
    def from_tensors(cls, config: MeansConfig, tensors: dict[str, np.ndarray]) -> Means:
        """The inverse of `tensors`."""
        return cls(config, Standardizer.from_tensors(tensors))
