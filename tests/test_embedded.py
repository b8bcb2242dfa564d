"""The embedded engine: many processes at once, any of which may be killed."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from catalogue import make_points, version

import search
from search import DamagedCollection, PublishError, Searcher, SearchError
from search.engines.embedded import Embedded, copies

ROOT = Path(search.__file__).parent.parent


@pytest.fixture
def engine(embedded):
    return embedded


def contents(directory: Path) -> dict[str, tuple[bytes, int]]:
    """Each file's content and when it was last written."""
    return {
        str(path.relative_to(directory)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in directory.rglob("*")
        if path.is_file()
    }


def test_a_reader_changes_nothing_that_is_published_and_leaves_nothing_behind(
    engine, tmp_path, monkeypatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    name = engine.publish(make_points(300, 8), "b").name
    before = contents(engine.directory / name)
    listed = json.loads((engine.directory / name / "collection.json").read_text())["files"]
    assert set(listed) == before.keys() - {"collection.json"}
    opened = engine.open()
    assert list(tmp_path.iterdir()) == []
    opened.nearest(np.zeros((1, 8), np.float32), 300, ())
    opened.performances(["P_1"])
    opened._shard.optimize()
    opened._shard.close()
    assert contents(engine.directory / name) == before


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork")
@pytest.mark.skipif(os.getuid() != 0, reason="NOT TESTED: only root can become another user")
def test_a_searcher_needs_no_right_to_write_in_the_workspace(engine):
    engine.publish(make_points(20), "b")
    engine.directory.parent.chmod(0o755)
    child = os.fork()
    if child == 0:
        try:
            os.setuid(65534)
            found = Searcher(Embedded(engine.directory)).similar("P_1")
        except BaseException:
            os._exit(1)
        os._exit(0 if len(found) == 10 else 2)
    assert os.waitpid(child, 0)[1] == 0


def test_a_collection_that_is_open_can_be_pruned(engine):
    engine.publish(version(0), "b")
    opened = engine.open()
    engine.publish(version(1), "b", keep=1)
    assert opened.description.name not in engine.names()
    assert opened.count() == 40
    assert opened.performances(["P_4"])[0].payload["title"] == "Title 4"
    assert len(opened.nearest(np.zeros((1, 4), np.float32), 100, ())[0]) == 40


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork")
def test_a_forked_child_searches_on_its_own(engine):
    engine.publish(make_points(20), "b")
    searcher = Searcher(engine)
    answer = searcher.similar("P_1")
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        os._exit(0 if searcher.similar("P_1") == answer else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert searcher.similar("P_1") == answer


def test_threads_share_a_searcher(engine):
    points = make_points(40)
    engine.publish(points, "b")
    searcher = Searcher(engine)
    expected = Searcher(Embedded(engine.directory)).similar_many(points.track_ids)
    with ThreadPoolExecutor(len(points)) as threads:
        assert [*threads.map(searcher.similar, points.track_ids)] == expected


PUBLISH = """
import sys
sys.path[:0] = {paths!r}
from pathlib import Path
from catalogue import make_points

from search.engines import durable
from search.engines.embedded import Embedded, collection, manifest
engine = Embedded(Path({home!r}))
def halt(*args):
    print("here", flush=True)
    input()
{patch}
engine.publish(make_points(12, seed=2), "new", keep=1)
"""


@pytest.mark.parametrize(
    "stage",
    [
        "collection.write = halt",
        "durable.os.fsync = halt",
        "Embedded._load = halt",
        "Embedded.serve = halt",
        "Path.replace = halt",
        "serve = Embedded.serve; Embedded.serve = lambda *args: (serve(*args), halt())",
    ],
)
def test_a_publisher_killed_at_any_stage_leaves_a_collection_serving(engine, stage):
    old = engine.publish(make_points(12, seed=1), "old")
    code = PUBLISH.format(
        paths=[str(ROOT), str(ROOT / "tests")], home=str(engine.directory), patch=stage
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as publisher:
        assert publisher.stdout.readline() == "here\n"
        publisher.kill()
    killed_late = "serve(*args)" in stage  # before the old collection was dropped
    assert (engine.history()[0] == old.name) != killed_late
    assert len(Searcher(Embedded(engine.directory)).similar("P_1", 100)) == 11
    new = engine.publish(make_points(12, seed=2), "new", keep=1)
    assert engine.history() == engine.names() == [new.name]
    left = {path.name for path in engine.directory.iterdir()}
    assert left - {"CURRENT.new"} == {"CURRENT", "publish.lock", new.name}


def largest(directory: Path, name: str) -> Path:
    return max(directory.rglob(name), key=lambda path: path.stat().st_size)


DAMAGES = {
    "cut short": lambda path: os.truncate(largest(path, "matrix.dat"), 100),
    "a file gone": lambda path: largest(path, "page_0.dat").unlink(),
    "no longer JSON": lambda path: largest(path, "segment.json").write_text("{" * 322),
    "nothing said": lambda path: (path / "collection.json").write_text(""),
    "all gone": shutil.rmtree,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_collection_says_so_and_publishing_the_same_again_heals_it(engine, damage):
    points = make_points(300, 8)
    earlier = engine.publish(make_points(30), "earlier")
    name = engine.publish(points, "b").name
    DAMAGES[damage](engine.directory / name)
    searcher = Searcher(Embedded(engine.directory))
    with pytest.raises(
        DamagedCollection, match=f"The collection {name} .* is damaged .*covers pipeline --data DIR"
    ):
        searcher.similar("P_1")
    healed = engine.publish(points, "b").name
    assert (healed == name) == (damage == "all gone")  # existing files are never overwritten
    assert len(searcher.similar("P_1", 1000)) == 299
    assert engine.history() == [healed, earlier.name]
    assert engine.names() == sorted(engine.history())
    shutil.rmtree(engine.directory / healed / "shard")
    assert engine.rollback() == earlier
    assert len(Searcher(engine).similar("P_1", 100)) == 29


def test_a_disk_without_room_is_noticed_before_anything_is_written(engine, monkeypatch, tmp_path):
    old = engine.publish(make_points(12), "b")
    full = shutil.disk_usage(engine.directory)._replace(free=10 * 2**20)
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda path: full)
        with pytest.raises(PublishError, match=r"has room for 10 MB .* make room and publish aga"):
            engine.publish(make_points(13), "b")
    assert engine.names() == [old.name]
    (tmp_path / "file").write_text("")
    with pytest.raises(PublishError, match=r"file/qdrant cannot be written .* publish again"):
        Embedded(tmp_path / "file" / "qdrant").publish(make_points(12), "b")


def test_copies_of_readers_go_where_there_is_room_and_old_ones_are_swept(
    engine, tmp_path, monkeypatch
):
    monkeypatch.setattr(copies, "MAX_MEMORY_BYTES", 0)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    old, young = tmp_path / f"{copies.COPY_PREFIX}old", tmp_path / f"{copies.COPY_PREFIX}young"
    for left in (old, young):
        left.mkdir()
        (left / "file").write_text("")
    os.utime(old, (0, 0))
    engine.publish(make_points(12), "b")
    assert not old.exists()
    assert young.exists()
    monkeypatch.setattr(tempfile, "tempdir", "/proc/nowhere")
    with pytest.raises(SearchError, match=r"by way of /proc/nowhere .* directory in TMPDIR"):
        Searcher(Embedded(engine.directory)).similar("P_1")


def test_a_reader_opens_a_collection_however_often_its_description_is_replaced(engine, monkeypatch):
    engine.publish(make_points(12), "b")
    publisher, bring, number = Embedded(engine.directory), copies.bring, itertools.count()

    def note_meanwhile(*given) -> None:
        current = publisher.describe(publisher.history()[0])
        publisher.note(replace(current, origin={"number": next(number)}))
        bring(*given)

    monkeypatch.setattr(copies, "bring", note_meanwhile)
    assert len(Searcher(Embedded(engine.directory)).similar("P_1", 100)) == 11
    assert next(number) > 10
