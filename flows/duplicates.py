"""The published collection -> pairs that are probably of one work but have two work labels."""

from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
from prefect import get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

import search
from flows import alert
from flows.workspace import Workspace

#: Increase this number when the search or the table changes.
VERSION = 2

#: Rows in the artifact; the file has all rows.
MAX_ARTIFACT_ROWS = 100

SCHEMA = {
    "probability": pl.Float64,
    "distance": pl.Float64,
    "transposition": pl.Int64,
    **{
        prefix + name: pl.String
        for prefix in ("", "other_")
        for name in ("track_id", "work_id", "title", "artist")
    },
    "pairs": pl.Int64,
}


@alert.flow("duplicates", "duplicates")
def duplicates(
    max_pairs: int = 1000, min_probability: float = 0.5, home: Path | None = None
) -> Path:
    """Search the published collection for mislabelled performances and unlinked works.

    Parameters
    ----------
    max_pairs : int
        Maximum number of pairs.
    min_probability : float in [0, 1]
        Minimum probability of a pair.
    home : Path, optional
        The workspace; by default `$COVERS_HOME`.

    Returns
    -------
    Path
        duplicates.csv, the most probable pair first. Its columns are probability, distance,
        transposition, and track_id, work_id, title and artist of both performances. `pairs` is the
        number of listed pairs that connect the same two works: several pairs suggest that the works
        are one, a single pair suggests a mislabelled performance.
    """
    workspace = Workspace.at(home)
    with workspace.used():
        table = list_duplicates(max_pairs, min_probability, workspace.root)
        rows = pl.read_csv(table, n_rows=MAX_ARTIFACT_ROWS).to_dicts()
    create_table_artifact(rows, key="duplicates", description=f"The whole table: {table}")
    return table


@task(cache_policy=NO_CACHE)
def list_duplicates(max_pairs: int, min_probability: float, home: Path) -> Path:
    """Write the table, unless the workspace has the result for this collection."""
    logger = get_run_logger()
    with search.Searcher(search.connect(home=home)) as searcher:
        current = searcher.engine.open().description

        def make(directory: Path) -> None:
            found = searcher.duplicates(max_pairs, min_probability=min_probability)
            pairs = Counter(_works(duplicate) for duplicate in found)
            rows = [_row(duplicate, pairs[_works(duplicate)]) for duplicate in found]
            pl.DataFrame(rows, schema=SCHEMA).write_csv(directory / "duplicates.csv")

        made_of = (VERSION, current.content, max_pairs, min_probability)
        about = {"collection": current.name}
        place = Workspace(home).result("duplicates", current.name, made_of, make, about)
    table = place / "duplicates.csv"
    logger.info("%d pairs of %s are probably of one work", len(pl.read_csv(table)), current.name)
    return table


def _works(duplicate: search.Duplicate) -> frozenset[str | None]:
    return frozenset((duplicate.work_id, duplicate.match.work_id))


def _row(duplicate: search.Duplicate, pairs: int) -> dict[str, Any]:
    match = duplicate.match
    row: dict[str, Any] = {
        "probability": match.probability,
        "distance": match.distance,
        "transposition": match.alignment and match.alignment.transposition,
        "pairs": pairs,
    }
    for prefix, performance in ("", duplicate), ("other_", match):
        row |= {
            f"{prefix}track_id": performance.track_id,
            f"{prefix}work_id": performance.work_id,
            f"{prefix}title": performance.title or performance.work_title,
            f"{prefix}artist": performance.artist or performance.work_artist,
        }
    return row
