"""Raw features -> a feature store, read in batches by all cores."""

import os
import shutil
from concurrent.futures import Executor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Literal

import joblib
from prefect import flow, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from embedding.data import store
from embedding.data.aggregate import (
    aggregate_batch,
    aggregate_csv,
    assemble,
    intact,
    parts,
    pending,
)
from embedding.data.dataset import Dataset, open_dataset
from embedding.data.layout import Performance
from embedding.data.store import FeatureStore
from embedding.processes import TerminatedWorkerError, processes
from flows import alert
from flows.collection.sources import note_data
from flows.runners import in_cluster, task_runner
from flows.workspace import PARTS, Workspace, claimed, key

#: Performances in a batch: few enough that a killed run loses little, enough to outweigh what
#: starting a task costs.
SMALLEST_BATCH, LARGEST_BATCH = 16, 500

#: Cores that batches are cut for on a cluster, which doesn't say how many it has or will have.
CLUSTER_CORES = 32


@flow(
    name="aggregate",
    flow_run_name="aggregate {data}",
    task_runner=task_runner(),
    **alert.WATCHED,
)
def aggregate(
    data: Path,
    frame_rate: float | None = None,
    max_reject_share: float = 0.05,
    home: Path | None = None,
    role: Literal["data", "training"] | None = "data",
) -> Path:
    """Read what is new or changed in a data set and make its feature store.

    A performance that can't be read goes into the store's rejects with its reason.

    Parameters
    ----------
    data : Path
        A directory as `embedding.data.dataset.open_dataset` reads it, or the prototype's CSV.
    frame_rate : float, optional
        Frames a second, where the data set doesn't say it.
    max_reject_share : float in [0, 1]
        Past this share of rejects the run fails.
    home : Path, optional
        The workspace; by default `$COVERS_HOME`.
    role : {"data", "training"}, optional
        What the features are the latest of from now on: of all data ("data"), or only of what to
        train on. None leaves the latest as they are.

    Returns
    -------
    Path
        The store's directory; the same one as long as nothing changes.
    """
    workspace = Workspace.at(home)
    data = absolute(data)  # a cluster's worker stands in a directory of its own
    with workspace.used():
        if data.is_file():
            place = _from_table(data, workspace)
        else:
            place = _from_files(data, frame_rate, max_reject_share, workspace)
        if role == "data":
            workspace.note(features=place, training=place)
        elif role == "training":
            workspace.note(training=place)
    return place


def absolute(path: Path) -> Path:
    """Make a path absolute; a link in it stays one, because it can be made to lead elsewhere."""
    return Path(os.path.abspath(path.expanduser()))  # noqa: PTH100 - Path leaves the `..` in


def _from_files(
    data: Path, frame_rate: float | None, max_reject_share: float, workspace: Workspace
) -> Path:
    """Make a store of a directory of HDF5 files."""
    logger = get_run_logger()
    dataset = open_dataset(data, frame_rate)
    slot = _slot(dataset.name, dataset.root, data, workspace)
    place = slot / _key(dataset)
    unfinished = slot / PARTS

    with claimed(place) as missing:
        if missing:
            standing = intact(path.parent for path in slot.glob("*/store.json"))
            to_read = pending(dataset, [*standing, *parts(unfinished)])
            logger.info(
                "%d performances in %s at %.2f frames a second: %d to read",
                len(dataset.performances),
                dataset.name,
                dataset.frame_rate,
                len(to_read),
            )
            read_all(to_read, dataset.frame_rate, unfinished)
            read = [*standing, *parts(unfinished)]
            assemble(dataset, read, place, max_reject_share=max_reject_share)
            shutil.rmtree(unfinished, ignore_errors=True)
    made_store = FeatureStore.open(place)
    logger.info(
        "%s: %d performances, %d rejects in %s",
        "aggregated" if missing else "unchanged",
        len(made_store),
        len(made_store.rejects),
        place,
    )
    if len(made_store.rejects):
        create_table_artifact(
            made_store.rejects.select("track_id", "work_id", "source", "reason")
            .head(1000)
            .to_dicts(),
            key="rejects",
            description=f"What could not be read of {dataset.name}, and why",
        )
    return place


def _slot(name: str, root: Path, data: Path, workspace: Workspace) -> Path:
    """The directory of a data set's features, one wherever several of the same name are."""
    slot = workspace.path("features", f"{name}-{key(workspace.relative(root))[:6]}")
    note_data(slot, data, workspace)
    return slot


def read_all(performances: tuple[Performance, ...], frame_rate: float, directory: Path) -> None:
    """Aggregate performances into parts, batch by batch, on all cores, here or of a cluster."""
    if not performances:
        return
    clustered = in_cluster()
    workers = CLUSTER_CORES if clustered else joblib.cpu_count()
    size = min(max(len(performances) // (4 * workers), SMALLEST_BATCH), LARGEST_BATCH)
    batches = [performances[i : i + size] for i in range(0, len(performances), size)]
    reading: AbstractContextManager[Executor | None]
    # Processes, because HDF5 holds a lock that lets one thread read at a time; not Prefect's own
    # process runner, whose workers would each start a server where none is configured.
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
    """Aggregate one batch in a process of the pool, or right here in a cluster's worker."""
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


def _from_table(path: Path, workspace: Workspace) -> Path:
    """Make a store of the prototype's CSV: rows without frames or chroma sequences."""
    size, mtime_ns = path.stat().st_size, path.stat().st_mtime_ns
    slot = _slot(path.stem, path.resolve(), path, workspace)
    place = slot / key(store.FORMAT, size, mtime_ns)
    with claimed(place) as missing:
        if missing:
            aggregate_csv(path, place)
    get_run_logger().info("%s %s", "read" if missing else "unchanged:", path)
    return place


def _key(dataset: Dataset) -> str:
    return key(
        store.FORMAT,
        dataset.frame_rate,
        dataset.subset,
        [(p.track_id, p.work_id, p.source, *p.stat()) for p in dataset.performances],
        [(r.track_id, r.source, r.reason) for r in dataset.rejects],
        dataset.metadata.sort("track_id", "work_id").to_dicts(),
    )
