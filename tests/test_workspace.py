import threading
import time

import pytest

from embedding.bundle import PRETRAINED
from flows.workspace import MADE_FROM, Workspace, key, read_json


def test_a_result_is_made_once_and_says_what_it_is_about(tmp_path):
    workspace, about = Workspace(tmp_path), {"bundle": "bundles/one"}
    made = workspace.result("kind", "name", [1], lambda path: (path / "file").touch(), about)
    assert made == tmp_path / "kind" / f"name-{key(1)}"
    assert {path.name for path in made.iterdir()} == {"file", MADE_FROM}
    assert read_json(made / MADE_FROM) == about
    assert workspace.result("kind", "name", [1], lambda path: pytest.fail("made again")) == made
    assert workspace.result("kind", "name", [2], lambda path: None) != made


def test_a_result_that_fails_half_way_is_missing_and_made_again(tmp_path):
    def fail(directory):
        (directory / "half").touch()
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        Workspace(tmp_path).result("kind", "", [1], fail)
    assert not list(tmp_path.glob("kind/*/"))
    (tmp_path / "kind" / f".{key(1)}.killed.tmp").mkdir()
    made = Workspace(tmp_path).result("kind", "", [1], lambda path: (path / "whole").touch())
    assert [path.name for path in tmp_path.glob("kind/*/")] == [made.name]
    assert [path.name for path in made.iterdir()] == ["whole"]


def test_if_two_want_the_same_result_one_makes_it_and_one_waits(tmp_path):
    begun = []

    def make(directory):
        begun.append(directory)
        time.sleep(0.2)  # long enough for the other to want it too

    asked = ("kind", "name", [1], make)
    both = [threading.Thread(target=Workspace(tmp_path).result, args=asked) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
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
