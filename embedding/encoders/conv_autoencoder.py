"""A convolutional autoencoder of chroma sequences: learn the music by drawing it again.

Nothing is labelled: the network squeezes a few seconds of chroma into a code and reconstructs them
from it. What is compared is how strongly each component of the code is found in a performance,
heard in all twelve keys; by how many semitones it was found higher is forgotten.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from embedding.data.chroma import CHANNELS
from embedding.data.store import FeatureStore
from embedding.encoders.descriptors import (
    CHROMA_RATE,
    check_numbers,
    sequences,
    unusable,
)
from embedding.encoders.projection import Floats, Projection
from embedding.encoders.weights import arrays_of, fill

#: Frames to a step of the code.
SQUEEZE = 8

#: Magnitudes of each number of the code: of its mean and deviation, at pitch frequencies 0 to 6.
MAGNITUDES = 2 * 7


@dataclass(frozen=True)
class ConvAutoencoderConfig:
    """What the network is made of, how it is trained, and how its codes are projected.

    Attributes
    ----------
    chroma_rate : float
        Frames a second that sequences are brought to.
    channels, code : int
        Width of the hidden layers, and numbers that are kept of each `SQUEEZE` frames.
    window : int
        Steps of the code that are reconstructed at once; the shortest performances have 7.
    dimension : int
        Components of a vector; at most 14 for each number of the code.
    tempering : float
        As in `projection.fit_principal`.
    batch : int
        Windows a step.
    steps, epochs : int
        Batches an epoch, and how many epochs; the best is kept.
    learning_rate : float
        Of Adam.
    """

    chroma_rate: float = CHROMA_RATE
    channels: int = 48
    code: int = 32
    window: int = 7
    dimension: int = 128
    tempering: float = 0.35
    batch: int = 64
    steps: int = 30
    epochs: int = 20
    learning_rate: float = 2e-3

    def __post_init__(self) -> None:
        check_numbers(
            self,
            {
                "chroma_rate": (4, 50),
                "window": (1, 7),
                "tempering": (0, 0.5),
                "learning_rate": (1e-9, math.inf),
                **dict.fromkeys(("channels", "code", "dimension"), (1, math.inf)),
                **dict.fromkeys(("batch", "steps", "epochs"), (1, math.inf)),
            },
        )


class ChromaDrawer(nn.Module):
    """Three convolutions over time that halve it, and three that bring it back."""

    def __init__(self, config: ConvAutoencoderConfig) -> None:
        super().__init__()
        pitches, wide, code = len(CHANNELS) * 12, config.channels, config.code
        self.magnitudes = MAGNITUDES * code
        self.encode = nn.Sequential(
            *(nn.Conv1d(pitches, wide, 4, 2, 1), nn.ReLU()),
            *(nn.Conv1d(wide, wide, 4, 2, 1), nn.ReLU()),
            nn.Conv1d(wide, code, 4, 2, 1),
        )
        self.decode = nn.Sequential(
            *(nn.ConvTranspose1d(code, wide, 4, 2, 1), nn.ReLU()),
            *(nn.ConvTranspose1d(wide, wide, 4, 2, 1), nn.ReLU()),
            nn.ConvTranspose1d(wide, pitches, 4, 2, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct chroma, shape=(B, 24, T), T a multiple of `SQUEEZE`."""
        drawn: Tensor = self.decode(self.encode(x))
        return drawn

    @torch.no_grad()
    def presence(self, sequence: np.ndarray) -> Floats:
        """How strongly each component of the code is found, in whatever key.

        The sequence is heard at its own length, so there is no padding that could matter.

        Parameters
        ----------
        sequence : np.ndarray, shape=(F, 2, 12), in [0, 1]
            At least `SQUEEZE` frames.

        Returns
        -------
        np.ndarray, shape=(14 * code,)
            Of the means and deviations over time in the twelve keys, the Fourier magnitudes over
            the keys: rotating the input only moves them round.
        """
        x = torch.from_numpy(np.asarray(sequence)).to(next(self.parameters()))
        keys = torch.stack([x.roll(key, 2) for key in range(12)])
        codes = self.encode(as_image(keys))  # (12, code, T)
        pooled = torch.cat([relu(codes).mean(2), codes.std(2, correction=0)], dim=1)
        return np.asarray(np.abs(np.fft.rfft(pooled.numpy(force=True), axis=0)).ravel(), np.float64)


def as_image(x: Tensor) -> Tensor:  # (B, T, 2, 12) -> (B, 24, T)
    """Put time last, and both channels' pitches one below the other."""
    return x.flatten(2).transpose(1, 2)


@dataclass(frozen=True)
class ConvAutoencoder:
    """The network's codes, pooled over time and keys, and their tempered principal components."""

    columns: ClassVar[tuple[str, ...]] = CHANNELS
    settings: ClassVar[type[ConvAutoencoderConfig]] = ConvAutoencoderConfig

    config: ConvAutoencoderConfig
    projection: Projection
    network: ChromaDrawer

    @property
    def dimension(self) -> int:
        """Components of a vector."""
        return self.projection.dimension

    @staticmethod
    def unusable(store: FeatureStore) -> dict[str, str]:
        """Performances with too little chroma, and why."""
        return unusable(store)

    def embed(self, store: FeatureStore) -> np.ndarray:
        """Return vectors of unit length, shape=(n, dimension), float32.

        Raises
        ------
        ValueError
            If a performance is unusable.
        """
        x = presences(self.network, sequences(store, self.config.chroma_rate))
        return self.projection(x).astype(np.float32)

    def tensors(self) -> dict[str, np.ndarray]:
        """The projection and the weights, by name."""
        return {**self.projection.tensors(), **arrays_of(self.network, "network.")}

    @classmethod
    def from_tensors(
        cls, config: ConvAutoencoderConfig, tensors: dict[str, np.ndarray]
    ) -> ConvAutoencoder:
        """The inverse of `tensors`.

        Raises
        ------
        KeyError
            If a tensor is missing.
        ValueError
            If one is of another shape than `config` says.
        """
        with torch.device("meta"):  # shapes without random weights, which are not wanted here
            network = ChromaDrawer(config)
        fill(network, tensors, "network.")
        projection = Projection.from_tensors(tensors, MAGNITUDES * config.code)
        return cls(config, projection, network.eval())


def presences(network: ChromaDrawer, heard: list[np.ndarray]) -> Floats:
    """`ChromaDrawer.presence` of each of some sequences, shape=(n, 14 * code)."""
    # In float64: the small components are enlarged, and with them the rounding of the large ones.
    exact = copy.deepcopy(network).to("cpu", torch.float64).eval()
    return np.reshape([exact.presence(each) for each in heard], (-1, exact.magnitudes))
