import threading
import time

import pytest

from embedding.bundle import PRETRAINED
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


def make(workspace: Workspace, kind: str, name: str):
    place = workspace.path(kind, name)
    place.mkdir(parents=True)
    return place


def test_the_latest_result_of_each_role_is_the_one_noted_last_even_after_a_move(tmp_path):
    workspace = Workspace(tmp_path / "one")
    with pytest.raises(FileNotFoundError, match=r"no latest bundle yet: .*`covers train`"):
        workspace.latest("bundle")
    for name in ("b", "a"):
        workspace.note(bundle=make(workspace, "bundles", name))
    workspace.note(features=make(workspace, "features", "f"))
    assert workspace.latest("bundle") == tmp_path / "one" / "bundles" / "a"
    moved = Workspace(workspace.root.rename(tmp_path / "other"))
    assert moved.latest("bundle") == tmp_path / "other" / "bundles" / "a"
    assert moved.latest("features") == tmp_path / "other" / "features" / "f"


def test_the_latest_result_can_be_outside_or_the_bundle_that_comes_with_covers(tmp_path):
    workspace = Workspace(tmp_path / "home")
    workspace.note(bundle=PRETRAINED, features=tmp_path)
    assert workspace.noted() == {"bundle": "pretrained", "features": str(tmp_path)}
    assert workspace.latest("bundle") == PRETRAINED
    assert workspace.latest("features") == tmp_path


def test_a_latest_result_that_is_gone_is_named(tmp_path):
    workspace = Workspace(tmp_path)
    workspace.note(vectors=make(workspace, "vectors", "v") / "vectors.parquet")
    with pytest.raises(FileNotFoundError, match=r"as vectors/v/vectors.parquet is missing: name"):
        workspace.latest("vectors")


@pytest.mark.parametrize("content", ["{", "[]", '{"bundle": 3}', '{"colour": "red"}'])
def test_a_damaged_note_of_what_is_latest_is_told_and_written_anew_by_the_next_run(
    tmp_path, content
):
    workspace = Workspace(tmp_path)
    (tmp_path / "latest.json").write_text(content)
    with pytest.raises(ValueError, match=r"latest\.json is damaged: name the result to use, or"):
        workspace.latest("bundle")
    workspace.note(bundle=make(workspace, "bundles", "b"))
    assert workspace.noted() == {"bundle": "bundles/b"}


def test_any_number_may_use_a_workspace_and_then_nobody_has_it_for_himself(tmp_path):
    workspace = Workspace(tmp_path)
    with workspace.used_by_nobody() as free:
        assert free
    with workspace.used(), workspace.used(), workspace.used_by_nobody() as free:
        assert not free
    with workspace.used_by_nobody() as free:
        assert free


def test_a_key_changes_with_anything_it_is_made_from():
    assert key("a", [1, 2.5], {"x": 1, "y": 2}) == key("a", [1, 2.5], {"y": 2, "x": 1})
    assert len({key("a"), key("b"), key("a", "b"), key(["a", "b"]), key("ab"), key(None)}) == 6
