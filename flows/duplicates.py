"""The published collection -> the pairs that are probably of one work but labelled as of two."""

from collections import Counter
from pathlib import Path

import polars as pl
from prefect import flow, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

import search
from flows import alert
from flows.workspace import Workspace

#: Counted up when what is found or listed changes, so that it is done anew.
VERSION = 2

#: Rows in the artifact; the table holds all.
SHOWN = 100


@flow(name="duplicates", flow_run_name="duplicates", **alert.WATCHED)
def duplicates(
    max_pairs: int = 1000, min_probability: float = 0.5, home: Path | None = None
) -> Path:
    """Go through the published collection for mislabelled performances and unlinked works.

    Parameters
    ----------
    max_pairs : int
        The most pairs to list.
    min_probability : float in [0, 1]
        And none that is less probable.
    home : Path, optional
        The workspace; by default `$COVERS_HOME`.

    Returns
    -------
    Path
        duplicates.csv, the most probable first: probability, distance, transposition, and of both
        track_id, work_id, title and artist; `pairs` is how many of them connect the same two works,
        more than a mislabelled performance alone would.
    """
    workspace = Workspace.at(home)
    with workspace.used():
        table = list_duplicates(max_pairs, min_probability, workspace.root)
        rows = pl.read_csv(table, n_rows=SHOWN).to_dicts()
    create_table_artifact(rows, key="duplicates", description=f"The whole table: {table}")
    return table


@task(cache_policy=NO_CACHE)
def list_duplicates(max_pairs: int, min_probability: float, home: Path) -> Path:
    """Write the table, unless it stands for the same collection."""
    logger = get_run_logger()
    searcher = search.Searcher(search.connect(home=home))
    current = searcher.engine.open().description

    def make(directory: Path) -> None:
        found = searcher.duplicates(max_pairs, min_probability=min_probability)
        works = Counter(frozenset((one.work_id, one.match.work_id)) for one in found)
        rows = [
            {
                "probability": one.match.probability,
                "distance": one.match.distance,
                "transposition": one.match.alignment and one.match.alignment.transposition,
                "track_id": one.track_id,
                "work_id": one.work_id,
                "title": one.title or one.work_title,
                "artist": one.artist or one.work_artist,
                "other_track_id": one.match.track_id,
                "other_work_id": one.match.work_id,
                "other_title": one.match.title or one.match.work_title,
                "other_artist": one.match.artist or one.match.work_artist,
                "pairs": works[frozenset((one.work_id, one.match.work_id))],
            }
            for one in found
        ]
        pl.DataFrame(rows, schema=SCHEMA).write_csv(directory / "duplicates.csv")

    made_of = (VERSION, current.content, max_pairs, min_probability)
    about = {"collection": current.name}
    place = Workspace(home).result("duplicates", current.name, made_of, make, about)
    table = place / "duplicates.csv"
    logger.info("%d pairs of %s are probably of one work", len(pl.read_csv(table)), current.name)
    return table


SCHEMA = {
    "probability": pl.Float64,
    "distance": pl.Float64,
    "transposition": pl.Int64,
    "track_id": pl.String,
    "work_id": pl.String,
    "title": pl.String,
    "artist": pl.String,
    "other_track_id": pl.String,
    "other_work_id": pl.String,
    "other_title": pl.String,
    "other_artist": pl.String,
    "pairs": pl.Int64,
}
