"""Processes to share work with, where threads would wait for each other.

Each imports the module of what it is given to do, and what that imports; so these had better load
nothing heavy. None imports the script that was started, which therefore needs no
`if __name__ == "__main__"`. They are loky's, in joblib, which scikit-learn brings.
"""

import os
import threading
import time
from concurrent.futures import Executor

from joblib.externals.loky.process_executor import ProcessPoolExecutor, TerminatedWorkerError

__all__ = ["TerminatedWorkerError", "processes"]


def processes(count: int) -> Executor:
    """Start `count` processes with the first call; they end with this one, however it ends.

    A call that one of them doesn't survive raises `TerminatedWorkerError`.
    """
    pool: Executor = ProcessPoolExecutor(
        count, initializer=_end_with_parent, initargs=(os.getpid(),)
    )
    return pool


def _end_with_parent(parent: int) -> None:
    """End this process when its parent is killed: it would otherwise wait for work for ever."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
