"""Vectors -> the published collection, beside those that it held before."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
from filelock import FileLock
from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE

import search
from embedding import bundle as bundles
from embedding.data.chroma import CHROMA_RATE
from embedding.data.store import FeatureStore
from flows import alert
from flows.aggregate import absolute
from flows.embed import embed_features
from flows.imported import bring_in, is_ours
from flows.measuring.calibrate import read_calibration
from flows.measuring.promote import Verdict, compare_with_published
from flows.retention import tidy
from flows.slot import publishing_slot
from flows.sources import (
    Recipe,
    Source,
    UnknownSources,
    check_bundle,
    check_kept,
    current,
    is_made_elsewhere,
    merge,
    note_served,
    source_of,
    write_origin,
)
from flows.vectors import BROUGHT, origin, read
from flows.workspace import Workspace


@flow(name="publish", flow_run_name="publish", **alert.WATCHED)
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
    """Publish vectors: they renew their data sets in the collection, and the others stay.

    Others are embedded anew where the vectors are of another bundle. What is published already
    changes nothing.

    Parameters
    ----------
    vectors : list of Path, optional
        What `embed` made, all of one bundle, or files of vectors that were made elsewhere; by
        default the latest. With `leave_out` alone, none are renewed.
    only : bool
        Leave out everything else that the collection holds.
    leave_out : list of Path, optional
        Data sets that the collection shall hold no longer.
    unless_worse : bool
        Publish nothing if the bundle is worse than the published one, by `promote.MARGIN`.
    keep_bundle : bool
        Stay with the bundle that is published; vectors of another one are made anew.
    features : Path, optional
        Of vectors that were made elsewhere: what `aggregate` made of the same performances.
    model : str, optional
        Of vectors that were made elsewhere: the name of the model that made them.
    home : Path, optional
        The workspace; by default `$COVERS_HOME`.

    Returns
    -------
    dict
        `published`, whether anything was; the `verdict` in words, where it was asked for; the
        `collection` that is current now, and the number of its `performances`; and the names of
        its `sources`, of those that were `kept`, and of those that were `left_out`.

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
        brought = [bring(absolute(path), features, model, workspace) for path in vectors or []]
        if made := [path for path in brought if path not in map(absolute, vectors or [])]:
            workspace.note(vectors=made[-1])
        renewed = [source_of(path, workspace) for path in brought]
        asked = Asked(renewed, only, unwanted, unless_worse, keep_bundle)
        result = _publish(asked, workspace)
    tidy(workspace)
    return result


def bring(path: Path, features: Path | None, model: str | None, workspace: Workspace) -> Path:
    """Return the file itself if `embed` made it, else what is made of vectors from elsewhere."""
    if is_ours(path):
        if features is not None or model is not None:
            raise ValueError(
                f"{path} says itself which features and model it is of: leave out --features and "
                "--model."
            )
        return path
    return bring_in(path, features, model, workspace.root)


@dataclass(frozen=True)
class Asked:
    """What is asked of `publish`, by the names of its parameters."""

    renewed: Sequence[Source]
    only: bool
    leave_out: Sequence[Path]
    unless_worse: bool
    keep_bundle: bool


@dataclass(frozen=True)
class Plan:
    """What is to be published, and what becomes of the sources that are not renewed."""

    recipe: Recipe
    kept: list[str]
    left_out: list[str]
    verdict: Verdict


def _publish(asked: Asked, workspace: Workspace) -> dict[str, Any]:
    logger = get_run_logger()
    _plan(asked, workspace)  # what takes long is done before others have to wait
    with publishing_slot(), FileLock(workspace.root / "publishing.lock"):
        plan = _plan(asked, workspace)  # others can have published meanwhile
        result: dict[str, Any] = {"published": plan.verdict.publish, "verdict": plan.verdict.reason}
        if plan.verdict.reason:
            logger.info(plan.verdict.reason)
        if not plan.verdict.publish:
            return result | {"kept": [], "left_out": []}
        described = publish_recipe(plan.recipe, workspace.root)
    if plan.kept:
        logger.info("kept in the collection: %s", ", ".join(plan.kept))
    if plan.left_out:
        logger.info("left out of the collection: %s", ", ".join(plan.left_out))
    return result | {
        "collection": described.name,
        "performances": described.points,
        "sources": [one.name for one in plan.recipe.sources],
        "kept": plan.kept,
        "left_out": plan.left_out,
    }


