"""Raw features -> a feature store, read in batches by all cores."""

import shutil
from concurrent.futures import Executor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from embedding import store
from embedding.aggregate import aggregate_batch, aggregate_csv, assemble, intact, parts, pending
from embedding.da_tacos import Dataset, Performance, open_dataset
from embedding.processes import cores, processes
from embedding.store import FeatureStore
from flows.runners import in_cluster, task_runner
from flows.workspace import Workspace, claimed, key

#: Performances in a batch: few enough that a killed run loses little, enough to outweigh what
#: starting a task costs.
SMALLEST_BATCH, LARGEST_BATCH = 16, 500

#: Cores that batches are cut for on a cluster, which doesn't say how many it has or will have.
CLUSTER_CORES = 32

#: Earlier versions of a data set's store that stay, for whoever still reads them.
KEPT = 2


@flow(name="aggregate", flow_run_name="aggregate {data}", task_runner=task_runner())
def aggregate(
    data: Path,
    frame_rate: float | None = None,
    max_reject_share: float = 0.05,
    home: Path | None = None,
) -> Path:
    """Read what is new or changed in a data set and make its feature store.

    A performance that can't be read goes into the store's rejects with its reason.

    Parameters
    ----------
    data : Path
        A directory as `embedding.da_tacos.open_dataset` reads it, or the prototype's CSV.
    frame_rate : float, optional
        Frames a second, where the data set doesn't say it.
    max_reject_share : float in [0, 1]
        Past this share of rejects the run fails.
    home : Path, optional
        The workspace; by default `$COVERS_HOME`.

    Returns
    -------
    Path
        The store's directory; the same one as long as nothing changes.
    """
    logger = get_run_logger()
    workspace = Workspace.at(home)
    data = data.expanduser().absolute()  # a cluster's worker stands in a directory of its own
    if data.is_file():
        return _from_table(data, workspace)
    dataset = open_dataset(data, frame_rate)
    # One slot a data set, wherever several of the same name lie.
    slot = workspace.path("features", f"{dataset.name}-{key(dataset.root)[:6]}")
    place = slot / _key(dataset)
    unfinished = slot / "parts"

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
            _prune(slot, place)
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


def read_all(performances: tuple[Performance, ...], frame_rate: float, directory: Path) -> None:
    """Aggregate performances into parts, batch by batch, on all cores, here or of a cluster."""
    if not performances:
        return
    clustered = in_cluster()
    workers = CLUSTER_CORES if clustered else cores()
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
    except BrokenProcessPool as error:
        raise RuntimeError(
            f"A reading process was killed at batch {number} of {count}, perhaps for want of "
            "memory: run the same command again, and what was read stays read."
        ) from error
    get_run_logger().info("read batch %d of %d", number, count)
    return part


def _from_table(path: Path, workspace: Workspace) -> Path:
    """Make a store of the prototype's CSV: rows without frames or chroma sequences."""
    size, mtime_ns = path.stat().st_size, path.stat().st_mtime_ns
    slot = workspace.path("features", f"{path.stem}-{key(path.resolve())[:6]}")
    place = slot / key(store.FORMAT, size, mtime_ns)
    with claimed(place) as missing:
        if missing:
            aggregate_csv(path, place)
            _prune(slot, place)
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


def _prune(slot: Path, current: Path) -> None:
    standing = sorted(slot.glob("*/store.json"), key=lambda path: path.stat().st_mtime_ns)
    for manifest in standing[:-KEPT]:
        if manifest.parent != current:
            shutil.rmtree(manifest.parent, ignore_errors=True)
