"""Ctrl-C and SIGTERM end a command within seconds, and leave no process behind.

Python handles a signal between two steps of the main thread, which can be inside a library for
minutes. So the signal also wakes a thread, which ends the process if the main thread does not.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import active_children

SIGNALS = (signal.SIGINT, signal.SIGTERM)

#: Seconds to close files, and to tell a Prefect server that the run has crashed.
GRACE = 2.0


@contextmanager
def interruptible() -> Iterator[None]:
    """End the process on the first of `SIGNALS`: one line on stderr, exit code 128 + signal.

    Nothing is lost, because a result gets its name when it is complete. Outside of the main thread,
    which alone handles signals, this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # The process that cleans up after killed ones says so, when the command has already ended.
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker")
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    unwound, interrupted = threading.Event(), threading.Event()

    def unwind(*_: object) -> None:
        if not interrupted.is_set():
            interrupted.set()
            raise KeyboardInterrupt

    watch = threading.Thread(target=_watch, args=(reading, unwound), daemon=True)
    watch.start()
    handlers = {number: signal.signal(number, unwind) for number in SIGNALS}
    earlier = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(earlier)
        os.close(writing)
        unwound.set()
        watch.join()  # does not return after a signal
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _watch(reading: int, unwound: threading.Event) -> None:
    """Wait for a signal; return when the other end of the pipe is closed."""
    while received := os.read(reading, 1):
        if received[0] in SIGNALS:
            _end(received[0], unwound)
    os.close(reading)


def _end(number: int, unwound: threading.Event) -> None:
    sys.stderr.write("covers: interrupted. The same command continues where this one stopped.\n")
    sys.stderr.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libraries have their own messages about it
    for child in active_children():  # the main thread may wait for them
        if child.pid is not None:
            os.kill(child.pid, signal.SIGKILL)
    unwound.wait(GRACE)
    os._exit(128 + number)  # the temporary Prefect server ends with this process
