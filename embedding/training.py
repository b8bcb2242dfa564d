"""Fit an encoder to a feature store: split by work, train, keep the best epoch.

Alone imports Lightning and pytorch-metric-learning: a trained encoder is used without them.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import numpy as np
import polars as pl
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from pytorch_metric_learning.losses import SupConLoss
from pytorch_metric_learning.samplers import MPerClassSampler
from pytorch_metric_learning.utils import common_functions
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from torch import Tensor
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader

from embedding.bundle import ENCODERS, LOSS_CURVE, Encoder, Training, configure
from embedding.data.store import FeatureStore
from embedding.encoders.autoencoder import Autoencoder, AutoencoderConfig
from embedding.encoders.conv_autoencoder import (
    SQUEEZE,
    ChromaDrawer,
    ConvAutoencoder,
    ConvAutoencoderConfig,
    as_image,
    presences,
)
from embedding.encoders.descriptors import (
    Descriptors,
    DescriptorsConfig,
    describe,
    described,
    sequences,
    with_altered_copies,
)
from embedding.encoders.means import Means, MeansConfig
from embedding.encoders.projection import Projection, fit_discriminant, fit_principal
from embedding.encoders.scaling import Standardizer
from embedding.encoders.version.augmentation import vary
from embedding.encoders.version.encoder import TwelveKeyNet, VersionConfig, VersionEncoder, padded
from embedding.encoders.version.motifs import Motifs, cut_motifs, statistics
from embedding.splits import split_works

logger = logging.getLogger(__name__)

#: Share of the works that choose the epoch. Large, for a few cliques can prefer the wrong one.
VALIDATION_SHARE = 0.2

#: Rows validated at once: what a layer makes of them stays in the cache, and memory flat. With four
#: times as many it takes a third longer.
ROWS = 1_024

#: Performances among which versions are told apart in validation, for the same reason.
COMPARED = 2_048


class Diverged(ValueError):  # noqa: N818 - named for what happened
    """The loss is no longer a number."""


def train(
    store: FeatureStore,
    encoder_name: str,
    *,
    config: Any = None,
    seed: int = 0,
    progress: bool = True,
) -> tuple[Encoder, Training]:
    """Train an encoder on a store; the same arguments give the same weights on the same machine.

    With as many threads, that is: sums split otherwise differ in the last digit, and training
    amplifies it.

    `VALIDATION_SHARE` of the works take no part in fitting and choose the epoch that is kept. What
    nothing was chosen of, as the version encoder's projection, is then fitted on all works; the
    vectors that the bundle is calibrated by are made before that.
    Performances that the encoder cannot use are left out, each with a warning that says why.

    Parameters
    ----------
    store : FeatureStore
        The training data.
    encoder_name : str
        A key of `bundle.ENCODERS`.
    config : dataclass or mapping, optional
        The encoder's configuration, or the settings that differ from its defaults.
    seed : int
        Of the split, the initial weights and the batches.
    progress : bool
        Show a bar on standard error, where that is a terminal.

    Returns
    -------
    tuple of (Encoder, Training)
        What `bundle.save` takes.

    Raises
    ------
    Diverged
        If the loss becomes infinite or not a number.
    ValueError
        If there is no such encoder or setting, fewer than two works, fewer than two performances
        or, for "version", cliques to fit, or features that can't be learned from.
    """
    if config is None or isinstance(config, Mapping):
        config = configure(encoder_name, config or {})
    unusable = ENCODERS[encoder_name].unusable(store)
    for track_id, reason in unusable.items():
        logger.warning("left out %s: %s", track_id, reason)
    usable = store.select(~store.table["track_id"].is_in(list(unusable)).to_numpy())
    works = usable.table["work_id"]
    if (count := works.n_unique()) < 2:
        raise ValueError(
            f"training needs at least 2 works, one of them to validate on, and {store.name} has "
            f"{count}{' that can be used' if unusable else ''}: aggregate performances of others"
        )
    shares = (1 - VALIDATION_SHARE, VALIDATION_SHARE)
    side = split_works(works, shares, seed, "validation")
    with _reproducible(seed), _quiet():
        unseen = usable.select(side == 1)
        encoder, loss_curve, figures = FITS[encoder_name](
            usable.select(side == 0), unseen, config, seed=seed, progress=progress
        )
        validation = validation_vectors(unseen, encoder)
        if encoder_name in REFITS:
            encoder = REFITS[encoder_name](encoder, usable, seed=seed)
    sides = pl.DataFrame({"work_id": works, "side": np.where(side == 0, "train", "validation")})
    return encoder, Training(
        data=store.name,
        fingerprint=store.fingerprint,
        seed=seed,
        works=sides.unique().sort("work_id"),
        validation=validation,
        loss_curve=loss_curve,
        figures={
            "train_performances": int((side == 0).sum()),
            "validation_performances": int((side == 1).sum()),
            "unusable_performances": len(unusable),
            **figures,
        },
    )


def validation_vectors(store: FeatureStore, encoder: Encoder) -> pl.DataFrame:
    """Embed works that the encoder hasn't learnt from; columns track_id, work_id, vector."""
    vectors = encoder.embed(store)
    kind = pl.Array(pl.Float32, vectors.shape[1])
    return store.table.select("track_id", "work_id", vector=pl.Series(vectors, dtype=kind))


