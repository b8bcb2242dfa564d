"""Deployments and schedules, against a real Prefect server."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from flows.serve import FLOWS, deployments


def test_every_flow_is_deployed_and_the_pipeline_every_night(tmp_path):
    made = {each.flow_name: each for each in deployments(tmp_path, home=tmp_path)}
    assert set(made) == set(FLOWS) == {
        "aggregate", "train", "embed", "evaluate", "cluster", "compare", "duplicates", "pipeline"
    }  # fmt: skip
    assert made["pipeline"].parameters == {"data": str(tmp_path), "home": str(tmp_path)}
    assert made["train"].parameters == {"home": str(tmp_path)}
    crons = {name: [each.schedule.cron for each in one.schedules] for name, one in made.items()}
    assert crons.pop("pipeline") == ["0 2 * * *"]
    assert not any(crons.values())


def test_a_schedule_for_no_flow_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no flow named 'retrain' to schedule: choose from agg"):
        deployments(tmp_path, schedules={"retrain": "0 2 * * *"})


@pytest.fixture
def server(tmp_path):
    """A Prefect server of its own: it plans scheduled runs, which a temporary one doesn't."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_RUNNER_POLL_FREQUENCY": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "prefect", "server", "start", "--port", str(port)],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for(lambda: httpx.get(f"{environment['PREFECT_API_URL']}/health").is_success, 120)
        yield environment
    finally:
        process.terminate()
        process.wait(30)


def wait_for(happened, seconds):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if happened():
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.5)
    pytest.fail(f"not within {seconds} s")


def test_a_scheduled_run_is_started_and_completes(server, tree, tmp_path):
    """The cron expression says every minute; the run must come from the schedule alone."""
    home = tmp_path / "home"
    log = tmp_path / "served.log"
    with log.open("w") as output:
        serving = subprocess.Popen(
            [Path(sys.executable).with_name("covers"), "serve", "--data", tree.root,
             "--home", home, "--schedule", "aggregate=* * * * *"],
            env=server, stdout=output, stderr=output,
        )  # fmt: skip
    api = server["PREFECT_API_URL"]

    def completed() -> bool:
        assert serving.poll() is None, log.read_text()
        runs = httpx.post(
            f"{api}/flow_runs/filter",
            json={"flow_runs": {"state": {"type": {"any_": ["COMPLETED", "FAILED", "CRASHED"]}}}},
        ).json()
        for run in runs:
            assert run["state_type"] == "COMPLETED", log.read_text()
            assert run["auto_scheduled"]
        return bool(runs)

    try:
        wait_for(completed, 150)
    finally:
        serving.terminate()
        serving.wait(30)
    assert list(home.glob("features/*/*/features.parquet"))
