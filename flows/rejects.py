"""Performances that were left out of a result: the file, and why."""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import polars as pl
from prefect.artifacts import create_table_artifact

from embedding.audio.extract import Outcome, outcomes_in
from embedding.data.store import FeatureStore
from flows.collection.sources import data_of
from flows.show import artifact_key
from flows.workspace import Workspace

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
    """List what could not be read of a data set: recordings, and then files of features."""
    data = data_of(features.parent)
    extracted = data and Workspace(features.parents[2]).extracted(data)
    recordings = rejected_recordings(data, outcomes_in(extracted)) if data and extracted else []
    return recordings + rejected_files(features)


def rejected_recordings(folder: Path, outcomes: Iterable[Outcome]) -> list[Reject]:
    """List the recordings of a folder that cannot be used, in the order of paths."""
    return [
        {"track_id": each.track_id, "file": str(folder / each.path), "reason": each.reason}
        for each in outcomes
        if each.reason is not None
    ]


def rejected_files(features: Path) -> list[Reject]:
    """List the files of features that could not be read, in the order of track ids."""
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


def tell(rejects: Sequence[Reject], name: str, data: str, why: str) -> None:
    """Log the first rejects of a data set, and make an artifact of all, named after both."""
    warn(rejects)
    about = f"{len(rejects)} performances of {data} {why}"
    create_table_artifact(
        list(rejects[:MAX_SHOWN]), key=artifact_key(name, data), description=about
    )


def warn(rejects: Sequence[Reject]) -> None:
    """Log the first rejects, and how many more there are."""
    for reject in rejects[:MAX_NAMED]:
        logger.warning("left out %s: %s", reject["file"], reject["reason"])
    if len(rejects) > MAX_NAMED:
        logger.warning("left out %d more", len(rejects) - MAX_NAMED)
