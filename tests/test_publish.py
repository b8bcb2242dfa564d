"""Publishing: whole or not at all, the same way on every engine."""

import pytest
from catalogue import make_points, points_of
from filelock import FileLock

from search import (
    DamagedCollection,
    Points,
    PublishError,
    Searcher,
    ServerBusy,
    ServerRefused,
    ServerUnreachable,
)
from search.engines.embedded import Embedded
from search.engines.server.server import Server
from search.errors import CollectionGone


@pytest.fixture
def beside(engine):
    """Another deployment in the same place, whose name begins with the first name."""
    name = f"{engine.collection}-b"
    if isinstance(engine, Embedded):
        yield Embedded(engine.directory.parent / name, name)
        return
    one = engine.connection
    other = Server(one._url, one._api_key, engine.lock.with_name("other.lock"), collection=name)
    yield other
    for each in other.names():
        other.drop(each)
    other.close()


def names(engine) -> list[str]:
    """The names in the history, which are those of all collections."""
    history = engine.history()
    assert sorted(history) == engine.names()
    return history


def test_what_is_published_is_described(engine):
    description = engine.publish(make_points(12), "first", origin={"sources": []})
    assert description.name.startswith(f"{engine.collection}-first-")
    assert description.origin == {"sources": []}
    assert (description.bundle, description.points, description.dimension) == ("first", 12, 4)
    assert description.created.endswith("+00:00")
    assert engine.status().current == description
    assert engine.status().previous == ()


def test_everything_can_be_taken_out_again(engine):
    points = make_points(1300)
    description = engine.publish(points, "first")
    held = {stored.payload["track_id"]: stored for stored in engine.open().everything()}
    assert sorted(held) == list(points.track_ids)
    for i, track_id in enumerate(points.track_ids):
        assert held[track_id].payload == points.payload(i, description)
        assert held[track_id].vector.tolist() == points.vectors[i].tolist()


def test_publishing_the_same_again_changes_nothing(engine):
    first = engine.publish(make_points(12), "bundle")
    searcher = Searcher(engine)
    answer = searcher.similar("P_1")
    builds = []
    engine.build = lambda *args: builds.append(args)
    assert engine.publish(make_points(12), "bundle") == first
    assert builds == []
    assert names(engine) == [first.name]
    assert searcher.similar("P_1") == answer


def test_searchers_see_the_new_collection_and_the_old_one_stays_for_rollback(engine):
    searcher = Searcher(engine)
    old, new = make_points(12, seed=1), make_points(16, seed=2)
    first = engine.publish(old, "old")
    before = searcher.similar("P_1")
    second = engine.publish(new, "new")
    assert names(engine) == [second.name, first.name]
    assert engine.status().previous == (first,)
    after = searcher.similar("P_1")
    assert after != before
    assert len(searcher.similar("P_1", 100)) == 15
    assert engine.rollback() == first
    assert searcher.similar("P_1") == before
    assert engine.status().current == first
    assert engine.status().previous == (second,)


def test_a_second_rollback_goes_forward_and_the_next_publication_replaces_what_was_left(engine):
    first = engine.publish(make_points(12, seed=1), "old")
    second = engine.publish(make_points(12, seed=2), "new")
    assert [engine.rollback(), engine.rollback()] == [first, second]
    assert names(engine) == [second.name, first.name]
    engine.rollback()
    third = engine.publish(make_points(12, seed=3), "third")
    assert names(engine) == [third.name, first.name]


def test_the_previous_collection_becomes_current_without_being_built(engine):
    first = engine.publish(make_points(12, seed=1), "a")
    second = engine.publish(make_points(12, seed=2), "b")
    engine.build = None
    assert engine.publish(make_points(12, seed=1), "a") == first
    assert names(engine) == [first.name, second.name]
    assert engine.rollback() == second


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_number_of_collections_that_are_kept_is_an_option(engine, keep):
    made = [engine.publish(make_points(8, seed=seed), "b", keep=keep).name for seed in range(4)]
    assert names(engine) == made[::-1][:keep]
    assert engine.publish(make_points(8, seed=3), "b", keep=1).name == made[-1]
    assert names(engine) == made[-1:]


def test_keeping_none_and_rolling_back_to_none_are_refused(engine):
    with pytest.raises(ValueError, match="keep=0 would leave nothing to search"):
        engine.publish(make_points(8), "b", keep=0)
    with pytest.raises(PublishError, match="nothing is all that is kept"):
        engine.rollback()


def test_another_origin_is_noted_without_building_anything(engine):
    engine.publish(make_points(12), "b", origin={"sources": ["A"]})
    engine.build = None
    noted = engine.publish(make_points(12), "b", origin={"sources": ["A", "B"]})
    assert engine.status().current == noted
    assert noted.origin == {"sources": ["A", "B"]}
    assert len(Searcher(engine).similar("P_1", 100)) == 11


def test_two_deployments_in_one_place_leave_each_other_alone(engine, beside):
    mine = engine.publish(make_points(12, seed=1), "b")
    theirs = beside.publish(make_points(16, seed=2), "b")
    for seed in (3, 4, 5):
        mine = engine.publish(make_points(12, seed=seed), "b")
    assert beside.names() == [theirs.name]
    assert len(Searcher(beside).similar("P_1", 100)) == 15
    beside.publish(make_points(16, seed=6), "b", keep=1)
    assert mine.name in engine.names()
    assert len(Searcher(engine).similar("P_1", 100)) == 11
    assert not set(engine.names()) & set(beside.names())


