"""The baseline encoder: the standardised feature means as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from embedding.encoders.encoder import Fitted, MeansEncoder, Samples
from embedding.encoders.scaling import Standardizer


@dataclass(frozen=True)
class MeansConfig:
    """The configuration has no fields."""


@dataclass(frozen=True)
class Means(MeansEncoder):
    """The vectors are the features, in units of their standard deviations."""

    name = "means"
    Config = MeansConfig

    config: MeansConfig
    standardizer: Standardizer

    @property
    def dimension(self) -> int:
        """Components of a vector: 52."""
        return len(self.columns)

    def embed(self, inputs: np.ndarray) -> np.ndarray:
        """Return the standardised features, shape=(n, 52), float32."""
        with np.errstate(over="ignore"):  # a bundle refuses the infinity that comes out
            return self.standardizer.transform(inputs).astype(np.float32)

    def tensors(self) -> dict[str, np.ndarray]:
        """Return the statistics of the training performances."""
        return self.standardizer.tensors()

    @classmethod
    def from_tensors(cls, config: MeansConfig, tensors: dict[str, np.ndarray]) -> Means:
        """Make the encoder again; see `Encoder.from_tensors`."""
        return cls(config, Standardizer.from_tensors(tensors))

    @classmethod
    def fit(
        cls, train: Samples, validation: Samples, config: Any, *, seed: int, progress: bool
    ) -> Fitted:
        """Take the statistics of the training performances."""
        return Fitted(cls(config, Standardizer.fit(train.inputs)))

    def refit(self, samples: Samples, *, seed: int) -> Means:
        """Take the statistics of all performances."""
        return Means(self.config, Standardizer.fit(samples.inputs))
