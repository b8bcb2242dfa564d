"""Performances that were left out of a result: the file, and why."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl
from prefect.artifacts import create_table_artifact

from embedding.data.store import FeatureStore
from flows.collection.sources import data_of
from flows.show import artifact_key

logger = logging.getLogger(__name__)

#: The file beside vectors that lists what an encoder cannot use.
REJECTS = "rejects.parquet"

#: Rejects that are named one by one where people read.
MAX_NAMED = 5

#: Rows of an artifact that lists rejects.
MAX_SHOWN = 1000

#: track_id, file and reason.
Reject = dict[str, str]


def unreadable(features: Path) -> list[Reject]:
    """List what could not be read of a data set, in the order of track ids."""
    return _listed(FeatureStore.open(features).rejects, features)


def unusable(features: Path, vectors: Path) -> list[Reject]:
    """List what was read, but could not be embedded."""
    path = vectors.parent / REJECTS
    if not path.is_file():
        return []  # vectors that another model made
    sources = FeatureStore.open(features).table.select("track_id", "source")
    return _listed(pl.read_parquet(path).join(sources, on="track_id", how="left"), features)


def _listed(rejects: pl.DataFrame, features: Path) -> list[Reject]:
    root = data_of(features.parent) or Path()
    if not root.is_dir():  # a table, or the common beginning of the names of folders
        root = root.parent
    return [
        {"track_id": track_id, "file": str(root / source), "reason": reason}
        for track_id, source, reason in rejects.select("track_id", "source", "reason").iter_rows()
    ]


def show_table(rows: Sequence[Mapping[str, str]], name: str, of: str, about: str) -> None:
    """Make an artifact of rejects, whose key is made of its name and the data set's."""
    shown = [dict(row) for row in rows[:MAX_SHOWN]]
    create_table_artifact(shown, key=artifact_key(name, of), description=about)


def warn(rejects: Sequence[Reject]) -> None:
    """Log the first rejects, and how many more there are."""
    for reject in rejects[:MAX_NAMED]:
        logger.warning("left out %s: %s", reject["file"], reject["reason"])
    if len(rejects) > MAX_NAMED:
        logger.warning("left out %d more", len(rejects) - MAX_NAMED)
