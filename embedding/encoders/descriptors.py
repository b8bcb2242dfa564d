"""The encoder of moments, which do not change with transposition; it needs no labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from embedding.encoders.chroma import ChromaEncoder, trimmed, with_altered_copies
from embedding.encoders.encoder import Fitted, Samples, check_numbers, check_tempos
from embedding.encoders.moments import describe, map_sequences, moment_count
from embedding.encoders.projection import Projection, fit_principal


@dataclass(frozen=True)
class DescriptorsConfig:
    """How moments are projected.

    Attributes
    ----------
    dimension : int
        Components of a vector, at most; fewer if the training performances vary in fewer.
    tempering : float
        As in `projection.fit_principal`.
    tempos : tuple of float
        Tempos of the altered copies that join the training performances; 1 is unchanged.
    """

    dimension: int = 256
    tempering: float = 0.35
    tempos: tuple[float, ...] = (0.82, 1.22)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tempos", check_tempos(self.tempos))
        check_numbers(self, tempering=(0, 0.5))


@dataclass(frozen=True)
class Descriptors(ChromaEncoder):
    """Tempered principal components of the moments."""

    name = "descriptors"
    Config = DescriptorsConfig

    def embed(self, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """Return vectors of unit length, shape=(n, dimension), float32."""
        return self.projection(_moments(trimmed(inputs))).astype(np.float32)

    @classmethod
    def from_tensors(cls, config: DescriptorsConfig, tensors: dict[str, np.ndarray]) -> Descriptors:
        """Make the encoder again; see `Encoder.from_tensors`."""
        return cls(config, Projection.from_tensors(tensors, moment_count()))

    @classmethod
    def fit(
        cls, train: Samples, validation: Samples, config: Any, *, seed: int, progress: bool
    ) -> Fitted:
        """Take the principal components of the training performances."""
        return Fitted(cls(config, _project(train, config, seed, config.dimension)))

    def refit(self, samples: Samples, *, seed: int) -> Descriptors:
        """Take the principal components of all performances."""
        projection = _project(samples, self.config, seed, self.dimension)
        return Descriptors(self.config, projection)


def _project(samples: Samples, config: DescriptorsConfig, seed: int, dimension: int) -> Projection:
    sequences = with_altered_copies(trimmed(samples.inputs), config.tempos, seed)
    return fit_principal(_moments(sequences), dimension=dimension, tempering=config.tempering)


def _moments(sequences: Sequence[np.ndarray]) -> np.ndarray:
    if not sequences:
        return np.empty((0, moment_count()))
    return np.concatenate(map_sequences(describe, sequences), axis=1)
