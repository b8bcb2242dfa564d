"""Where tasks run is a setting, and the result is the same."""

import os
import subprocess
import sys

import polars as pl
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.task_runners import ThreadPoolTaskRunner
from prefect_server import COVERS, ROOT

from flows.aggregate import aggregate
from flows.runners import task_runner


def test_threads_are_the_default(monkeypatch):
    monkeypatch.delenv("COVERS_TASK_RUNNER", raising=False)
    assert isinstance(task_runner(), ThreadPoolTaskRunner)
    for value in ("", "threads"):
        monkeypatch.setenv("COVERS_TASK_RUNNER", value)
        assert isinstance(task_runner(), ThreadPoolTaskRunner)


@pytest.mark.parametrize("value", ["spark", "dask://", "dask:8786", "threads://host", "Ray"])
def test_an_unknown_setting_is_refused(monkeypatch, value):
    monkeypatch.setenv("COVERS_TASK_RUNNER", value)
    with pytest.raises(ValueError, match=f"COVERS_TASK_RUNNER is {value!r}, expected threads, d"):
        task_runner()


def test_a_cluster_needs_a_server_to_report_to(monkeypatch):
    monkeypatch.setenv("COVERS_TASK_RUNNER", "dask")
    with (
        temporary_settings({PREFECT_API_URL: None}),
        pytest.raises(ValueError, match="run `prefect server start` and set PREFECT_API_URL"),
    ):
        task_runner()


@pytest.fixture
def reported():
    """A server for workers to report to, which is not asked here."""
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        yield


@pytest.mark.parametrize("kind", ["dask", "ray"])
def test_a_library_that_is_missing_is_named(monkeypatch, reported, kind):
    monkeypatch.setenv("COVERS_TASK_RUNNER", kind)
    monkeypatch.setitem(sys.modules, f"prefect_{kind}", None)
    with pytest.raises(ValueError, match=rf"pip install 'covers\[{kind}\]'"):
        task_runner()


@pytest.mark.parametrize("kind", ["dask", "ray"])
def test_a_cluster_s_address_is_passed_on(monkeypatch, reported, kind):
    pytest.importorskip(f"prefect_{kind}")
    monkeypatch.setenv("COVERS_TASK_RUNNER", f"{kind}://head:1234")
    scheme = {"dask": "tcp", "ray": "ray"}[kind]
    assert task_runner().address == f"{scheme}://head:1234"


@pytest.mark.parametrize("kind", ["dask", "ray"])
def test_batches_read_on_a_cluster_make_the_same_store(prefect_server, tree, tmp_path, kind):
    """Workers are other processes, which import what they need and write the parts."""
    pytest.importorskip(f"prefect_{kind}")
    for i in range(20):
        tree.add("W_9", f"P_9{i:02}")
    environment = os.environ | {
        "COVERS_TASK_RUNNER": kind, "PREFECT_API_URL": prefect_server, "PYTHONPATH": str(ROOT),
        "DASK_DISTRIBUTED__DASHBOARD__LINK": "", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    }  # fmt: skip
    done = subprocess.run(
        [*COVERS, "aggregate", str(tree.root), "--home", str(tmp_path / kind)],
        env=environment, cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "read batch 2 of 2" in done.stderr
    [there] = (tmp_path / kind).glob("features/*/*/features.parquet")
    here = aggregate(tree.root, home=tmp_path / "here") / "features.parquet"
    assert pl.read_parquet(there).equals(pl.read_parquet(here))
