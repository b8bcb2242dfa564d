"""A run that fails says what is wrong, to Prefect and to the address for alerts."""

import logging
import re
import socket
import time

import pytest
from listening import listening
from prefect_server import ask

from flows import alert
from flows.add import add
from flows.evaluate import evaluate
from flows.pipeline import pipeline


@pytest.fixture
def failed(prefect_server, tmp_path, monkeypatch):
    """Run the pipeline on a missing directory, with an address for alerts; returns the state."""

    def run(address: str, **parameters):
        monkeypatch.setenv("COVERS_ALERT_URL", address)
        return pipeline(
            tmp_path / "missing", home=tmp_path / "home", return_state=True, **parameters
        )

    return run


def test_a_failed_run_names_the_input_in_its_state_and_in_the_alert(failed, tmp_path):
    with listening() as (address, got):
        state = failed(address, seed=4)
    assert state.is_failed()
    assert str(tmp_path / "missing") in state.message
    assert "\n" not in state.message
    assert "exception" not in state.message
    [said] = got
    url = said.pop("url")
    assert said == {
        "flow": "pipeline",
        "run": f"pipeline {tmp_path / 'missing'} with autoencoder",
        "state": "Failed",
        "message": state.message,
    }
    assert url.endswith(str(state.state_details.flow_run_id))
    with pytest.raises(ValueError, match=re.escape(state.message)):
        state.result()


def test_the_log_of_a_known_failure_has_no_traceback(prefect_server, tmp_path):
    (tmp_path / "no.parquet").write_text("damaged")
    state = evaluate(tmp_path / "no.parquet", home=tmp_path, return_state=True)
    run = {"flow_run_id": {"any_": [str(state.state_details.flow_run_id)]}}

    def logged() -> str:
        log = ask({"PREFECT_API_URL": prefect_server}, "logs", logs=run)
        return "\n".join(line["message"] for line in log)

    deadline = time.monotonic() + 30
    while "Finished in state Failed" not in logged() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert "is damaged" in logged()
    assert "Traceback" not in logged()


def test_a_flow_within_another_sends_no_alert_of_its_own(failed, tmp_path):
    """The pipeline fails in `aggregate`, which is a flow too."""
    table = tmp_path / "missing"
    table.write_text("no table")
    with listening() as (address, got):
        assert failed(address).is_failed()
    assert [alert["flow"] for alert in got] == ["pipeline"]


def test_a_failed_addition_sends_an_alert_too(prefect_server, tmp_path, monkeypatch):
    with listening() as (address, got):
        monkeypatch.setenv("COVERS_ALERT_URL", address)
        assert add(home=tmp_path, return_state=True).is_failed()
    assert [alert["flow"] for alert in got] == ["add"]
    assert "There is no collection" in got[0]["message"]


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/a-secret", "no address: a-secret"])
def test_without_a_listener_the_run_ends_and_the_address_stays_out_of_the_log(
    failed, address, caplog
):
    with caplog.at_level(logging.WARNING):
        state = failed(address)
    assert state.is_failed()
    assert "COVERS_ALERT_URL was not told" in caplog.text
    assert "a-secret" not in caplog.text


def test_an_answer_that_refuses_is_logged(failed, caplog):
    with listening(answer=403) as (address, _), caplog.at_level(logging.WARNING):
        failed(address)
    assert "was not told of this: it answered 403" in caplog.text
    assert "a-secret" not in caplog.text


def test_a_listener_that_never_answers_is_given_up(failed, caplog, monkeypatch):
    monkeypatch.setattr(alert, "MAX_WAIT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        failed(f"http://127.0.0.1:{deaf.getsockname()[1]}")
    assert "was not told of this: ReadTimeout" in caplog.text


def test_a_run_that_times_out_sends_an_alert(prefect_server, tree, tmp_path, monkeypatch):
    with listening() as (address, got):
        monkeypatch.setenv("COVERS_ALERT_URL", address)
        hurried = pipeline.with_options(timeout_seconds=0.05)
        state = hurried(tree.root, home=tmp_path / "home", return_state=True)
    assert state.name == "TimedOut"
    assert got[0]["state"] == "TimedOut"
    assert "0.05 second" in got[0]["message"]


def test_the_timeout_is_a_setting(monkeypatch):
    assert pipeline.timeout_seconds == 23 * 3600
    monkeypatch.setenv("COVERS_TIMEOUT_HOURS", "0.5")
    assert alert.hours() == 0.5
    for text in ("a day", "0", "-1", "nan", "inf"):
        monkeypatch.setenv("COVERS_TIMEOUT_HOURS", text)
        with pytest.raises(ValueError, match=f"COVERS_TIMEOUT_HOURS is '{text}', expected a numb"):
            alert.hours()
