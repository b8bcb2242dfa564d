"""Tell Prometheus when the pipeline was first known to Prefect, last completed and last failed.

Prefect's own metrics count connections and queues, but no flow runs. This asks its REST API, which
knows scheduled runs and those started by hand, at every scrape. If Prefect does not answer, the
scrape fails, so that an old answer is never taken for a new one.
"""

import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any, TypeAlias

import httpx
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.metrics_core import GaugeMetricFamily

#: A cancelled run is left out: one that would overtake the night before is cancelled, rightly.
STATES = ("COMPLETED", "FAILED", "CRASHED")
PORT = 9108


#: From a path of Prefect's API and a question to the objects that answer it.
Ask: TypeAlias = Callable[[str, dict[str, Any]], Sequence[dict[str, Any]]]


def named(flow: str) -> dict[str, Any]:
    """Return the question for `/flows/filter`: the flow of that name."""
    return {"flows": {"name": {"any_": [flow]}}, "limit": 1}


def last_run(flow: str, state: str) -> dict[str, Any]:
    """Return the question for `/flow_runs/filter`: the flow's last run that ended in a state."""
    return {
        "flows": {"name": {"any_": [flow]}},
        "flow_runs": {"state": {"type": {"any_": [state]}}},
        "sort": "END_TIME_DESC",
        "limit": 1,
    }


class LastRuns:
    """Two metrics, both in seconds since 1970.

    When Prefect first heard of a flow, if it has; and for each flow and state, when such a run last
    ended, 0 if none did.

    Parameters
    ----------
    ask : callable
        Asks Prefect.
    flows : sequence of str
        Names of flows.
    """

    def __init__(self, ask: Ask, flows: Sequence[str]) -> None:
        self._ask = ask
        self._flows = flows

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Ask Prefect, at each scrape."""
        created = GaugeMetricFamily(
            "covers_flow_created_timestamp_seconds",
            "When Prefect first heard of the flow.",
            labels=["flow"],
        )
        ends = GaugeMetricFamily(
            "covers_flow_last_run_end_timestamp_seconds",
            "When a run of the flow last ended in the state; 0 if none ever did.",
            labels=["flow", "state"],
        )
        for flow in self._flows:
            for known in self._ask("/flows/filter", named(flow)):
                created.add_metric([flow], _seconds(known["created"]))
            for state in STATES:
                runs = self._ask("/flow_runs/filter", last_run(flow, state))
                ends.add_metric(
                    [flow, state.lower()], _seconds(runs[0]["end_time"]) if runs else 0.0
                )
        yield created
        yield ends


def _seconds(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()


def main() -> None:
    """Serve until stopped; PREFECT_API_URL and PREFECT_API_AUTH_STRING say where to ask."""
    user, _, password = os.environ.get("PREFECT_API_AUTH_STRING", "").partition(":")
    if not (url := os.environ.get("PREFECT_API_URL")):
        sys.exit("PREFECT_API_URL is not set: give it Prefect's API, http://HOST:4200/api.")
    client = httpx.Client(base_url=url, auth=(user, password) if user else None, timeout=5)

    def ask(path: str, question: dict[str, Any]) -> Sequence[dict[str, Any]]:
        found: Sequence[dict[str, Any]] = client.post(path, json=question).raise_for_status().json()
        return found

    registry = CollectorRegistry()
    registry.register(LastRuns(ask, ["pipeline"]))
    start_http_server(PORT, registry=registry)
    threading.Event().wait()


if __name__ == "__main__":
    main()
