"""Vectors -> the published collection, with the data sets that it held before."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

import search
from embedding import bundle as bundles
from flows import alert
from flows.aggregate import absolute
from flows.collection.points import points_of_recipe
from flows.collection.served import current, note_served
from flows.collection.sources import (
    Merged,
    Recipe,
    Source,
    UnknownSources,
    check_bundle,
    check_kept,
    merge,
    source_of,
    write_origin,
)
from flows.collection.vectors import origin, told
from flows.embed import embed_features
from flows.imported import bring_in, is_ours
from flows.measuring.promote import Verdict, compare_with_published
from flows.retention import tidy
from flows.slot import publishing_slot
from flows.workspace import Workspace


def _run_name() -> str:
    given = flow_run.parameters.get("vectors") or []
    return f"publish {', '.join(told(Path(path)) for path in given) or 'the latest vectors'}"


@alert.flow("publish", _run_name)
def publish(
    vectors: list[Path] | None = None,
    only: bool = False,
    leave_out: list[Path] | None = None,
    unless_worse: bool = False,
    keep_bundle: bool = False,
    features: Path | None = None,
    model: str | None = None,
    home: Path | None = None,
) -> dict[str, Any]:
    """Publish vectors: they replace those of their data sets, and the other data sets stay.

    The others are embedded again if the vectors are of another bundle. Publishing the same vectors
    again changes nothing.

    Parameters
    ----------
    vectors : list of Path, optional
        Files that `embed` made with one bundle, or files of another model's vectors; by default
        the latest. With `leave_out` alone, none.
    only : bool
        Leave out everything else that the collection holds.
    leave_out : list of Path, optional
        Data sets to leave out.
    unless_worse : bool
        Publish nothing if the bundle is worse than the published one, by `promote.MAX_MAP_LOSS`.
    keep_bundle : bool
        Keep the published bundle; embed again what another bundle embedded.
    features : Path, optional
        For another model's vectors: the feature store of the same performances.
    model : str, optional
        For another model's vectors: the name of the model.
    home : Path, optional
        The workspace; by default `$COVERS_HOME`.

    Returns
    -------
    dict
        `published`, whether anything was; the `verdict` in words, with `unless_worse`; the
        `collection` that is now current, and the number of its `performances`; the names of its
        `sources`, of those that were `kept`, and of those that were `left_out`; and of those that
        `moved`, with the name of the data set that now has their performances.

    Raises
    ------
    ValueError
        If a source of the collection cannot be kept, or a performance is in two of them.
    """
    workspace = Workspace.at(home)
    with workspace.used():
        unwanted = [absolute(path) for path in leave_out or []]
        if only and unwanted:
            raise ValueError("`only` leaves out everything else already: leave out `leave_out`.")
        if vectors is None and not unwanted:
            vectors = [workspace.latest("vectors")]
        given = [absolute(path) for path in vectors or []]
        ours = [bring(path, features, model, workspace) for path in given]
        if imported := [path for path in ours if path not in given]:
            workspace.note(vectors=imported[-1])
        renewed = [source_of(path, workspace) for path in ours]
        plan = partial(_plan, renewed, only, unwanted, unless_worse, keep_bundle, workspace)
        plan()  # embeds, which takes long, before other publications have to wait
        with publishing_slot(), FileLock(workspace.root / "publishing.lock"):
            # Another run can have published meanwhile.
            recipe, merged, verdict = plan()
            result = _publish(recipe, merged, verdict, workspace)
    tidy(workspace)
    return result


def bring(path: Path, features: Path | None, model: str | None, workspace: Workspace) -> Path:
    """Return a file that `embed` made, or import another model's vectors."""
    if not is_ours(path):
        return bring_in(path, features, model, workspace.root)
    if features is not None or model is not None:
        raise ValueError(
            f"{path} says itself which features and model it is of: leave out --features and "
            "--model."
        )
    return path


def _plan(
    renewed: Sequence[Source],
    only: bool,
    leave_out: Sequence[Path],
    unless_worse: bool,
    keep_bundle: bool,
    workspace: Workspace,
) -> tuple[Recipe, Merged, Verdict]:
    """Decide what to publish in place of the current collection, and embed what it needs."""
    try:
        before = current(search.connect(home=workspace.root), workspace)
    except UnknownSources:
        if not only:
            raise
        before = None
    if before is not None and (keep_bundle or not renewed):
        bundle, bundle_id = before.bundle, before.bundle_id
    elif renewed:
        bundle, bundle_id = _bundle_of(renewed, workspace)
    else:
        raise search.NoCollection(
            "There is no collection to leave anything out of: make one with `covers pipeline "
            "--data DIR`."
        )
    check_bundle(bundle)
    merged = merge(before.sources if before else (), renewed, only=only, leave_out=leave_out)
    verdict = Verdict(True, "")
    if unless_worse:
        verdict = compare_with_published(bundle, before.bundle if before else None)
    sources = merged.sources
    if verdict.publish:
        check_kept(
            merged.kept,
            same_bundle=before is None or before.bundle_id == bundle_id,
            inputs=bundles.head(bundle).inputs,
        )
        sources = [_embedded(source, bundle, bundle_id, workspace) for source in sources]
    return Recipe(bundle, bundle_id, tuple(sources)), merged, verdict


