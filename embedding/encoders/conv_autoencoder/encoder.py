"""The convolutional autoencoder of chroma sequences.

Its network is trained without labels: it encodes a few seconds of chroma and reconstructs them. A
vector says how strongly each component of the code appears in a performance, in any key.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from embedding.encoders.chroma import ChromaEncoder, trimmed
from embedding.encoders.encoder import Fitted, Samples, check_numbers
from embedding.encoders.projection import UNFITTED, Floats, Projection, fit_principal
from embedding.encoders.weights import arrays_of, rebuild

if TYPE_CHECKING:
    from embedding.encoders.conv_autoencoder.network import ConvAutoencoderNetwork

#: Magnitudes for each component of the code: of its mean and standard deviation, at pitch
#: frequencies 0 to 6.
MAGNITUDES = 2 * 7


@dataclass(frozen=True)
class ConvAutoencoderConfig:
    """What the network consists of, how it is trained, and how its codes are projected."""

    channels: int = 48  # width of the hidden layers
    code: int = 32  # components of the code
    window: int = 7  # steps of the code that are reconstructed at once; short performances have 7
    dimension: int = 128  # components of a vector; at most 14 for each component of the code
    tempering: float = 0.35  # as in `projection.fit_principal`
    batch: int = 64  # windows per step
    steps: int = 30  # batches per epoch
    epochs: int = 20  # the best one is kept
    learning_rate: float = 2e-3  # of Adam

    def __post_init__(self) -> None:
        check_numbers(self, window=(1, 7), tempering=(0, 0.5))


@dataclass(frozen=True)
class ConvAutoencoder(ChromaEncoder):
    """Tempered principal components of the pooled codes, scaled to unit length."""

    name = "conv-autoencoder"
    loss = "mean squared error of chroma"
    Config = ConvAutoencoderConfig

    network: "ConvAutoencoderNetwork"

    def embed(self, inputs: Sequence[np.ndarray]) -> np.ndarray:
        return self.projection(self._pooled_codes(inputs)).astype(np.float32)

    def tensors(self) -> dict[str, np.ndarray]:
        return super().tensors() | arrays_of(self.network, "network.")

    @classmethod
    def from_tensors(cls, config: ConvAutoencoderConfig, tensors: dict[str, np.ndarray]) -> Self:
        from embedding.encoders.conv_autoencoder.network import ConvAutoencoderNetwork

        network = rebuild(lambda: ConvAutoencoderNetwork(config), tensors, "network.")
        projection = Projection.from_tensors(tensors, MAGNITUDES * config.code)
        return cls(config, projection, network)

    @classmethod
    def fit(cls, train: Samples, validation: Samples, config: Any, *, seed: int) -> Fitted:
        from embedding.encoders.conv_autoencoder.training import fit_network

        sides = trimmed(train.inputs), trimmed(validation.inputs)
        network, loss_curve, figures = fit_network(*sides, config, seed)
        encoder = cls(config, UNFITTED, network).refit(train, seed=seed)
        return Fitted(encoder, loss_curve, figures)

    def refit(self, samples: Samples, *, seed: int) -> Self:
        dimension = self.dimension or self.config.dimension
        codes = self._pooled_codes(samples.inputs)
        return replace(self, projection=fit_principal(codes, dimension, self.config.tempering))

    def _pooled_codes(self, inputs: Sequence[np.ndarray]) -> Floats:
        codes = self.network.exact().pooled_codes
        return np.reshape(
            [codes(sequence) for sequence in trimmed(inputs)], (-1, MAGNITUDES * self.config.code)
        )
