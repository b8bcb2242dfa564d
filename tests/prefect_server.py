"""A Prefect server for tests of schedules: a temporary server schedules nothing."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).resolve().parent.parent

#: One client for all, because each loads the certificates.
HTTP = httpx.Client(timeout=20)

#: The command line, as the console script runs it.
COVERS = [sys.executable, "-c", "from flows.cli.commands import main; main()"]


@contextmanager
def prefect_server(home: Path) -> Iterator[dict[str, str]]:
    """Start a server, and yield the environment of processes that use it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2",
        # By default it takes up to 15 seconds until a run starts.
        "PREFECT_RUNNER_POLL_FREQUENCY": "1",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        # Deployments name flows by module.
        "PYTHONPATH": str(ROOT),
    }
    with started(
        [sys.executable, "-m", "prefect", "server", "start", "--port", str(port)],
        environment,
        home.with_suffix(".log"),
    ) as server:
        wait_for(
            lambda: HTTP.get(f"{environment['PREFECT_API_URL']}/health").is_success, 120, server
        )
        yield environment


@contextmanager
def started(command: list[object], environment: dict[str, str], log: Path) -> Iterator["Running"]:
    """Run a command outside the checkout until the block ends."""
    with log.open("w") as output:
        process = subprocess.Popen(
            [str(word) for word in command],
            env=environment, stdout=output, stderr=output, cwd=log.parent,
        )  # fmt: skip
        try:
            yield Running(process, log)
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class Running:
    """A process and its log."""

    def __init__(self, process: subprocess.Popen, log: Path) -> None:
        self.process = process
        self.log = log


def wait_for(happened, seconds: float, running: Running):
    """Call `happened` until it returns something true, and return that; else fail with the log."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert running.process.poll() is None, running.log.read_text()
        try:
            if answer := happened():
                return answer
        except httpx.HTTPError:
            pass
        time.sleep(0.5)
    return pytest.fail(f"not within {seconds} s:\n{running.log.read_text()}")


def ask(environment: dict[str, str], what: str, **question) -> list[dict]:
    """Ask the server: ask(environment, "flow_runs", flow_runs={...})."""
    url = f"{environment['PREFECT_API_URL']}/{what}/filter"
    return HTTP.post(url, json=question).raise_for_status().json()
