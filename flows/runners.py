"""Where tasks run: in threads here, or on a Dask or Ray cluster."""

import os
from importlib import import_module
from typing import Any

from prefect.context import FlowRunContext
from prefect.settings import PREFECT_API_URL
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

SETTING = "COVERS_TASK_RUNNER"


def task_runner() -> TaskRunner[Any]:
    """Return the task runner that `$COVERS_TASK_RUNNER` names.

    The names are threads (the default), dask and ray (all cores of this machine), and the address
    of a cluster: dask://host:8786, ray://head:10001. A cluster's workers need this package, the
    same directories at the same paths, and `PREFECT_API_URL`.

    Raises
    ------
    ValueError
        If it is none of these, its library is not installed, or there is no Prefect server for the
        cluster's workers to report to.
    """
    given = os.environ.get(SETTING) or "threads"
    if given == "threads":
        return ThreadPoolTaskRunner()
    kind, _, address = given.partition("://")
    if kind not in ("dask", "ray") or (given != kind and not address):
        raise ValueError(
            f"{SETTING} is {given!r}, expected threads, dask, dask://host:8786, ray or "
            "ray://head:10001."
        )
    if not PREFECT_API_URL.value():
        raise ValueError(
            f"{SETTING} is {given!r}, and there is no Prefect server that the cluster's workers "
            "could report to: run `prefect server start` and set PREFECT_API_URL."
        )
    try:
        library = import_module(f"prefect_{kind}")
    except ImportError as error:
        raise ValueError(
            f"{SETTING} is {given!r}, but prefect-{kind} can't be imported ({error}): "
            f"install it with pip install 'covers[{kind}]'."
        ) from error
    if kind == "ray":
        runner: TaskRunner[Any] = library.RayTaskRunner(address=given if address else None)
    elif address:
        runner = library.DaskTaskRunner(address=f"tcp://{address}")
    else:
        # One thread per process: HDF5 lets one thread of a process read at a time.
        runner = library.DaskTaskRunner(cluster_kwargs={"threads_per_worker": 1})
    return runner


def in_cluster() -> bool:
    """Whether the running flow's tasks run in other processes."""
    context = FlowRunContext.get()
    return context is not None and not isinstance(context.task_runner, ThreadPoolTaskRunner)
