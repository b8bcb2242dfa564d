"""Train the network of the version encoder."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import polars as pl
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import WeightAveraging
from pytorch_metric_learning.losses import SupConLoss
from pytorch_metric_learning.samplers import MPerClassSampler
from pytorch_metric_learning.utils import common_functions
from torch import Tensor
from torch.utils.data import DataLoader

from embedding.encoders.chroma import trimmed
from embedding.encoders.encoder import Samples
from embedding.encoders.fitting import run
from embedding.encoders.version.augmentation import augment
from embedding.encoders.version.config import VersionConfig
from embedding.encoders.version.network import TwelveKeyNet, padded

#: Approximate maximum number of performances that are compared with each other in validation.
VALIDATION_PERFORMANCES = 2_048

#: Sequences, and the number of the work of each.
Labelled = tuple[list[np.ndarray], np.ndarray]


def fit_network(
    train: Samples, validation: Samples, config: VersionConfig, seed: int
) -> tuple[TwelveKeyNet, pl.DataFrame, dict[str, Any]]:
    """Train with the supervised contrastive loss, and keep the best epoch.

    What is validated and kept is an exponential moving average of the weights. Training uses
    augmented stretches, validation whole sequences as they are.
    """
    sequences, works = _labelled(train)
    size = config.views * min(config.works, len(set(works.tolist())))
    steps = max(config.min_steps, math.ceil(len(works) / size))
    module = Contrast(config, steps)
    generator = torch.Generator().manual_seed(seed)
    pairs: Any = list(zip(sequences, works.tolist(), strict=True))
    loader: DataLoader[Any] = DataLoader(
        pairs,
        size,
        sampler=MPerClassSampler(works, config.views, size, size * steps),
        collate_fn=partial(_augmented, config=config, generator=generator),
    )
    batches: Any = whole_cliques(*_labelled(validation))
    with _sampler_seed(seed):
        loss_curve, figures = run(
            module,
            loader,
            DataLoader(batches, batch_size=None, collate_fn=_unchanged),
            max_epochs=config.epochs,
            averaging=WeightAveraging(avg_fn=partial(_moving_average, decay=config.ema_decay)),
            gradient_clip_val=5.0,
        )
    return module.network, loss_curve, figures


def _labelled(samples: Samples) -> Labelled:
    return trimmed(samples.inputs), np.unique(samples.works, return_inverse=True)[1]


@contextmanager
def _sampler_seed(seed: int) -> Iterator[None]:
    """Seed the generator that the sampler of works draws from; it has no parameter for this."""
    before = common_functions.NUMPY_RANDOM
    common_functions.NUMPY_RANDOM = np.random.RandomState(seed)
    try:
        yield
    finally:
        common_functions.NUMPY_RANDOM = before


def _augmented(
    batch: list[tuple[np.ndarray, int]], *, config: VersionConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    sequences, works = zip(*batch, strict=True)
    x, frames = padded(sequences)
    return augment(x, frames, config.crop, config.augmentation, generator), torch.tensor(works)


def _moving_average(average: Tensor, weights: Tensor, updates: Tensor, *, decay: float) -> Tensor:
    """Move the average towards the weights; the first weights are forgotten sooner than `decay`."""
    count = float(updates)
    return average + (weights - average) * (1 - min(decay, (1 + count) / (10 + count)))


def _unchanged(batch: Any) -> Any:
    """Keep sequences of different lengths as they are."""
    return batch


def whole_cliques(
    sequences: list[np.ndarray], works: np.ndarray
) -> list[tuple[list[np.ndarray], Tensor]]:
    """Return batches of about `VALIDATION_PERFORMANCES` performances that split no clique."""
    count = math.ceil(len(works) / VALIDATION_PERFORMANCES)
    parts = [np.flatnonzero(works % count == part).tolist() for part in range(count)]
    return [([sequences[i] for i in rows], torch.from_numpy(works[rows])) for rows in parts]


class Contrast(LightningModule):
    """Supervised contrastive loss: versions of a work are closer to each other than to other works.

    Khosla et al., "Supervised contrastive learning", NeurIPS 2020.
    """

    def __init__(self, config: VersionConfig, steps: int) -> None:
        super().__init__()
        self.config = config
        self.steps = steps
        self.network = TwelveKeyNet(config)
        self.loss = SupConLoss(temperature=config.temperature)

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        x, works = batch
        frames = torch.full((len(x),), x.shape[1], device=self.device)
        loss: Tensor = self.loss(self.network(x, frames), works)
        self.log("train", loss, on_step=False, on_epoch=True, batch_size=len(x))
        return loss

    def validation_step(self, batch: tuple[list[np.ndarray], Tensor]) -> None:
        sequences, works = batch
        loss = self.loss(self.network.embed(sequences), works.cpu())
        self.log("validation", loss, batch_size=len(works))

    def configure_optimizers(self) -> Any:
        config = self.config
        optimizer = torch.optim.AdamW(
            self.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            config.learning_rate,
            total_steps=self.steps * config.epochs,
            pct_start=0.15,
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
