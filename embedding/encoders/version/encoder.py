"""The version encoder: one vector a performance, near those of other versions of its work.

Two halves, concatenated: a projection of the descriptors and of the answers to motifs, fitted with
clique labels, and a network that hears the sequence in all twelve keys at once. None of them can
tell a transposition, nor what silence is around the music.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, normalize, relu

from embedding.data.chroma import CHANNELS
from embedding.data.store import FeatureStore
from embedding.encoders.descriptors import (
    CHROMA_RATE,
    check_numbers,
    check_tempos,
    described,
    length,
    sequences,
    unusable,
)
from embedding.encoders.projection import Projection
from embedding.encoders.version.motifs import Motifs, statistics
from embedding.encoders.weights import arrays_of, fill

#: Sequences embedded at once: enough to fill a processor, few enough to fit in a cache.
ROWS = 32


@dataclass(frozen=True)
class VersionConfig:
    """What a version encoder is made of, and how it is trained.

    Attributes
    ----------
    chroma_rate : float
        Frames a second that sequences are brought to.
    projection_dimension, network_dimension : int
        Components of the two halves; the first has as many as the training performances, at most.
    network_weight : float
        Length of the network's half, where the projection's is 1.
    shrinkage : float
        As in `projection.fit_discriminant`.
    tempos : tuple of float
        How many times as fast the altered copies are that performances join in its fitting.
    channels, wide_channels, hidden : int
        Widths of the network, from its input to its output.
    dropout : float
        Share of the channels left out while training.
    crop : int
        Frames heard of a performance in training.
    works, views : int
        Works in a batch, and performances of each.
    steps, epochs : int
        Batches an epoch, and how many epochs; none fewer, as the learning rate follows one cycle
        over all of them.
    learning_rate, weight_decay : float
        Of AdamW; the learning rate at its highest.
    temperature : float
        Of the supervised contrastive loss.
    averaging : float
        Weight of the past in the running mean of the weights that is kept.
    augmentation : float in [0, 1]
        As `strength` in `augmentation.vary`.
    bfloat16 : bool
        Train in this precision, which is faster on processors that have it.
    """

    chroma_rate: float = CHROMA_RATE
    projection_dimension: int = 208
    network_dimension: int = 48
    network_weight: float = 0.5
    shrinkage: float = 0.1
    tempos: tuple[float, ...] = (0.82, 1.22)
    channels: int = 32
    wide_channels: int = 64
    hidden: int = 256
    dropout: float = 0.1
    crop: int = 224
    works: int = 32
    views: int = 2
    steps: int = 30
    epochs: int = 10
    learning_rate: float = 3e-3
    weight_decay: float = 0.02
    temperature: float = 0.1
    averaging: float = 0.99
    augmentation: float = 0.4
    bfloat16: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "tempos", check_tempos(self.tempos))
        many, tiny = math.inf, 1e-9
        check_numbers(
            self,
            {
                "chroma_rate": (4, 50),
                "network_weight": (0, many),
                "shrinkage": (tiny, 1),
                "dropout": (0, 0.9),
                "crop": (16, many),
                "works": (2, many),
                "views": (2, many),
                "learning_rate": (tiny, many),
                "weight_decay": (0, many),
                "temperature": (tiny, many),
                "averaging": (0, 1 - tiny),
                "augmentation": (0, 1),
                **dict.fromkeys(("projection_dimension", "network_dimension"), (1, many)),
                **dict.fromkeys(("channels", "wide_channels", "hidden"), (1, many)),
                **dict.fromkeys(("steps", "epochs"), (1, many)),
            },
        )


#: For a GPU and thousands of cliques.
LARGE = VersionConfig(
    projection_dimension=96,
    network_dimension=160,
    network_weight=1.0,
    channels=96,
    wide_channels=192,
    hidden=512,
    works=128,
    views=3,
    steps=400,
    epochs=100,
    augmentation=1.0,
    averaging=0.999,
)


class _Layer(nn.Module):
    """A convolution over time, after which frames past the end are zero again."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        width: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv1d(
            inputs, outputs, width, stride, dilation * (width // 2), dilation, bias=False
        )
        self.norm = nn.BatchNorm1d(outputs)
        self.drop = nn.Dropout1d(dropout)
        self.residual = inputs == outputs and stride == 1

    def forward(self, x: Tensor, inside: Tensor) -> Tensor:  # (B, inputs, T) -> (B, outputs, T')
        y = self.drop(relu(self.norm(self.conv(x)).to(x.dtype)))
        z: Tensor = (x + y if self.residual else y) * inside
        return z


