"""What every flow has in common: how long it may take, and who is told that it failed."""

import logging
import os
from typing import Any

import httpx
from prefect import Flow, State
from prefect.client.schemas.objects import FlowRun
from prefect.logging.loggers import flow_run_logger
from prefect.settings import PREFECT_UI_URL

#: Seconds to wait for whoever is told: a failed run must still end.
PATIENCE = 10.0

#: Characters of the message that are passed on; the whole of it is in Prefect.
LONGEST = 1000


def hours() -> float:
    """Return after how many hours a run is given up, `$COVERS_TIMEOUT_HOURS`; 23 by default.

    What the run has done stays, and the next one goes on from there. The default is just less than
    a day, because a run that hangs would otherwise keep all following nights from starting.

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
    """POST what failed to `$COVERS_ALERT_URL`, where that is set, as a small JSON object.

    Neither parameters nor environment go along. That nobody could be told is logged without the
    address, which may be the secret itself, and changes nothing of the run. A flow that another
    flow runs tells nobody: its failure ends the other one, which tells.
    """
    address = os.environ.get("COVERS_ALERT_URL")
    if not address or flow_run.parent_task_run_id is not None:
        return
    link = PREFECT_UI_URL.value()
    body = {
        "flow": flow.name,
        "run": flow_run.name,
        "state": state.name,
        "message": (state.message or "")[:LONGEST],
        "url": link and f"{link}/runs/flow-run/{flow_run.id}",
    }
    # At level INFO it would log the address.
    quiet = logging.getLogger("httpx")
    quiet.addFilter(_nothing)
    try:
        httpx.post(address, json=body, timeout=PATIENCE).raise_for_status()
    except Exception as error:
        why = type(error).__name__
        if isinstance(error, httpx.HTTPStatusError):
            why = f"it answered {error.response.status_code}"
        # A crash is told from outside the run, which has no logger of its own there.
        flow_run_logger(flow_run, flow).warning("COVERS_ALERT_URL was not told of this: %s", why)
    finally:
        quiet.removeFilter(_nothing)


def _nothing(_: logging.LogRecord) -> bool:
    return False


#: For the decorator of every flow: `@flow(name="train", **alert.WATCHED)`.
WATCHED: dict[str, Any] = {
    "timeout_seconds": hours() * 3600,
    "on_failure": [tell],
    "on_crashed": [tell],
}
