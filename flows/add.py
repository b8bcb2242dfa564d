"""Bring the published collection up to date with its data: new, changed and withdrawn."""

from pathlib import Path
from typing import Any

import polars as pl
from prefect import flow, get_run_logger

import search
from flows.aggregate import aggregate
from flows.embed import embed_features
from flows.publish import Recipe, Source, publish, recipe_of
from flows.vectors import IDS, read
from flows.workspace import Workspace


@flow(name="add", flow_run_name="add")
def add(
    data: list[Path] | None = None, frame_rate: float | None = None, home: Path | None = None
) -> dict[str, Any]:
    """Take in what is new or changed in some data sets, with the bundle that is published.

    Only that is read, aggregated and embedded; nothing is trained. Performances that a data set no
    longer has disappear from the collection, and corrected titles and works arrive in it. A run
    that finds nothing new changes nothing. On a Qdrant server, only what is new, changed or
    withdrawn is sent, as long as it is little, see `search.publish`; and a run that was killed is
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
    logger = get_run_logger()
    workspace = Workspace.at(home)
    before = recipe_of(search.connect(workspace.root).open().description.name, workspace.root)
    paths = [path.expanduser().resolve() for path in data or []]
    if not paths:
        paths = [one.data for one in before.sources if one.data is not None]
    if not paths:
        raise ValueError(
            "It isn't known what data the collection was made of: name them, `covers add DIR`."
        )
    sources = {one.data or one.features: one for one in before.sources}
    for path in paths:
        features = aggregate(path, frame_rate=frame_rate, home=home)
        vectors = embed_features(features, before.bundle, workspace.root)
        sources[path] = Source(path, features, vectors)
    after = Recipe(before.bundle, tuple(sources.values()))
    published = publish(after, workspace.root)
    result = difference(before, after)
    logger.info(
        "%d added, %d changed, %d relabelled, %d withdrawn",
        *(result[name] for name in ("added", "changed", "relabelled", "withdrawn")),
    )
    return result | {"collection": published.name, "performances": published.points}


def difference(before: Recipe, after: Recipe) -> dict[str, int]:
    """Count the performances by what has become of them."""
    old, new = (
        pl.concat(read(one.vectors).select(IDS) for one in recipe.sources)
        for recipe in (before, after)
    )
    both = old.join(new, on="track_id", suffix="_now")
    changed = both["fingerprint"] != both["fingerprint_now"]
    return {
        "added": len(new) - len(both),
        "changed": int(changed.sum()),
        "relabelled": int((both["work_id"] != both["work_id_now"]).sum()),
        "withdrawn": len(old) - len(both),
    }
