"""What all flows have in common: a timeout, and an alert when they fail."""

import logging
import os
from typing import Any

import httpx
from prefect import Flow, State
from prefect.client.schemas.objects import FlowRun
from prefect.logging.loggers import flow_run_logger
from prefect.settings import PREFECT_UI_URL

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


#: For the decorator of every flow: `@flow(name="train", **alert.WATCHED)`.
WATCHED: dict[str, Any] = {
    "timeout_seconds": hours() * 3600,
    "on_failure": [tell],
    "on_crashed": [tell],
}
