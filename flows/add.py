"""Bring the published collection up to date with its data: new, changed and withdrawn."""

from pathlib import Path
from typing import Any

import polars as pl
from prefect import get_run_logger

import search
from flows import alert
from flows.aggregate import absolute, aggregate
from flows.collection.served import current
from flows.collection.sources import Recipe, check_bundle
from flows.collection.vectors import IDS, origin, read
from flows.embed import embed_features
from flows.publish import bring, publish
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
        another work) and `withdrawn`; the `collection`, and the number of its `performances`.

    Raises
    ------
    ValueError
        If the data sets of the collection are not known, or two have the same performance.
    """
    workspace = Workspace.at(home)
    with workspace.used():
        before = _published(workspace)
        paths = [absolute(path) for path in data_sets or []]
        paths = paths or [source.data for source in before.sources if source.data is not None]
        if not paths:
            raise ValueError(
                "It isn't known what data the collection was made of: name them, `covers add DIR`."
            )
        known = _ids(before)
        vectors = [_embedded(path, before, frame_rate, workspace) for path in paths]
        published = publish(vectors, keep_bundle=True, home=home)
        result = difference(known, _ids(_published(workspace)))
    tidy(workspace)
    get_run_logger().info(
        "%d added, %d changed, %d relabelled, %d withdrawn",
        *(result[name] for name in ("added", "changed", "relabelled", "withdrawn")),
    )
    return result | {name: published[name] for name in ("collection", "performances")}


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


def _ids(recipe: Recipe) -> pl.DataFrame:
    """Return the ids, works and fingerprints of all sources whose vectors still exist."""
    found = [
        read(source.vectors).select(IDS) for source in recipe.sources if source.vectors.exists()
    ]
    return pl.concat([pl.DataFrame(schema=dict.fromkeys(IDS, pl.String)), *found])


def difference(old: pl.DataFrame, new: pl.DataFrame) -> dict[str, int]:
    """Count the performances that were added, changed, relabelled and withdrawn."""
    both = old.join(new, on="track_id", suffix="_now")
    changed = both["fingerprint"] != both["fingerprint_now"]
    return {
        "added": len(new) - len(both),
        "changed": int(changed.sum()),
        "relabelled": int((both["work_id"] != both["work_id_now"]).sum()),
        "withdrawn": len(old) - len(both),
    }
