"""Raw features -> a feature store, read in batches by all cores."""

import os
import shutil
from concurrent.futures import Executor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Literal

import joblib
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from embedding.audio.recordings import holds_recordings
from embedding.data import store
from embedding.data.aggregate import (
    aggregate_batch,
    aggregate_csv,
    assemble,
    intact,
    parts,
    pending,
)
from embedding.data.columns import told
from embedding.data.dataset import Dataset, check_frame_rate, open_dataset
from embedding.data.layout import Performance
from embedding.data.store import FeatureStore
from embedding.processes import TerminatedWorkerError, processes
from flows import alert
from flows.collection.sources import note_data
from flows.collection.vectors import TAKEN
from flows.extract import extract_features
from flows.rejects import rejected_files, tell
from flows.runners import in_cluster, task_runner
from flows.workspace import PARTS, Workspace, claimed, key

#: Performances in a batch: few, so that a killed run loses little; enough to outweigh the start of
#: a task.
MIN_BATCH_PERFORMANCES, MAX_BATCH_PERFORMANCES = 16, 500

#: The number of cores to cut batches for on a cluster, which does not say how many it has.
CLUSTER_CORES = 32


@alert.flow("aggregate", "aggregate {data}", task_runner=task_runner())
def aggregate(
    data: Path,
    frame_rate: float | None = None,
    max_reject_share: float = 0.05,
    home: Path | None = None,
    role: Literal["data", "training"] | None = "data",
) -> Path:
    """Read what is new or changed in a data set, and make its feature store.

    A performance that cannot be read is listed in the store's rejects, with the reason.

    Parameters
    ----------
    data : Path
        A directory as `embedding.data.dataset.open_dataset` reads it, a folder of recordings, or a
        CSV table of features.
    frame_rate : float, optional
        Frames per second, if the data set does not say it.
    max_reject_share : float in [0, 1]
        The run fails if a larger share is rejected.
    home : Path, optional
        The workspace; by default `$COVERS_HOME`.
    role : {"data", "training"}, optional
        Make the store the latest of all features ("data"), or only of those to train on. None
        leaves the latest as they are.

    Returns
    -------
    Path
        The store's directory, which stays the same until something changes.
    """
    workspace = Workspace.at(home)
    data = absolute(data)  # a cluster's worker has another working directory
    with workspace.used():
        if data.is_file():
            place = _from_table(data, max_reject_share, workspace)
        elif holds_recordings(data):
            features = workspace.extracted(data)
            extract_features(data, features)
            place = _from_files(features, data, frame_rate, max_reject_share, workspace)
        else:
            place = _from_files(data, data, frame_rate, max_reject_share, workspace)
        if role == "data":
            workspace.note(features=place, training=place)
        elif role == "training":
            workspace.note(training=place)
    return place


def absolute(path: Path) -> Path:
    """Make a path absolute. Links stay, because they can be changed to lead elsewhere."""
    return Path(os.path.abspath(path.expanduser()))  # noqa: PTH100 - Path leaves the `..` in


def _from_files(
    features: Path,
    data: Path,
    frame_rate: float | None,
    max_reject_share: float,
    workspace: Workspace,
) -> Path:
    logger = get_run_logger()
    dataset = open_dataset(features, frame_rate, TAKEN)
    if line := told(dataset.columns, dataset.left_out):
        logger.info("%s: %s", dataset.name, line)
    slot = _slot(dataset.name, dataset.root, data, workspace)
    place = slot / _key(dataset)
    unfinished = slot / PARTS
    with claimed(place) as missing:
        if missing:
            earlier = intact(path.parent for path in slot.glob("*/store.json"))
            to_read = pending(dataset, [*earlier, *parts(unfinished)])
            logger.info(
                "%d performances in %s at %.2f frames a second: %d to read",
                len(dataset.performances),
                dataset.name,
                dataset.frame_rate,
                len(to_read),
            )
            if to_read:
                check_frame_rate(dataset)
            read_all(to_read, dataset.frame_rate, unfinished)
            read = [*earlier, *parts(unfinished)]
            assemble(dataset, read, place, max_reject_share=max_reject_share)
            shutil.rmtree(unfinished, ignore_errors=True)
    made = FeatureStore.open(place)
    logger.info(
        "%s: %d performances, %d rejects in %s",
        "aggregated" if missing else "unchanged",
        len(made),
        len(made.rejects),
        place,
    )
    if len(made.rejects):
        tell(rejected_files(place), "rejects", dataset.name, "could not be read")
    return place


def _from_table(path: Path, max_reject_share: float, workspace: Workspace) -> Path:
    """Make a store of a CSV table, which has neither frames nor chroma sequences."""
    size, mtime_ns = path.stat().st_size, path.stat().st_mtime_ns
    place = _slot(path.stem, path.resolve(), path, workspace) / key(store.FORMAT, size, mtime_ns)
    with claimed(place) as missing:
        if missing:
            aggregate_csv(path, place, max_reject_share=max_reject_share)
    get_run_logger().info("%s %s", "read" if missing else "unchanged:", path)
    return place


def _slot(name: str, root: Path, data: Path, workspace: Workspace) -> Path:
    """Return the directory of a data set's features; data sets may have the same name."""
    slot = workspace.path("features", f"{name}-{key(workspace.relative(root))[:6]}")
    note_data(slot, data, workspace)
    return slot


def _key(dataset: Dataset) -> str:
    return key(
        store.FORMAT,
        dataset.frame_rate,
        dataset.subset,
        [(p.track_id, p.work_id, p.source, *p.stat()) for p in dataset.performances],
        [(r.track_id, r.source, r.reason) for r in dataset.rejects],
        dataset.metadata.sort("track_id", "work_id").to_dicts(),
        dataset.listed.sort("track_id").to_dicts(),
    )


def read_all(performances: tuple[Performance, ...], frame_rate: float, directory: Path) -> None:
    """Aggregate performances into parts, in batches on all cores of this machine or a cluster."""
    if not performances:
        return
    clustered = in_cluster()
    workers = CLUSTER_CORES if clustered else joblib.cpu_count()
    size = len(performances) // (4 * workers)
    size = min(max(size, MIN_BATCH_PERFORMANCES), MAX_BATCH_PERFORMANCES)
    batches = [performances[i : i + size] for i in range(0, len(performances), size)]
    reading: AbstractContextManager[Executor | None]
    # Processes, because HDF5 lets one thread of a process read at a time. Prefect's own process
    # runner would start a server in each of them if none is configured.
    reading = nullcontext() if clustered else processes(min(workers, len(batches)))
    with reading as pool:
        futures = [
            aggregate_part.submit(number, len(batches), batch, frame_rate, directory, pool)
            for number, batch in enumerate(batches, 1)
        ]
        for future in futures:
            future.result()


@task(cache_policy=NO_CACHE, task_run_name="read batch {number} of {count}")
def aggregate_part(
    number: int,
    count: int,
    batch: tuple[Performance, ...],
    frame_rate: float,
    directory: Path,
    pool: Executor | None,
) -> Path:
    """Aggregate one batch in a process of the pool, or here in a cluster's worker."""
    try:
        if pool is None:
            part = aggregate_batch(batch, frame_rate, directory)
        else:
            part = pool.submit(aggregate_batch, batch, frame_rate, directory).result()
    except TerminatedWorkerError as error:
        raise RuntimeError(
            f"A reading process was killed at batch {number} of {count}, perhaps for want of "
            "memory: run the same command again, and what was read stays read."
        ) from error
    get_run_logger().info("read batch %d of %d", number, count)
    return part
