"""Mistakes are told at once, Ctrl-C ends a command, and proxies are not in the way."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import COVERS
from trees import SAMPLE, copy_sample

CLOSED = "http://127.0.0.1:9"


@pytest.mark.parametrize(
    ("command", "environment", "said"),
    [
        ("pipeline --data nowhere", {}, "no data set at nowhere"),
        ("pipeline --data {sample} --encoder vresion", {}, "no encoder 'vresion'"),
        ("pipeline --data {sample} --bundle nowhere", {}, "nowhere is not a bundle"),
        ("pipeline --data {sample} --config {config}", {}, "autoencoder has no field 'epochs'"),
        ("aggregate {sample}", {"QDRANT_URL": CLOSED}, "No Qdrant server answers at " + CLOSED),
        ("aggregate {sample}", {"PREFECT_API_URL": CLOSED}, "No Prefect server answers"),
        ("aggregate {sample}", {"COVERS_HOME": "/dev/null/x"}, "workspace /dev/null/x cannot be"),
        ("aggregate {sample}", {"PREFECT_HOME": "/dev/null/x"}, "set PREFECT_HOME to another"),
        ("aggregate {sample}/provenance.json", {}, "could not be read as a CSV table"),
        ("add nowhere", {}, "no data set at nowhere"),
        ("extract nowhere --to x", {}, "There is no folder at nowhere"),
        ("evaluate nowhere", {}, "nowhere does not exist"),
        ("train", {}, "has no latest features"),
        ("serve --data {sample} --schedule pipeline=daily", {}, "'daily', which is not a cron"),
        ("similar P_1", {"COVERS_HOME": "/dev/null"}, "cannot be used (Not a directory)"),
    ],
)
def test_a_mistake_is_one_sentence_before_anything_starts(
    covers, tmp_path, command, environment, said
):
    config = tmp_path / "config.json"
    config.write_text('{"epochs": 3}')
    words = command.format(sample=SAMPLE, config=config).split()
    answer = covers(*words, env={"COVERS_HOME": "home"} | environment)
    assert answer.returncode == 1
    assert said in answer.stderr
    assert answer.stdout + answer.stderr == answer.stderr
    assert answer.stderr.startswith("covers: ")
    assert answer.stderr.count("\n") == 1


def test_a_failure_in_a_run_is_the_last_line_and_there_once(covers, tmp_path):
    (tmp_path / "damaged.parquet").write_text("damaged")
    answer = covers("evaluate", "damaged.parquet")
    assert answer.returncode == 1
    *before, last = answer.stderr.splitlines()
    assert last.startswith("covers: damaged.parquet is damaged")
    said = answer.stdout + "\n".join(before)
    assert "damaged.parquet is damaged" not in said
    assert "Traceback" not in said


def test_the_server_on_this_machine_is_reached_past_a_proxy(covers, tmp_path):
    data = copy_sample(tmp_path / "data", slice(2))
    answer = covers("aggregate", data, env={"HTTP_PROXY": CLOSED, "http_proxy": CLOSED})
    assert answer.returncode == 0, answer.stderr


@contextmanager
def running(home: Path, *arguments: object) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Start `covers` as a terminal does, in a process group of its own; yields also its output."""
    log = home.with_suffix(".log")
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [COVERS, *map(str, arguments)],
            env=os.environ | {"COVERS_HOME": str(home)},
            stdout=output,
            stderr=output,
            process_group=0,
        ) as process,
    ):
        yield process, log


def wait_for(text: str, log: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while text not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


def left(home: Path) -> list[str]:
    """Return the command lines of all processes that have this workspace in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"COVERS_HOME={home}".encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "cmdline").read_text())
        except OSError:
            continue
    return found


def test_ctrl_c_ends_a_pipeline_at_any_moment_and_the_next_run_continues(tmp_path):
    home = tmp_path / "home"
    trained, given = ("--encoder", "version"), ("--bundle", "pretrained")
    moments = [
        (trained, "temporary Prefect server", 0.5, signal.SIGINT),
        (trained, "to read", 0.5, signal.SIGINT),  # processes read
        (trained, "training version", 5, signal.SIGTERM),
        (given, "unchanged: 193 performances", 1.5, signal.SIGINT),  # it embeds
    ]
    for encoder, text, seconds, number in moments:
        with running(home, "pipeline", "--data", SAMPLE, *encoder) as (process, log):
            wait_for(text, log, process)
            time.sleep(seconds)
            before = log.read_text()
            sent = time.monotonic()
            os.killpg(process.pid, number)
            assert process.wait(60) == 128 + number, log.read_text()
            assert time.monotonic() - sent < 5
        deadline = time.monotonic() + 5
        while left(home) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not left(home)
        said = log.read_text().removeprefix(before).splitlines()
        assert [line for line in said if "interrupted" in line] == said[-1:]
        assert "Traceback" not in "".join(said)
