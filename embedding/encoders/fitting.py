"""Train a network with Lightning, and keep the weights of its best epoch.

This module and the `training` modules of the encoders import Lightning. Nothing that uses a trained
encoder imports them.
"""

import contextlib
import logging
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, callbacks
from torch.utils.data import DataLoader

from embedding.encoders.encoder import LOSS_CURVE_SCHEMA


class Diverged(ValueError):  # noqa: N818 - named for what happened
    """The loss became infinite or not a number."""


def run(
    module: LightningModule,
    train: Any,
    validation: Any,
    *,
    max_epochs: int,
    patience: int | None = None,
    averaging: callbacks.WeightAveraging | None = None,
    **options: Any,
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Train a module, and leave it on the CPU with the weights of its best epoch.

    The module logs the losses "train" and "validation". Both sides are loaders, or sequences of
    batches. Training stops after `patience` epochs without a lower validation loss, if given. With
    `averaging`, averages of the weights are validated and kept. Further options are those of
    Lightning's `Trainer`. If standard error is a terminal, it shows a bar.

    Returns the loss curve, and figures about the training. Raises Diverged if a loss becomes
    infinite or not a number.
    """
    curve = LossCurve()
    stopping = callbacks.EarlyStopping("validation", patience=patience or max_epochs)
    used: list[Callback] = [curve, stopping]
    if averaging is not None:
        used.append(averaging)
    if sys.stderr.isatty():
        used.append(callbacks.RichProgressBar(console_kwargs={"stderr": True}))
    with TemporaryDirectory() as scratch, _quiet():
        # A checkpoint of weights alone would not have their averages.
        best = callbacks.ModelCheckpoint(scratch, monitor="validation")
        trainer = Trainer(
            devices=1,
            max_epochs=max_epochs,
            deterministic=True,
            callbacks=[*used, best],
            logger=False,
            enable_progress_bar=sys.stderr.isatty(),
            enable_model_summary=False,
            num_sanity_val_steps=0,
            **options,
        )
        start = time.perf_counter()
        trainer.fit(module, _loader(train), _loader(validation))
        weights = torch.load(Path(best.best_model_path), weights_only=True, map_location="cpu")
    module.cpu().eval().load_state_dict(weights["state_dict"])
    losses = pl.DataFrame(curve.rows, schema=LOSS_CURVE_SCHEMA, orient="row")
    best_row = losses["validation"].arg_min() or 0
    return losses, {
        "best_epoch": losses["epoch"][best_row],
        "validation_loss": losses["validation"][best_row],
        "epochs": len(losses),
        "seconds": round(time.perf_counter() - start, 3),
        "device": str(trainer.strategy.root_device),
    }


def _loader(batches: Any) -> DataLoader[Any]:
    return batches if isinstance(batches, DataLoader) else DataLoader(batches, batch_size=None)


class LossCurve(Callback):
    """Records both losses of each epoch, and raises Diverged if one is not a finite number."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, float, float]] = []

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        train, validation = (
            float(trainer.callback_metrics[side]) for side in ("train", "validation")
        )
        epoch = trainer.current_epoch + 1
        if not np.isfinite([train, validation]).all():
            raise Diverged(
                f"The loss became {train} in training and {validation} in validation in epoch "
                f"{epoch}: try a smaller learning rate."
            )
        self.rows.append((epoch, train, validation))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide the advice that Lightning logs for its own users, and reset the flag that it sets."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            yield
    finally:
        logger.setLevel(level)
        torch.use_deterministic_algorithms(deterministic)