def _plan(asked: Asked, workspace: Workspace) -> Plan:
    """Say what to publish beside what is current now, and embed what has to be embedded for it."""
    try:
        found = current(search.connect(home=workspace.root), workspace)
    except UnknownSources:
        if not asked.only:
            raise
        found = None
    if found is not None and (asked.keep_bundle or not asked.renewed):
        bundle, bundle_id = found.bundle, found.bundle_id
    elif asked.renewed:
        bundle, bundle_id = _bundle_of(asked.renewed, workspace)
    else:
        raise search.NoCollection(
            "There is no collection to leave anything out of: make one with `covers pipeline "
            "--data DIR`."
        )
    check_bundle(bundle)
    standing = found.sources if found else ()
    merged = merge(standing, asked.renewed, only=asked.only, leave_out=asked.leave_out)
    verdict = Verdict(True, "")
    if asked.unless_worse:
        verdict = compare_with_published(bundle, found.bundle if found else None)
    sources = merged.sources
    if verdict.publish:
        check_kept(
            merged.kept,
            same_bundle=found is None or found.bundle_id == bundle_id,
            can_embed=not any(map(is_made_elsewhere, asked.renewed)),
        )
        sources = tuple(_embedded(one, bundle, bundle_id, workspace) for one in sources)
    return Plan(
        Recipe(bundle, bundle_id, sources),
        [one.name for one in merged.kept],
        [one.name for one in merged.left_out],
        verdict,
    )


def _bundle_of(renewed: Sequence[Source], workspace: Workspace) -> tuple[Path, str]:
    """The bundle that made these vectors, and its id."""
    made_with = [origin(one.vectors) for one in renewed]
    first = made_with[0]
    for one, made in zip(renewed, made_with, strict=True):
        if made["bundle_id"] != first["bundle_id"]:
            raise ValueError(
                f"{renewed[0].vectors} is of {first['bundle_id']}, and {one.vectors} is of "
                f"{made['bundle_id']}: embed all of them with one bundle."
            )
    return workspace.resolve(first["bundle"]), first["bundle_id"]


def _embedded(source: Source, bundle: Path, bundle_id: str, workspace: Workspace) -> Source:
    """The source with vectors of that bundle."""
    made_by = origin(source.vectors)["bundle_id"] if source.vectors.exists() else None
    if made_by == bundle_id:
        return source
    if source.features is None or is_made_elsewhere(source):
        raise ValueError(
            f"{source.name} was made by {made_by}, and the collection by {bundle_id}, which cannot "
            "make its vectors: publish it alone, with `covers publish --only`."
        )
    return replace(source, vectors=embed_features(source.features, bundle, workspace.root))


def check_before_training(data: Path, bundle: Path | None, workspace: Workspace) -> None:
    """Check that the other sources of the collection can be kept when a data set is renewed.

    Parameters
    ----------
    data : Path
        The data set.
    bundle : Path or None
        What to embed with; None for a bundle that is still to be trained.
    workspace : Workspace
        Where the sources are.

    Raises
    ------
    ValueError
        As `sources.current` and `sources.check_kept`.
    """
    try:
        found = current(search.connect(home=workspace.root), workspace)
    except (search.ServerUnreachable, search.ServerBusy):
        return  # the server can be back when there is something to publish
    if found is not None:
        kept = merge(found.sources, [Source(data, None, data)]).kept
        same_bundle = bundle is not None and bundles.load(bundle).id == found.bundle_id
        check_kept(kept, same_bundle=same_bundle)


