"""Changing a published collection in place: only what differs is sent, and nothing is ever half."""

import contextlib
import dataclasses
import itertools

import numpy as np
import pytest
from catalogue import ENGINES, engine_of_kind, in_memory, make_points
from contract_stub import ContractStub
from grpc_stub import GrpcStub
from test_alignment import RATE, make_tune
from test_copying import content
from test_judging import CALIBRATION
from test_server import asked

from search import Points, Searcher, SearchError, copy, publish, restore, rollback, snapshot
from search.collection import USUAL_DISTANCE, point_id
from search.embedded import Embedded
from search.fields import FIELDS
from search.publishing import status
from search.server import Server

SERVERS = ENGINES[1:]

#: Two of each work; every tenth without a sequence.
COUNT = 100


def make_catalogue(change=lambda performances: None) -> Points:
    """The performances by their ids, after a change of some."""
    plain = make_points(COUNT, clique=2)
    performances = {
        track_id: [
            vector,
            {name: value for name, value in payload.items() if name != "clique_size"},
            make_tune(int(track_id[2:]), 8 if int(track_id[2:]) % 10 else 0),
        ]
        for track_id, vector, payload in zip(
            plain.track_ids, plain.vectors, plain.payloads, strict=True
        )
    }
    change(performances)
    vectors, payloads, sequences = zip(*performances.values(), strict=True)
    return Points(
        list(performances), list(vectors), payloads, sequences, RATE, calibration=CALIBRATION
    )


def nine(performances: dict) -> None:
    performances["P_100"] = [np.ones(4), {"work_id": "W_new"}, make_tune(100, 9)]
    performances["P_7"][0] = performances["P_7"][0] + np.float32(0.1)
    performances["P_7"][2] = make_tune(107, 7)
    del performances["P_9"]  # so that P_8 is alone
    performances["P_22"][1]["work_id"] = "W_10"  # where P_20 and P_21 are, and not P_23
    performances["P_30"][1]["title"] = "Corrected"


BEFORE, AFTER = make_catalogue(), make_catalogue(nine)
NEW, HEARD = ["P_100", "P_20", "P_21", "P_22", "P_23", "P_30", "P_7", "P_8"], ["P_100", "P_7"]


@pytest.fixture(scope="module", autouse=True)
def _measured():
    """Measured once, so that a publication takes no time."""
    for points in (BEFORE, AFTER):
        points.backgrounds()


@pytest.fixture(params=SERVERS)
def engine(request):
    with in_memory() as directory, engine_of_kind(request.param, directory) as engine:
        publish(BEFORE, "b", engine)
        yield engine


@pytest.fixture
def stub():
    stub = ContractStub()
    yield stub
    stub.close()


@pytest.fixture
def own(stub, tmp_path):
    engine = Server(stub.url, None, tmp_path / "publish.lock")
    publish(BEFORE, "b", engine)
    stub.requests.clear()
    yield engine
    engine.close()


def expected(points: Points) -> dict:
    """What a full publication would hold, but for what stays from `BEFORE`."""
    old = {track_id: i for i, track_id in enumerate(BEFORE.track_ids)}
    payloads, backgrounds = [], points.backgrounds().copy()
    for i, track_id in enumerate(points.track_ids):
        payloads.append(points.payload(i, "b"))
        if track_id in old and points.digests[i] == BEFORE.digests[old[track_id]]:
            payloads[i][USUAL_DISTANCE] = BEFORE.payload(old[track_id], "b")[USUAL_DISTANCE]
        if track_id in old and points.digests[i][1] == BEFORE.digests[old[track_id]][1]:
            backgrounds[i] = BEFORE.backgrounds()[old[track_id]]
    return {
        "payloads": payloads,
        "vectors": points.vectors.tobytes(),
        "sequences": [each.tobytes() for each in points.sequences],
        "backgrounds": backgrounds.tobytes(),
    }


def held(engine) -> dict:
    found = content(engine)
    collection = engine.open()
    assert collection.count() == collection.sequences.count() == collection.description.points
    return {name: found[name] for name in expected(BEFORE)}


def test_after_a_change_all_is_as_in_a_full_publication_and_searchers_see_it_at_once(engine):
    searcher, first = Searcher(engine), engine.open().description
    assert len(searcher.similar("P_7", 200, rerank=True)) == COUNT - 1
    changed = publish(AFTER, "b", engine)
    assert {**vars(changed), "created": None} == {
        **vars(AFTER.describe("b")),
        "created": None,
        "name": first.name,
    }
    assert held(engine) == expected(AFTER)
    assert searcher.status().current == changed
    assert searcher.status().previous == ()
    assert searcher.similar("P_100", rerank=True)
    found = {match.track_id for match in searcher.similar("P_7", 200, rerank=True)}
    assert found == set(AFTER.track_ids) - {"P_7"}


