"""All stages in order: aggregate -> train -> embed -> publish -> evaluate."""

from pathlib import Path
from typing import Any

from prefect import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed

from embedding import bundle as bundles
from embedding.encoders.registry import ENCODERS
from flows import alert
from flows.aggregate import absolute, aggregate
from flows.checks import check_encoder, check_inputs
from flows.embed import embed, named
from flows.evaluate import evaluate, why_nothing
from flows.publish import check_before_training, publish
from flows.rejects import unreadable, unusable
from flows.retention import tidy
from flows.train import train
from flows.workspace import Workspace

#: The share of the works to hold out of training if there are no other training data.
HELD_OUT = 0.2

DEFAULT_ENCODER = "autoencoder"


def _run_name() -> str:
    given = flow_run.parameters
    return f"pipeline {given['data']} with {given.get('bundle') or given['encoder']}"


@alert.flow("pipeline", _run_name)
def pipeline(
    data: Path,
    training_data: Path | None = None,
    encoder: str = DEFAULT_ENCODER,
    config: dict[str, Any] | None = None,
    bundle: Path | None = None,
    frame_rate: float | None = None,
    seed: int = 0,
    home: Path | None = None,
    sample: int | None = None,
    only: bool = False,
) -> Any:
    """Aggregate, train, embed, publish and evaluate, without repeating what has not changed.

    The data set is added to the collection or renewed in it. The other data sets of the collection
    stay, and are embedded again if the bundle is another one.

    The bundle is trained on `training_data` or on a share of `data`, unless a bundle is given. A
    retrained bundle that is worse than the published one (`promote.MAX_MAP_LOSS`) is not published:
    the run ends in the state "Kept", and the collection stays as it is. `covers publish` publishes
    any bundle.

    Parameters
    ----------
    data : Path
        A directory as `embedding.data.dataset.open_dataset` reads it, or a CSV table of features.
        All of it is published.
    training_data : Path, optional
        What to train on. By default a share of `data`'s works; only the others are measured.
    encoder : str
        A name in `embedding.encoders.registry.ENCODERS`.
    config : dict, optional
        The fields of the encoder's configuration that differ from its defaults.
    bundle : Path, optional
        A trained encoder to use. "pretrained" is the bundle that comes with the package.
    frame_rate : float, optional
        Frames per second, if `data` (and `training_data`) do not say it.
    seed : int
        Of the split, the initial weights and the batches.
    home : Path, optional
        The workspace; by default `$COVERS_HOME`.
    sample : int, optional
        As in `flows.evaluate.evaluate`, which requires it above 100,000 performances.
    only : bool
        Leave out everything else that the collection holds.

    Returns
    -------
    dict
        `metrics` and what they were measured on, as in metrics.json, or without labels no metrics
        and the reason in `measured_on`; the `encoder` in words; `published`; the `verdict` in
        words; the names of the data sets that were `kept` and `left_out`, and of those that
        `moved`; `rejected`, the file and the reason of each performance that was left out; and
        `paths`.
    """
    kind = check_encoder(encoder, config, bundle, training_data)
    check_inputs(kind, data, training_data)
    given = bundle
    bundle = named(bundle) if bundle else None
    workspace = Workspace.at(home)
    with workspace.used():
        if not only:
            check_before_training(absolute(data), bundle, kind, workspace)
        features = aggregate(data, frame_rate=frame_rate, home=home)
        if bundle is not None:
            workspace.note(bundle=bundle)
        elif training_data is None:
            bundle = train(features, encoder, config, hold_out=HELD_OUT, seed=seed, home=home)
        else:
            learned = aggregate(training_data, frame_rate=frame_rate, home=home, role="training")
            bundle = train(learned, encoder, config, seed=seed, home=home)
        vectors = embed(features, bundle, home=home)
        published = publish([vectors], only=only, unless_worse=True, home=home)
        result = _measured(vectors, workspace, sample)
    tidy(workspace)
    result["encoder"] = encoder_used(encoder, bundle, given)
    told = ("published", "verdict", "kept", "left_out", "moved")
    result |= {name: published[name] for name in told}
    result["rejected"] = unreadable(features) + unusable(features, vectors)
    paths = {"features": str(features), "bundle": str(bundle), "vectors": str(vectors)}
    result["paths"] = paths | result["paths"]
    # A state of its own, so that an operator or an automation can see it.
    kept = not result["published"]
    message = f"{result['verdict']} {result['measured_on']['summary']} {result['encoder']}".strip()
    return Completed(name="Kept" if kept else "Completed", message=message, data=result)


def _measured(vectors: Path, workspace: Workspace, sample: int | None) -> dict[str, Any]:
    """Evaluate, or say why nothing can be measured."""
    if why := why_nothing(vectors, workspace.root):
        get_run_logger().info(why)
        return {"metrics": {}, "intervals": {}, "measured_on": {"summary": why}, "paths": {}}
    return evaluate(vectors, home=workspace.root, sample=sample)


def encoder_used(encoder: str, bundle: Path, given: Path | None) -> str:
    """Say in a sentence which encoder was used and why, and what finds covers better."""
    used = bundles.head(bundle).name
    why = f"from --bundle {given}" if given else f"from --encoder {encoder}"
    if not given and encoder == DEFAULT_ENCODER:
        why = "the default"
    sentence = f"Encoder: {used}, {why} ({ENCODERS[used][1]})."
    if used == "version":
        return sentence
    return (
        f"{sentence} Covers are found better with --bundle pretrained or, if you have labelled "
        "covers to train on, with --encoder version."
    )
