"""`covers gc`, and each publication, delete the results that nothing needs."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from catalogue import in_memory
from feature_stores import write_csv
from published import copied, times

import search
from flows.add import add
from flows.cluster import cluster
from flows.collection.sources import note_data
from flows.embed import embed
from flows.pipeline import pipeline
from flows.publish import publish
from flows.retention import InUse, prune, tidy
from flows.train import train
from flows.workspace import MADE_FROM, Workspace, write_json

KINDS = ("features/*", "bundles", "vectors", "evaluations", "clusters", "duplicates")


@pytest.fixture(scope="module")
def original(plain_flows) -> Iterator[Path]:
    """Two data sets. One was published four times, each time with another bundle."""
    with in_memory() as home:
        write_csv(home / "b.csv", 4, 2, seed=1)
        for seed in range(4):
            write_csv(home / "a.csv", seed=seed)
            pipeline(home / "a.csv", encoder="means", home=home)
            if seed == 1:
                add([home / "b.csv"], home=home)
        yield home


@pytest.fixture
def home(original) -> Iterator[Path]:
    with copied(original) as home:
        yield home


def results(home: Path) -> dict[str, set[str]]:
    """The names of the results of each kind."""
    return {
        kind.partition("/")[0]: {path.name for path in home.glob(f"{kind}/[!.]*/")}
        for kind in KINDS
    }


def test_the_current_collection_and_the_one_before_keep_what_they_were_made_of(home):
    """Each has a bundle, and features and vectors of both data sets."""
    counts = {kind: len(names) for kind, names in results(home).items()}
    assert counts == {"features": 3, "bundles": 2, "vectors": 4, "evaluations": 2,
                      "clusters": 0, "duplicates": 0}  # fmt: skip
    assert prune(Workspace(home)) == []
    engine = search.connect(home=home)
    write_csv(home / "b.csv", 5, 2, seed=1)
    for _ in range(2):
        engine.rollback()
        assert add(home=home)["added"] == 2


def test_a_stage_run_by_hand_keeps_its_result_until_another_is_the_latest(home):
    before = results(home)
    bundles = [train(seed=seed, encoder="means", home=home) for seed in (7, 8)]
    embed(home=home)
    assert [result.path for result in prune(Workspace(home))] == bundles[:1]
    assert results(home)["bundles"] == before["bundles"] | {bundles[1].name}


def test_a_dry_run_says_what_would_go_and_changes_nothing(home):
    features = Workspace(home).latest("features")
    for seed in (7, 8):
        train(features, "means", hold_out=0.3, seed=seed, home=home)
    before = times(home, "*")
    found = prune(Workspace(home), dry_run=True)
    assert times(home, "*") == before
    [unneeded] = found
    assert (unneeded.kind, unneeded.path.parent) == ("bundles", home / "bundles")
    assert unneeded.size >= sum(path.stat().st_size for path in unneeded.path.iterdir()) > 0
    assert prune(Workspace(home)) == found
    assert not unneeded.path.exists()
    assert prune(Workspace(home)) == []


def test_nothing_is_pruned_under_a_running_flow(home, caplog):
    workspace = Workspace(home)
    bundle = train(workspace.latest("features"), "means", hold_out=0.3, home=home)
    train(workspace.latest("features"), "means", hold_out=0.4, home=home)
    with workspace.used():
        with pytest.raises(InUse, match="Another run uses the workspace"):
            prune(workspace)
        publish(home=home)  # which prunes afterwards
        assert bundle.exists()
    with caplog.at_level("INFO", "flows.retention"):
        publish(home=home)
    assert not bundle.exists()
    assert "freed 1 result, " in caplog.text


def test_what_another_deployment_needs_stays(home, monkeypatch):
    before = results(home)
    monkeypatch.setenv("COVERS_COLLECTION", "other")
    for seed in (5, 6):
        write_csv(home / "a.csv", seed=seed)
        pipeline(home / "a.csv", encoder="means", home=home)
    now = results(home)
    assert all(before[kind] <= now[kind] for kind in before)
    monkeypatch.delenv("COVERS_COLLECTION")
    assert prune(Workspace(home)) == []
    assert add(home=home)["performances"] == 48


def test_nothing_is_pruned_if_it_is_not_known_what_is_needed(home, monkeypatch, caplog):
    workspace = Workspace(home)
    train(workspace.latest("features"), "means", hold_out=0.3, home=home)
    for seed in (3, 4):
        train(workspace.latest("features"), "means", hold_out=0.3, seed=seed, home=home)
    before = results(home)
    with monkeypatch.context() as patch:
        patch.setenv("QDRANT_URL", "http://127.0.0.1:9")
        with pytest.raises(RuntimeError, match=r"Nothing was pruned, because .*127\.0\.0\.1:9"):
            prune(workspace)
    for name in ("latest.json", "served.json"):
        noted = (home / name).read_text()
        (home / name).write_text("{")
        with pytest.raises(RuntimeError, match=rf"Nothing was pruned, .*{name} is damaged"):
            prune(workspace)
        with caplog.at_level("WARNING", "flows.retention"):
            tidy(workspace)  # but a publication does not fail
        assert f"{name} is damaged" in caplog.text
        (home / name).write_text(noted)
    assert results(home) == before
    assert len(prune(workspace)) == 2


def test_a_result_about_others_stays_as_long_as_they_do(home):
    workspace = Workspace(home)
    cluster(smallest=2, largest=3, home=home)
    for kind, made_from in {
        "duplicates": {"collection": search.connect(home=home).history()[1]},
        "evaluations": {"vectors": __file__},
        "comparisons/rows": {"bundle": "bundles/compared"},
        "bundles": {},
    }.items():
        name = "compared" if kind == "bundles" else "one"
        workspace.path(kind, name).mkdir(parents=True)
        write_json(workspace.path(kind, name) / MADE_FROM, made_from)
    workspace.path("splits", "one").mkdir(parents=True)
    assert prune(workspace) == []
    for kind, made_from in {
        "duplicates": {"collection": "covers-gone"},
        "evaluations": {"vectors": "vectors/gone/vectors.parquet"},
        "clusters": {"features": "features/a/gone"},
    }.items():
        workspace.path(kind, "other").mkdir()
        write_json(workspace.path(kind, "other") / MADE_FROM, made_from)
    shutil.rmtree(workspace.path("comparisons/rows", "one"))
    found = [(result.kind, result.path.name) for result in prune(workspace)]
    assert found == [("bundles", "compared"), ("evaluations", "other"), ("duplicates", "other"),
                     ("clusters", "other")]  # fmt: skip


def test_what_killed_runs_left_is_deleted_unless_a_run_can_continue_from_it(home, make_tree):
    workspace = Workspace(home)
    left = [home / "vectors" / ".means-1.building", home / "bundles" / ".one.x.tmp",
            home / "evaluations" / ".two.removed", home / "splits" / ".three.y.old"]  # fmt: skip
    there = make_tree("single", name="there").root
    for data, slot in ((there, "there-1"), (there.parent / "gone", "gone-1")):
        note_data(home / "features" / slot, data, workspace)
        left.append(home / "features" / slot / "parts")
    for path in left:
        path.mkdir(parents=True)
    (home / "bundles" / ".gone.lock").touch()
    found = prune(workspace)
    assert {result.path for result in found} == {*left} - {home / "features" / "there-1" / "parts"}
    assert {result.kind for result in found} == {"unfinished"}
    assert [path.exists() for path in left] == [False] * 4 + [True, False]
    assert not (home / "features" / "gone-1").exists()
    assert not (home / "bundles" / ".gone.lock").exists()


def test_a_server_that_lost_its_collections_can_be_filled_again(home):
    """What was served stays until something else is published there."""
    before = results(home)
    shutil.rmtree(home / "qdrant")
    (home / "latest.json").unlink()
    prune(Workspace(home))
    assert results(home) == before
