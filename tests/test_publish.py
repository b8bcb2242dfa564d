"""Publishing: whole or not at all, the same way on every engine."""

import pytest
from catalogue import altered, make_points
from filelock import FileLock

from search import (
    DamagedCollection,
    PublishError,
    Searcher,
    ServerBusy,
)
from search.engines.embedded import Embedded
from search.engines.server.server import Server
from search.errors import CollectionGone


@pytest.fixture
def neighbour(engine):
    """Another deployment in the same place, whose name begins with the first name."""
    name = f"{engine.collection}-b"
    if isinstance(engine, Embedded):
        yield Embedded(engine.directory.parent / name, name)
        return
    mine = engine.connection
    other = Server(mine._url, mine._api_key, engine.lock.with_name("other.lock"), collection=name)
    yield other
    for collection in other.names():
        other.drop(collection)
    other.close()


def names(engine) -> list[str]:
    """All collections there are, checked to be those in the history."""
    history = engine.history()
    assert sorted(history) == engine.names()
    return history


def publish_some(engine, *seeds, **options) -> list:
    """Publish twelve performances for each seed; return the descriptions."""
    return [engine.publish(make_points(12, seed=seed), "b", **options) for seed in seeds]


def found(engine) -> int:
    """How many performances a search finds, that of the query left out."""
    return len(Searcher(engine).similar("P_1", 100))


def test_what_is_published_is_described_and_can_be_taken_out_again(engine):
    points = make_points(1300)
    description = engine.publish(points, "first", origin={"sources": []})
    assert description.name.startswith(f"{engine.collection}-first-")
    assert description.origin == {"sources": []}
    assert (description.bundle, description.points, description.dimension) == ("first", 1300, 4)
    assert description.created.endswith("+00:00")
    assert engine.status().current == description
    assert engine.status().previous == ()
    held = {stored.payload["track_id"]: stored for stored in engine.open().everything()}
    assert sorted(held) == list(points.track_ids)
    for i, track_id in enumerate(points.track_ids):
        assert held[track_id].payload == points.payload(i, description)
        assert held[track_id].vector.tolist() == points.vectors[i].tolist()


def test_publishing_the_same_again_notes_where_it_comes_from_and_builds_nothing(engine):
    origin = {"sources": ["A"]}
    (first,) = publish_some(engine, 1, origin=origin)
    searcher = Searcher(engine)
    answer = searcher.similar("P_1")
    engine.build = None
    assert publish_some(engine, 1, origin=origin) == [first]
    (noted,) = publish_some(engine, 1, origin={"sources": ["A", "B"]})
    assert engine.status().current == noted
    assert noted.origin == {"sources": ["A", "B"]}
    assert names(engine) == [first.name]
    assert searcher.similar("P_1") == answer


def test_searchers_see_the_new_collection_and_rolling_back_twice_goes_forward_again(engine):
    searcher = Searcher(engine)
    (first,) = publish_some(engine, 1)
    before = searcher.similar("P_1")
    second = engine.publish(make_points(16, seed=2), "new")
    assert names(engine) == [second.name, first.name]
    assert engine.status().previous == (first,)
    after = searcher.similar("P_1", 100)
    assert len(after) == 15
    assert engine.rollback() == first
    assert searcher.similar("P_1") == before
    assert engine.status().current == first
    assert engine.status().previous == (second,)
    assert engine.rollback() == second
    assert names(engine) == [second.name, first.name]
    assert searcher.similar("P_1", 100) == after


def test_any_collection_that_is_kept_can_be_named_to_go_back_or_forward_to_it(engine):
    made = [description.name for description in publish_some(engine, 1, 2, 3, keep=3)]
    for name, history in [
        (made[0], [made[0], made[2], made[1]]),
        (made[0], [made[0], made[2], made[1]]),  # it is current already
        (None, [made[2], made[0], made[1]]),
        (made[1], [made[1], made[2], made[0]]),
        (None, [made[2], made[1], made[0]]),
    ]:
        assert engine.rollback(name).name == history[0]
        assert names(engine) == history
        assert engine.open().description.name == history[0]


def test_what_was_rolled_back_makes_room_for_what_is_published_next(engine):
    first, _ = publish_some(engine, 1, 2)
    engine.rollback()
    (third,) = publish_some(engine, 3)
    assert names(engine) == [third.name, first.name]


def test_the_previous_collection_becomes_current_without_being_built(engine):
    first, second = publish_some(engine, 1, 2)
    engine.build = None
    assert publish_some(engine, 1) == [first]
    assert names(engine) == [first.name, second.name]
    assert engine.rollback() == second


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_as_many_collections_are_kept_as_was_asked_for(engine, keep):
    made = [description.name for description in publish_some(engine, 0, 1, 2, 3, keep=keep)]
    assert names(engine) == made[::-1][:keep]
    publish_some(engine, 3, keep=1)
    assert names(engine) == made[-1:]


def test_keeping_none_and_rolling_back_to_nothing_are_refused(engine):
    with pytest.raises(ValueError, match="keep=0 would leave nothing to search"):
        publish_some(engine, 1, keep=0)
    with pytest.raises(PublishError, match=r"no other collection to go back to: .* nothing yet\.$"):
        engine.rollback()
    (only,) = publish_some(engine, 1)
    with pytest.raises(PublishError, match=f"no other collection to go back to: .* {only.name}"):
        engine.rollback()
    with pytest.raises(PublishError, match=f"There is no collection mine: .* keeps {only.name}"):
        engine.rollback("mine")
    assert names(engine) == [only.name]


