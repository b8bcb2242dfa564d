"""Train a network with Lightning, and keep the weights of its best epoch.

This module and the `training` modules of the encoders import Lightning. Nothing that uses a trained
encoder imports them.
"""

from __future__ import annotations

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
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import (
    EarlyStopping,
    ModelCheckpoint,
    RichProgressBar,
    WeightAveraging,
)
from torch.utils.data import DataLoader

from embedding.encoders.encoder import LOSS_CURVE_SCHEMA


class Diverged(ValueError):  # noqa: N818 - named for what happened
    """The loss became infinite or not a number."""


def run(
    module: LightningModule,
    train: DataLoader[Any],
    validation: DataLoader[Any],
    *,
    max_epochs: int,
    patience: int | None = None,
    progress: bool,
    averaging: WeightAveraging | None = None,
    **options: Any,
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Train a module, and leave it on the CPU with the weights of its best epoch.

    Parameters
    ----------
    module : LightningModule
        Logs the losses "train" and "validation"; changed in place.
    train, validation : DataLoader
        The data of both sides.
    max_epochs, patience : int
        Maximum number of epochs, and epochs without a lower validation loss before stopping;
        without patience all epochs are run.
    progress : bool
        Whether to show a bar on standard error, if that is a terminal.
    averaging : WeightAveraging, optional
        How weights are averaged; the averages are validated and kept.
    **options
        Further arguments of Lightning's `Trainer`.

    Returns
    -------
    tuple of (pl.DataFrame, dict)
        The loss curve, and figures about the training.

    Raises
    ------
    Diverged
        If a loss becomes infinite or not a number.
    """
    curve = LossCurve()
    callbacks = [curve, EarlyStopping("validation", patience=patience or max_epochs)]
    if averaging is not None:
        callbacks.append(averaging)
    show_bar = progress and sys.stderr.isatty()
    if show_bar:
        callbacks.append(RichProgressBar(console_kwargs={"stderr": True}))
    with TemporaryDirectory() as scratch, _quiet():
        # A checkpoint of weights alone would not have their averages.
        best = ModelCheckpoint(scratch, monitor="validation")
        trainer = Trainer(
            devices=1,
            max_epochs=max_epochs,
            deterministic=True,
            callbacks=[*callbacks, best],
            logger=False,
            enable_progress_bar=show_bar,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            **options,
        )
        start = time.perf_counter()
        trainer.fit(module, train, validation)
        curve.check()
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


class LossCurve(Callback):
    """Records both losses of each epoch."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, float, float]] = []

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        losses = (float(trainer.callback_metrics[side]) for side in ("train", "validation"))
        self.rows.append((trainer.current_epoch + 1, *losses))  # type: ignore[arg-type]

    def check(self) -> None:
        """Raise Diverged if a loss is not a finite number."""
        for epoch, train, validation in self.rows:
            if not np.isfinite([train, validation]).all():
                raise Diverged(
                    f"The loss became {train} in training and {validation} in validation in epoch "
                    f"{epoch}: try a smaller learning rate."
                )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide the advice that Lightning logs for its own users; its errors are raised."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            yield
    finally:
        logger.setLevel(level)
