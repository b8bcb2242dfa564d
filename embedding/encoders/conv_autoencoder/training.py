"""Train the convolutional autoencoder of chroma sequences."""

from typing import Any

import numpy as np
import polars as pl
import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.nn.functional import mse_loss
from torch.utils.data import Dataset

from embedding.encoders.conv_autoencoder import network as conv
from embedding.encoders.conv_autoencoder.encoder import ConvAutoencoderConfig
from embedding.encoders.fitting import run

#: Windows that are validated at once, so that memory stays flat.
VALIDATION_WINDOWS = 2_048


def fit_network(
    train: list[np.ndarray],
    validation: list[np.ndarray],
    config: ConvAutoencoderConfig,
    seed: int,
) -> tuple[conv.ConvAutoencoderNetwork, pl.DataFrame, dict[str, Any]]:
    """Train on sequences, each shape=(F, 2, 12), and keep the best epoch."""
    frames = config.window * conv.FRAMES_PER_STEP
    sequences = [torch.from_numpy(sequence.astype(np.float32)) for sequence in validation]
    windows = torch.cat([x.unfold(0, frames, frames).flatten(1, 2) for x in sequences])
    module = Reconstruction(config)
    loss_curve, figures = run(
        module,
        RandomWindows(train, config, seed),
        torch.split(windows, VALIDATION_WINDOWS),
        max_epochs=config.epochs,
    )
    # The error of a reconstruction of each window by its mean over time.
    mean = windows.mean(dim=2, keepdim=True).expand_as(windows)
    figures = {"loss_of_the_mean": float(mse_loss(mean, windows)), **figures}
    return module.network, loss_curve, figures


class RandomWindows(Dataset[Tensor]):
    """Batches of windows of random sequences, at random positions and in random keys."""

    def __init__(
        self, sequences: list[np.ndarray], config: ConvAutoencoderConfig, seed: int
    ) -> None:
        self.sequences = [torch.from_numpy(x.astype(np.float32)) for x in sequences]
        self.config = config
        self.frames = config.window * conv.FRAMES_PER_STEP
        self.generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return self.config.steps

    def __getitem__(self, step: int) -> Tensor:  # (batch, 24, frames)
        return conv.as_image(torch.stack([self._window() for _ in range(self.config.batch)]))

    def _window(self) -> Tensor:
        sequence = self.sequences[self._draw(len(self.sequences))]
        start = self._draw(len(sequence) - self.frames + 1)
        return sequence[start : start + self.frames].roll(self._draw(12), 2)

    def _draw(self, below: int) -> int:
        return int(torch.randint(below, (), generator=self.generator))


class Reconstruction(LightningModule):
    """Mean squared error between windows of chroma and their reconstruction."""

    def __init__(self, config: ConvAutoencoderConfig) -> None:
        super().__init__()
        self.learning_rate = config.learning_rate
        self.network = conv.ConvAutoencoderNetwork(config)

    def training_step(self, x: Tensor) -> Tensor:
        loss = mse_loss(self.network(x), x)
        self.log("train", loss, on_step=False, on_epoch=True, batch_size=len(x))
        return loss

    def validation_step(self, x: Tensor) -> None:
        self.log("validation", mse_loss(self.network(x), x), batch_size=len(x))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.learning_rate)
