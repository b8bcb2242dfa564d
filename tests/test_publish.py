"""Publishing: whole or not at all, the same way on every engine."""

import pytest
from catalogue import ENGINES, engine_of_kind, in_memory, make_points
from filelock import FileLock

from search import Points, PublishError, Searcher, publish, rollback
from search.publishing import status


@pytest.fixture(params=ENGINES)
def engine(request):
    with in_memory() as directory, engine_of_kind(request.param, directory) as engine:
        yield engine


def names(engine) -> list[str]:
    """All that is kept, checked to be what is remembered."""
    history = engine.history()
    assert sorted(history) == engine.names()
    return history


def test_what_is_published_is_described(engine):
    description = publish(make_points(12), "first", engine)
    assert description.name.startswith("covers-first-")
    assert (description.bundle, description.points, description.dimension) == ("first", 12, 4)
    assert description.created.endswith("+00:00")
    assert status(engine).current == description
    assert status(engine).previous == ()


def test_everything_can_be_taken_out_again(engine):
    points = make_points(1300)
    description = publish(points, "first", engine)
    held = {stored.payload["track_id"]: stored for stored in engine.open().everything()}
    assert sorted(held) == list(points.track_ids)
    for i, track_id in enumerate(points.track_ids):
        assert held[track_id].payload == points.payload(i, description.bundle)
        assert held[track_id].vector.tolist() == points.vectors[i].tolist()


def test_publishing_the_same_again_changes_nothing(engine):
    first = publish(make_points(12), "bundle", engine)
    searcher = Searcher(engine)
    answer = searcher.similar("P_1")
    builds = []
    engine.build = lambda *args: builds.append(args)
    assert publish(make_points(12), "bundle", engine) == first
    assert builds == []
    assert names(engine) == [first.name]
    assert searcher.similar("P_1") == answer


def test_searchers_see_the_new_collection_and_the_old_one_stays_for_rollback(engine):
    searcher = Searcher(engine)
    old, new = make_points(12, seed=1), make_points(16, seed=2)
    first = publish(old, "old", engine)
    before = searcher.similar("P_1")
    second = publish(new, "new", engine)
    assert names(engine) == [second.name, first.name]
    assert status(engine).previous == (first,)
    after = searcher.similar("P_1")
    assert after != before
    assert len(searcher.similar("P_1", 100)) == 15
    assert rollback(engine) == first
    assert searcher.similar("P_1") == before
    assert status(engine).current == first
    with pytest.raises(
        PublishError, match=r"no earlier collection in .* to go back to: covers-old-"
    ):
        rollback(engine)
    assert searcher.similar("P_1") == before


def test_a_rolled_back_collection_is_built_again_when_it_is_published_again(engine):
    publish(make_points(12, seed=1), "old", engine)
    new = publish(make_points(12, seed=2), "new", engine)
    rollback(engine)
    again = publish(make_points(12, seed=2), "new", engine)
    assert again.name == new.name
    assert names(engine)[0] == new.name
    assert len(names(engine)) == 2


def test_what_was_current_before_becomes_current_without_being_built(engine):
    first = publish(make_points(12, seed=1), "a", engine)
    second = publish(make_points(12, seed=2), "b", engine)
    engine.build = None
    assert publish(make_points(12, seed=1), "a", engine) == first
    assert names(engine) == [first.name, second.name]
    assert rollback(engine) == second


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_only_so_many_collections_are_kept(engine, keep):
    made = [publish(make_points(8, seed=seed), "b", engine, keep=keep).name for seed in range(4)]
    assert names(engine) == made[::-1][:keep]
    assert publish(make_points(8, seed=3), "b", engine, keep=1).name == made[-1]
    assert names(engine) == made[-1:]


def test_keeping_none_is_refused(engine):
    with pytest.raises(ValueError, match="keep=0 would leave nothing to search"):
        publish(make_points(8), "b", engine, keep=0)


def test_nothing_to_roll_back_says_so(engine):
    with pytest.raises(PublishError, match="nothing is all that was published"):
        rollback(engine)


def lose_the_last(points: Points) -> Points:
    return Points(points.track_ids[:-1], points.vectors[:-1], points.payloads[:-1])


def bend_a_vector(points: Points) -> Points:
    bent = points.vectors.copy()
    bent[len(points) // 2, 0] += 1e-6
    return Points(points.track_ids, bent, points.payloads)


def rename_a_work(points: Points) -> Points:
    return Points(
        points.track_ids,
        points.vectors,
        [{**points.payloads[0], "work_title": "Another"}, *points.payloads[1:]],
    )


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lose_the_last, "it holds 11 performances and not 12|11 of its 12 performances"),
        (bend_a_vector, "performance P_.* doesn't read back as it was written"),
        (rename_a_work, "performance P_0 doesn't read back as it was written"),
    ],
)
def test_a_collection_that_does_not_hold_what_was_written_is_not_published(engine, damage, words):
    first = publish(make_points(12, seed=1), "good", engine)
    build = engine.build
    engine.build = lambda description, points: build(description, damage(points))
    with pytest.raises(PublishError, match=words):
        publish(make_points(12, seed=2), "bad", engine)
    assert names(engine) == [first.name]
    assert len(Searcher(engine).similar("P_1", 100)) == 11


def test_what_a_killed_publisher_left_is_never_served_and_cleared_by_the_next(engine):
    first = publish(make_points(12, seed=1), "a", engine)
    unfinished = make_points(12, seed=2)
    engine.build(unfinished.describe("b"), unfinished)  # and no word to the searchers
    assert engine.history() == [first.name]
    assert len(engine.names()) == 2
    assert Searcher(engine).status().current == first
    publish(make_points(12, seed=1), "a", engine)
    assert names(engine) == [first.name]


def test_a_second_publisher_waits_for_the_first_and_says_so(engine):
    engine.lock.parent.mkdir(exist_ok=True)
    with FileLock(engine.lock):
        with pytest.raises(PublishError, match=r"has been publishing for 0\.1 s .*publish\.lock"):
            publish(make_points(8), "b", engine, timeout=0.1)
        with pytest.raises(PublishError, match="wait for it to finish"):
            rollback(engine, timeout=0.1)
    publish(make_points(8), "b", engine, timeout=0.1)
