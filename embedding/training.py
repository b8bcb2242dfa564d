"""Train an encoder on a feature store: split by work, fit, and refit on all works."""

import contextlib
import logging
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import polars as pl
import torch
from threadpoolctl import threadpool_limits

from embedding.bundle import Training, configure
from embedding.data.store import FeatureStore
from embedding.encoders.encoder import Encoder, Samples
from embedding.encoders.registry import encoder_class
from embedding.splits import split_works

logger = logging.getLogger(__name__)

#: Share of the works that choose the epoch. With few works, the choice would be noisy.
VALIDATION_SHARE = 0.2


def train(
    store: FeatureStore, encoder_name: str, *, config: Any = None, seed: int = 0
) -> tuple[Encoder, Training]:
    """Train an encoder on a store; returns the arguments of `bundle.save`.

    The same arguments give the same weights on the same kind of processor, whatever its number of
    cores. `VALIDATION_SHARE` of the works are not fitted, but choose the epoch. The parts that were
    not tuned on them, such as a projection, are then refitted on all works. The vectors that
    calibrate the bundle are made before that. Unusable performances are left out with a warning.

    Parameters
    ----------
    store : FeatureStore
        The training data.
    encoder_name : str
        A key of `ENCODERS`.
    config : dataclass or mapping, optional
        The encoder's configuration, or the fields that differ from its defaults.
    seed : int
        Seed of the split, the initial weights and the batches.

    Raises
    ------
    ValueError
        If the encoder or a field does not exist, the data has too few works or performances, there
        is nothing to learn from them, or the loss diverges.
    """
    if config is None or isinstance(config, Mapping):
        config = configure(encoder_name, config or {})
    kind = encoder_class(encoder_name)
    store.check_inputs(kind.input)
    inputs = store.inputs(kind.input)
    unusable = kind.unusable(inputs)
    for row, reason in unusable.items():
        logger.warning("left out %s: %s", store.table["track_id"][row], reason)
    usable = store.select(np.setdiff1d(np.arange(len(store)), list(unusable)).astype(int))
    works = usable.table["work_id"]
    if (count := works.n_unique()) < 2:
        raise ValueError(
            f"Training needs at least 2 works, one of them to validate on, and {store.name} has "
            f"{count}{' that can be used' if unusable else ''}: aggregate performances of others."
        )
    side = split_works(works, (1 - VALIDATION_SHARE, VALIDATION_SHARE), seed, "validation")
    known, unseen = (_samples(usable.select(side == number), kind) for number in (0, 1))
    with _reproducible(seed):
        fitted = kind.fit(known, unseen, config, seed=seed)
        vectors = fitted.encoder.embed(unseen.inputs)
        encoder = fitted.encoder.refit(_samples(usable, kind), seed=seed)
    sides = pl.DataFrame({"work_id": works, "side": np.where(side == 0, "train", "validation")})
    return encoder, Training(
        data=store.name,
        fingerprint=store.fingerprint,
        seed=seed,
        works=sides.unique().sort("work_id"),
        validation=usable.table.filter(side == 1).select(
            "track_id",
            "work_id",
            vector=pl.Series(vectors, dtype=pl.Array(pl.Float32, vectors.shape[1])),
        ),
        loss_curve=fitted.loss_curve,
        figures={
            "train_performances": len(known.works),
            "validation_performances": len(unseen.works),
            "unusable_performances": len(unusable),
            **fitted.figures,
        },
    )


def _samples(store: FeatureStore, kind: type[Encoder]) -> Samples:
    return Samples(store.inputs(kind.input), np.array(store.table["work_id"].to_list(), dtype=str))


@contextlib.contextmanager
def _reproducible(seed: int) -> Iterator[None]:
    """Draw everything from the seed, on one core; leave the caller's settings as they were.

    One core is enough for small matrices, and sums are then not split by the number of cores.
    """
    threads = torch.get_num_threads()
    devices = range(torch.cuda.device_count())
    with torch.random.fork_rng(devices=devices), threadpool_limits(1, user_api="blas"):
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
