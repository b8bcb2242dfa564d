"""The version encoder: one vector per performance, close to the other versions of its work.

A vector has two halves. The first is a projection of the moments and of the responses to motifs,
fitted with clique labels. The second is a network that processes the sequence in all twelve keys.
Neither changes with transposition, or with silence around the music.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from embedding.encoders.chroma import ChromaEncoder, trimmed, with_altered_copies
from embedding.encoders.encoder import Fitted, Samples
from embedding.encoders.moments import map_sequences, moment_count
from embedding.encoders.projection import Projection, fit_discriminant
from embedding.encoders.version.motifs import Motifs, cut_motifs, statistics
from embedding.encoders.version.network import TwelveKeyNet, VersionConfig
from embedding.encoders.weights import arrays_of, rebuild


@dataclass(frozen=True)
class VersionEncoder(ChromaEncoder):
    """A projection and a network, whose vectors are joined and scaled to unit length."""

    name = "version"
    loss = "supervised contrastive loss of the network"
    Config = VersionConfig

    motifs: Motifs
    network: TwelveKeyNet

    @property
    def dimension(self) -> int:
        """Components of a vector."""
        return super().dimension + int(self.config.network_dimension)

    def embed(self, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """Return vectors of unit length, shape=(n, dimension), float32."""
        if not inputs:
            return np.empty((0, self.dimension), np.float32)
        sequences = trimmed(inputs)
        blocks = map_sequences(partial(statistics, motifs=self.motifs), sequences)
        projected = self.projection(np.concatenate(blocks, axis=1))
        network = self.config.network_weight * self.network.embed(sequences).numpy()
        vectors = np.concatenate([projected, network], axis=1)
        return (vectors / math.hypot(1, self.config.network_weight)).astype(np.float32)

    def tensors(self) -> dict[str, np.ndarray]:
        """Return the motifs, the projection and the weights."""
        return {
            "motifs": self.motifs.patterns,
            **super().tensors(),
            **arrays_of(self.network, "network."),
        }

    @classmethod
    def from_tensors(cls, config: VersionConfig, tensors: dict[str, np.ndarray]) -> VersionEncoder:
        """Make the encoder again; see `Encoder.from_tensors`."""
        network = rebuild(lambda: TwelveKeyNet(config), tensors, "network.")
        motifs = Motifs(tensors["motifs"])
        projection = Projection.from_tensors(tensors, moment_count() + motifs.count)
        return cls(config, projection, motifs, network)

    @classmethod
    def fit(
        cls, train: Samples, validation: Samples, config: Any, *, seed: int, progress: bool
    ) -> Fitted:
        """Cut motifs, fit the projection, and train the network to tell works apart.

        Works with one performance take no part. Raises ValueError if either side has fewer than
        two works with several performances.
        """
        from embedding.encoders.version.training import fit_network

        train, validation = train.of_several(), validation.of_several()
        for samples, purpose in ((train, "learn from"), (validation, "validate on")):
            if (count := len(set(samples.works))) < 2:
                raise ValueError(
                    "The version encoder needs at least 2 works of several performances to "
                    f"{purpose}, and the data has {count}: aggregate more."
                )
        sequences = trimmed(train.inputs)
        motifs = cut_motifs(sequences, np.random.default_rng(seed))
        width = config.projection_dimension
        projection = _project(sequences, train.works, motifs, config, seed, width)
        network, loss_curve, figures = fit_network(
            (sequences, train.numbers()),
            (trimmed(validation.inputs), validation.numbers()),
            config,
            seed=seed,
            progress=progress,
        )
        return Fitted(cls(config, projection, motifs, network), loss_curve, figures)

    def refit(self, samples: Samples, *, seed: int) -> VersionEncoder:
        """Fit the projection to all works; validation chose the network only."""
        samples, width = samples.of_several(), self.projection.dimension
        sequences = trimmed(samples.inputs)
        projection = _project(sequences, samples.works, self.motifs, self.config, seed, width)
        return replace(self, projection=projection)


def _project(
    sequences: list[np.ndarray],
    works: np.ndarray,
    motifs: Motifs,
    config: VersionConfig,
    seed: int,
    dimension: int,
) -> Projection:
    copies = with_altered_copies(sequences, config.tempos, seed)
    blocks = map_sequences(partial(statistics, motifs=motifs, without_own=True), copies)
    of_copies = list(works) * (1 + len(config.tempos))
    return fit_discriminant(blocks, of_copies, dimension=dimension, shrinkage=config.shrinkage)
