"""The published collection -> performances that are probably of one work, but labelled with two."""

from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

import search
from flows import alert
from flows.collection.served import current
from flows.collection.sources import UnknownSources
from flows.measuring.report import group_table
from flows.show import show_page
from flows.workspace import Workspace

#: Increase this number when the search or the table changes.
VERSION = 3

#: What the table says of each performance.
NAMES = ("track_id", "work_id", "title", "artist")

SCHEMA = {
    "group": pl.Int64,
    "probability": pl.Float64,
    "weakest_link": pl.Boolean,
    "distance": pl.Float64,
    "transposition": pl.Int64,
    **{prefix + name: pl.String for prefix in ("", "other_") for name in NAMES},
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
        duplicates.csv, which `read` reads: a row for each pair, sorted by group and probability.

        group
            Number of the group, from 1. Pairs that share a performance, or that connect the same
            two works, are one group. Groups whose weakest link is strongest come first.
        probability
            The probability that the two are versions of one work.
        weakest_link
            True for one pair of each group: with a `min_probability` above the probability of
            this pair, the group would fall apart.
        distance
            Between their vectors.
        transposition
            Semitones from the key of the first up to the key of the other; empty if they were not
            aligned.
        track_id, work_id, title, artist, other_track_id, …
            The two performances.
        pairs
            Number of listed pairs that connect the same two works. Several suggest that the works
            are one, and a single pair suggests a mislabelled performance.
    """
    workspace = Workspace.at(home)
    with workspace.used():
        table = list_duplicates(max_pairs, min_probability, workspace.root)
        groups = groups_of(read(table))
        named = _named(workspace)
    pairs = sum(group["pairs"] for group in groups)
    summary = (
        f"{pairs} pairs in {len(groups)} groups are probably of one work, although their labels "
        f"differ. All of them are in {table}."
    )
    show_page(("duplicates", *named), summary, [group_table(groups)])
    return table


def _named(workspace: Workspace) -> list[str]:
    """Return the names of the data sets and of the encoder of the published collection."""
    try:
        served = current(search.connect(home=workspace.root), workspace)
    except UnknownSources:
        served = None
    if served is None:
        return []
    data = [Path(source.name).name for source in served.sources]
    return [*data, served.bundle_id.rpartition("-")[0]]


@task(cache_policy=NO_CACHE)
def list_duplicates(max_pairs: int, min_probability: float, home: Path) -> Path:
    """Write the table, unless the workspace has the result for this collection."""
    logger = get_run_logger()
    with search.Searcher(search.connect(home=home)) as searcher:
        current = searcher.engine.open().description

        def make(directory: Path) -> None:
            groups = searcher.duplicates(max_pairs, min_probability=min_probability)
            pairs = Counter(_works(pair) for group in groups for pair in group.pairs)
            rows = [
                {"group": number, "weakest_link": pair is group.weakest_link}
                | _row(pair)
                | {"pairs": pairs[_works(pair)]}
                for number, group in enumerate(groups, 1)
                for pair in group.pairs
            ]
            pl.DataFrame(rows, schema=SCHEMA).write_csv(directory / "duplicates.csv")

        made_of = (VERSION, current.content, max_pairs, min_probability)
        about = {"collection": current.name}
        place = Workspace(home).result("duplicates", current.name, made_of, make, about)
    path = place / "duplicates.csv"
    table = read(path)
    logger.info(
        "%d pairs of %s, in %d groups, are probably of one work",
        len(table),
        current.name,
        table["group"].n_unique(),
    )
    return path


def read(path: Path) -> pl.DataFrame:
    """Read duplicates.csv; ids stay texts, also those of digits only."""
    return pl.read_csv(path, schema=SCHEMA)


def groups_of(table: pl.DataFrame) -> list[dict[str, Any]]:
    """Return the groups of the table.

    Each has its number (`group`), its `performances` with their labels, the number of its `pairs`,
    and its `weakest_link`, which is the row of that pair.
    """
    groups = []
    for (number,), rows in table.group_by("group", maintain_order=True):
        performances = {
            row[f"{prefix}track_id"]: {name: row[prefix + name] for name in NAMES}
            for row in rows.iter_rows(named=True)
            for prefix in ("", "other_")
        }
        groups.append(
            {
                "group": number,
                "performances": [performances[track_id] for track_id in sorted(performances)],
                "pairs": len(rows),
                "weakest_link": rows.row(by_predicate=pl.col("weakest_link"), named=True),
            }
        )
    return groups


def _works(duplicate: search.Duplicate) -> frozenset[str]:
    return frozenset((duplicate.work_id, duplicate.match.work_id))


def _row(duplicate: search.Duplicate) -> dict[str, Any]:
    match = duplicate.match
    row: dict[str, Any] = {
        "probability": match.probability,
        "distance": match.distance,
        "transposition": match.alignment and match.alignment.transposition,
    }
    for prefix, performance in ("", duplicate), ("other_", match):
        row |= {
            f"{prefix}track_id": performance.track_id,
            f"{prefix}work_id": performance.work_id,
            f"{prefix}title": performance.title or performance.work_title,
            f"{prefix}artist": performance.artist or performance.work_artist,
        }
    return row
