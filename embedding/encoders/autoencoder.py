"""The prototype's autoencoder of the 52 feature means; its code is the embedding."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from embedding.data.features import FEATURE_NAMES
from embedding.data.store import FeatureStore
from embedding.encoders.scaling import Standardizer
from embedding.encoders.weights import arrays_of, fill

#: Rows embedded at once, so that memory stays flat however large the catalogue is.
ROWS = 16_384


@dataclass(frozen=True)
class AutoencoderConfig:
    """Layer sizes of the encoding half, and how it is trained.

    Attributes
    ----------
    sizes : tuple of int
        From the 52 features to the dimension of the code; the decoding half mirrors them.
    batch_size : int
        Performances a step.
    learning_rate : float
        Of Adam.
    max_epochs : int
        Passes over the training performances, at most.
    patience : int
        Epochs without a lower validation loss after which training stops.
    """

    sizes: tuple[int, ...] = (52, 300, 200, 100, 50, 20)
    batch_size: int = 128
    learning_rate: float = 1e-3
    max_epochs: int = 300
    patience: int = 30

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", tuple(self.sizes))  # JSON has lists only
        if len(self.sizes) < 2 or self.sizes[0] != len(FEATURE_NAMES):
            raise ValueError(
                f"sizes are {list(self.sizes)}, expected at least two, from the "
                f"{len(FEATURE_NAMES)} features to the code"
            )
        counts = {
            **{f"sizes[{i}]": size for i, size in enumerate(self.sizes)},
            "batch_size": self.batch_size,
            "max_epochs": self.max_epochs,
            "patience": self.patience,
        }
        for name, value in counts.items():
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is {value}, expected a whole number of at least 1")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ValueError(f"learning_rate is {self.learning_rate}, expected a number above 0")


class Autoencoder(nn.Module):
    """Two mirrored halves; the code between them and the output are linear.

    Linear, because standardised features and distances between codes know no sign or bound that
    an activation would impose. A hidden layer is normalised and then bent by an ELU: held-out works
    are then reconstructed with about a third of the error that plain ReLU layers leave.

    Parameters
    ----------
    config : AutoencoderConfig
        The defaults make 207,172 parameters.
    standardizer : Standardizer
        What brings features to the scale the network was trained at.
    """

    columns: ClassVar[tuple[str, ...]] = FEATURE_NAMES
    settings: ClassVar[type[AutoencoderConfig]] = AutoencoderConfig

    def __init__(
        self,
        config: AutoencoderConfig | None = None,
        standardizer: Standardizer | None = None,
    ) -> None:
        super().__init__()
        self.config = config or AutoencoderConfig()
        self.standardizer = standardizer or Standardizer.neutral()
        self.encoder = _layers(self.config.sizes)
        self.decoder = _layers(self.config.sizes[::-1])

    @property
    def dimension(self) -> int:
        """Components of a code."""
        return self.config.sizes[-1]

    def forward(self, features: Tensor) -> Tensor:  # (B, 52) -> (B, 52)
        """Reconstruct standardised features, shape=(B, 52)."""
        reconstruction: Tensor = self.decoder(self.encoder(features))
        return reconstruction

    @staticmethod
    def unusable(store: FeatureStore) -> dict[str, str]:
        """No performance: the features of each are in its row."""
        return {}

    def embed(self, store: FeatureStore) -> np.ndarray:
        """Return the codes, shape=(n, dimension), float32; raises ValueError as `Standardizer`."""
        # In float64: float32 sums come out a little different from one batch size to another.
        encoder = copy.deepcopy(self.encoder).to("cpu", torch.float64).eval()
        codes = np.empty((len(store), self.dimension), dtype=np.float32)
        with torch.inference_mode():
            for start in range(0, len(store), ROWS):
                rows = store.table.slice(start, ROWS)
                features = torch.from_numpy(self.standardizer.transform(rows))
                codes[start : start + ROWS] = encoder(features).numpy()
        return codes

    def tensors(self) -> dict[str, np.ndarray]:
        """The weights and the training statistics, by name."""
        return {**arrays_of(self), **self.standardizer.tensors()}

    @classmethod
    def from_tensors(cls, config: AutoencoderConfig, tensors: dict[str, np.ndarray]) -> Autoencoder:
        """The inverse of `tensors`.

        Raises
        ------
        KeyError
            If a tensor is missing.
        ValueError
            If one is of another shape than `config` says.
        """
        with torch.device("meta"):  # shapes without random weights, which are not wanted here
            made = cls(config)
        made.standardizer = Standardizer.from_tensors(tensors)
        fill(made, tensors)
        return made


def _layers(sizes: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(sizes[:-1]):
        layers += [nn.Linear(inputs, outputs), nn.LayerNorm(outputs), nn.ELU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]))
