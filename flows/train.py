"""A feature store -> a bundle: a trained encoder and everything that its use needs."""

from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

from embedding import bundle as bundles
from embedding.data.store import FeatureStore
from embedding.splits import split_works
from flows import alert
from flows.measuring.calibrate import calibrate
from flows.workspace import Workspace, data_name


def _run_name() -> str:
    given = flow_run.parameters
    return f"train {given['encoder']} on {data_name(given.get('features'))}"


@alert.flow("train", _run_name)
def train(
    features: Path | None = None,
    encoder: str = "autoencoder",
    config: dict[str, Any] | None = None,
    hold_out: float = 0.0,
    seed: int = 0,
    home: Path | None = None,
) -> Path:
    """Train and calibrate an encoder, unless the same was done with the same features.

    Parameters
    ----------
    features : Path, optional
        A feature store; by default the latest to train on.
    encoder : str
        A name in `embedding.encoders.registry.ENCODERS`.
    config : dict, optional
        The fields of the encoder's configuration that differ from its defaults.
    hold_out : float in [0, 1)
        Share of the works to hold out of training, so that they can be measured.
    seed : int
        Of the split, the initial weights and the batches.
    home : Path, optional
        The workspace; by default `$COVERS_HOME`.

    Returns
    -------
    Path
        The bundle.
    """
    workspace = Workspace.at(home)
    with workspace.used():
        features = features or workspace.latest("training")
        bundle = train_encoder(features, encoder, config, hold_out, seed, workspace.root)
        calibrate(bundle, features)
        workspace.note(bundle=bundle)
    return bundle


@task(cache_policy=NO_CACHE)
def train_encoder(
    features: Path,
    encoder: str,
    config: dict[str, Any] | None,
    hold_out: float,
    seed: int,
    home: Path,
) -> Path:
    """Train and save the bundle. A run that is killed starts again and makes the same bundle."""
    logger = get_run_logger()
    store = FeatureStore.open(features)
    configured = bundles.configure(encoder, config or {})

    def make(directory: Path) -> None:
        # Lightning takes seconds to import, and often there is nothing to train.
        from embedding.training import train as train_on

        known = store
        if hold_out:
            works = store.table["work_id"]
            sides = split_works(works, (1 - hold_out, hold_out), seed, "hold-out")
            known = store.select(sides == 0)
        logger.info("training %s on %d performances of %s", encoder, len(known), store.name)
        trained, training = train_on(known, encoder, config=configured, seed=seed)
        bundles.save(directory, trained, training)

    made_of = (_code(), store.fingerprint, asdict(configured), hold_out, seed)
    place = Workspace(home).result("bundles", encoder, made_of, make)
    made = bundles.load(place)
    logger.info("%s: %s", made.id, made.training.figures)
    return place


def _code() -> tuple[str, int]:
    """Return the version of the code that trains."""
    try:
        installed = version("covers")
    except PackageNotFoundError:  # run from a checkout
        installed = ""
    return installed, bundles.TRAINING_VERSION
