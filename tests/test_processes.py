"""Sharing work among processes, from a user's own script and when a process is killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import joblib
import numpy as np
import pytest

from embedding.data.aggregate import aggregate_batch
from embedding.data.chroma import CHROMA_RATE
from embedding.encoders.moments import describe
from embedding.processes import processes
from flows.aggregate import aggregate_part

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}

#: It has no `if __name__ == "__main__"`, and says how often it is run.
SCRIPT = """
import resource, sys
from pathlib import Path
import joblib
from feature_stores import make_store
from embedding import bundle
print("run", flush=True)
joblib.cpu_count = lambda: 2  # also on a machine with one
store = make_store(Path(sys.argv[1]), works=50, each=4)
vectors = bundle.load(bundle.PRETRAINED).embed(store)
print(len(vectors), resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime > 0)
"""


def test_a_plain_script_embeds_many_performances_with_the_help_of_processes(tmp_path):
    script = tmp_path / "mine.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, script, tmp_path / "store"],
        env=ENVIRONMENT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == ["run", "200 True"]


def test_they_load_nothing_heavy(tmp_path):
    with processes(1) as pool:
        pool.submit(aggregate_batch, [], CHROMA_RATE, tmp_path).result()
        pool.submit(describe, np.ones((80, 2, 12))).result()
        loaded = pool.submit(eval, "[*__import__('sys').modules]").result()
    assert "embedding.encoders.moments" in loaded
    assert not {"torch", "lightning", "prefect", "sklearn", "search", "flows"} & {*loaded}


def test_a_reading_process_that_is_killed_is_told_in_a_sentence(tmp_path):
    with processes(1) as pool:
        os.kill(pool.submit(os.getpid).result(), signal.SIGKILL)
        with pytest.raises(RuntimeError, match=r"was killed at batch 2 of 3, perhaps for want of"):
            aggregate_part.fn(2, 3, (), CHROMA_RATE, tmp_path, pool)


def test_in_a_process_that_may_not_start_others_threads_do_the_work():
    code = """
import multiprocessing
from embedding.processes import processes
def share(numbers):
    with processes(2) as pool:
        return [*pool.map(abs, numbers)]
with multiprocessing.get_context("fork").Pool(1) as mine:
    print(mine.apply(share, [[-1, 2]]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.stdout == "[1, 2]\n", done.stderr


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="NOT TESTED: no /proc here")
def test_processes_end_when_the_one_that_started_them_is_killed():
    code = """
import os, time
from embedding.processes import processes
with processes(2) as pool:
    told = [pool.submit(os.getpid) for _ in range(4)]
    print(*{each.result() for each in told}, flush=True)
    waiting = [pool.submit(time.sleep, 60) for _ in range(2)]
    time.sleep(60)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], env=ENVIRONMENT, stdout=subprocess.PIPE, text=True
    ) as parent:
        workers = [int(pid) for pid in parent.stdout.readline().split()]
        assert workers
        assert all(map(alive, workers))
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while any(map(alive, workers)):
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="NOT TESTED: no affinity on this system"
)
def test_no_more_cores_are_counted_than_this_process_may_use():
    code = "import os, joblib; os.sched_setaffinity(0, {0}); print(joblib.cpu_count())"
    counted = subprocess.run(
        [sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    assert counted.stdout == "1\n"
    assert joblib.cpu_count() <= len(os.sched_getaffinity(0))


def test_nothing_counts_the_machines_cores():
    """A container with a quota may use fewer; joblib counts those."""
    for package in ("embedding", "search", "flows"):
        for path in (ROOT / package).rglob("*.py"):
            assert "os.cpu_count" not in path.read_text(encoding="utf-8"), path
