"""Bring the published collection up to date with its data: new, changed and withdrawn."""

import json
from pathlib import Path
from typing import Any

import polars as pl
from prefect import get_run_logger

import search
from embedding import bundle as bundles
from embedding.data.store import BadStore, FeatureStore
from flows import alert
from flows.aggregate import absolute, aggregate
from flows.checks import check_inputs
from flows.collection.points import titled
from flows.collection.served import current
from flows.collection.sources import Recipe, Source, check_bundle, source_of
from flows.collection.vectors import IDS, origin, read
from flows.embed import embed_features
from flows.publish import bring, publish
from flows.rejects import Reject, unreadable, unusable
from flows.retention import tidy
from flows.workspace import Workspace


@alert.flow("add", "add")
def add(
    data_sets: list[Path] | None = None, frame_rate: float | None = None, home: Path | None = None
) -> dict[str, Any]:
    """Add what is new or changed in some data sets, with the bundle that is published.

    Only that is read, aggregated and embedded; nothing is trained. Performances that a data set no
    longer has leave the collection, and corrected titles and works arrive in it. If nothing is new,
    nothing changes. A Qdrant server is sent only the differences, if they are few. A run that was
    killed is completed by the next run.

    Parameters
    ----------
    data_sets : list of Path, optional
        Data sets to add, or to read again; by default those in the collection.
    frame_rate : float, optional
        Frames per second, if the data do not say it.
    home : Path, optional
        The workspace; by default `$COVERS_HOME`.

    Returns
    -------
    dict
        The numbers of performances `added`, `changed` (in their audio features), `relabelled` (with
        another work), `retitled` (with another title, year or own column) and `withdrawn`;
        `tracks`, their ids; `rejected`, the file and the reason of each performance that was left
        out; `moved`, the data sets that were found in another place; the `collection`, and the
        number of its `performances`.

    Raises
    ------
    FileNotFoundError
        If a data set of the collection is gone.
    ValueError
        If the data sets of the collection are not known, or two have the same performance.
    """
    workspace = Workspace.at(home)
    with workspace.used():
        before = _published(workspace)
        paths = [absolute(path) for path in data_sets or []]
        paths = paths or _data_of(before)
        check_inputs(bundles.head(before.bundle).inputs, *paths)
        known = _facts(before)
        vectors = [_embedded(path, before, frame_rate, workspace) for path in paths]
        published = publish(vectors, keep_bundle=True, home=home)
        tracks = difference(known, _facts(_published(workspace)))
        rejects = [reject for path in vectors for reject in _rejected(source_of(path, workspace))]
    tidy(workspace)
    result: dict[str, Any] = {name: len(ids) for name, ids in tracks.items()}
    get_run_logger().info(", ".join(f"{count} {name}" for name, count in result.items()))
    result |= {"tracks": tracks, "rejected": rejects}
    return result | {name: published[name] for name in ("moved", "collection", "performances")}


def _published(workspace: Workspace) -> Recipe:
    engine = search.connect(home=workspace.root)
    found = current(engine, workspace)
    if found is None:
        raise search.NoCollection(
            f"There is no collection in {engine.location} to add to: make one with "
            "`covers pipeline --data DIR`."
        )
    check_bundle(found.bundle)
    return found


def _data_of(recipe: Recipe) -> list[Path]:
    """Return where the data sets of a collection are."""
    for source in recipe.sources:
        if source.data is not None and not source.is_there:
            raise FileNotFoundError(
                f"There is no data set at {source.name}, where the collection has it from: if it "
                "has moved, name its new place with `covers add DIR`; to search without it, use "
                f"`covers publish --leave-out {source.name}`."
            )
    paths = [source.data for source in recipe.sources if source.data is not None]
    if not paths:
        raise ValueError(
            "It isn't known what data the collection was made of: name them, `covers add DIR`."
        )
    return paths


def _embedded(path: Path, before: Recipe, frame_rate: float | None, workspace: Workspace) -> Path:
    """Return the vectors of a data set as it is now, by the published bundle."""
    if path.suffix == ".parquet":
        features = model = None
        known = next((source for source in before.sources if source.is_at(path)), None)
        if known is not None:
            features, model = known.features, origin(known.vectors).get("model")
        return bring(path, features, model, workspace)
    if foreign := [source.name for source in before.sources if source.is_foreign]:
        raise ValueError(
            f"{path} cannot be added, because the collection's vectors were made elsewhere "
            f"({foreign[0]}): publish vectors of the same model with `covers publish VECTORS`, or "
            f"start again with `covers pipeline --data {path} --only`."
        )
    features = aggregate(path, frame_rate=frame_rate, home=workspace.root, role=None)
    return embed_features(features, before.bundle, workspace.root)


def _facts(recipe: Recipe) -> pl.DataFrame:
    """Return `IDS` and titles (as JSON; null if unknown) of all sources whose vectors exist."""
    found = [_facts_of(source) for source in recipe.sources if source.vectors.exists()]
    columns = [*IDS, "titles"]
    return pl.concat([pl.DataFrame(schema=dict.fromkeys(columns, pl.String)), *found])


def _facts_of(source: Source) -> pl.DataFrame:
    table, store = read(source.vectors).drop("vector"), None
    if source.features is not None:
        try:
            store = FeatureStore.open(source.features)
        except BadStore:  # deleted, or of another version
            return table.select(*IDS, titles=pl.lit(None, pl.String))
    table, _ = titled(table, store)
    known = ({k: v for k, v in row.items() if v is not None} for row in table.drop(IDS).to_dicts())
    titles = [json.dumps(row, sort_keys=True) for row in known]
    return table.select(IDS).with_columns(titles=pl.Series(titles, dtype=pl.String))


def _rejected(source: Source) -> list[Reject]:
    if source.features is None or source.is_foreign:
        return []
    return unreadable(source.features) + unusable(source.features, source.vectors)


def difference(old: pl.DataFrame, new: pl.DataFrame) -> dict[str, list[str]]:
    """Return the ids that were added, changed, relabelled, retitled and withdrawn."""
    both = old.join(new, on="track_id", suffix="_now")
    columns = {"changed": "fingerprint", "relabelled": "work_id", "retitled": "titles"}
    tables = {
        "added": new.join(old, on="track_id", how="anti"),
        **{name: both.filter(pl.col(of) != pl.col(f"{of}_now")) for name, of in columns.items()},
        "withdrawn": old.join(new, on="track_id", how="anti"),
    }
    return {name: sorted(table["track_id"]) for name, table in tables.items()}
