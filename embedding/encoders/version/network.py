"""The network of the version encoder: a chroma sequence in all twelve keys, as one vector."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, normalize, relu

from embedding.data.chroma import CHANNELS
from embedding.encoders.version.config import VersionConfig

#: Sequences that are embedded at once: enough to fill a processor, few enough for its cache.
BATCH_SEQUENCES = 32


class _Layer(nn.Module):
    """A convolution over time, which sets frames past the end of a sequence to zero."""

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
    """Process a chroma sequence in all twelve keys; each feature keeps its strongest key.

    The first kernels are rotated instead of the input. Rotating the input only changes the order of
    the twelve outputs, and their maximum does not depend on the order. With the default widths the
    network has 102,320 parameters, and a feature depends on 75 frames (14 seconds).
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
        """Embed padded chroma, shape=(B, T, 2, 12), as unit vectors (B, network_dimension).

        What lies beyond the given number of frames of each sequence has no effect.
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
        # Nothing is below 0 after the rectifiers, so a masked frame is never the maximum.
        pooled = torch.cat([y.sum(2) / frames[:, None], y.amax(2)], dim=1)
        best = self.hidden(self.pooled(pooled)).reshape(b, 12, -1).amax(1)
        return normalize(self.out(best).float(), dim=1)

    @torch.no_grad()
    def embed(self, sequences: Sequence[np.ndarray]) -> Tensor:
        """Embed sequences of any length, a few at a time; shape=(n, network_dimension).

        The network must be in evaluation mode.
        """
        vectors = torch.empty(len(sequences), self.dimension)
        order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))  # for less padding
        for start in range(0, len(sequences), BATCH_SEQUENCES):
            rows = order[start : start + BATCH_SEQUENCES]
            x, frames = padded([sequences[i] for i in rows])
            vectors[rows] = self(x.to(self.kernel), frames.to(self.kernel.device)).cpu()
        return vectors


def _inside(length: int, frames: Tensor) -> Tensor:  # (B,) -> (B, 1, length)
    return (torch.arange(length, device=frames.device) < frames[:, None])[:, None].to(torch.float32)


def padded(sequences: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Return sequences as one tensor, shape=(n, T, 2, 12), padded with zeros, and their lengths."""
    frames = torch.tensor([len(sequence) for sequence in sequences])
    x = torch.zeros(len(sequences), int(frames.max()), len(CHANNELS), 12)
    for row, sequence in zip(x, sequences, strict=True):
        row[: len(sequence)] = torch.from_numpy(sequence.astype(np.float32))
    return x, frames
