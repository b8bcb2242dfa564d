"""SIGKILL between any two results of a run."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import polars as pl
from trees import copy_sample

from flows.pipeline import pipeline

SMALL = {"max_epochs": 5}  # enough to run every stage

KILLED_BETWEEN_RESULTS = """
    import itertools, os, pathlib, signal
    import flows.pipeline  # once for all: each run is a fork
    from flows.cli.commands import main

    def kill_at(n):
        def killing(original):
            def step(path, target):
                nonlocal n
                if not any(mark in str(target) for mark in (".tmp", ".old", ".removed")):
                    n -= 1
                    if n == 0:
                        os.kill(os.getpid(), signal.SIGKILL)
                return original(path, target)
            return step
        for name in ("rename", "replace"):
            setattr(pathlib.Path, name, killing(getattr(pathlib.Path, name)))

    if __name__ == "__main__":
        for kills, n in enumerate(itertools.cycle((2, 2, 4))):
            child = os.fork()
            if child == 0:
                kill_at(n)
                main()
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            if status == 0:
                break
            assert status == -signal.SIGKILL, (n, status)
        pathlib.Path(__file__).with_suffix(".kills").write_text(str(kills))
"""

SEARCHES_UNTIL_TOLD = """
    import sys, time
    from pathlib import Path
    import search

    searcher, asked = search.Searcher(search.connect(home=Path(sys.argv[1]))), 0
    while not Path(sys.argv[2]).exists():
        assert len(searcher.similar(sys.argv[3], 5)) == 5
        asked += 1
        time.sleep(0.05)
    print(asked)
"""


def test_killed_between_any_two_steps_it_ends_the_same_and_search_always_answers(
    prefect_server, tmp_path, count
):
    data = copy_sample(tmp_path / "tenth", slice(None, None, 10))  # seven runs read it
    result = pipeline(data, config=SMALL, home=tmp_path / "undisturbed")
    home, script, done = tmp_path / "home", tmp_path / "killed.py", tmp_path / "done"
    script.write_text(textwrap.dedent(KILLED_BETWEEN_RESULTS))
    config = tmp_path / "config.json"
    config.write_text(json.dumps(SMALL))
    environment = os.environ | {"PREFECT_API_URL": prefect_server}
    track = pl.read_parquet(result["paths"]["vectors"])["track_id"][0]

    # A collection is served before, and searched during the runs.
    pipeline(data, encoder="means", home=home)
    searching = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SEARCHES_UNTIL_TOLD), str(home), str(done), track],
        stdout=subprocess.PIPE,
        text=True,
    )
    shutil.rmtree(home / "features")
    run = subprocess.run(
        [sys.executable, script, "pipeline", "--data", data, "--config", config, "--home", home,
         "--json"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    done.touch()
    asked, _ = searching.communicate(timeout=60)
    assert searching.returncode == 0
    assert int(asked) > 100
    resumed = json.loads(run.stdout)
    assert resumed["metrics"] == result["metrics"]
    for name, file in (("vectors", ""), ("features", "features.parquet")):
        one, other = (
            pl.read_parquet(Path(each["paths"][name]) / file).select(pl.exclude("mtime_ns"))
            for each in (resumed, result)
        )
        assert one.equals(other)
    assert not [path for path in home.rglob(".*") if path.is_dir()], "left by a killed run"
    kills = int(script.with_suffix(".kills").read_text())
    assert kills >= 6
    count("kills between two results of a run", "gone on from to the same end", kills)
    count("searches meanwhile", "answered from one version", int(asked))
