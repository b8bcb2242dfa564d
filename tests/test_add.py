"""Additions: new performances arrive, withdrawn ones leave, and nothing is done twice."""

import shutil
from copy import deepcopy as copy_of

import numpy as np
import pytest
from catalogue import in_memory
from contract_stub import KEY, asked
from published import copied, searcher, served, times
from trees import Tree

import search
from embedding import bundle as bundles
from embedding.encoders.means import Means
from flows.add import add
from flows.pipeline import pipeline

WORKS = 30


def build(tree) -> None:
    """Add works with two performances each, which share the work's chords."""
    rng = np.random.default_rng(7)
    for work in range(WORKS):
        chords = rng.random((1, 12))
        for performance in range(2):
            hpcp = np.clip(chords + 0.01 * rng.random((60, 12)), 0, 1).astype(np.float32)
            tree.add(f"W_{work}", f"P_{work}{performance}", hpcp=hpcp)
    tree.title("W_0", "P_00", perf_title="Helo")


@pytest.fixture(scope="module")
def original(plain_flows):
    """A workspace with a published catalogue, of which some works were held out."""
    with in_memory() as home:
        tree = Tree(home / "catalogue")
        build(tree)
        pipeline(tree.root, encoder="means", home=home)
        yield tree


@pytest.fixture
def catalogue(original):
    """A copy of the workspace, with its catalogue."""
    with copied(original.root.parent) as home:
        copy = Tree(home / "catalogue")
        copy.metadata = copy_of(original.metadata)
        yield copy


@pytest.fixture
def home(catalogue):
    return catalogue.root.parent


@pytest.fixture
def embedded(monkeypatch):
    """The number of performances that each call of the encoder embeds."""
    counts, plain = [], Means.embed

    def embed(self, means):
        counts.append(len(means))
        return plain(self, means)

    monkeypatch.setattr(Means, "embed", embed)
    return counts


def numbers(result) -> tuple[int, ...]:
    return tuple(result[name] for name in ("added", "changed", "relabelled", "withdrawn"))


def test_what_is_new_changed_and_withdrawn_arrives_and_only_that_is_embedded(
    catalogue, home, embedded
):
    catalogue.add("W_0", "P_02")  # new
    catalogue.add("W_1", "P_10", frames=80)  # changed
    catalogue.path("W_2", "P_20").unlink()  # withdrawn
    catalogue.title("W_0", "P_00", perf_title="Hello")  # corrected
    catalogue.title("W_5", "P_50", owner="EMI")  # known by now
    damaged = catalogue.path("W_2", "P_21")
    damaged.write_bytes(b"damaged")
    (bundle,) = home.glob("bundles/*/bundle.json")
    result = add(home=home)
    assert numbers(result) == (1, 1, 0, 2)
    assert result["retitled"] == 2
    assert result["tracks"] == {
        "added": ["P_02"],
        "changed": ["P_10"],
        "relabelled": [],
        "retitled": ["P_00", "P_50"],
        "withdrawn": ["P_20", "P_21"],
    }
    [reject] = result["rejected"]
    assert (reject["track_id"], reject["file"]) == ("P_21", str(damaged))
    assert [count for count in embedded if count] == [2]
    now = served(home)
    assert "P_02" in now
    assert "P_20" not in now
    assert now["P_00"]["title"] == "Hello"
    assert [now[each].get("owner") for each in ("P_50", "P_51")] == ["EMI", None]
    assert {payload["bundle"] for payload in now.values()} == {bundles.load(bundle.parent).id}
    assert len(searcher(home).similar("P_02", 100)) == len(now) - 1


def test_a_corrected_work_arrives(catalogue, home):
    catalogue.path("W_3", "P_31").unlink()
    catalogue.add("W_4", "P_31")
    result = add(home=home)
    assert numbers(result) == (0, 1, 1, 0)  # the label is in the file
    assert result["tracks"]["relabelled"] == ["P_31"]
    payload = served(home)["P_31"]
    assert (payload["work_id"], payload["clique_size"]) == ("W_4", 3)


def test_running_twice_changes_nothing(catalogue, home, embedded):
    add(home=home)
    embedded.clear()
    name = search.connect(home=home).open().description.name
    before = times(home, "*.parquet")
    result = add(home=home)
    assert numbers(result) == (0, 0, 0, 0)
    assert result["collection"] == name
    assert not any(embedded)
    assert times(home, "*.parquet") == before


