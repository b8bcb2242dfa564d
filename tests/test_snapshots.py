"""Snapshots: a collection as files, and back on the same engine."""

import dataclasses
import json
import os
from pathlib import Path

import pytest
from catalogue import ENGINES, engine_of_kind, in_memory, make_points
from test_copying import content
from test_reranking import POINTS

import search
from search import (
    DamagedCollection,
    DamagedSnapshot,
    NoCollection,
    PublishError,
    Searcher,
    SearchError,
    ServerRefused,
    publish,
    restore,
    snapshot,
)
from search.embedded import Embedded
from search.server import Server


@pytest.fixture(params=ENGINES)
def engine(request):
    with in_memory() as directory, engine_of_kind(request.param, directory) as engine:
        yield engine


@pytest.fixture
def embedded():
    """For what is of the manifest, and so the same on every engine."""
    with in_memory() as directory:
        yield Embedded(directory / "qdrant")


@pytest.fixture
def kept():
    """Where snapshots are kept."""
    with in_memory() as directory:
        yield directory / "kept"


def test_what_was_lost_comes_back_as_it_was(engine, kept):
    name = publish(POINTS, "b", engine).name
    before = content(engine), Searcher(engine).similar("P_0", rerank=True)
    place = snapshot(engine, kept)
    assert place == kept / name
    publish(make_points(12, seed=1), "other", engine, keep=1)
    assert engine.names() == engine.history() != [name]
    restored = restore(engine, place)
    assert (content(engine), Searcher(engine).similar("P_0", rerank=True)) == before
    assert restored == before[0]["description"]
    assert search.rollback(engine).bundle == "other"


@pytest.mark.parametrize("name", [".", "snapshot.json", ".."])
def test_a_snapshot_is_found_by_itself_its_manifest_or_where_it_is(embedded, kept, name):
    description = publish(make_points(12), "b", embedded)
    place = snapshot(embedded, kept)
    embedded.drop(description.name)
    assert restore(embedded, (place / name).resolve()) == description


def test_which_of_several_is_asked(embedded, kept):
    names = []
    for seed in (1, 2):
        publish(make_points(12, seed=seed), "b", embedded)
        names.append(snapshot(embedded, kept).name)
    with pytest.raises(
        ValueError, match=f"several snapshots: name one of {', '.join(sorted(names))}"
    ):
        restore(embedded, kept)
    with pytest.raises(ValueError, match="holds no snapshot: name a directory that"):
        restore(embedded, kept.parent)
    assert restore(embedded, kept / names[0]).name == names[0]
    assert embedded.history() == names


def test_the_same_collection_is_written_once_and_a_damaged_snapshot_again(embedded, kept):
    publish(make_points(12), "b", embedded)
    place = snapshot(embedded, kept)
    manifest = place / "snapshot.json"
    written = manifest.stat().st_mtime_ns
    assert snapshot(embedded, kept) == place
    assert manifest.stat().st_mtime_ns == written
    some_file(place).write_bytes(b"")
    assert snapshot(embedded, kept) == place
    assert manifest.stat().st_mtime_ns > written
    assert list(kept.iterdir()) == [place]
    restore(embedded, place)


def some_file(place: Path) -> Path:
    files = json.loads((place / "snapshot.json").read_text())["files"]
    return place / "files" / max(files, key=lambda file: files[file][0])


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda place: some_file(place).unlink(), "is missing"),
        (lambda place: os.truncate(some_file(place), 7), "isn't what was written"),
        (lambda place: (place / "files" / "art.snapshot").write_text("theirs"), "is none of it"),
        (
            lambda place: some_file(place).write_bytes(b"?" * some_file(place).stat().st_size),
            "isn't what was written",
        ),
        (lambda place: (place / "snapshot.json").write_text("{"), "missing or no longer JSON"),
    ],
)
def test_a_damaged_snapshot_changes_nothing(embedded, kept, damage, words):
    publish(make_points(12), "b", embedded)
    place = snapshot(embedded, kept)
    current = publish(make_points(16), "c", embedded)
    damage(place)
    with pytest.raises(DamagedSnapshot, match=f"The snapshot {place} is damaged: .*{words}"):
        restore(embedded, place)
    assert search.publishing.status(embedded).current == current


def forge(place: Path, **changes: object) -> None:
    manifest = place / "snapshot.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), **changes}))


def test_a_collection_that_isnt_the_snapshots_is_not_served(engine, kept):
    name = publish(make_points(12), "b", engine).name
    place = snapshot(engine, kept)
    forge(place, performances={"P_1": "another digest"})
    current = publish(make_points(16), "c", engine, keep=1)
    with pytest.raises(
        PublishError, match=f"{name} was not restored, because performance P_1 isn't"
    ):
        restore(engine, place)
    assert engine.names() == [current.name]