def _bundle_of(renewed: Sequence[Source], workspace: Workspace) -> tuple[Path, str]:
    """Return the bundle that made these vectors, and its id."""
    first, *others = renewed
    made_with = origin(first.vectors)
    for other in others:
        if (bundle_id := origin(other.vectors)["bundle_id"]) != made_with["bundle_id"]:
            raise ValueError(
                f"{first.vectors} is of {made_with['bundle_id']}, and {other.vectors} is of "
                f"{bundle_id}: embed all of them with one bundle."
            )
    return workspace.resolve(made_with["bundle"]), made_with["bundle_id"]


def _embedded(source: Source, bundle: Path, bundle_id: str, workspace: Workspace) -> Source:
    """Return the source with vectors of this bundle."""
    made_by = origin(source.vectors)["bundle_id"] if source.vectors.exists() else None
    if made_by == bundle_id:
        return source
    if source.features is None or source.is_foreign:
        raise ValueError(
            f"{source.name} was made by {made_by}, and the collection by {bundle_id}, which cannot "
            "make its vectors: publish it alone, with `covers publish --only`."
        )
    return replace(source, vectors=embed_features(source.features, bundle, workspace.root))


def _publish(
    recipe: Recipe, merged: Merged, verdict: Verdict, workspace: Workspace
) -> dict[str, Any]:
    logger = get_run_logger()
    result: dict[str, Any] = {"published": verdict.publish, "verdict": verdict.reason}
    if verdict.reason:
        logger.info(verdict.reason)
    if not verdict.publish:
        return result | {"kept": [], "left_out": [], "moved": {}}
    described = publish_recipe(recipe, workspace.root)
    kept = [source.name for source in merged.kept]
    left_out = [source.name for source in merged.left_out]
    if kept:
        logger.info("kept in the collection: %s", ", ".join(kept))
    if left_out:
        logger.info("left out of the collection: %s", ", ".join(left_out))
    for name, place in merged.moved.items():
        logger.info("the performances of %s are now in %s", name, place)
    return result | {
        "collection": described.name,
        "performances": described.points,
        "sources": [source.name for source in recipe.sources],
        "kept": kept,
        "left_out": left_out,
        "moved": merged.moved,
    }


def check_before_training(
    data: Path, bundle: Path | None, inputs: str | None, workspace: Workspace
) -> None:
    """Check that the other sources can be kept when a data set is renewed.

    The bundle is None if it is not trained yet. `inputs` are those of its encoder.

    Raises
    ------
    ValueError
        As `served.current` and `sources.check_kept`.
    """
    try:
        before = current(search.connect(home=workspace.root), workspace)
    except (search.ServerUnreachable, search.ServerBusy):
        return  # the server may answer when there is something to publish
    if before is not None:
        kept = merge(before.sources, [Source(data, None, data)]).kept
        same_bundle = bundle is not None and bundles.head(bundle).id == before.bundle_id
        check_kept(kept, same_bundle=same_bundle, inputs=inputs)


def may_pass(_task: Any, _run: Any, state: Any) -> bool:
    """Whether to retry: a server may come back, but other errors stay."""
    error = state.result(raise_on_failure=False)
    lasting = isinstance(error, search.ServerRefused | search.NoRoom)
    passing = search.ServerUnreachable, search.ServerBusy, search.PublishError, OSError
    return not lasting and isinstance(error, passing)


#: Options of a task that asks a server.
RETRIES: dict[str, Any] = {
    "retries": 3,
    "retry_delay_seconds": [1, 5, 20],
    "retry_condition_fn": may_pass,
}


@task(cache_policy=NO_CACHE, **RETRIES)
def publish_recipe(recipe: Recipe, home: Path) -> search.Description:
    """Publish all sources. The same content again changes nothing, so a retry is harmless.

    Raises
    ------
    ValueError
        If a performance is in two of the sources.
    """
    workspace = Workspace(home)
    engine = search.connect(home=home)
    published = engine.publish(
        points_of_recipe(recipe), recipe.bundle_id, origin=write_origin(recipe, workspace)
    )
    note_served(engine, workspace)
    get_run_logger().info("serving %s: %d performances", published.name, published.points)
    return published