def may_pass(_task: Any, _run: Any, state: Any) -> bool:
    """Whether it is worth trying again: a server may come back, what is wrong stays wrong."""
    try:
        state.result()
    except (search.ServerRefused, search.NoRoom):
        return False
    except (search.ServerUnreachable, search.ServerBusy, search.PublishError, OSError):
        return True
    except Exception:
        return False
    return False


@task(
    cache_policy=NO_CACHE,
    retries=3,
    retry_delay_seconds=[1, 5, 20],
    retry_condition_fn=may_pass,
)
def publish_recipe(recipe: Recipe, home: Path) -> search.Description:
    """Publish the vectors of all sources, with what their features know of each performance.

    Publishing the same content again changes nothing, so a retry is harmless.

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


def points_of_recipe(recipe: Recipe) -> search.Points:
    """Gather the points of all sources.

    Raises
    ------
    ValueError
        If a performance is in two of them.
    """
    stores = [
        None if source.features is None else FeatureStore.open(source.features)
        for source in recipe.sources
    ]
    points: list[search.Point] = []
    owner: dict[str, Source] = {}
    for source, store in zip(recipe.sources, stores, strict=True):
        complete = not is_made_elsewhere(source)
        for point in _points(read(source.vectors), store, complete):
            other = owner.setdefault(point.track_id, source)
            if other is not source:
                raise ValueError(
                    f"Performance {point.track_id} is in {other.name} and in {source.name}: take "
                    "it out of one of them, or publish without one of them, with `--only` or "
                    "`covers publish --leave-out`."
                )
            points.append(point)
    return search.Points(points, rate=CHROMA_RATE, calibration=read_calibration(recipe.bundle))


def points_of(
    vectors: pl.DataFrame,
    store: FeatureStore | None,
    calibration: search.Calibration | None,
    *,
    complete: bool = True,
) -> search.Points:
    """Join vectors with what a store knows of their performances: titles, and the chroma.

    Parameters
    ----------
    vectors : pl.DataFrame
        Rows as `vectors.read` returns them. What they bring of a performance comes before what the
        store knows.
    store : FeatureStore or None
        Holds their performances.
    calibration : Calibration or None
        Of the bundle that made them.
    complete : bool
        Whether the store must hold all of them; it need not where they were made elsewhere.
    """
    points = _points(vectors, store, complete)
    return search.Points(points, rate=CHROMA_RATE, calibration=calibration)


def _points(
    vectors: pl.DataFrame, store: FeatureStore | None, complete: bool
) -> Iterator[search.Point]:
    """A point for each performance."""
    brought = [name for name in BROUGHT if name in vectors.columns]
    table = vectors.select("track_id", "work_id", "vector", *brought)
    rows: dict[str, int] = {}
    if store is not None:
        rows = {track_id: row for row, track_id in enumerate(store.table["track_id"])}
        strangers = sorted(set(table["track_id"]) - set(rows))
        if strangers and complete:
            raise ValueError(
                f"There are vectors of {strangers[0]}, which {store.path} doesn't hold, so they "
                "are damaged or of other features: delete them, and run the same again."
            )
        # Titles are looked up, so that a corrected one arrives.
        known = store.table.select("track_id", *BROUGHT)
        table = table.join(known, on="track_id", how="left", maintain_order="left", suffix=" known")
        table = table.with_columns(pl.coalesce(name, f"{name} known") for name in brought)
        table = table.drop(f"{name} known" for name in brought)
    matrix = table["vector"].to_numpy()
    payloads = table.drop("vector").to_dicts()
    for vector, payload in zip(matrix, payloads, strict=True):
        track_id = payload.pop("track_id")
        row = rows.get(track_id)
        sequence = None if store is None or row is None else store.sequence(row)
        yield search.Point(track_id, vector, payload, sequence)
