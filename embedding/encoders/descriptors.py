"""The encoder of moments, which do not change with transposition; it needs no labels."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from embedding.encoders.chroma import ChromaEncoder, trimmed, with_altered_copies
from embedding.encoders.encoder import Fitted, Samples, check_numbers, check_tempos
from embedding.encoders.moments import describe, map_sequences, moment_count
from embedding.encoders.projection import UNFITTED, Projection, fit_principal


@dataclass(frozen=True)
class DescriptorsConfig:
    """How moments are projected."""

    dimension: int = 256  # components at most; fewer if the training performances vary in fewer
    tempering: float = 0.35  # as in `projection.fit_principal`
    tempos: tuple[float, ...] = (0.82, 1.22)  # of altered copies to train on; 1 is unchanged

    def __post_init__(self) -> None:
        object.__setattr__(self, "tempos", check_tempos(self.tempos))
        check_numbers(self, tempering=(0, 0.5))


@dataclass(frozen=True)
class Descriptors(ChromaEncoder):
    """Tempered principal components of the moments, scaled to unit length."""

    name = "descriptors"
    Config = DescriptorsConfig

    def embed(self, inputs: Sequence[np.ndarray]) -> np.ndarray:
        return self.projection(_moments(trimmed(inputs))).astype(np.float32)

    @classmethod
    def from_tensors(cls, config: DescriptorsConfig, tensors: dict[str, np.ndarray]) -> Self:
        return cls(config, Projection.from_tensors(tensors, moment_count()))

    @classmethod
    def fit(cls, train: Samples, validation: Samples, config: Any, *, seed: int) -> Fitted:
        return Fitted(cls(config, UNFITTED).refit(train, seed=seed))

    def refit(self, samples: Samples, *, seed: int) -> Self:
        sequences = with_altered_copies(trimmed(samples.inputs), self.config.tempos, seed)
        dimension = self.dimension or self.config.dimension
        projection = fit_principal(_moments(sequences), dimension, self.config.tempering)
        return replace(self, projection=projection)


def _moments(sequences: Sequence[np.ndarray]) -> np.ndarray:
    if not sequences:
        return np.empty((0, moment_count()))
    return np.concatenate(map_sequences(describe, sequences), axis=1)
