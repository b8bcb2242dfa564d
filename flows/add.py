"""Bring the published collection up to date with its data: new, changed and withdrawn."""

from pathlib import Path
from typing import Any

import polars as pl
from prefect import flow, get_run_logger

import search
from flows import alert
from flows.aggregate import absolute, aggregate
from flows.embed import embed_features
from flows.publish import bring, publish
from flows.retention import tidy
from flows.sources import Recipe, check_bundle, current, is_made_elsewhere
from flows.vectors import IDS, origin, read
from flows.workspace import Workspace


@flow(name="add", flow_run_name="add", **alert.WATCHED)
def add(
    data: list[Path] | None = None, frame_rate: float | None = None, home: Path | None = None
) -> dict[str, Any]:
    """Take in what is new or changed in some data sets, with the bundle that is published.

    Only that is read, aggregated and embedded; nothing is trained. Performances that a data set no
    longer has disappear from the collection, and corrected titles and works arrive in it. A run
    that finds nothing new changes nothing. On a Qdrant server, only what is new, changed or
    withdrawn is sent, as long as it is little, see `Engine.publish`; and a run that was killed is
    completed by the next one.

    Parameters
    ----------
    data : list of Path, optional
        Data sets to add, or to look through again; by default those that are in the collection.
    frame_rate : float, optional
        Frames a second, where the data doesn't say it.
    home : Path, optional
        The workspace; by default `$COVERS_HOME`.

    Returns
    -------
    dict
        `added`, `changed` (their audio features), `relabelled` (their work) and `withdrawn`:
        numbers of performances; `collection`, and how many `performances` it has.

    Raises
    ------
    ValueError
        If it isn't known where the collection's data are, or two sets have the same performance.
    """
    workspace = Workspace.at(home)
    with workspace.used():
        before = _published(workspace)
        paths = [absolute(path) for path in data or []]
        paths = paths or [one.data for one in before.sources if one.data is not None]
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
    """The vectors of a data set as it is now, by the bundle that is published."""
    known = next((one for one in before.sources if one.is_at(path)), None)
    if path.suffix == ".parquet":
        features = model = None
        if known is not None:
            features, model = known.features, origin(known.vectors).get("model")
        return bring(path, features, model, workspace)
    if brought := [one.name for one in before.sources if is_made_elsewhere(one)]:
        raise ValueError(
            f"{path} cannot be added, because the collection's vectors were made elsewhere "
            f"({brought[0]}): publish vectors of the same model with `covers publish VECTORS`, or "
            f"begin anew with `covers pipeline --data {path} --only`."
        )
    features = aggregate(path, frame_rate=frame_rate, home=workspace.root, role=None)
    return embed_features(features, before.bundle, workspace.root)


def _ids(recipe: Recipe) -> pl.DataFrame:
    """Ids, works and fingerprints of all performances of a recipe whose vectors are still there."""
    found = [read(one.vectors).select(IDS) for one in recipe.sources if one.vectors.exists()]
    return pl.concat([pl.DataFrame(schema=dict.fromkeys(IDS, pl.String)), *found])


def difference(old: pl.DataFrame, new: pl.DataFrame) -> dict[str, int]:
    """Count the performances by what has become of them."""
    both = old.join(new, on="track_id", suffix="_now")
    changed = both["fingerprint"] != both["fingerprint_now"]
    return {
        "added": len(new) - len(both),
        "changed": int(changed.sum()),
        "relabelled": int((both["work_id"] != both["work_id_now"]).sum()),
        "withdrawn": len(old) - len(both),
    }
