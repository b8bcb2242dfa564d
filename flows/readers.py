"""Processes that read.

Each imports this module, and so nothing of Prefect here, which would take it longer than a batch.
"""

import multiprocessing
import os
import threading
from concurrent.futures import ProcessPoolExecutor


def readers(count: int) -> ProcessPoolExecutor:
    """Start so many processes as they are needed; they end with this one, however it ends.

    They are processes because HDF5 holds a lock that lets one thread read at a time; and not those
    of Prefect's own process runner, each of which starts a server where none is configured.
    """
    return ProcessPoolExecutor(
        count,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_die_with_parent,
    )


def _die_with_parent() -> None:
    """End this process when its parent is killed: it would otherwise wait for work for ever."""

    def watch() -> None:
        if parent := multiprocessing.parent_process():
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