def test_on_a_server_only_what_differs_is_sent(catalogue, home, stub, monkeypatch):
    embedded = search.connect(home=home)
    monkeypatch.setenv("QDRANT_URL", stub.url)
    monkeypatch.setenv("QDRANT_API_KEY", KEY)
    name = search.copy(embedded, search.connect(home=home)).name
    stub.requests.clear()
    catalogue.add("W_0", "P_02")
    catalogue.path("W_2", "P_20").unlink()
    result = add(home=home)
    assert (*numbers(result), result["collection"]) == (1, 0, 0, 1, name)
    (sent,) = asked(stub, "PUT", f"{name}/points")
    # W_0 has three performances now, and W_2 has one.
    written = ["P_00", "P_01", "P_02", "P_21"]
    assert sorted(point["payload"]["track_id"] for point in sent["points"]) == written
    (sequences,) = asked(stub, "PUT", f"{name}-sequences/points")
    assert [point["payload"]["track_id"] for point in sequences["points"]] == ["P_02"]
    now = served(home)
    assert len(now) == 2 * WORKS
    assert [now[track_id]["clique_size"] for track_id in written] == [3, 3, 3, 1]


def test_another_data_set_joins_and_is_read_by_every_later_addition(catalogue, home, make_tree):
    other = make_tree(name="other")
    other.add("W_0", "P_x")
    other.add("W_new", "P_y")
    assert numbers(add([other.root], home=home)) == (2, 0, 0, 0)
    assert served(home)["P_x"]["clique_size"] == 3
    other.path("W_new", "P_y").unlink()
    catalogue.add("W_5", "P_52")
    assert numbers(add(home=home)) == (1, 0, 0, 1)
    assert len(served(home)) == 2 * WORKS + 2


def test_without_a_collection_there_is_nothing_to_add_to(catalogue, tmp_path):
    with pytest.raises(search.NoCollection, match="make one with `covers pipeline"):
        add([catalogue.root], home=tmp_path / "empty")


def test_after_a_rollback_additions_go_to_the_collection_that_is_current_again(catalogue, home):
    catalogue.add("W_0", "P_02")
    add(home=home)
    search.connect(home=home).rollback()
    assert "P_02" not in served(home)
    assert numbers(add(home=home)) == (1, 0, 0, 0)
    assert "P_02" in served(home)


def test_a_retrained_bundle_that_is_worse_is_not_published(catalogue, home, monkeypatch):
    monkeypatch.setattr("flows.measuring.promote.MIN_CLIQUES", 2)
    for work in range(WORKS):
        catalogue.add(f"W_{work}", f"P_{work}2")  # so that it is trained again
    before = served(home)
    plain = Means.embed
    noise = np.random.default_rng(0)
    monkeypatch.setattr(
        Means, "embed", lambda self, store: noise.random((len(store), 52), np.float32)
    )
    state = pipeline(catalogue.root, encoder="means", home=home, return_state=True)
    assert state.is_completed()
    result = state.result()
    assert state.name == "Kept", result["verdict"]
    assert "is not published because it is worse: MAP 0." in state.message
    assert not result["published"]
    assert result["metrics"]["queries"] > 0
    assert served(home) == before
    monkeypatch.setattr(Means, "embed", plain)
    catalogue.add("W_0", "P_03")
    assert pipeline(catalogue.root, encoder="means", home=home)["published"]
    assert "P_03" in served(home)


def test_a_bundle_can_not_be_used_and_trained_at_once(catalogue, home):
    with pytest.raises(ValueError, match="is trained already, so"):
        pipeline(catalogue.root, catalogue.root, bundle="pretrained", home=home)


def test_what_cannot_be_added_is_named_and_nothing_changes(catalogue, home, make_tree):
    other = make_tree(name="other")
    other.add("W_0", "P_00")
    before = served(home)
    with pytest.raises(ValueError, match=r"Performance P_00 is in .*catalogue and in .*other"):
        add([other.root], home=home)
    assert served(home) == before


def test_data_that_moved_is_recognised_by_its_content(catalogue, home, embedded, tmp_path):
    before = served(home)
    moved = catalogue.root.rename(home.with_name("disk"))
    with pytest.raises(FileNotFoundError, match=r"no data set at .*catalogue, .*`covers add DIR`"):
        add(home=home)
    assert served(home) == before
    result = add([moved], home=home)
    assert numbers(result) == (0, 0, 0, 0)
    assert result["moved"] == {str(catalogue.root): str(moved)}
    assert not any(embedded)
    assert served(home) == before
    copy = shutil.copytree(moved, tmp_path / "copy")
    assert add([copy], home=home)["moved"] == {str(moved): str(copy)}
    assert numbers(add(home=home)) == (0, 0, 0, 0)