@pytest.mark.parametrize("file", ["../../out", "/etc/out"])
def test_a_snapshot_that_names_files_elsewhere_is_refused(embedded, kept, file):
    publish(make_points(12), "b", embedded)
    place = snapshot(embedded, kept)
    forge(place, files={file: [0, ""]})
    with pytest.raises(DamagedSnapshot, match="names files outside of it"):
        restore(embedded, place)
    description = dataclasses.asdict(embedded.open().description)
    forge(place, files={}, description={**description, "name": "covers-../../x"})
    with pytest.raises(DamagedSnapshot, match="names files outside of it"):
        restore(embedded, place)


def test_a_snapshot_of_one_engine_is_none_of_the_other(own, embedded, kept):
    publish(make_points(12), "b", embedded)
    place = snapshot(embedded, kept)
    words = f"is a snapshot of the embedded engine, and {own.location} is of the server one"
    with pytest.raises(SearchError, match=words):
        restore(own, place)


def test_nothing_to_take_a_snapshot_of_says_so(engine, kept):
    with pytest.raises(NoCollection):
        snapshot(engine, kept)


def test_a_snapshot_that_cannot_be_written_says_so_and_leaves_nothing(engine, tmp_path):
    publish(make_points(12), "b", engine)
    (tmp_path / "file").write_text("")
    with pytest.raises(SearchError, match=f"can't be written to {tmp_path / 'file'} .*: make room"):
        snapshot(engine, tmp_path / "file")


def test_a_snapshot_is_as_sparse_as_the_collection(embedded, kept):
    name = publish(make_points(12), "b", embedded).name

    def taken(directory: Path) -> int:
        return sum(512 * path.stat().st_blocks for path in directory.rglob("*"))

    place = snapshot(embedded, kept)
    assert taken(place) < 2 * taken(embedded.directory / name)
    embedded.drop(name)
    restore(embedded, place)
    assert taken(embedded.directory / name) < 2 * taken(place)


def test_a_collection_that_is_damaged_itself_has_no_snapshot(embedded, kept):
    name = publish(make_points(12), "b", embedded).name
    embedded.open()
    os.truncate(embedded.directory / name / "collection.json", 5)
    with pytest.raises(DamagedCollection, match=r"collection\.json is missing or no longer JSON"):
        snapshot(embedded, kept)


def test_a_servers_snapshots_are_checked_on_arrival_and_not_left_on_it(stub, own, kept):
    name = publish(POINTS, "b", own).name
    place = snapshot(own, kept)
    files = [f"{name}-sequences.snapshot", f"{name}.snapshot"]
    assert sorted(path.name for path in (place / "files").iterdir()) == files
    assert stub.snapshots == {}
    stub.requests.clear()
    restore(own, place)  # it stands, so nothing is sent
    assert not [target for _, target, _ in stub.requests if "/snapshots" in target]
    own.drop(name)
    stub.requests.clear()
    restore(own, place)
    sent = [target for _, target, _ in stub.requests if "/snapshots" in target]
    assert [target.split("?")[0] for target in sent] == [
        f"/collections/{name}/snapshots/upload",
        f"/collections/{name}-sequences/snapshots/upload",
    ]
    assert all("priority=snapshot" in target and "checksum=" in target for target in sent)


def test_a_snapshot_that_arrives_changed_is_not_kept(stub, own, kept, monkeypatch):
    publish(make_points(12), "b", own)
    take = stub.snapshot

    def bend(operation, *rest):
        found = take(operation, *rest)
        return found[:-1] + b" " if isinstance(found, bytes) else found

    monkeypatch.setattr(stub, "snapshot", bend)
    with pytest.raises(SearchError, match=r"arrived changed from http://127\.0\.0\.1"):
        snapshot(own, kept)
    assert stub.snapshots == {}
    assert not list(kept.glob("*/snapshot.json"))


def test_one_node_of_several_has_no_whole_snapshot(stub, own, kept):
    publish(make_points(12), "b", own)
    stub.shard_count = 3
    with pytest.raises(SearchError, match=r"has 1 of the 3 shards .* `covers copy --to DIRECTORY`"):
        snapshot(own, kept)


def test_a_read_only_key_takes_no_snapshot(stub, own, kept, tmp_path):
    publish(make_points(12), "b", own)
    reader = Server(stub.url, "read-only", tmp_path / "publish.lock")
    with pytest.raises(ServerRefused, match="a full one to publish"):
        snapshot(reader, kept)
    reader.close()