class Fit(Protocol):
    """Fits one kind of encoder to works and chooses it by others; both stores carry their ids."""

    def __call__(
        self,
        train: FeatureStore,
        validation: FeatureStore,
        config: Any,
        *,
        seed: int,
        progress: bool,
    ) -> tuple[Encoder, pl.DataFrame, dict[str, Any]]:
        """Return the encoder, its loss curve, and figures that say what it came to."""


def fit_means(
    train: FeatureStore,
    validation: FeatureStore,
    config: MeansConfig,
    *,
    seed: int,
    progress: bool,
) -> tuple[Means, pl.DataFrame, dict[str, Any]]:
    """Take the training statistics; there is nothing to choose."""
    return Means(config, Standardizer.fit(train.table)), pl.DataFrame(schema=LOSS_CURVE), {}


def fit_autoencoder(
    train: FeatureStore,
    validation: FeatureStore,
    config: AutoencoderConfig,
    *,
    seed: int,
    progress: bool,
) -> tuple[Autoencoder, pl.DataFrame, dict[str, Any]]:
    """Learn to reconstruct the standardised features."""
    network = Autoencoder(config, Standardizer.fit(train.table))
    rows, unseen = (
        torch.from_numpy(network.standardizer.transform(store.table)).float()
        for store in (train, validation)
    )
    # Standardised, so that predicting the training mean everywhere is predicting zero.
    figures = {"loss_of_the_mean": float(unseen.square().mean())}
    with _one_thread():
        curve, best = run(
            _Reconstruction(network, rows, unseen, torch.Generator().manual_seed(seed)),
            max_epochs=config.max_epochs,
            patience=config.patience,
            progress=progress,
        )
    return network, curve, figures | best


def fit_conv_autoencoder(
    train: FeatureStore,
    validation: FeatureStore,
    config: ConvAutoencoderConfig,
    *,
    seed: int,
    progress: bool,
) -> tuple[ConvAutoencoder, pl.DataFrame, dict[str, Any]]:
    """Learn to draw windows of chroma again, then project what the codes say of a performance."""
    heard, unseen = (sequences(store, config.chroma_rate) for store in (train, validation))
    with _one_thread():
        module = _Drawing(config, heard, unseen, torch.Generator().manual_seed(seed))
        # What is left to draw for who knows each window's mean chroma, but nothing of its course.
        still = module.unseen.mean(dim=2, keepdim=True).expand_as(module.unseen)
        figures = {"loss_of_the_mean": float(mse_loss(still, module.unseen))}
        curve, best = run(
            module, max_epochs=config.epochs, patience=config.epochs, progress=progress
        )
        network = module.network.cpu().eval()
        rows = presences(network, heard)
        projection = fit_principal(rows, dimension=config.dimension, tempering=config.tempering)
    return ConvAutoencoder(config, projection, network), curve, figures | best


def fit_descriptors(
    train: FeatureStore,
    validation: FeatureStore,
    config: DescriptorsConfig,
    *,
    seed: int,
    progress: bool,
) -> tuple[Descriptors, pl.DataFrame, dict[str, Any]]:
    """Take the principal components; there are no labels, and there is nothing to choose."""
    rate = config.chroma_rate
    heard = with_altered_copies(sequences(train, rate), config.tempos, seed)
    blocks = described(heard, partial(describe, rate=rate))
    rows = np.stack([np.concatenate(each) for each in blocks])
    projection = fit_principal(rows, dimension=config.dimension, tempering=config.tempering)
    return Descriptors(config, projection), pl.DataFrame(schema=LOSS_CURVE), {}


