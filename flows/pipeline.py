"""The way of the data, from raw features to answers and metrics."""

import os
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed

from flows import alert
from flows.aggregate import aggregate
from flows.embed import embed, embed_features, named
from flows.evaluate import evaluate
from flows.promote import compare_with_published
from flows.train import train
from flows.workspace import Workspace

#: Without training data of its own, this share of the works is kept from training to be measured.
HELD_OUT = 0.2


def _hours() -> float:
    """After so long a run is given up; what it has done stays, and the next one goes on from it.

    Just less than a day: a run that hangs would otherwise keep every following night from starting.
    """
    text = os.environ.get("COVERS_TIMEOUT_HOURS") or "23"
    try:
        hours = float(text)
    except ValueError:
        hours = 0.0
    if not 0 < hours < float("inf"):
        raise ValueError(f"COVERS_TIMEOUT_HOURS is {text!r}, expected a number of hours above 0.")
    return hours


def _run_name() -> str:
    given = flow_run.parameters
    return f"pipeline {given['data']} with {given.get('bundle') or given['encoder']}"


@flow(
    name="pipeline",
    flow_run_name=_run_name,
    timeout_seconds=_hours() * 3600,
    on_failure=[alert.tell],
    on_crashed=[alert.tell],
)
def pipeline(
    data: Path,
    training_data: Path | None = None,
    encoder: str = "autoencoder",
    config: dict[str, Any] | None = None,
    bundle: Path | None = None,
    frame_rate: float | None = None,
    seed: int = 0,
    home: Path | None = None,
    sample: int | None = None,
) -> Any:
    """Aggregate, train, embed, publish and evaluate; what hasn't changed is not done again.

    Trained is on `training_data`, on a share of `data`, or not at all where there is a `bundle`. A
    retrained bundle that is worse than the published one, by `promote.MARGIN`, is not published:
    the run ends in the state "Kept", and the old collection serves on. `embed` publishes any.

    Parameters
    ----------
    data : Path
        A directory of features as `embedding.da_tacos.open_dataset` reads it, or the prototype's
        CSV. All of it is published.
    training_data : Path, optional
        What to train on. Without it a share of `data`'s works, and only the others are measured.
    encoder : str
        A name in `embedding.bundle.ENCODERS`.
    config : dict, optional
        Settings of the encoder that differ from its defaults.
    bundle : Path, optional
        A trained encoder to use; "pretrained" is the one that comes with the package.
    frame_rate : float, optional
        Frames a second, where `data` (and `training_data`) doesn't say it.
    seed : int
        Of the split, the initial weights and the batches.
    home : Path, optional
        The workspace; by default `$COVERS_HOME`.
    sample : int, optional
        As in `flows.evaluate.evaluate`, which wants one past 100,000 performances.

    Returns
    -------
    dict
        `metrics` and what they were measured on, as in metrics.json; `published`, the `verdict` in
        words, and `paths`.
    """
    check_encoder(bundle, training_data)
    features = aggregate(data, frame_rate=frame_rate, home=home)
    if bundle is not None:
        bundle = named(bundle)
    elif training_data is None:
        bundle = train(features, encoder, config, hold_out=HELD_OUT, seed=seed, home=home)
    else:
        learned = aggregate(training_data, frame_rate=frame_rate, home=home)
        bundle = train(learned, encoder, config, seed=seed, home=home)
    workspace = Workspace.at(home)
    verdict = compare_with_published(bundle, workspace.root)
    get_run_logger().info(verdict.reason)
    if verdict.publish:
        vectors = embed(features, bundle, home=home, source=data.expanduser().resolve())
    else:
        vectors = embed_features(features, bundle, workspace.root)
    result = evaluate(vectors, home=home, sample=sample)
    result["published"] = verdict.publish
    result["verdict"] = verdict.reason
    result["paths"] = {
        "features": str(features),
        "bundle": str(bundle),
        "vectors": str(vectors),
        **result["paths"],
    }
    if verdict.publish:
        return result
    # A state that an operator sees at a glance, and an automation can wait for.
    return Completed(name="Kept", message=verdict.reason, data=result)


def check_encoder(bundle: Path | None, training_data: Path | None) -> None:
    """Raise ValueError if a trained encoder and data to train one on are both given."""
    if bundle is not None and training_data is not None:
        raise ValueError(
            f"{bundle} is trained already, so {training_data} would go unused: leave one out."
        )
