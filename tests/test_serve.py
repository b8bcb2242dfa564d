"""Deployments: what is registered with a Prefect server."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path

import pytest
from prefect import flow, get_client
from prefect.flows import load_flow_from_entrypoint
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from flows.alert import tell
from flows.serve import deploy, deployments, serve
from flows.slot import publishing_slot
from flows.stages import STAGES, flow_of


def test_every_flow_is_deployed_and_the_pipeline_every_night(tmp_path):
    made = {each.flow_name: each for each in deployments(tmp_path, home=tmp_path)}
    assert set(made) == set(STAGES) == {
        "extract", "aggregate", "train", "embed", "add", "publish", "evaluate", "duplicates",
        "cluster", "compare", "pipeline",
    }  # fmt: skip
    usual = {"encoder": "autoencoder", "home": str(tmp_path)}
    assert made["pipeline"].parameters == usual | {"data": str(tmp_path)}
    assert made["train"].parameters == usual
    # All data sets of the collection, and the latest vectors.
    assert made["add"].parameters == made["publish"].parameters == {"home": str(tmp_path)}
    crons = {name: [each.schedule.cron for each in one.schedules] for name, one in made.items()}
    assert crons.pop("pipeline") == ["0 2 * * *"]
    assert not any(crons.values())


def test_a_schedule_for_no_flow_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match="no flow named 'retrain' to schedule: choose from pipeline, add"
    ):
        deployments(tmp_path, schedules={"retrain": "0 2 * * *"})


def test_a_deployment_has_its_flow_s_description_and_runs_once_at_a_time(tmp_path):
    for made in deployments(tmp_path):
        assert made.description.startswith(flow_of(made.name).fn.__doc__.strip()[:40])
        assert made.tags == ["covers"]
        assert made.concurrency_limit == 1
        assert made.concurrency_options.collision_strategy == "CANCEL_NEW"


def test_every_flow_has_a_timeout_and_an_alert():
    for stage in map(flow_of, STAGES):
        assert stage.timeout_seconds == 23 * 3600
        assert stage.on_failure_hooks == stage.on_crashed_hooks == [tell]


def test_only_one_run_of_a_deployment_publishes_at_a_time(prefect_server, monkeypatch):
    """Even on several machines, whose workspaces have a lock each."""
    monkeypatch.setenv("QDRANT_URL", "http://qdrant.example:6333")
    monkeypatch.setenv("COVERS_COLLECTION", "mine")
    happened = []

    @flow
    def hold(name: str) -> None:
        with publishing_slot():
            happened.append((name, "begins"))
            time.sleep(0.5)
            happened.append((name, "ends"))

    with ThreadPoolExecutor() as threads:
        for run in [threads.submit(copy_context().run, hold, name) for name in ("one", "other")]:
            run.result()
    first, second = happened[0][0], happened[2][0]
    assert {first, second} == {"one", "other"}
    assert happened == [(name, what) for name in (first, second) for what in ("begins", "ends")]
    with get_client(sync_client=True) as client:
        limit = client.read_global_concurrency_limit_by_name("mine-publishing")
    assert (limit.limit, limit.active_slots) == (1, 0)


def test_a_deployment_is_found_by_its_module_wherever_covers_is_installed(tmp_path):
    for made in deployments(tmp_path):
        assert load_flow_from_entrypoint(made.entrypoint).name == made.flow_name


def test_the_nightly_runs_take_the_encoder_and_the_bundle_they_are_told(tmp_path):
    given = {each.name: each.parameters for each in deployments(
        Path("songs"), Path("labelled"), "version", {"epochs": 3}
    )}  # fmt: skip
    trained = {"encoder": "version", "config": {"epochs": 3}}
    assert given["train"] == trained
    assert given["pipeline"] == trained | {
        "data": str(Path("songs").absolute()), "training_data": str(Path("labelled").absolute())
    }  # fmt: skip
    assert "config" not in given["compare"]
    bundled = {each.name: each.parameters for each in deployments(
        tmp_path, bundle=Path("pretrained"), sample=5
    )}  # fmt: skip
    assert bundled["pipeline"]["bundle"] == bundled["embed"]["bundle"] == "pretrained"
    assert bundled["pipeline"]["sample"] == bundled["evaluate"]["sample"] == 5


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"encoder": "vresion"}, "no encoder 'vresion': choose from"),
        ({"config": {"depth": 3}}, "depth"),
        ({"training_data": Path("a"), "bundle": Path("b")}, "b is trained already"),
    ],
)
def test_what_would_fail_at_night_is_refused_at_once(tmp_path, wrong, said):
    with pytest.raises(ValueError, match=said):
        deployments(tmp_path, **wrong)


@pytest.mark.parametrize(
    ("url", "said"),
    [("", "No Prefect server is named"), ("http://127.0.0.1:9/api", "No Prefect server answers")],
)
@pytest.mark.parametrize("begin", [serve, lambda made: deploy(made, "covers")])
def test_without_a_server_there_is_nothing_to_register_with(tmp_path, url, said, begin):
    with (
        temporary_settings({PREFECT_API_URL: url or None, PREFECT_CLIENT_MAX_RETRIES: 0}),
        pytest.raises((ValueError, RuntimeError), match=said),
    ):
        begin(deployments(tmp_path))