def fit_version(
    train: FeatureStore,
    validation: FeatureStore,
    config: VersionConfig,
    *,
    seed: int,
    progress: bool,
) -> tuple[VersionEncoder, pl.DataFrame, dict[str, Any]]:
    """Cut motifs, project the statistics in closed form, train the network to tell works apart.

    Works of one performance take no part: they have no version to be near to. All epochs are run,
    as the learning rate falls to zero over them; the best is kept.
    """
    train, validation = _of_several(train), _of_several(validation)
    for store, purpose in ((train, "learn from"), (validation, "validate on")):
        if (count := store.table["work_id"].n_unique()) < 2:  # told apart: one is too few
            raise ValueError(
                "the version encoder needs at least 2 works of several performances "
                f"to {purpose}, and of {store.name} it has {count}: aggregate more"
            )
    rate = config.chroma_rate
    heard, unseen = sequences(train, rate), sequences(validation, rate)
    motifs = cut_motifs(heard, rate, np.random.default_rng(seed))
    with _one_thread():
        projection = _discriminant(heard, train, motifs, config, seed)
        module = _Contrast(
            config,
            (heard, _numbers(train)),
            (unseen, _numbers(validation)),
            torch.Generator().manual_seed(seed),
        )
        curve, best = run(
            module, max_epochs=config.epochs, patience=config.epochs, progress=progress
        )
    return VersionEncoder(config, motifs, projection, module.average.cpu().eval()), curve, best


def refit_version(encoder: VersionEncoder, store: FeatureStore, *, seed: int) -> VersionEncoder:
    """Fit the projection again, on the works that chose the network too.

    Nothing was chosen of the projection, and every clique counts.
    """
    store = _of_several(store)
    heard = sequences(store, encoder.config.chroma_rate)
    with _one_thread():
        projection = _discriminant(heard, store, encoder.motifs, encoder.config, seed)
    return replace(encoder, projection=projection)


def _discriminant(
    heard: list[np.ndarray], store: FeatureStore, motifs: Motifs, config: VersionConfig, seed: int
) -> Projection:
    joined = with_altered_copies(heard, config.tempos, seed)
    rows = described(joined, partial(statistics, rate=config.chroma_rate, motifs=motifs))
    return fit_discriminant(
        [np.stack(block) for block in zip(*rows, strict=True)],
        store.table["work_id"].to_list() * (1 + len(config.tempos)),
        dimension=config.projection_dimension,
        shrinkage=config.shrinkage,
    )


def _of_several(store: FeatureStore) -> FeatureStore:
    """The performances whose work has another."""
    return store.select(store.table["work_id"].is_duplicated().to_numpy())


def _numbers(store: FeatureStore) -> Tensor:
    """Number the works."""
    return torch.from_numpy(np.unique(store.table["work_id"].to_list(), return_inverse=True)[1])


FITS: dict[str, Fit] = {
    "autoencoder": fit_autoencoder,
    "conv-autoencoder": fit_conv_autoencoder,
    "descriptors": fit_descriptors,
    "means": fit_means,
    "version": fit_version,
}


class Refit(Protocol):
    """Fits again, on all works, what of an encoder nothing was chosen of."""

    def __call__(self, encoder: Any, store: FeatureStore, *, seed: int) -> Encoder:
        """Return the encoder that is kept."""


REFITS: dict[str, Refit] = {"version": refit_version}


