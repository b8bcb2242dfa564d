import threading
import time

import pytest

from flows.workspace import Workspace, key, make_once


def test_a_result_is_made_once(tmp_path):
    place = tmp_path / "kind" / "name"
    assert make_once(place, lambda scratch: (scratch / "file").write_text("1"))
    assert not make_once(place, lambda scratch: pytest.fail("made again"))
    assert (place / "file").read_text() == "1"


def test_what_fails_half_way_is_not_there_and_is_made_anew(tmp_path):
    place = tmp_path / "kind" / "name"

    def fail(scratch):
        (scratch / "half").write_text("1")
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        make_once(place, fail)
    assert not place.exists()
    assert make_once(place, lambda scratch: (scratch / "whole").write_text("2"))
    assert [path.name for path in place.iterdir()] == ["whole"]


def test_of_two_that_want_the_same_result_one_makes_it_and_one_waits(tmp_path):
    place, made, begun = tmp_path / "kind" / "name", [], []

    def make(scratch):
        begun.append(scratch)
        time.sleep(0.2)  # long enough for the other to want it too

    both = [threading.Thread(target=lambda: made.append(make_once(place, make))) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert sorted(made) == [False, True]
    assert len(begun) == 1


def test_the_latest_result_is_the_one_made_last(tmp_path):
    workspace = Workspace(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no bundles .*`covers pipeline --data DIR`"):
        workspace.latest("bundles", "bundle.json")
    for name in ("b", "a"):
        place = workspace.path("bundles", name)
        make_once(place, lambda scratch: (scratch / "bundle.json").touch())
    assert workspace.latest("bundles", "bundle.json") == tmp_path / "bundles" / "a"


def test_a_key_changes_with_anything_it_is_made_from():
    assert key("a", [1, 2.5], {"x": 1, "y": 2}) == key("a", [1, 2.5], {"y": 2, "x": 1})
    assert len({key("a"), key("b"), key("a", "b"), key(["a", "b"]), key("ab"), key(None)}) == 6
