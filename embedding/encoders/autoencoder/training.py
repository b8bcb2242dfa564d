"""Train the autoencoder of the feature means."""

from typing import Any

import numpy as np
import polars as pl
import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.nn.functional import mse_loss

from embedding.encoders.autoencoder.encoder import AutoencoderConfig
from embedding.encoders.autoencoder.network import AutoencoderNetwork
from embedding.encoders.fitting import run

#: Rows that are validated at once, so that the activations of a layer stay in the cache.
VALIDATION_ROWS = 1_024


def fit_network(
    train: np.ndarray, validation: np.ndarray, config: AutoencoderConfig, seed: int
) -> tuple[AutoencoderNetwork, pl.DataFrame, dict[str, Any]]:
    """Train on standardised features, shape=(n, 52), and keep the best epoch."""
    rows, validation_rows = (torch.from_numpy(x).float() for x in (train, validation))
    module = Reconstruction(config, torch.Generator().manual_seed(seed))
    loss_curve, figures = run(
        module,
        [rows],
        torch.split(validation_rows, VALIDATION_ROWS),
        max_epochs=config.max_epochs,
        patience=config.patience,
    )
    # Features are standardised, so predicting their mean is predicting zero.
    figures = {"loss_of_the_mean": float(validation_rows.square().mean()), **figures}
    return module.network, loss_curve, figures


class Reconstruction(LightningModule):
    """Mean squared error between standardised features and their reconstruction.

    Lightning gets one step per epoch, which is split into batches here, as its work around a step
    would take half as long as a small batch.
    """

    automatic_optimization = False

    def __init__(self, config: AutoencoderConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        self.generator = generator
        self.network = AutoencoderNetwork(config.sizes)

    def training_step(self, rows: Tensor) -> None:
        adam: Any = self.optimizers()
        losses = []
        order = torch.randperm(len(rows), generator=self.generator).to(rows.device)
        for batch in torch.split(rows[order], self.config.batch_size):
            loss = mse_loss(self.network(batch), batch)
            adam.zero_grad()
            torch.autograd.backward(loss)
            adam.step()
            losses.append(loss.detach())
        self.log("train", torch.stack(losses).mean(), on_step=False, on_epoch=True, batch_size=1)

    def validation_step(self, rows: Tensor) -> None:
        self.log("validation", mse_loss(self.network(rows), rows), batch_size=len(rows))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.config.learning_rate, fused=True)
