"""Scheduled runs with a real Prefect server, by a worker and by `serve`."""

import os
import signal
import subprocess
import sys

import pytest
from listening import listening
from prefect_server import COVERS, ask, prefect_server, started, wait_for

import search

#: A flow that holds the slot for publishing, says so, and sleeps.
HOLD = """
import sys, time
from prefect import flow
from flows.slot import publishing_slot

@flow
def hold(seconds: float):
    with publishing_slot():
        print("has it", flush=True)
        time.sleep(seconds)

hold(float(sys.argv[1]))
"""

#: The sixth field is for seconds.
EVERY_FIVE_SECONDS = "* * * * * */5"


@pytest.fixture(scope="module")
def told():
    """The address for alerts, and the alerts."""
    with listening() as told:
        yield told


@pytest.fixture(scope="module")
def server(tmp_path_factory, told):
    with prefect_server(tmp_path_factory.mktemp("server") / "prefect") as environment:
        yield environment | {"COVERS_ALERT_URL": told[0]}


@pytest.fixture(scope="module")
def killed_while_publishing(server, tmp_path_factory):
    """The environment of a deployment whose run was killed while it had the slot.

    It is made first, so that the other tests run while the slot's lease ends.
    """
    there = {"QDRANT_URL": "http://127.0.0.1:9", "COVERS_COLLECTION": "killed"}
    environment = server | there
    log = tmp_path_factory.mktemp("killed") / "log"
    with started([sys.executable, "-c", HOLD, "600"], environment, log) as holder:
        wait_for(lambda: "has it" in log.read_text(), 60, holder)
        holder.process.kill()
        holder.process.wait()
    return environment


def occupied(server, name):
    limits = ask(server, "v2/concurrency_limits")
    return [limit["active_slots"] for limit in limits if limit["name"] == name]


def runs(server, flow, *states):
    return ask(
        server,
        "flow_runs",
        flows={"name": {"any_": [flow]}},
        flow_runs={"state": {"type": {"any_": list(states)}}},
    )


def test_a_killed_publication_leaves_its_slot_occupied(killed_while_publishing):
    """For a minute, as the last test shows."""
    assert occupied(killed_while_publishing, "killed-publishing") == [1]


def test_a_worker_runs_what_is_scheduled_and_a_crash_is_told(server, told, tree, tmp_path):
    home = tmp_path / "home"
    deploy = [*COVERS, "serve", "--pool", "covers", "--data", str(tree.root), "--home", str(home),
              "--schedule", f"aggregate={EVERY_FIVE_SECONDS}"]  # fmt: skip
    done = subprocess.run(deploy, env=server, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    worker = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "covers",
              "--type", "process", "--install-policy", "never"]  # fmt: skip
    with started(worker, server, tmp_path / "worker.log") as running:
        run = wait_for(lambda: runs(server, "aggregate", "RUNNING"), 150, running)[0]
        os.kill(int(run["infrastructure_pid"].rpartition(":")[2]), signal.SIGKILL)
        [said] = wait_for(lambda: told[1], 60, running)
    assert (said["flow"], said["state"]) == ("aggregate", "Crashed")
    assert "-9" in said["message"]
    assert run["auto_scheduled"]
    assert run["work_pool_name"] == "covers"
    assert run["name"] == f"aggregate {tree.root}"


def test_what_is_served_is_run_on_its_schedule(server, tree, tmp_path):
    for i in range(4, 8):
        tree.add(f"W_{i}", f"P_{i}1")
        tree.add(f"W_{i}", f"P_{i}2")
    home = tmp_path / "home"
    serve = [*COVERS, "serve", "--data", tree.root, "--home", home, "--encoder", "means",
             "--schedule", f"pipeline={EVERY_FIVE_SECONDS}"]  # fmt: skip
    with started(serve, server, tmp_path / "served.log") as running:
        [run] = wait_for(lambda: runs(server, "pipeline", "COMPLETED", "FAILED"), 150, running)
    assert run["state_type"] == "COMPLETED", run["state"]["message"]
    assert run["auto_scheduled"]
    # Before, the deployments belonged to the pool, and another flow had a schedule.
    assert run["work_pool_name"] is None
    aggregate = {"flows": {"name": {"any_": ["aggregate"]}}}
    assert [each["schedules"] for each in ask(server, "deployments", **aggregate)] == [[]]
    assert len(search.Searcher(search.connect(home=home)).similar("P_11", 30)) == 12


def test_a_killed_publication_does_not_hold_up_the_next_one_for_ever(
    killed_while_publishing, tmp_path
):
    log = tmp_path / "log"
    with started([sys.executable, "-c", HOLD, "0"], killed_while_publishing, log) as next_one:
        next_one.process.wait(150)
    assert "has it" in log.read_text()
    assert occupied(killed_while_publishing, "killed-publishing") == [0]
