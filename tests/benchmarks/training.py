"""Train the autoencoder as we do and as the prototype does; time the version encoder.

The prototype uses Lightning with its defaults: a `DataLoader` that fetches and stacks row by row, a
progress bar, a checkpoint whenever the validation loss falls, and a logger. Both train the same
network on the same 10,000 rows in batches of 512, and validate on 15,000 rows after each epoch, as
the prototype did on the two subsets of Da-TACOS.
"""

import tempfile
import warnings
from collections.abc import Generator
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import torch
from feature_stores import make_sequence, make_store, make_table, samples_of
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.harness import Row, in_turns, ratio, seconds
from embedding import bundle as bundles
from embedding.data import store
from embedding.data.chroma import CHROMA_RATE
from embedding.data.features import FEATURE_NAMES
from embedding.data.store import FeatureStore
from embedding.encoders.scaling import Standardizer

TRAIN_ROWS, VALIDATION_ROWS, BATCH_ROWS, EPOCHS = 10_000, 15_000, 512, 20

#: For the version encoder: works with two performances each (a fifth of the works is to validate
#: on), seconds of a performance, and epochs.
SONG_WORKS, SONG_SECONDS, TIMED_EPOCHS = 100, 180, 2


def measure() -> list[Row]:
    """Compare the seconds of an epoch."""
    with tempfile.TemporaryDirectory(prefix="covers-bench-") as directory:
        path = Path(directory) / "features"
        _write(path)
        found = in_turns({"ours": partial(ours, path), "prototype": partial(prototype, path)})
        songs = Path(directory) / "songs"
        _write_songs(songs)
        found |= in_turns({"version": partial(version, songs), "songs": partial(embed, songs)})
    mine, theirs, versions = found["ours"], found["prototype"], found["version"]
    faster, words = ratio(theirs, mine)
    loss, other = mine.figure("loss"), theirs.figure("loss")
    return [
        Row(
            f"autoencoder, {TRAIN_ROWS} rows in batches of {BATCH_ROWS}, "
            f"{VALIDATION_ROWS} to validate",
            f"{seconds(mine.median / EPOCHS)} an epoch",
            "the prototype's way",
            f"{seconds(theirs.median / EPOCHS)} an epoch",
            words,
            ">= 5x",
            faster >= 5,
            mine.peak_mb,
            f"validation loss after {EPOCHS} epochs: {loss:.4f}, theirs {other:.4f}; both mostly "
            "compute the network, ours on one core, so that weights do not depend on the cores",
        ),
        Row(
            f"version encoder, {8 * SONG_WORKS // 5} performances of 3 minutes, "
            f"{2 * SONG_WORKS // 5} to validate",
            f"{seconds(versions.figure('epoch'))} an epoch",
            peak_mb=versions.peak_mb,
            note="motifs and projection, fitted once before: "
            f"{seconds(versions.median - TIMED_EPOCHS * versions.figure('epoch'))}",
        ),
        Row(
            f"embedding {2 * SONG_WORKS} performances of 3 minutes with the pretrained encoder",
            f"{seconds(found['songs'].median / (2 * SONG_WORKS))} each",
            peak_mb=found["songs"].peak_mb,
        ),
    ]


def _write(path: Path) -> None:
    """Write features that are made of five hidden causes and some noise."""
    rng, rows = np.random.default_rng(0), TRAIN_ROWS + VALIDATION_ROWS
    seen = rng.normal(size=(rows, 5)) @ rng.normal(size=(5, 52)) + 0.3 * rng.normal(size=(rows, 52))
    table = pl.DataFrame(
        {
            "track_id": [f"P_{i:06d}" for i in range(rows)],
            "work_id": [f"W_{i // 2}" for i in range(rows)],
            "fingerprint": [f"{i}" for i in range(rows)],
            **dict(zip(FEATURE_NAMES, (1 + 0.1 * seen).T, strict=True)),
        }
    )
    store.write(path, name="rows", table=table, sequences=[], frame_rate=None)


def _write_songs(path: Path) -> None:
    table = make_table(SONG_WORKS, 2)
    rows = table.select("work_id", "fingerprint").iter_rows()
    make_store(
        path,
        table,
        sequences=[make_sequence(*row, int(SONG_SECONDS * CHROMA_RATE)) for row in rows],
    )


def version(path: Path) -> Generator[None, None, dict[str, float]]:
    """Train the version encoder for a few epochs."""
    from embedding.encoders.version.config import VersionConfig
    from embedding.encoders.version.encoder import VersionEncoder

    opened = FeatureStore.open(path)
    unseen = opened.table["work_id"].str.slice(2).cast(pl.Int64) % 5 == 0
    config = VersionConfig(epochs=TIMED_EPOCHS)
    yield
    sides = (samples_of(opened.select(mask), "chroma") for mask in (~unseen, unseen))
    _, _, figures = VersionEncoder.fit(*sides, config, seed=0)
    return {"epoch": figures["seconds"] / TIMED_EPOCHS}


def embed(path: Path) -> Generator[None, None, None]:
    """Embed all songs with the encoder that comes with the package."""
    bundle, opened = bundles.load(bundles.PRETRAINED), FeatureStore.open(path)
    yield
    bundle.embed(opened)


def _sides(path: Path) -> tuple[FeatureStore, FeatureStore]:
    opened = FeatureStore.open(path)
    trained = np.arange(len(opened)) < TRAIN_ROWS
    return opened.select(trained), opened.select(~trained)


def ours(path: Path) -> Generator[None, None, dict[str, float]]:
    """Train as `covers train` does."""
    from embedding.encoders.autoencoder.encoder import Autoencoder, AutoencoderConfig

    sides = [samples_of(side, "means") for side in _sides(path)]
    warm = AutoencoderConfig(max_epochs=1, batch_size=BATCH_ROWS)
    Autoencoder.fit(*sides, warm, seed=0)
    config = AutoencoderConfig(max_epochs=EPOCHS, patience=EPOCHS, batch_size=BATCH_ROWS)
    torch.set_num_threads(1)  # as `embedding.training.train` does
    torch.manual_seed(0)
    yield
    _, _, figures = Autoencoder.fit(*sides, config, seed=0)
    return {"loss": figures["validation_loss"]}


def prototype(path: Path) -> Generator[None, None, dict[str, float]]:
    """Train with Lightning's defaults."""
    from lightning import LightningModule, Trainer
    from lightning.pytorch.callbacks import ModelCheckpoint

    from embedding.encoders.autoencoder.encoder import AutoencoderConfig
    from embedding.encoders.autoencoder.network import AutoencoderNetwork

    warnings.simplefilter("ignore")
    known, unseen = _sides(path)
    scale = Standardizer.fit(known.means).transform
    train_loader, validation_loader = (
        DataLoader(
            TensorDataset(torch.from_numpy(scale(side.means)).float()), BATCH_ROWS, shuffle=mix
        )
        for side, mix in ((known, True), (unseen, False))
    )

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = AutoencoderNetwork(AutoencoderConfig().sizes)

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
