"""Whether a thread waits long for a server that is busy or away."""

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar

_patient: ContextVar[bool] = ContextVar("patient", default=False)


def is_patient() -> bool:
    """Whether this thread waits long."""
    return _patient.get()


@contextlib.contextmanager
def patience() -> Iterator[None]:
    """Let this thread wait long, since no user waits for it: for publications."""
    before = _patient.set(True)
    try:
        yield
    finally:
        _patient.reset(before)


def threads(count: int) -> ThreadPoolExecutor:
    """Make threads that are as patient as this one."""
    return ThreadPoolExecutor(count, initializer=_patient.set, initargs=(is_patient(),))