def test_only_what_differs_is_sent_and_twice_changes_nothing(stub, own):
    name = publish(AFTER, "b", own).name
    of_id = {str(point_id(name)): name for name in (*BEFORE.track_ids, "P_100")}

    def names(method, target) -> list[str]:
        bodies = asked(stub, method, target)
        points = [point for body in bodies for point in body["points"]]
        return sorted(of_id[point if isinstance(point, str) else point["id"]] for point in points)

    assert names("PUT", f"{name}/points") == NEW
    assert names("PUT", f"{name}-sequences/points") == HEARD
    assert names("POST", f"{name}/points/delete") == ["P_9"]
    assert names("POST", f"{name}-sequences/points/delete") == ["P_9"]
    assert names("POST", f"{name}/points/payload/delete") == ["P_7"]
    scrolled = asked(stub, "POST", "/scroll")
    assert [body["with_payload"] for body in scrolled] == [["digest"], False]
    stub.requests.clear()
    publish(AFTER, "b", own)
    assert not [
        (method, target)
        for method, target, _ in stub.requests
        if method != "GET" and not (method == "POST" and target.endswith(("/points", "/count")))
    ]


def test_noticing_a_change_takes_a_query_one_request(stub, own):
    searcher = Searcher(own)
    searcher.similar("P_1")
    stub.requests.clear()
    searcher.similar("P_1")
    name = own.open().description.name
    assert [target for _, target, _ in stub.requests[:4]] == [
        "/aliases",
        f"/collections/{name}",
        f"/collections/{name}/points",
        f"/collections/{name}/points/query/batch",
    ]


class Killed(BaseException):
    """No error that anything would handle."""


def die_at(step: int, ask):
    """What writes, until it has been asked so many times."""
    steps = itertools.count()

    def patiently(request):
        if next(steps) == step:
            raise Killed
        return ask(request)

    return patiently


def given(found: dict) -> dict:
    """Without what is left as it was, or not, by whether a performance was ever changed."""
    plain = [{**payload, USUAL_DISTANCE: None} for payload in found["payloads"]]
    return {**found, "payloads": plain, "backgrounds": None}


def assert_each_is_old_or_new(collection) -> None:
    selves = [
        (points.vectors[i].tolist(), points.payloads[i])
        for points in (BEFORE, AFTER)
        for i in range(len(points))
    ]
    stored = list(collection.everything())
    for one in stored:
        known = {name: value for name, value in one.payload.items() if name in FIELDS}
        del known["bundle"]
        assert (one.vector.tolist(), known) in selves
    assert collection.sequences.of([one.payload["track_id"] for one in stored])


def test_a_change_that_is_killed_leaves_each_performance_old_or_new_and_is_completed(
    engine, monkeypatch, tmp_path
):
    monkeypatch.setattr("search.server.CHANGED_SHARE", 100)
    name = engine.open().description.name
    killed = []
    # It is completed by publishing the same, and undone by publishing what was there before.
    for step, then in zip(range(8), itertools.cycle((AFTER, BEFORE)), strict=False):
        publish(BEFORE, "b", engine)
        with monkeypatch.context() as patch, contextlib.suppress(Killed):
            connection = engine.connection
            patch.setattr(connection, "patiently", die_at(step, connection.patiently))
            killed.append(step)
            publish(AFTER, "b", engine)
            killed.pop()
        assert_each_is_old_or_new(engine.open())
        if step == 3:
            for ask in (
                lambda: copy(engine, Embedded(tmp_path / "qdrant")),
                lambda: snapshot(engine, tmp_path),
            ):
                with pytest.raises(SearchError, match="was broken off: publish again with"):
                    ask()
        publish(then, "b", engine)
        assert given(held(engine)) == given(expected(then))
    # Noted, digests away, sequences up, points up, points away, sequences away, noted.
    assert killed == list(range(7))
    assert engine.names() == [name]


def test_past_its_share_of_changes_a_collection_is_built_anew(engine):
    first = publish(AFTER, "b", engine).name

    def two(performances: dict) -> None:
        nine(performances)
        for name in ("P_40", "P_42"):
            performances[name][1]["title"] = "Another"

    # Nine and two are more than a tenth of a hundred.
    second = publish(make_catalogue(two), "b", engine)
    assert second.name != first
    assert status(engine).previous[0].content == AFTER.describe("b").content
    # What stood before is whole, and neither built nor changed.
    engine.build = engine.change = None
    assert publish(AFTER, "b", engine, keep=1).name == first
    assert engine.names() == [first]


