"""Results of an evaluation come into the collections that hold the performances, and stay there."""

import threading

import pytest
from catalogue import ENGINES, engine_of_kind, in_memory, make_points

import search
from search import InvalidPoints, Searcher, annotate, publish
from search.engines.embedded import Embedded
from search.fields import RESULTS

POINTS = make_points(60)

GOOD = {"nearest_cover": 1, "clique_distance": 1.25, "outlier": False}
BAD = {"nearest_cover": 17, "clique_distance": 4.123456, "outlier": True}
NONE = dict.fromkeys(RESULTS)

JUDGED = {"P_0": GOOD, "P_1": BAD, "P_2": GOOD, "P_40": BAD}


@pytest.fixture(params=ENGINES)
def engine(request):
    with in_memory() as directory, engine_of_kind(request.param, directory) as engine:
        yield engine


def results(engine, name=None) -> dict:
    """What a collection says of its performances, where it says anything."""
    found = {}
    for stored in engine.open(name).everything():
        if said := {field: stored.payload[field] for field in RESULTS if field in stored.payload}:
            found[stored.payload["track_id"]] = said
    return found


def found(engine, **where) -> list[str]:
    return sorted(match.track_id for match in Searcher(engine).similar("P_59", 100, where=where))


def test_results_are_written_beside_what_was_published_and_can_be_filtered_by(engine):
    publish(POINTS, "b", engine)
    before = {one.payload["track_id"]: one for one in engine.open().everything()}
    searcher = Searcher(engine)
    answer = searcher.similar("P_3", 59)
    assert annotate({**JUDGED, "P_999": BAD}, "b", engine) == 4  # what isn't here is passed over
    assert results(engine) == JUDGED
    for one in engine.open().everything():
        old = before[one.payload["track_id"]]
        assert one.vector.tobytes() == old.vector.tobytes()
        assert one.payload == old.payload | JUDGED.get(one.payload["track_id"], {})
    assert searcher.similar("P_3", 59) == answer
    assert found(engine, outlier=True) == ["P_1", "P_40"]
    assert found(engine, nearest_cover=(2, None)) == ["P_1", "P_40"]
    assert found(engine, clique_distance=(1, 4)) == ["P_0", "P_2"]
    assert found(engine, clique_distance=(None, 4.2), outlier=True) == ["P_1", "P_40"]


def test_what_stands_is_not_written_again_and_what_changed_is(engine):
    publish(POINTS, "b", engine)
    annotate(JUDGED, "b", engine)
    write = engine.annotate
    engine.annotate = None
    assert annotate(JUDGED, "b", engine) == 0
    engine.annotate = write
    assert annotate({**JUDGED, "P_0": NONE, "P_1": GOOD, "P_3": NONE}, "b", engine) == 2
    assert results(engine) == {"P_1": GOOD, "P_2": GOOD, "P_40": BAD}


def test_they_stay_with_each_collection_of_their_bundle_and_no_other_knows_them(engine):
    first = publish(POINTS, "b", engine).name
    assert annotate(JUDGED, "c", engine) == 0
    assert annotate(JUDGED, "b", engine) == 4
    publish(make_points(30), "b", engine)
    assert results(engine) == {}
    assert annotate(JUDGED, "b", engine) == 3
    assert set(results(engine)) == {"P_0", "P_1", "P_2"}
    assert results(engine, first) == JUDGED
    engine.build = None
    publish(POINTS, "b", engine)  # the same stands as it is
    assert results(engine) == JUDGED


@pytest.mark.parametrize("engine", ENGINES[1:], indirect=True)
def test_a_copy_has_them_too(engine):
    with in_memory() as directory:
        here, back = (Embedded(directory / name, engine.collection) for name in ("here", "back"))
        publish(POINTS, "b", here)
        annotate(JUDGED, "b", here)
        search.copy(here, engine)
        search.copy(engine, back)
        held = [
            {one.payload["track_id"]: one.payload for one in each.open().everything()}
            for each in (here, engine, back)
        ]
        assert held[0] == held[1] == held[2]
        assert results(back) == JUDGED
        back.build = None
        publish(POINTS, "b", back)  # the same content as ever


def test_where_nothing_is_published_nothing_happens(engine):
    assert annotate(JUDGED, "b", engine) == 0
    assert not engine.lock.exists()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"title": "X"}, "title of P_0 can't be 'X': it is no result of an evaluation"),
        ({"nearest_cover": 1.0}, r"nearest_cover of P_0 can't be 1\.0: it is an integer"),
        ({"clique_distance": float("nan")}, "clique_distance of P_0 can't be nan: it is a number"),
    ],
)
def test_what_is_no_result_is_refused(wrong, words, tmp_path):
    with pytest.raises(InvalidPoints, match=words):
        annotate({"P_0": wrong}, "b", Embedded(tmp_path))


@pytest.fixture
def embedded():
    with in_memory() as directory:
        yield Embedded(directory / "qdrant")


def test_readers_go_on_with_what_they_have_and_see_all_of_the_new_next(embedded):
    publish(POINTS, "b", embedded)
    said: set[tuple] = set()
    failed: list[Exception] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.wait(0.02):
            try:
                held = Embedded(embedded.directory).open()
                stored = held.performances(POINTS.track_ids)
                said.add(tuple({one.payload.get("nearest_cover") for one in stored}))
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
        annotate(judged, "b", embedded)
        assert opened.performances(["P_0"])[0].payload.get("nearest_cover") == (rank - 1 or None)
        assert reader.open() is not opened
        opened = reader.open()
        assert opened.performances(["P_0"])[0].payload["nearest_cover"] == rank
    stop.set()
    thread.join()
    assert not failed
    assert said <= {(None,), *((rank,) for rank in range(1, 3))}


def test_what_is_killed_before_the_end_has_changed_nothing_and_leaves_nothing(
    embedded, monkeypatch
):
    name = publish(POINTS, "b", embedded).name

    class KilledError(BaseException):
        pass

    def killed(*_):
        raise KilledError

    with monkeypatch.context() as patched:
        patched.setattr("search.engines.embedded._write_manifest", killed)
        with pytest.raises(KilledError):
            annotate(JUDGED, "b", embedded)
    assert results(Embedded(embedded.directory)) == {}
    annotate(JUDGED, "b", embedded)
    assert results(embedded) == JUDGED
    assert len([*(embedded.directory / name).glob("shard*")]) == 1
