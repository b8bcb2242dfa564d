"""Processes for work in Python, where threads would wait for each other.

A process imports the module of each function that it is given, which should therefore import
nothing heavy. It does not import the user's script, which needs no `if __name__ == "__main__"`.
The processes are those of loky, which is part of joblib, a requirement of scikit-learn.
"""

import multiprocessing
import os
import signal
import threading
import time
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

from joblib.externals.loky.process_executor import ProcessPoolExecutor, TerminatedWorkerError

__all__ = ["TerminatedWorkerError", "processes"]


def processes(count: int) -> Executor:
    """Return an executor of `count` processes, which end with this process, however it ends.

    A call that kills its process raises `TerminatedWorkerError`. Within a process of the user's own
    `multiprocessing.Pool`, which may not start others, the executor has threads instead.
    """
    if multiprocessing.current_process().daemon:
        return ThreadPoolExecutor(count)
    return _Pool(count, initializer=_end_with_parent, initargs=(os.getpid(),))


class _Pool(ProcessPoolExecutor):  # type: ignore[misc]
    """Its processes start with Ctrl-C blocked, because their parent ends them."""

    def submit(self, *args: Any, **options: Any) -> Future[Any]:
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            future: Future[Any] = super().submit(*args, **options)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        return future


def _end_with_parent(parent: int) -> None:
    """End this process when its parent is killed; otherwise it would wait for work forever."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