@pytest.mark.parametrize(
    "other",
    [
        dataclasses.replace(BEFORE, calibration=None),
        dataclasses.replace(BEFORE, rate=2 * RATE),
        dataclasses.replace(BEFORE, sequences=None),
    ],
)
def test_what_holds_for_all_performances_is_changed_for_none(own, other):
    first = own.open().description
    own.change = None
    assert publish(other, "b", own).name != first.name
    assert publish(BEFORE, "another", own).name != first.name


def test_a_collection_with_a_graph_is_changed_too(monkeypatch):
    monkeypatch.setattr("search.collection.EXACT_BYTES", 0)
    monkeypatch.setattr("search.server.QUANTIZED_BYTES", 0)
    monkeypatch.setattr("search.server.POLL", 0.001)
    stub = ContractStub()
    grpc = GrpcStub(stub)
    with in_memory() as directory:
        engine = Server(stub.url, None, directory / "publish.lock", grpc_port=grpc.port)
        first = publish(BEFORE, "b", engine)
        grpc.calls.clear()
        assert publish(AFTER, "b", engine).name == first.name
        assert grpc.calls == ["Upsert", "Upsert"]  # the sequences, the points
        assert held(engine) == expected(AFTER)
        assert len(Searcher(engine).similar("P_100", 200)) == len(AFTER) - 1
        engine.close()
    grpc.close()
    stub.close()


def test_a_name_that_is_taken_is_not_built_over(engine, monkeypatch):
    name = publish(AFTER, "b", engine).name
    assert name == BEFORE.describe("b").name
    monkeypatch.setattr("search.server.CHANGED_SHARE", 0)
    assert publish(BEFORE, "b", engine).name == f"{name}-2"
    assert held(engine) == expected(BEFORE)
    assert rollback(engine).name == name
    assert held(engine) == expected(AFTER)
    engine.build = engine.change = None
    publish(AFTER, "b", engine)


def test_a_change_that_does_not_read_back_is_followed_by_building_anew(engine):
    name, change = engine.open().description.name, engine.change

    def bend(description, points):
        bent = points.vectors.copy()
        bent[points.track_ids.index("P_7"), 0] += 1e-6
        wrong = dataclasses.replace(points, vectors=bent)
        wrong.digests = points.digests
        return change(description, wrong)

    engine.change = bend
    assert publish(AFTER, "b", engine).name != name
    assert content(engine)["payloads"] == [AFTER.payload(i, "b") for i in range(len(AFTER))]


def test_a_performance_withdrawn_while_it_is_aligned_is_asked_for_no_more(
    stub, own, monkeypatch, tmp_path
):
    publisher = Server(stub.url, None, tmp_path / "publish.lock")
    route = stub.route

    def overtake(method, path, body, query):
        if path.endswith("-sequences/points"):
            monkeypatch.setattr(stub, "route", route)
            stub.lock.release()
            publish(AFTER, "b", publisher)
            stub.lock.acquire()
        return route(method, path, body, query)

    monkeypatch.setattr(stub, "route", overtake)
    found = {match.track_id for match in Searcher(own).similar("P_1", 200, rerank=True)}
    assert found == set(AFTER.track_ids) - {"P_1"}
    publisher.close()


def test_snapshots_are_of_what_a_collection_held_when_they_were_taken(engine):
    with in_memory() as kept:
        before = content(engine), snapshot(engine, kept)
        publish(AFTER, "b", engine)
        after = content(engine), snapshot(engine, kept)
        assert before[1] != after[1]
        for found, place in (before, after):
            restored = restore(engine, place)
            assert content(engine) == {**found, "description": restored}
            assert restored.content == found["description"].content
        assert len(engine.history()) == 2


def test_a_changed_collection_is_copied_as_it_is(engine):
    publish(AFTER, "b", engine)
    with in_memory() as directory:
        there = Embedded(directory / "qdrant")
        publish(BEFORE, "b", there)
        copied = copy(engine, there)
        assert copied.name == f"{BEFORE.describe('b').name}-2"
        mean = content(there)["mean background"]  # of these, and not of those it was built with
        assert content(there) == {
            **content(engine),
            "description": copied,
            "mean background": pytest.approx(mean, abs=0.01),
        }
        publish(AFTER, "b", there)
        assert there.history()[0] == copied.name
