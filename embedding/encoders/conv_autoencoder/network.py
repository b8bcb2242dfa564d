"""The network of the convolutional autoencoder."""

import copy

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from embedding.data.chroma import CHANNELS
from embedding.encoders.conv_autoencoder.encoder import ConvAutoencoderConfig
from embedding.encoders.projection import Floats

#: Frames per step of the code.
FRAMES_PER_STEP = 8


class ConvAutoencoderNetwork(nn.Module):
    """Three convolutions that halve time, and three transposed ones that restore it.

    With the default widths it has 40,184 parameters, and a step of the code depends on 22 frames
    (4 seconds).
    """

    def __init__(self, config: ConvAutoencoderConfig) -> None:
        super().__init__()
        pitches, wide, code = len(CHANNELS) * 12, config.channels, config.code
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
        """Reconstruct chroma, shape=(B, 24, T), with T a multiple of `FRAMES_PER_STEP`."""
        reconstruction: Tensor = self.decode(self.encode(x))
        return reconstruction

    def exact(self) -> "ConvAutoencoderNetwork":
        """Return a copy in float64, as a projection of codes enlarges their rounding errors."""
        return copy.deepcopy(self).to("cpu", torch.float64).eval()

    @torch.no_grad()
    def pooled_codes(self, sequence: np.ndarray) -> Floats:
        """Pool the codes of a sequence, shape=(F, 2, 12), over time and keys; shape=(14 * code,).

        These are the mean and standard deviation over time of each component in all twelve keys,
        and of both the Fourier magnitudes over the keys. Rotating the input only rotates the keys.
        The sequence has at least `FRAMES_PER_STEP` frames.
        """
        x = torch.from_numpy(np.asarray(sequence)).to(next(self.parameters()))
        keys = torch.stack([x.roll(key, 2) for key in range(12)])
        codes = self.encode(as_image(keys))  # (12, code, T)
        pooled = torch.cat([relu(codes).mean(2), codes.std(2, correction=0)], dim=1)
        return np.asarray(np.abs(np.fft.rfft(pooled.numpy(force=True), axis=0)).ravel(), np.float64)


def as_image(x: Tensor) -> Tensor:  # (B, T, 2, 12) -> (B, 24, T)
    """Put time last, and the pitches of both channels on one axis."""
    return x.flatten(2).transpose(1, 2)