def run(
    module: LightningModule, *, max_epochs: int, patience: int, progress: bool
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Train a module, and leave it with the weights of its best epoch.

    Parameters
    ----------
    module : LightningModule
        Brings its data, and logs "validation", a loss; changed in place.
    max_epochs, patience : int
        At most so many epochs, and so many without a lower validation loss.
    progress : bool
        Show a bar on standard error, where that is a terminal.

    Returns
    -------
    tuple of (pl.DataFrame, dict)
        The loss curve, and figures: the best epoch, its loss, the epochs and seconds run, and the
        device.

    Raises
    ------
    Diverged
        If a loss becomes infinite or not a number.
    """
    best = _BestEpoch()
    bar = Progress(
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        disable=not (progress and Console(stderr=True).is_terminal),
    )
    trainer = Trainer(
        accelerator="auto",
        devices=1,
        max_epochs=max_epochs,
        deterministic=True,
        callbacks=[best, EarlyStopping("validation", patience=patience), _Bar(bar)],
        # Nothing is written: the best weights are kept in memory, and bundles keep the rest.
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    start = time.perf_counter()
    with bar:
        trainer.fit(module)
    module.load_state_dict(best.weights)
    return pl.DataFrame(best.curve, schema=LOSS_CURVE, orient="row"), {
        "best_epoch": best.epoch,
        "validation_loss": best.loss,
        "epochs": len(best.curve),
        "seconds": round(time.perf_counter() - start, 3),
        "device": str(trainer.strategy.root_device),
    }


class _Reconstruction(LightningModule):
    """Mean squared error between standardised features and what the code keeps of them.

    To Lightning an epoch is one step, cut into batches here: what it does around a step takes as
    long as half a small batch.
    """

    automatic_optimization = False

    def __init__(
        self, network: Autoencoder, rows: Tensor, unseen: Tensor, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.network = network
        self.rows = rows
        self.unseen = unseen
        self.generator = generator

    def train_dataloader(self) -> _Batches:
        return _Batches(self.rows.to(self.device), len(self.rows), self.generator)

    def val_dataloader(self) -> _Batches:
        return _Batches(self.unseen.to(self.device), ROWS)

    def training_step(self, rows: Tensor) -> Tensor:
        losses = []
        for batch in torch.split(rows, self.network.config.batch_size):
            loss = mse_loss(self.network(batch), batch)
            self.adam.zero_grad()
            torch.autograd.backward(loss)
            self.adam.step()
            losses.append(loss.detach())
        return torch.stack(losses).mean()

    def validation_step(self, rows: Tensor) -> None:
        self.log("validation", mse_loss(self.network(rows), rows), batch_size=len(rows))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        rate = self.network.config.learning_rate
        self.adam = torch.optim.Adam(self.parameters(), lr=rate, fused=True)
        return self.adam


class _Drawing(LightningModule):
    """Mean squared error between windows of chroma and what their codes keep of them.

    Trained on windows from anywhere, in any key; validated on whole performances, window by window.
    """

    def __init__(
        self,
        config: ConvAutoencoderConfig,
        heard: list[np.ndarray],
        unseen: list[np.ndarray],
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.config = config
        self.heard = [torch.from_numpy(each.astype(np.float32)) for each in heard]
        self.generator = generator
        self.network = ChromaDrawer(config)
        self.frames = config.window * SQUEEZE
        self.unseen = as_image(
            torch.cat([self._windows(each.astype(np.float32)) for each in unseen])
        )

    def _windows(self, sequence: np.ndarray) -> Tensor:
        whole = len(sequence) // self.frames * self.frames
        return torch.from_numpy(sequence[:whole]).reshape(-1, self.frames, *sequence.shape[1:])

    def train_dataloader(self) -> DataLoader[int]:
        steps: Any = range(self.config.steps)
        return DataLoader(steps, batch_size=None)

    def val_dataloader(self) -> _Batches:
        return _Batches(self.unseen, COMPARED)

    def training_step(self, _: int) -> Tensor:
        x = as_image(torch.stack([self._window() for _ in range(self.config.batch)]))
        x = x.to(self.device)
        return mse_loss(self.network(x), x)

    def _window(self) -> Tensor:
        sequence = self.heard[self._draw(len(self.heard))]
        start = self._draw(len(sequence) - self.frames + 1)
        return sequence[start : start + self.frames].roll(self._draw(12), 2)

    def _draw(self, below: int) -> int:
        return int(torch.randint(below, (), generator=self.generator))

    def validation_step(self, x: Tensor) -> None:
        x = x.to(self.device)
        self.log("validation", mse_loss(self.network(x), x), batch_size=len(x))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.network.parameters(), lr=self.config.learning_rate)


class _Contrast(LightningModule):
    """Supervised contrastive loss: altered versions of one work lie nearer than other works.

    What is validated and kept is a running mean of the weights. It is validated on whole, unaltered
    sequences.
    """

    def __init__(
        self,
        config: VersionConfig,
        train: tuple[list[np.ndarray], Tensor],
        validation: tuple[list[np.ndarray], Tensor],
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.config = config
        self.heard, self.clique = train
        self.unseen, self.unseen_clique = validation
        self.generator = generator
        self.network = TwelveKeyNet(config)
        self.average = copy.deepcopy(self.network).eval().requires_grad_(False)
        self.loss = SupConLoss(temperature=config.temperature)

    def train_dataloader(self) -> DataLoader[int]:
        views = self.config.views
        size = views * min(self.config.works, len(set(self.clique.tolist())))
        sampler = MPerClassSampler(self.clique, views, size, size * self.config.steps)
        rows: Any = range(len(self.heard))
        return DataLoader(rows, size, sampler=sampler, collate_fn=list)

    def val_dataloader(self) -> DataLoader[int]:
        rows: Any = torch.argsort(self.unseen_clique, stable=True).tolist()  # cliques together
        return DataLoader(rows, COMPARED, collate_fn=list)

    def training_step(self, rows: list[int]) -> Tensor:
        x, frames = padded([self.heard[row] for row in rows])
        x = vary(x, frames, self.config.crop, self.config.augmentation, self.generator)
        x, frames = x.to(self.device), torch.full((len(x),), x.shape[1], device=self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bfloat16):
            vectors = self.network(x, frames)
        loss: Tensor = self.loss(vectors, self.clique[rows].to(self.device))
        return loss

    def on_train_batch_end(self, *_: Any) -> None:
        steps = self.global_step
        decay = min(
            self.config.averaging, (1 + steps) / (10 + steps)
        )  # the start is soon forgotten
        with torch.no_grad():
            current = self.network.state_dict().values()
            for mean, value in zip(self.average.state_dict().values(), current, strict=True):
                if mean.is_floating_point():
                    mean.lerp_(value, 1 - decay)

    def validation_step(self, rows: list[int]) -> None:
        vectors = self.average.embed([self.unseen[row] for row in rows])
        loss = self.loss(vectors, self.unseen_clique[rows])
        self.log("validation", loss, batch_size=len(rows))

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        self.clip_gradients(optimizer, gradient_clip_val=5.0, gradient_clip_algorithm="norm")

    def configure_optimizers(self) -> Any:
        config = self.config
        optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            config.learning_rate,
            total_steps=config.steps * config.epochs,
            pct_start=0.15,
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class _Batches:
    """A tensor in slices, in a new order every epoch if there is a generator.

    One gather an epoch and views of it: a loader that fetches, checks and stacks row by row takes
    about as long as the network does.
    """

    def __init__(self, rows: Tensor, size: int, generator: torch.Generator | None = None) -> None:
        self.rows = rows
        self.size = size
        self.generator = generator

    def __len__(self) -> int:
        return -(-len(self.rows) // self.size)

    def __iter__(self) -> Iterator[Tensor]:
        rows = self.rows
        if self.generator is not None:
            order = torch.randperm(len(rows), generator=self.generator)
            rows = rows[order.to(rows.device)]
        return iter(torch.split(rows, self.size))


class _BestEpoch(Callback):
    """Records the loss curve and keeps the weights of its lowest validation loss."""

    def __init__(self) -> None:
        self.curve: list[tuple[int, float, float]] = []
        self.epoch = 0
        self.loss = float("inf")
        self.weights: dict[str, Tensor] = {}
        self._losses: list[Tensor] = []

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, *_: Any
    ) -> None:
        self._losses.append(outputs["loss"])  # read at the epoch's end: on a GPU, reading waits

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        train = float(torch.stack(self._losses).mean())
        validation = float(trainer.callback_metrics["validation"])
        self._losses.clear()
        epoch = trainer.current_epoch + 1
        if not np.isfinite([train, validation]).all():
            raise Diverged(
                f"the loss became {train} in training and {validation} in validation in epoch "
                f"{epoch}: try a smaller learning rate"
            )
        self.curve.append((epoch, train, validation))
        if validation < self.loss:
            self.epoch, self.loss = epoch, validation
            self.weights = {name: each.clone() for name, each in module.state_dict().items()}


class _Bar(Callback):
    """Moves a progress bar on, an epoch a step."""

    def __init__(self, bar: Progress) -> None:
        self.bar = bar

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.task = self.bar.add_task("", total=trainer.max_epochs)

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        loss = float(trainer.callback_metrics["validation"])
        self.bar.update(self.task, advance=1, description=f"validation loss {loss:.4g}")

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        self.bar.update(self.task, total=trainer.current_epoch)  # often stopped early


@contextlib.contextmanager
def _reproducible(seed: int) -> Iterator[None]:
    """Draw everything from the seed, and leave the caller's generators and flags as they were."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    sampling = common_functions.NUMPY_RANDOM  # what the sampler of works draws from
    common_functions.NUMPY_RANDOM = np.random.RandomState(seed)
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(deterministic)
            common_functions.NUMPY_RANDOM = sampling


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Keep small matrices on one core: several gain little, and on a busy machine they wait.

    It also makes the weights the same on machines with different numbers of cores.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning's advice to its users from ours; its errors are raised, not logged."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            yield
    finally:
        logger.setLevel(level)
