"""What all flows have in common: a timeout, known failures in a sentence, and an alert."""

import logging
import os
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import httpx
from prefect import Flow, State, get_run_logger
from prefect import flow as prefect_flow
from prefect.client.schemas.objects import FlowRun
from prefect.logging.loggers import flow_run_logger
from prefect.settings import PREFECT_UI_URL
from prefect.states import Failed

from flows import KNOWN_FAILURES, sentence_of

P = ParamSpec("P")
R = TypeVar("R")

#: Seconds to wait for an answer to an alert.
MAX_WAIT = 10.0

#: The alert has the first part of the message; Prefect has all of it.
MAX_MESSAGE_CHARACTERS = 1000


def hours() -> float:
    """Return the timeout of a run, `$COVERS_TIMEOUT_HOURS`; 23 by default.

    The results of a run that times out stay, and the next run continues from there. With less than
    a day, a run that hangs does not prevent those of the following nights.

    Raises
    ------
    ValueError
        If the variable is not a number above 0.
    """
    text = os.environ.get("COVERS_TIMEOUT_HOURS") or "23"
    try:
        given = float(text)
    except ValueError:
        given = 0.0
    if not 0 < given < float("inf"):
        raise ValueError(f"COVERS_TIMEOUT_HOURS is {text!r}, expected a number of hours above 0.")
    return given


def tell(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """POST a failure to `$COVERS_ALERT_URL`, if it is set, as a small JSON object.

    It contains neither parameters nor environment. If nobody receives it, a warning is logged,
    without the address, which can be secret. A flow within another flow sends nothing, because the
    other flow fails too.
    """
    address = os.environ.get("COVERS_ALERT_URL")
    if not address or flow_run.parent_task_run_id is not None:
        return
    link = PREFECT_UI_URL.value()
    body = {
        "flow": flow.name,
        "run": flow_run.name,
        "state": state.name,
        "message": (state.message or "")[:MAX_MESSAGE_CHARACTERS],
        "url": link and f"{link}/runs/flow-run/{flow_run.id}",
    }
    # httpx logs the address of every request.
    requests = logging.getLogger("httpx")
    requests.disabled = True
    try:
        httpx.post(address, json=body, timeout=MAX_WAIT).raise_for_status()
    except Exception as error:
        why = type(error).__name__
        if isinstance(error, httpx.HTTPStatusError):
            why = f"it answered {error.response.status_code}"
        # A crash is reported from outside the run, so `get_run_logger` would fail.
        flow_run_logger(flow_run, flow).warning("COVERS_ALERT_URL was not told of this: %s", why)
    finally:
        requests.disabled = False


def flow(
    name: str, run_name: str | Callable[[], str], **options: Any
) -> Callable[[Callable[P, R]], Flow[P, R]]:
    """Make a flow of a function, as the decorator of every flow.

    A known failure becomes the state Failed with the sentence as its message. The caller gets the
    exception as it was raised.
    """

    def decorate(function: Callable[P, R]) -> Flow[P, R]:
        @wraps(function)
        def told(*arguments: P.args, **given: P.kwargs) -> R:
            try:
                return function(*arguments, **given)
            except TimeoutError:  # Prefect has a state for it
                raise
            except KNOWN_FAILURES as error:
                get_run_logger().debug("where it failed", exc_info=error)
                return Failed(message=sentence_of(error), data=error)  # type: ignore[return-value]

        made: Flow[P, R] = prefect_flow(
            name=name,
            flow_run_name=run_name,
            timeout_seconds=hours() * 3600,
            on_failure=[tell],
            on_crashed=[tell],
            **options,
        )(told)
        return made

    return decorate


def _without_traceback(record: logging.LogRecord) -> bool:
    if record.exc_info and isinstance(record.exc_info[1], KNOWN_FAILURES):
        record.exc_info = None
    return True


# A task logs a failure with its traceback, which says nothing to whoever reads the sentence.
logging.getLogger("prefect.task_runs").addFilter(_without_traceback)
