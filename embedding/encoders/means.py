"""The baseline encoder: the standardised feature means as they are."""

from dataclasses import dataclass, replace
from typing import Any, Self

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
        return len(self.columns)

    def embed(self, inputs: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):  # a bundle refuses the infinity that comes out
            return self.standardizer.transform(inputs).astype(np.float32)

    def tensors(self) -> dict[str, np.ndarray]:
        return self.standardizer.tensors()

    @classmethod
    def from_tensors(cls, config: MeansConfig, tensors: dict[str, np.ndarray]) -> Self:
        return cls(config, Standardizer.from_tensors(tensors))

    @classmethod
    def fit(cls, train: Samples, validation: Samples, config: Any, *, seed: int) -> Fitted:
        return Fitted(cls(config, Standardizer.fit(train.inputs)))

    def refit(self, samples: Samples, *, seed: int) -> Self:
        return replace(self, standardizer=Standardizer.fit(samples.inputs))
