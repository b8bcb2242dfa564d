"""When did the pipeline last complete, and when did it last fail? Said to Prometheus.

Prefect's own metrics count connections and queues, no flow runs. This asks its REST API, which
knows runs on schedule and by hand alike, once a scrape. Where Prefect doesn't answer the scrape
fails, so that an old answer is never taken for a new one.
"""

import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any

import httpx
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.metrics_core import GaugeMetricFamily

#: A cancelled run is left out: one that would overtake the night before is cancelled, rightly.
STATES = ("COMPLETED", "FAILED", "CRASHED")
PORT = 9108


def question(flow: str, state: str) -> dict[str, Any]:
    """Ask `/flow_runs/filter` for the last run of a flow that ended in a state."""
    return {
        "flows": {"name": {"any_": [flow]}},
        "flow_runs": {"state": {"type": {"any_": [state]}}},
        "sort": "END_TIME_DESC",
        "limit": 1,
    }


class LastRuns:
    """One sample a flow and state: seconds since 1970 when such a run last ended, 0 if none did.

    Parameters
    ----------
    ask : callable
        From a question to the runs that Prefect answers, each a mapping with `end_time`.
    flows : sequence of str
        Names of flows.
    """

    def __init__(
        self, ask: Callable[[dict[str, Any]], Sequence[dict[str, Any]]], flows: Sequence[str]
    ) -> None:
        self._ask = ask
        self._flows = flows

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Ask Prefect, at each scrape."""
        ends = GaugeMetricFamily(
            "covers_flow_last_run_end_timestamp_seconds",
            "When a run of the flow last ended in the state; 0 if none ever did.",
            labels=["flow", "state"],
        )
        for flow in self._flows:
            for state in STATES:
                last = self._ask(question(flow, state))
                end = datetime.fromisoformat(last[0]["end_time"]).timestamp() if last else 0.0
                ends.add_metric([flow, state.lower()], end)
        yield ends


def main() -> None:
    """Serve until stopped; PREFECT_API_URL and PREFECT_API_AUTH_STRING say where to ask."""
    user, _, password = os.environ.get("PREFECT_API_AUTH_STRING", "").partition(":")
    if not (url := os.environ.get("PREFECT_API_URL")):
        sys.exit("PREFECT_API_URL is not set: give it Prefect's API, http://HOST:4200/api.")
    client = httpx.Client(base_url=url, auth=(user, password) if user else None, timeout=5)

    def ask(body: dict[str, Any]) -> Sequence[dict[str, Any]]:
        runs: Sequence[dict[str, Any]] = (
            client.post("/flow_runs/filter", json=body).raise_for_status().json()
        )
        return runs

    registry = CollectorRegistry()
    registry.register(LastRuns(ask, ["pipeline"]))
    start_http_server(PORT, registry=registry)
    threading.Event().wait()


if __name__ == "__main__":
    main()
