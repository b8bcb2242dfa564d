"""The autoencoder of the 52 feature means; its code is the embedding.

Layer sizes are those of the prototype, https://github.com/alexliap/audio_embeddings.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from embedding.data.features import FEATURE_NAMES
from embedding.encoders.encoder import Fitted, MeansEncoder, Samples, check_numbers
from embedding.encoders.scaling import Standardizer
from embedding.encoders.weights import arrays_of, rebuild

if TYPE_CHECKING:
    from embedding.encoders.autoencoder.network import AutoencoderNetwork


@dataclass(frozen=True)
class AutoencoderConfig:
    """Layer sizes of the encoding half, and how the network is trained."""

    #: From the 52 features to the dimension of the code; the decoding half mirrors them.
    sizes: tuple[int, ...] = (52, 300, 200, 100, 50, 20)
    batch_size: int = 128  # performances per step
    learning_rate: float = 1e-3  # of Adam
    max_epochs: int = 300
    patience: int = 30  # epochs without a lower validation loss before training stops

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", tuple(self.sizes))  # JSON knows lists only
        whole = all(isinstance(size, int) and size > 0 for size in self.sizes)
        if not whole or len(self.sizes) < 2 or self.sizes[0] != len(FEATURE_NAMES):
            raise ValueError(
                f"sizes are {list(self.sizes)}, expected at least two whole numbers, from the "
                f"{len(FEATURE_NAMES)} features to the code"
            )
        check_numbers(self)


@dataclass(frozen=True)
class Autoencoder(MeansEncoder):
    """The encoding half of the network, after standardisation."""

    name = "autoencoder"
    loss = "mean squared error of standardised features"
    Config = AutoencoderConfig

    config: AutoencoderConfig
    standardizer: Standardizer
    network: "AutoencoderNetwork"

    @property
    def dimension(self) -> int:
        return self.config.sizes[-1]

    def embed(self, inputs: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):  # a bundle refuses the infinity that comes out
            return self.network.codes(self.standardizer.transform(inputs)).astype(np.float32)

    def tensors(self) -> dict[str, np.ndarray]:
        return self.standardizer.tensors() | arrays_of(self.network)

    @classmethod
    def from_tensors(cls, config: AutoencoderConfig, tensors: dict[str, np.ndarray]) -> Self:
        from embedding.encoders.autoencoder.network import AutoencoderNetwork

        network = rebuild(lambda: AutoencoderNetwork(config.sizes), tensors)
        return cls(config, Standardizer.from_tensors(tensors), network)

    @classmethod
    def fit(cls, train: Samples, validation: Samples, config: Any, *, seed: int) -> Fitted:
        from embedding.encoders.autoencoder.training import fit_network

        standardizer = Standardizer.fit(train.inputs)
        rows, validation_rows = (standardizer.transform(x.inputs) for x in (train, validation))
        network, loss_curve, figures = fit_network(rows, validation_rows, config, seed)
        return Fitted(cls(config, standardizer, network), loss_curve, figures)