def test_two_deployments_in_one_place_leave_each_other_alone(engine, neighbour):
    publish_some(engine, 1)
    theirs = neighbour.publish(make_points(16, seed=2), "b")
    *_, mine = publish_some(engine, 3, 4, 5)
    assert neighbour.names() == [theirs.name]
    assert found(neighbour) == 15
    neighbour.publish(make_points(16, seed=6), "b", keep=1)
    engine.drop(neighbour.names()[0])  # which is not its own to drop
    assert mine.name in engine.names()
    assert (found(engine), found(neighbour)) == (11, 15)
    assert not set(engine.names()) & set(neighbour.names())


@pytest.mark.parametrize("asked", ["history", "describe", "open", "unfinished", "is_taken"])
@pytest.mark.parametrize("seed", [1, 2], ids=["the same again", "something else"])
def test_an_engine_that_does_not_answer_ends_the_publication_and_changes_nothing(
    embedded, seed, asked, monkeypatch
):
    """No answer does not mean that a collection is damaged."""
    (first,) = publish_some(embedded, 1)

    def fail(*_):
        raise ServerBusy("not now")

    with monkeypatch.context() as patched:
        patched.setattr(embedded, asked, fail)
        if seed == 2 or asked in ("history", "describe", "open"):
            with pytest.raises(ServerBusy, match="not now"):
                publish_some(embedded, seed)
        else:
            publish_some(embedded, seed)
    assert embedded.history() == [first.name]
    assert found(embedded) == 11
    (second,) = publish_some(embedded, seed)
    assert names(embedded) == list(dict.fromkeys([second.name, first.name]))


@pytest.mark.parametrize("fault", [DamagedCollection, CollectionGone])
def test_a_faulty_collection_is_replaced_by_one_of_another_name(embedded, fault, monkeypatch):
    earlier, first = publish_some(embedded, 2, 1)
    open_, drop, serve = embedded.open, embedded.drop, embedded.serve

    def open_other(name=None):
        if name == first.name:
            raise fault("a file is gone")
        return open_(name)

    steps = []
    monkeypatch.setattr(embedded, "open", open_other)
    monkeypatch.setattr(embedded, "drop", lambda name: (steps.append(name), drop(name)))
    monkeypatch.setattr(embedded, "serve", lambda history: (serve(history), steps.append("serve")))
    (again,) = publish_some(embedded, 1)
    assert again.name == f"{first.name}-2"
    assert steps == ["serve", first.name]  # only after the new collection is served
    assert names(embedded) == [again.name, earlier.name]


def test_old_collections_that_cannot_be_dropped_are_left_for_the_next(embedded, monkeypatch):
    publish_some(embedded, 1, 2)

    def fail(_):
        raise ServerBusy("not now")

    with monkeypatch.context() as patched:
        patched.setattr(embedded, "drop", fail)
        (third,) = publish_some(embedded, 3)
    assert embedded.status().current == third
    assert len(embedded.names()) == 3
    publish_some(embedded, 3)
    assert len(names(embedded)) == 2


def lose_the_last(points):
    lists = {name: getattr(points, name)[:-1] for name in ("track_ids", "vectors", "payloads")}
    return altered(points, sequences=None, **lists)


def bend_a_vector(points):
    bent = points.vectors.copy()
    bent[len(points) // 2, 0] += 1e-6
    return altered(points, vectors=bent)


def rename_a_work(points):
    first, *others = points.payloads
    return altered(points, payloads=[{**first, "work_title": "Another"}, *others])


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lose_the_last, "it holds 11 performances and not 12|11 of its 12 performances"),
        (bend_a_vector, "performance P_.* does not read back as it was written"),
        (rename_a_work, "performance P_0 does not read back as it was written"),
    ],
)
def test_a_collection_that_does_not_hold_what_was_written_is_not_published(engine, damage, words):
    (first,) = publish_some(engine, 1)
    build = engine.build
    engine.build = lambda description, points: build(description, damage(points))
    with pytest.raises(PublishError, match=words):
        publish_some(engine, 2)
    assert names(engine) == [first.name]
    assert found(engine) == 11


def test_what_a_killed_publisher_left_is_never_served_and_the_next_one_deletes_it(engine):
    (first,) = publish_some(engine, 1)
    unfinished = make_points(12, seed=2)
    engine.build(unfinished.describe("b", engine.collection), unfinished)  # but does not serve it
    assert engine.history() == [first.name]
    assert len(engine.names()) == 2
    assert Searcher(engine).status().current == first
    publish_some(engine, 1)
    assert names(engine) == [first.name]


def test_a_second_publisher_waits_for_the_first_and_says_so(engine):
    engine.lock.parent.mkdir(exist_ok=True)
    with FileLock(engine.lock):
        with pytest.raises(PublishError, match=r"has been publishing for 0\.1 s .*\.lock"):
            publish_some(engine, 1, timeout=0.1)
        with pytest.raises(PublishError, match="wait for it to finish"):
            engine.rollback(timeout=0.1)
    publish_some(engine, 1, timeout=0.1)
