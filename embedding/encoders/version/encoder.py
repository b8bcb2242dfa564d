"""The version encoder: one vector per performance, close to the other versions of its work.

A vector has two halves. The first is a projection of the moments and of the responses to motifs,
fitted with clique labels. The second is a network that processes the sequence in all twelve keys.
Neither changes with transposition, or with silence around the music.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from embedding.encoders.chroma import ChromaEncoder, trimmed, with_altered_copies
from embedding.encoders.encoder import Fitted, Samples
from embedding.encoders.moments import map_sequences, moment_count
from embedding.encoders.projection import UNFITTED, Projection, fit_discriminant
from embedding.encoders.version.composed import composed
from embedding.encoders.version.config import VersionConfig
from embedding.encoders.version.motifs import Motifs, cut_motifs, statistics
from embedding.encoders.weights import arrays_of, rebuild

if TYPE_CHECKING:
    from embedding.encoders.version.network import TwelveKeyNet


@dataclass(frozen=True)
class VersionEncoder(ChromaEncoder):
    """A projection and a network, whose vectors are joined and scaled to unit length."""

    name = "version"
    loss = "supervised contrastive loss of the network"
    Config = VersionConfig

    motifs: Motifs
    network: "TwelveKeyNet"

    @property
    def dimension(self) -> int:
        return super().dimension + int(self.config.network_dimension)

    @property
    def parts(self) -> dict[str, slice]:
        projected = super().dimension
        return {"projection": slice(0, projected), "network": slice(projected, self.dimension)}

    def embed(self, inputs: Sequence[np.ndarray]) -> np.ndarray:
        if not inputs:
            return np.empty((0, self.dimension), np.float32)
        sequences = trimmed(inputs)
        blocks = map_sequences(partial(statistics, motifs=self.motifs), sequences)
        projected = self.projection(np.concatenate(blocks, axis=1))
        network = self.config.network_weight * self.network.embed(sequences).numpy()
        vectors = np.concatenate([projected, network], axis=1)
        return (vectors / math.hypot(1, self.config.network_weight)).astype(np.float32)

    def tensors(self) -> dict[str, np.ndarray]:
        return {
            "motifs": self.motifs.patterns,
            **super().tensors(),
            **arrays_of(self.network, "network."),
        }

    @classmethod
    def from_tensors(cls, config: VersionConfig, tensors: dict[str, np.ndarray]) -> Self:
        from embedding.encoders.version.network import TwelveKeyNet

        network = rebuild(lambda: TwelveKeyNet(config), tensors, "network.")
        motifs = Motifs(tensors["motifs"])
        projection = Projection.from_tensors(tensors, moment_count() + motifs.count)
        return cls(config, projection, motifs, network)

    @classmethod
    def fit(cls, train: Samples, validation: Samples, config: Any, *, seed: int) -> Fitted:
        """Cut motifs, train the network to tell works apart, and fit the projection.

        The network and the projection also learn from `composed_works`. Works with one performance
        take no part. Raises ValueError if either side has fewer than
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
        motifs = cut_motifs(trimmed(train.inputs), np.random.default_rng(seed))
        learnt = train + composed(config.composed_works, seed)
        network, loss_curve, figures = fit_network(learnt, validation, config, seed)
        encoder = cls(config, UNFITTED, motifs, network).refit(train, seed=seed)
        return Fitted(encoder, loss_curve, figures)

    def refit(self, samples: Samples, *, seed: int) -> Self:
        samples, tempos = samples.of_several(), self.config.tempos
        beside = composed(self.config.composed_works, seed)
        sequences = with_altered_copies(trimmed(samples.inputs), tempos, seed)
        sequences += trimmed(beside.inputs)
        blocks = map_sequences(partial(statistics, motifs=self.motifs, without_own=True), sequences)
        works = np.concatenate([np.tile(samples.works, 1 + len(tempos)), beside.works])
        dimension = self.projection.dimension or self.config.projection_dimension
        projection = fit_discriminant(blocks, works, dimension, self.config.shrinkage)
        return replace(self, projection=projection)
