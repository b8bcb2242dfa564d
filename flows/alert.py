"""Telling whoever is on call that a run failed."""

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


def tell(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """POST what failed to `$COVERS_ALERT_URL`, where that is set, as a small JSON object.

    Neither parameters nor environment go along. That nobody could be told is logged without the
    address, which may be the secret itself, and changes nothing of the run.
    """
    address = os.environ.get("COVERS_ALERT_URL")
    if not address:
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
