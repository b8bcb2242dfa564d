"""A clock that goes backwards, and files from the future."""

import os
from datetime import UTC, datetime, timedelta

import pytest
from catalogue import make_points

from embedding.data.aggregate import aggregate_batch, assemble, parts, pending
from embedding.data.dataset import open_dataset
from flows.workspace import Workspace
from search import Searcher, points
from search.engines.embedded import Embedded


def test_what_is_published_last_is_current_whatever_the_clock_says(tmp_path, monkeypatch, count):
    now = datetime(2030, 1, 1, tzinfo=UTC)

    class Backwards:
        @staticmethod
        def now(zone):
            nonlocal now
            now -= timedelta(days=1)
            return now

    monkeypatch.setattr(points, "datetime", Backwards)
    engine = Embedded(tmp_path / "qdrant")
    made = [engine.publish(make_points(12 + i, seed=i), "b") for i in range(3)]
    assert made[0].created > made[1].created > made[2].created
    assert Searcher(engine).status().current == made[2]
    assert Searcher(engine).status().previous == (made[1],)
    assert engine.rollback() == made[1]
    assert len(Searcher(engine).similar("P_1", 100)) == 12
    count("a clock set back", "nothing lost or mistaken")


@pytest.mark.parametrize("seconds", [0, 2**33], ids=["1970", "2242"])
def test_a_file_of_any_time_is_read_and_read_again_when_it_changes(tree, tmp_path, seconds, count):
    path = tree.path("W_1", "P_11")
    os.utime(path, (seconds, seconds))
    dataset = open_dataset(tree.root)
    aggregate_batch(dataset.performances, dataset.frame_rate, tmp_path / "parts")
    store = assemble(dataset, parts(tmp_path / "parts"), tmp_path / "store")
    assert len(store) == 5
    assert pending(dataset, [store]) == ()
    os.utime(path, (1000, 1000))
    assert [one.track_id for one in pending(open_dataset(tree.root), [store])] == ["P_11"]
    count("a clock set back", "nothing lost or mistaken")


def test_the_latest_result_is_the_one_noted_last_whatever_the_clock_says(tmp_path, count):
    workspace = Workspace(tmp_path)
    for name, seconds in (("one", 2**33), ("another", 0)):
        place = tmp_path / "bundles" / name
        place.mkdir(parents=True)
        workspace.note(bundle=place)
        os.utime(place, (seconds, seconds))
        os.utime(tmp_path / "latest.json", (seconds, seconds))
        assert workspace.latest("bundle") == place
    count("a clock set back", "nothing lost or mistaken")
