"""Changing a published collection in place: only differences are sent, and nothing is half done."""

import contextlib
import itertools

import numpy as np
import pytest
from catalogue import altered, content, in_memory, make_points, points_of
from contract_stub import KEY, ContractStub, asked
from grpc_stub import GrpcStub
from tunes import CALIBRATION, RATE, make_tune

from search import Points, Searcher, SearchError, copy
from search.engines.embedded import Embedded
from search.engines.server.server import Server
from search.fields import FIELDS, FILLED_IN, IN_MAP
from search.point import point_id
from search.points import USUAL_DISTANCE, USUAL_SPREAD, sequence_digest

#: Performances, two per work; every tenth has no sequence.
COUNT = 100


def make_catalogue(change=lambda performances: None) -> Points:
    """A catalogue whose performances, by id, were changed by a function."""
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
    return points_of(
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
NEW, ALIGNED_AGAIN = (
    ["P_100", "P_20", "P_21", "P_22", "P_23", "P_30", "P_7", "P_8"],
    ["P_100", "P_7"],
)


@pytest.fixture(scope="module", autouse=True)
def _measured():
    """Measured once, so that a publication takes no time."""
    for points in (BEFORE, AFTER):
        points.backgrounds()


@pytest.fixture
def engine(server):
    server.publish(BEFORE, "b")
    return server


@pytest.fixture
def own(stub, own):
    own.publish(BEFORE, "b")
    stub.requests.clear()
    return own


#: Values that are not updated in a performance that is not changed.
COMPUTED = (USUAL_DISTANCE, USUAL_SPREAD, IN_MAP)


def given(payload: dict) -> dict:
    """The payload without values that are computed from other performances."""
    return {name: value for name, value in payload.items() if name not in COMPUTED}


def expected(points: Points, description) -> dict:
    """Content of a full publication, except for values that stay from `BEFORE`."""
    row_before = {track_id: row for row, track_id in enumerate(BEFORE.track_ids)}
    payloads, backgrounds = [], points.backgrounds().copy()
    for i, track_id in enumerate(points.track_ids):
        payload, row = points.payload(i, description), row_before.get(track_id)
        if row is not None and points.digests[i] == BEFORE.digests[row]:
            before = BEFORE.payload(row, description)
            payload = given(payload) | {name: before[name] for name in COMPUTED if name in before}
        payloads.append(payload)
        if row is not None and sequence_digest(points.digests[i]) == sequence_digest(
            BEFORE.digests[row]
        ):
            backgrounds[i] = BEFORE.backgrounds()[row]
    return {
        "payloads": payloads,
        "vectors": points.vectors.tobytes(),
        "sequences": [each.tobytes() for each in points.sequences],
        "backgrounds": backgrounds.tobytes(),
    }


def holds(engine, points: Points) -> bool:
    found, collection = content(engine), engine.open()
    assert collection.count() == collection.sequences.count() == collection.description.points
    wanted = expected(points, collection.description)
    return {part: found[part] for part in wanted} == wanted


def test_after_a_change_all_is_as_in_a_full_publication_and_searchers_see_it_at_once(engine):
    searcher, first = Searcher(engine), engine.open().description
    assert len(searcher.similar("P_7", 200, rerank=True)) == COUNT - 1
    changed = engine.publish(AFTER, "b", origin={"from": "there"})
    assert {**vars(changed), "created": None} == {
        **vars(AFTER.describe("b", engine.collection)),
        "created": None,
        "name": first.name,
        "origin": {"from": "there"},
        "hidden": first.hidden,  # only a full publication estimates it
    }
    assert holds(engine, AFTER)
    assert searcher.status().current == changed
    assert searcher.status().previous == ()
    assert searcher.similar("P_100", rerank=True)
    found = {match.track_id for match in searcher.similar("P_7", 200, rerank=True)}
    assert found == set(AFTER.track_ids) - {"P_7"}


def test_only_what_differs_is_sent_and_twice_changes_nothing(stub, own):
    name = own.publish(AFTER, "b").name
    of_id = {str(point_id(name)): name for name in (*BEFORE.track_ids, "P_100")}

    def names(method, target) -> list[str]:
        bodies = asked(stub, method, target)
        points = [point for body in bodies for point in body["points"]]
        return sorted(of_id[point if isinstance(point, str) else point["id"]] for point in points)

    assert names("PUT", f"{name}/points") == NEW
    assert names("PUT", f"{name}-sequences/points") == ALIGNED_AGAIN
    assert names("POST", f"{name}/points/delete") == ["P_9"]
    assert names("POST", f"{name}-sequences/points/delete") == ["P_9"]
    assert names("POST", f"{name}/points/payload/delete") == ["P_7"]
    scrolled = asked(stub, "POST", "/scroll")
    assert [body["with_payload"] for body in scrolled] == [["digest"], False]
    stub.requests.clear()
    own.publish(AFTER, "b")
    assert not [
        (method, target)
        for method, target, _ in stub.requests
        if method != "GET" and not (method == "POST" and target.endswith(("/points", "/count")))
    ]


def die_at(step: int, connection, patch) -> None:
    """Let this many requests through, then die."""
    steps, ask = itertools.count(), connection.ask

    def counted(*given, **how):
        if next(steps) == step:
            raise KeyboardInterrupt
        return ask(*given, **how)

    patch.setattr(connection, "ask", counted)


def assert_each_is_old_or_new(collection) -> None:
    known = [
        (points.vectors[i].tolist(), points.payloads[i])
        for points in (BEFORE, AFTER)
        for i in range(len(points))
    ]
    stored = list(collection.everything())
    for performance in stored:
        fields = performance.payload.keys() & (FIELDS.keys() - set(FILLED_IN))
        payload = {name: performance.payload[name] for name in fields}
        assert (performance.vector.tolist(), payload) in known
    assert collection.sequences.of([performance.payload["track_id"] for performance in stored])


def test_a_change_that_is_killed_leaves_each_performance_old_or_new_and_is_completed(
    engine, monkeypatch, tmp_path
):
    monkeypatch.setattr("search.engines.server.server.CHANGED_SHARE", 100)
    name = engine.open().description.name
    killed, half = 0, 0
    # Publishing the same again completes it; publishing what was there before undoes it.
    for step, then in zip(itertools.count(), itertools.cycle((AFTER, BEFORE))):
        engine.publish(BEFORE, "b")
        with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
            die_at(step, engine.connection, patch)
            killed += 1
            engine.publish(AFTER, "b")
            break
        assert_each_is_old_or_new(engine.open())
        if not engine.describe(name).content:
            half += 1
            with pytest.raises(SearchError, match="is going on or was interrupted: complete it"):
                copy(engine, Embedded(tmp_path / "qdrant"))
        engine.publish(then, "b")
        found, full = content(engine), expected(then, engine.open().description)
        # Computed values and backgrounds depend on whether a performance was ever changed.
        assert [*map(given, found["payloads"])] == [*map(given, full["payloads"])]
        assert (found["vectors"], found["sequences"]) == (full["vectors"], full["sequences"])
    # Digests away, sequences up, points up, points away, sequences away, noted.
    assert half >= 6
    assert killed > 10
    assert engine.names() == [name]


def test_past_its_share_of_changes_a_collection_is_built_anew(engine):
    first = engine.publish(AFTER, "b").name

    def two(performances: dict) -> None:
        nine(performances)
        for name in ("P_40", "P_42"):
            performances[name][1]["title"] = "Another"

    # 9 + 2 changes are more than a tenth of 100 performances.
    second = engine.publish(make_catalogue(two), "b")
    assert second.name != first
    assert engine.status().previous[0].content == AFTER.describe("b", "covers").content
    # The previous collection is complete: it is neither built nor changed.
    engine.build = engine.change = None
    assert engine.publish(AFTER, "b", keep=1).name == first
    assert engine.names() == [first]


@pytest.mark.parametrize(
    "other",
    [
        altered(BEFORE, calibration=None),
        altered(BEFORE, rate=2 * RATE),
        altered(BEFORE, sequences=None),
    ],
)
def test_another_calibration_or_rate_or_bundle_makes_another_collection(own, other):
    first = own.open().description
    own.change = None
    assert own.publish(other, "b").name != first.name
    assert own.publish(BEFORE, "another").name != first.name


def test_a_collection_with_a_graph_is_changed_too(monkeypatch):
    monkeypatch.setattr("search.points.EXACT_BYTES", 0)
    monkeypatch.setattr("search.engines.server.server.QUANTIZED_BYTES", 0)
    monkeypatch.setattr("search.engines.server.writing.POLL_SECONDS", 0.001)
    stub = ContractStub()
    grpc = GrpcStub(stub)
    with in_memory() as directory:
        engine = Server(stub.url, None, directory / "publish.lock", grpc_port=grpc.port)
        first = engine.publish(BEFORE, "b")
        grpc.calls.clear()
        assert engine.publish(AFTER, "b").name == first.name
        assert grpc.calls == ["Upsert", "Upsert"]  # the sequences, the points
        assert holds(engine, AFTER)
        assert len(Searcher(engine).similar("P_100", 200)) == len(AFTER) - 1
        engine.close()
    grpc.close()
    stub.close()


def test_a_name_that_is_taken_is_not_built_over(engine, monkeypatch):
    name = engine.publish(AFTER, "b").name
    assert name == BEFORE.describe("b", engine.collection).name
    monkeypatch.setattr("search.engines.server.server.CHANGED_SHARE", 0)
    assert engine.publish(BEFORE, "b").name == f"{name}-2"
    assert holds(engine, BEFORE)
    assert engine.rollback().name == name
    assert holds(engine, AFTER)
    engine.build = engine.change = None
    engine.publish(AFTER, "b")


def test_a_change_that_does_not_read_back_is_followed_by_building_anew(engine):
    name, change = engine.open().description.name, engine.change

    def bend(description, points):
        bent = points.vectors.copy()
        bent[points.track_ids.index("P_7"), 0] += 1e-6
        wrong = altered(points, vectors=bent)
        wrong.digests = points.digests
        return change(description, wrong)

    engine.change = bend
    built = engine.publish(AFTER, "b")
    assert built.name != name
    assert engine.history() == [built.name]  # a rollback does not go back to what failed
    assert content(engine)["payloads"] == [AFTER.payload(i, built) for i in range(len(AFTER))]


def test_a_performance_withdrawn_while_it_is_aligned_is_not_requested_again(
    stub, own, monkeypatch, tmp_path
):
    publisher = Server(stub.url, KEY, tmp_path / "publish.lock")
    route = stub.route

    def overtake(method, path, body, query):
        if path.endswith("-sequences/points"):
            monkeypatch.setattr(stub, "route", route)
            stub.lock.release()
            publisher.publish(AFTER, "b")
            stub.lock.acquire()
        return route(method, path, body, query)

    monkeypatch.setattr(stub, "route", overtake)
    found = {match.track_id for match in Searcher(own).similar("P_1", 200, rerank=True)}
    assert found == set(AFTER.track_ids) - {"P_1"}
    publisher.close()


def test_a_changed_collection_is_copied_as_it_is(engine):
    """The copy is named by its content, which has changed since the collection was named."""
    engine.publish(AFTER, "b")
    with in_memory() as directory:
        there = Embedded(directory / "qdrant")
        copied = copy(engine, there)
        assert copied.name == AFTER.describe("b", "covers").name
        found, here = content(there), content(engine)
        named = [payload | {"collection": copied.name} for payload in here["payloads"]]
        # The mean background is that of these performances, not of those it was built with.
        assert found["mean background"] == pytest.approx(here["mean background"], abs=0.01)
        unchanged = ("vectors", "sequences", "backgrounds")
        assert found["payloads"] == named
        assert [found[name] for name in unchanged] == [here[name] for name in unchanged]
        there.publish(AFTER, "b")
        assert there.history() == [copied.name]
