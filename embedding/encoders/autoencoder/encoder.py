"""The autoencoder of the 52 feature means; its code is the embedding.

Layer sizes are those of the prototype, https://github.com/alexliap/audio_embeddings.
"""

import copy
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from embedding.data.features import FEATURE_NAMES
from embedding.encoders.encoder import Fitted, MeansEncoder, Samples, check_numbers
from embedding.encoders.scaling import Standardizer
from embedding.encoders.weights import arrays_of, rebuild


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


class AutoencoderNetwork(nn.Module):
    """Two mirrored halves; the code between them and the output are linear.

    An activation would impose a sign or a bound that standardised features do not have. Hidden
    layers are normalised before an ELU: the reconstruction error on held-out works is then about a
    third of that of plain ReLU layers. The default sizes have 207,172 parameters.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self.encoder = _layers(sizes)
        self.decoder = _layers(sizes[::-1])

    def forward(self, features: Tensor) -> Tensor:
        """Reconstruct standardised features, shape=(B, 52)."""
        reconstruction: Tensor = self.decoder(self.encoder(features))
        return reconstruction


@dataclass(frozen=True)
class Autoencoder(MeansEncoder):
    """The encoding half of the network, after standardisation."""

    name = "autoencoder"
    loss = "mean squared error of standardised features"
    Config = AutoencoderConfig

    config: AutoencoderConfig
    standardizer: Standardizer
    network: AutoencoderNetwork

    @property
    def dimension(self) -> int:
        return self.config.sizes[-1]

    def embed(self, inputs: np.ndarray) -> np.ndarray:
        # In float64, as float32 sums depend on the size of the batch.
        encoder = copy.deepcopy(self.network.encoder).to("cpu", torch.float64).eval()
        with torch.inference_mode(), np.errstate(over="ignore"):
            codes: Tensor = encoder(torch.from_numpy(self.standardizer.transform(inputs)))
            return codes.numpy().astype(np.float32)

    def tensors(self) -> dict[str, np.ndarray]:
        return self.standardizer.tensors() | arrays_of(self.network)

    @classmethod
    def from_tensors(cls, config: AutoencoderConfig, tensors: dict[str, np.ndarray]) -> Self:
        network = rebuild(lambda: AutoencoderNetwork(config.sizes), tensors)
        return cls(config, Standardizer.from_tensors(tensors), network)

    @classmethod
    def fit(cls, train: Samples, validation: Samples, config: Any, *, seed: int) -> Fitted:
        from embedding.encoders.autoencoder.training import fit_network

        standardizer = Standardizer.fit(train.inputs)
        rows, validation_rows = (standardizer.transform(x.inputs) for x in (train, validation))
        network, loss_curve, figures = fit_network(rows, validation_rows, config, seed)
        return Fitted(cls(config, standardizer, network), loss_curve, figures)


def _layers(sizes: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(sizes[:-1]):
        layers += [nn.Linear(inputs, outputs), nn.LayerNorm(outputs), nn.ELU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]))
