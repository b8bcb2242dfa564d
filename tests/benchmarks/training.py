"""Training the autoencoder, beside the prototype's way; what the version encoder takes.

The prototype's way is Lightning as it comes: a `DataLoader` that fetches, checks and stacks row by
row, a progress bar, a checkpoint whenever the validation loss falls, its logger. Both train the
same network on the same rows with the same batches of 512 and validate after every epoch.
"""

import tempfile
import warnings
from collections.abc import Generator
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.harness import Row, in_turns, ratio, seconds
from embedding import store
from embedding.features import FEATURE_NAMES
from embedding.store import FeatureStore

ROWS, BATCH, EPOCHS = 25_000, 512, 20


def measure() -> list[Row]:
    """Compare epochs a second."""
    with tempfile.TemporaryDirectory(prefix="covers-bench-") as directory:
        path = Path(directory) / "features"
        _write(path)
        found = in_turns({"ours": partial(ours, path), "prototype": partial(prototype, path)})
    mine, theirs = found["ours"], found["prototype"]
    faster, words = ratio(theirs, mine)
    loss, other = mine.figure("loss"), theirs.figure("loss")
    return [
        Row(
            f"autoencoder, {ROWS} rows, batches of {BATCH}",
            f"{seconds(mine.median / EPOCHS)} an epoch",
            "the prototype's way",
            f"{seconds(theirs.median / EPOCHS)} an epoch",
            words,
            ">= 5x",
            faster >= 5,
            mine.peak_mb,
            f"validation loss after {EPOCHS} epochs: {loss:.4f}, theirs {other:.4f}",
        )
    ]


def _write(path: Path) -> None:
    """Features that five hidden causes explain, and some noise."""
    rng = np.random.default_rng(0)
    seen = rng.normal(size=(ROWS, 5)) @ rng.normal(size=(5, 52)) + 0.3 * rng.normal(size=(ROWS, 52))
    table = pl.DataFrame(
        {
            "track_id": [f"P_{i:06d}" for i in range(ROWS)],
            "work_id": [f"W_{i // 2}" for i in range(ROWS)],
            "fingerprint": [f"{i}" for i in range(ROWS)],
            **dict(zip(FEATURE_NAMES, (1 + 0.1 * seen).T, strict=True)),
        }
    )
    store.write(path, name="rows", table=table, sequences=[], frame_rate=None, chroma_rate=None)


def ours(path: Path) -> Generator[None, None, dict[str, float]]:
    """Train as `covers train` does."""
    from embedding.training import train

    opened = FeatureStore.open(path)
    train(opened.select(np.arange(400)), "autoencoder", config={"max_epochs": 1}, progress=False)
    yield
    config = {"max_epochs": EPOCHS, "patience": EPOCHS, "batch_size": BATCH}
    _, trained = train(opened, "autoencoder", config=config, progress=False)
    return {"loss": trained.figures["validation_loss"]}


def prototype(path: Path) -> Generator[None, None, dict[str, float]]:
    """Train the same network on the same split as Lightning comes."""
    import torch
    from lightning import LightningModule, Trainer
    from lightning.pytorch.callbacks import ModelCheckpoint
    from torch.nn.functional import mse_loss
    from torch.utils.data import DataLoader, TensorDataset

    from embedding.autoencoder import Autoencoder, AutoencoderConfig
    from embedding.scaling import Standardizer
    from embedding.splits import split_works
    from embedding.training import VALIDATION_SHARE

    warnings.simplefilter("ignore")
    opened = FeatureStore.open(path)
    works = opened.table["work_id"]
    side = split_works(works, (1 - VALIDATION_SHARE, VALIDATION_SHARE), 0, "validation")
    known = Standardizer.fit(opened.table.filter(pl.Series(side == 0)))
    scaled = torch.from_numpy(known.transform(opened.table)).float()
    train_loader, validation_loader = (
        DataLoader(TensorDataset(scaled[torch.from_numpy(side == each)]), BATCH, shuffle=each == 0)
        for each in (0, 1)
    )

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = Autoencoder(AutoencoderConfig())

        def training_step(self, batch: list, _index: int) -> torch.Tensor:
            loss = mse_loss(self.network(batch[0]), batch[0])
            self.log("train_mse", loss, prog_bar=True)
            return loss

        def validation_step(self, batch: list, _index: int) -> torch.Tensor:
            loss = mse_loss(self.network(batch[0]), batch[0])
            self.log("val_mse", loss, prog_bar=True)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=1e-3)

    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as directory:
        saved = ModelCheckpoint(
            directory, monitor="val_mse", mode="min", save_top_k=1, save_weights_only=True
        )
        trainer = Trainer(
            accelerator="auto",
            max_epochs=EPOCHS,
            log_every_n_steps=1,
            callbacks=[saved],
            default_root_dir=directory,
        )
        yield
        trainer.fit(Module(), train_loader, validation_loader)
        return {"loss": float(saved.best_model_score)}