class TwelveKeyNet(nn.Module):
    """Hear a chroma sequence in all twelve keys; each feature keeps its best key.

    The first kernels are rotated rather than the input. Rotating the input then only changes the
    order of the twelve outputs, which the maximum over them forgets.
    """

    KERNEL = 7

    def __init__(self, config: VersionConfig) -> None:
        super().__init__()
        c, wide = config.channels, config.wide_channels
        self.dimension = config.network_dimension
        scale = math.sqrt(len(CHANNELS) * 12 * self.KERNEL)
        self.kernel = nn.Parameter(torch.randn(c, len(CHANNELS), 12, self.KERNEL) / scale)
        self.norm = nn.BatchNorm1d(c)
        self.near = _Layer(c, c, 3, dropout=config.dropout)
        self.down = _Layer(c, wide, 5, stride=2)
        self.far = nn.ModuleList(
            _Layer(wide, wide, 3, dilation=dilation, dropout=config.dropout)
            for dilation in (1, 2, 4)
        )
        self.pooled = nn.BatchNorm1d(2 * wide)
        self.hidden = nn.Linear(2 * wide, config.hidden)
        self.out = nn.Sequential(
            nn.BatchNorm1d(config.hidden),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden, config.network_dimension),
        )

    def forward(self, x: Tensor, frames: Tensor) -> Tensor:
        """Embed a batch.

        Parameters
        ----------
        x : Tensor, shape=(B, T, 2, 12), in [0, 1]
            Chroma, padded.
        frames : Tensor, shape=(B,)
            How many frames of each are its own; what lies beyond changes nothing.

        Returns
        -------
        Tensor, shape=(B, network_dimension), float32, of unit length
        """
        b = len(x)
        x = x.flatten(2).transpose(1, 2)  # (B, 24, T)
        x = x * _inside(x.shape[2], frames)
        keys = torch.stack([self.kernel.roll(key, 2) for key in range(12)])
        y = conv1d(x, keys.flatten(0, 1).flatten(1, 2), stride=2, padding=self.KERNEL // 2)
        y = y.reshape(12 * b, -1, y.shape[2])  # (12 B, channels, T / 2)
        frames = ((frames + 1) // 2).repeat_interleave(12)
        inside = _inside(y.shape[2], frames)
        y = self.near(relu(self.norm(y)).to(y.dtype) * inside, inside)
        frames = (frames + 1) // 2
        inside = _inside((y.shape[2] + 1) // 2, frames)
        y = self.down(y, inside)
        for layer in self.far:
            y = layer(y, inside)
        y = y.float()
        # After the rectifiers nothing is below 0, so that no masked frame is the maximum.
        pooled = torch.cat([y.sum(2) / frames[:, None], y.amax(2)], dim=1)
        best = self.hidden(self.pooled(pooled)).reshape(b, 12, -1).amax(1)
        return normalize(self.out(best).float(), dim=1)

    @torch.no_grad()
    def embed(self, heard: Sequence[np.ndarray]) -> Tensor:
        """Embed sequences of any lengths, a few at a time; shape=(n, network_dimension).

        The network has to be in its evaluation mode.
        """
        vectors = torch.empty(len(heard), self.dimension)
        order = sorted(range(len(heard)), key=lambda i: len(heard[i]))  # little padding then
        for start in range(0, len(heard), ROWS):
            rows = order[start : start + ROWS]
            x, frames = padded([heard[i] for i in rows])
            vectors[rows] = self(x.to(self.kernel), frames.to(self.kernel.device)).cpu()
        return vectors


def _inside(length: int, frames: Tensor) -> Tensor:  # (B,) -> (B, 1, length)
    return (torch.arange(length, device=frames.device) < frames[:, None])[:, None].to(torch.float32)


def padded(heard: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Return sequences as one tensor, shape=(n, T, 2, 12), padded with zeros, and their frames."""
    frames = torch.tensor([len(each) for each in heard])
    x = torch.zeros(len(heard), int(frames.max()), len(CHANNELS), 12)
    for row, each in zip(x, heard, strict=True):
        row[: len(each)] = torch.from_numpy(each.astype(np.float32))
    return x, frames


@dataclass(frozen=True)
class VersionEncoder:
    """Projection and network, each of a length of its own, together of length 1."""

    columns: ClassVar[tuple[str, ...]] = CHANNELS
    settings: ClassVar[type[VersionConfig]] = VersionConfig

    config: VersionConfig
    motifs: Motifs
    projection: Projection
    network: TwelveKeyNet

    @property
    def dimension(self) -> int:
        """Components of a vector."""
        return self.projection.dimension + self.config.network_dimension

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
        rate = self.config.chroma_rate
        heard = sequences(store, rate)
        blocks = described(heard, partial(statistics, rate=rate, motifs=self.motifs))
        rows = [np.concatenate(each) for each in blocks]
        x = np.reshape(rows, (-1, length() + self.motifs.count))
        network = self.config.network_weight * self.network.embed(heard).numpy()
        vectors = np.concatenate([self.projection(x), network], axis=1)
        return (vectors / math.hypot(1, self.config.network_weight)).astype(np.float32)

    def tensors(self) -> dict[str, np.ndarray]:
        """The motifs, the projection and the weights, by name."""
        return {
            "motifs": self.motifs.patterns,
            **self.projection.tensors(),
            **arrays_of(self.network, "network."),
        }

    @classmethod
    def from_tensors(cls, config: VersionConfig, tensors: dict[str, np.ndarray]) -> VersionEncoder:
        """The inverse of `tensors`.

        Raises
        ------
        KeyError
            If a tensor is missing.
        ValueError
            If one is of another shape than `config` says.
        """
        with torch.device("meta"):  # shapes without random weights, which are not wanted here
            network = TwelveKeyNet(config)
        fill(network, tensors, "network.")
        motifs = Motifs(tensors["motifs"])
        projection = Projection.from_tensors(tensors, length() + motifs.count)
        return cls(config, motifs, projection, network.eval())
