"""The convolutional autoencoder of chroma sequences.

Its network is trained without labels: it encodes a few seconds of chroma and reconstructs them. A
vector says how strongly each component of the code appears in a performance, in any key.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from embedding.data.chroma import CHANNELS
from embedding.encoders.chroma import ChromaEncoder, trimmed
from embedding.encoders.encoder import Fitted, Samples, check_numbers
from embedding.encoders.projection import UNFITTED, Floats, Projection, fit_principal
from embedding.encoders.weights import arrays_of, rebuild

#: Frames per step of the code.
FRAMES_PER_STEP = 8

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


@dataclass(frozen=True)
class ConvAutoencoder(ChromaEncoder):
    """Tempered principal components of the pooled codes, scaled to unit length."""

    name = "conv-autoencoder"
    loss = "mean squared error of chroma"
    Config = ConvAutoencoderConfig

    network: ConvAutoencoderNetwork

    def embed(self, inputs: Sequence[np.ndarray]) -> np.ndarray:
        return self.projection(self._pooled_codes(inputs)).astype(np.float32)

    def tensors(self) -> dict[str, np.ndarray]:
        return super().tensors() | arrays_of(self.network, "network.")

    @classmethod
    def from_tensors(cls, config: ConvAutoencoderConfig, tensors: dict[str, np.ndarray]) -> Self:
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
        # In float64, as the projection enlarges small components, and with them rounding errors.
        exact = copy.deepcopy(self.network).to("cpu", torch.float64).eval()
        codes = [exact.pooled_codes(sequence) for sequence in trimmed(inputs)]
        return np.reshape(codes, (-1, MAGNITUDES * self.config.code))