ASKED = ("history", "describe", "open", "unfinished", "is_taken")


@pytest.mark.parametrize("failure", [ServerBusy, ServerUnreachable, ServerRefused])
@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("seed", [1, 2], ids=["the same again", "something else"])
def test_an_engine_that_does_not_answer_ends_the_publication_and_changes_nothing(
    embedded, seed, asked, failure, monkeypatch
):
    """No answer does not mean that a collection is damaged."""
    engine = embedded
    first = engine.publish(make_points(12, seed=1), "b")

    def fail(*_):
        raise failure("not now")

    with monkeypatch.context() as patched:
        patched.setattr(engine, asked, fail)
        if seed == 2 or asked in ("history", "describe", "open"):
            with pytest.raises(failure, match="not now"):
                engine.publish(make_points(12, seed=seed), "b")
        else:
            engine.publish(make_points(12, seed=seed), "b")
    assert engine.history() == [first.name]
    assert len(Searcher(engine).similar("P_1", 100)) == 11
    next_one = engine.publish(make_points(12, seed=seed), "b")
    assert names(engine) == list(dict.fromkeys([next_one.name, first.name]))


@pytest.mark.parametrize("fault", [DamagedCollection, CollectionGone])
def test_a_faulty_collection_is_replaced_by_one_of_another_name(embedded, fault, monkeypatch):
    engine = embedded
    earlier = engine.publish(make_points(16, seed=2), "b")
    first = engine.publish(make_points(12, seed=1), "b")
    open_ = engine.open

    def open_other(name=None):
        if name == first.name:
            raise fault("a file is gone")
        return open_(name)

    dropped = []
    drop, serve = engine.drop, engine.serve
    monkeypatch.setattr(engine, "open", open_other)
    monkeypatch.setattr(engine, "drop", lambda name: (dropped.append(name), drop(name)))
    monkeypatch.setattr(engine, "serve", lambda history: (serve(history), dropped.append("serve")))
    again = engine.publish(make_points(12, seed=1), "b")
    assert again.name == f"{first.name}-2"
    assert dropped == ["serve", first.name]  # only after the new collection is served
    assert names(engine) == [again.name, earlier.name]


def test_old_collections_that_cannot_be_dropped_are_left_for_the_next(embedded, monkeypatch):
    engine = embedded
    for seed in (1, 2):
        engine.publish(make_points(12, seed=seed), "b")

    def fail(_):
        raise ServerBusy("not now")

    with monkeypatch.context() as patched:
        patched.setattr(engine, "drop", fail)
        third = engine.publish(make_points(16, seed=3), "b")
    assert engine.status().current == third
    assert len(engine.names()) == 3
    engine.publish(make_points(16, seed=3), "b")
    assert len(names(engine)) == 2


def lose_the_last(points: Points) -> Points:
    return points_of(points.track_ids[:-1], points.vectors[:-1], points.payloads[:-1])


def bend_a_vector(points: Points) -> Points:
    bent = points.vectors.copy()
    bent[len(points) // 2, 0] += 1e-6
    return points_of(points.track_ids, bent, points.payloads)


def rename_a_work(points: Points) -> Points:
    return points_of(
        points.track_ids,
        points.vectors,
        [{**points.payloads[0], "work_title": "Another"}, *points.payloads[1:]],
    )


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lose_the_last, "it holds 11 performances and not 12|11 of its 12 performances"),
        (bend_a_vector, "performance P_.* does not read back as it was written"),
        (rename_a_work, "performance P_0 does not read back as it was written"),
    ],
)
def test_a_collection_that_does_not_hold_what_was_written_is_not_published(engine, damage, words):
    first = engine.publish(make_points(12, seed=1), "good")
    build = engine.build
    engine.build = lambda description, points: build(description, damage(points))
    with pytest.raises(PublishError, match=words):
        engine.publish(make_points(12, seed=2), "bad")
    assert names(engine) == [first.name]
    assert len(Searcher(engine).similar("P_1", 100)) == 11


def test_a_killed_publisher_s_collection_is_never_served_and_the_next_one_deletes_it(engine):
    first = engine.publish(make_points(12, seed=1), "a")
    unfinished = make_points(12, seed=2)
    engine.build(unfinished.describe("b", engine.collection), unfinished)  # but does not serve it
    assert engine.history() == [first.name]
    assert len(engine.names()) == 2
    assert Searcher(engine).status().current == first
    engine.publish(make_points(12, seed=1), "a")
    assert names(engine) == [first.name]


def test_a_second_publisher_waits_for_the_first_and_says_so(engine):
    engine.lock.parent.mkdir(exist_ok=True)
    with FileLock(engine.lock):
        with pytest.raises(PublishError, match=r"has been publishing for 0\.1 s .*\.lock"):
            engine.publish(make_points(8), "b", timeout=0.1)
        with pytest.raises(PublishError, match="wait for it to finish"):
            engine.rollback(timeout=0.1)
    engine.publish(make_points(8), "b", timeout=0.1)
