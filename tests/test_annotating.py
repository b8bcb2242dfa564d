"""Results of an evaluation are added to the collections of their bundle."""

import threading
from dataclasses import replace

import pytest
from catalogue import content, in_memory, make_points

import search
from search import InvalidPoints, Searcher, between
from search.engines.embedded import Embedded
from search.fields import RESULTS

POINTS = make_points(60)

GOOD = {"nearest_cover": 1, "clique_distance": 1.25, "outlier": False}
BAD = {"nearest_cover": 17, "clique_distance": 4.123456, "outlier": True}
NONE = dict.fromkeys(RESULTS)

JUDGED = {"P_0": GOOD, "P_1": BAD, "P_2": GOOD, "P_40": BAD}


def results(engine, name=None) -> dict:
    """Results that a collection holds, by track id."""
    found = {}
    for stored in engine.open(name).everything():
        if said := {field: stored.payload[field] for field in RESULTS if field in stored.payload}:
            found[stored.payload["track_id"]] = said
    return found


def found(engine, **where) -> list[str]:
    return sorted(match.track_id for match in Searcher(engine).similar("P_59", 100, where=where))


def test_results_are_added_to_what_was_published_and_can_be_filtered_by(engine):
    assert engine.annotate(JUDGED, "b") == 0  # where nothing is published, nothing happens
    assert not engine.lock.exists()
    engine.publish(POINTS, "b")
    before = content(engine)
    searcher = Searcher(engine)
    answer = searcher.similar("P_3", 59)
    assert engine.annotate({**JUDGED, "P_999": BAD}, "b") == 4  # unknown performances are ignored
    assert results(engine) == JUDGED
    payloads = [old | JUDGED.get(old["track_id"], {}) for old in before["payloads"]]
    assert content(engine) == before | {"payloads": payloads}
    for match, earlier in zip(searcher.similar("P_3", 59), answer, strict=True):
        assert match == replace(earlier, **JUDGED.get(match.track_id, {}))
    assert found(engine, outlier=True) == ["P_1", "P_40"]
    assert found(engine, nearest_cover=between(2, None)) == ["P_1", "P_40"]
    assert found(engine, clique_distance=between(1, 4)) == ["P_0", "P_2"]
    assert found(engine, clique_distance=between(None, 4.2), outlier=True) == ["P_1", "P_40"]


def test_only_results_that_changed_are_written_again(engine):
    engine.publish(POINTS, "b")
    engine.annotate(JUDGED, "b")
    write = engine.write_results
    engine.write_results = None
    assert engine.annotate(JUDGED, "b") == 0
    engine.write_results = write
    assert engine.annotate({**JUDGED, "P_0": NONE, "P_1": GOOD, "P_3": NONE}, "b") == 2
    assert results(engine) == {"P_1": GOOD, "P_2": GOOD, "P_40": BAD}


def test_results_belong_to_the_collections_of_their_bundle(engine):
    first = engine.publish(POINTS, "b").name
    assert engine.annotate(JUDGED, "c") == 0
    assert engine.annotate(JUDGED, "b") == 4
    engine.publish(make_points(30), "b")
    assert results(engine) == {}
    assert engine.annotate(JUDGED, "b") == 3
    assert set(results(engine)) == {"P_0", "P_1", "P_2"}
    assert results(engine, first) == JUDGED
    engine.build = None
    engine.publish(POINTS, "b")  # the same content is already there
    assert results(engine) == JUDGED


def test_a_copy_has_the_results_too(server):
    with in_memory() as directory:
        here, back = (Embedded(directory / name, server.collection) for name in ("here", "back"))
        here.publish(POINTS, "b")
        here.annotate(JUDGED, "b")
        search.copy(here, server)
        search.copy(server, back)
        assert content(here) == content(server) == content(back)
        assert results(back) == JUDGED
        back.build = None
        back.publish(POINTS, "b")  # the same content as ever


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"title": "X"}, "title of P_0 cannot be 'X', because it is not a result"),
        ({"nearest_cover": 1.0}, r"nearest_cover of P_0 cannot be 1\.0, because it is an integer"),
        ({"clique_distance": float("nan")}, "clique_distance of P_0 cannot be nan, bec"),
    ],
)
def test_what_is_not_a_result_is_refused(wrong, words, tmp_path):
    with pytest.raises(InvalidPoints, match=words):
        Embedded(tmp_path).annotate({"P_0": wrong}, "b")


def test_readers_keep_what_they_opened_and_then_see_all_new_results(embedded):
    embedded.publish(POINTS, "b")
    said: set[tuple] = set()
    failed: list[Exception] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.wait(0.02):
            try:
                held = Embedded(embedded.directory).open()
                stored = held.performances(POINTS.track_ids)
                said.add(
                    tuple({performance.payload.get("nearest_cover") for performance in stored})
                )
            except Exception as error:
                failed.append(error)
                return

    reader = Embedded(embedded.directory)
    opened = reader.open()
    assert reader.open() is opened
    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    for rank in range(1, 3):
        judged = {track_id: {"nearest_cover": rank} for track_id in POINTS.track_ids}
        embedded.annotate(judged, "b")
        assert opened.performances(["P_0"])[0].payload.get("nearest_cover") == (rank - 1 or None)
        assert reader.open() is not opened
        opened = reader.open()
        assert opened.performances(["P_0"])[0].payload["nearest_cover"] == rank
    stop.set()
    thread.join()
    assert not failed
    assert said <= {(None,), *((rank,) for rank in range(1, 3))}


def test_a_writer_that_is_killed_changes_nothing_and_leaves_nothing(embedded, monkeypatch):
    name = embedded.publish(POINTS, "b").name

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("search.engines.embedded.manifest.write", killed)
        with pytest.raises(KeyboardInterrupt):
            embedded.annotate(JUDGED, "b")
    assert results(Embedded(embedded.directory)) == {}
    embedded.annotate(JUDGED, "b")
    assert results(embedded) == JUDGED
    assert len([*(embedded.directory / name).glob("shard*")]) == 1
