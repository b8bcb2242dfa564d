"""Asking about a performance that is not in the collection, by its vector and sequence."""

from dataclasses import asdict
from functools import partial

import numpy as np
import pytest
from catalogue import engine_of_kind, make_points, points_of, published, vector_of
from command_line import covers
from tunes import CALIBRATED, EMPTY, RATE, SEQUENCE, make_tune, noisy

import search
from embedding import bundle as bundles
from embedding.encoders.imported import ImportedConfig
from search import InvalidQuery, Query, Searcher


@pytest.fixture(scope="module", params=["embedded", "stub"])
def searcher(request, tmp_path_factory):
    with engine_of_kind(request.param, tmp_path_factory.mktemp("asked")) as engine:
        engine.publish(CALIBRATED, "b")
        yield Searcher(engine)


def copied(track_id: str) -> Query:
    """What the collection holds of a performance, as if it came from outside."""
    return Query(vector_of(CALIBRATED, track_id), SEQUENCE[track_id], track_id)


def told(matches) -> list[dict]:
    """Matches without what labels say; figures are rounded as far as publishing rounds them."""

    def plain(value):
        if isinstance(value, dict):
            return {name: plain(each) for name, each in value.items()}
        return float(f"{value:.3g}") if isinstance(value, float) else value

    return [plain(asdict(match)) | {"same_work": None} for match in matches]


@pytest.mark.parametrize("track_id", ["P_9", "P_22", EMPTY])
def test_the_answers_are_those_for_the_same_performance_of_the_collection(searcher, track_id):
    query, where = copied(track_id), {"track_id": search.none_of([track_id])}
    assert searcher.similar(query, 1)[0].distance == 0
    for ask in (searcher.similar, searcher.works):
        found = ask(query, 39, where=where)
        assert told(found) == told(ask(track_id, 39, where=where))
        assert {match.same_work for match in found} == {None}
        if track_id != EMPTY:
            found = ask(query, 8, rerank=True, where=where)
            assert told(found) == told(ask(track_id, 8, rerank=True, where=where))
    found, expected = searcher.identify(query, 9, where=where), searcher.identify(track_id, 9)
    assert found.track_id == track_id
    assert found.probability_of_none == pytest.approx(expected.probability_of_none, rel=0.01)
    for work, other in zip(found.works, expected.works, strict=True):
        assert (work.work_id, work.same_as) == (other.work_id, other.same_as)
        assert work.probability == pytest.approx(other.probability, rel=0.01)
        assert told(work.performances) == told(other.performances)
    for other in ("P_8", "P_20", "P_39"):
        judged = searcher.same_work(track_id, other)
        assert told([searcher.same_work(query, other)]) == told([judged])
        assert searcher.distance(query, other) == searcher.distance(track_id, other)
        for a, b in ((other, query), (copied(other), query)):
            back = searcher.same_work(a, b)
            assert back.probability == pytest.approx(judged.probability, rel=0.01)
            assert (back.track_id, back.work_id, back.same_work) == (track_id, track_id, None)


def test_ids_and_queries_are_answered_together(searcher):
    both = searcher.similar_many(["P_1", copied("P_2"), "P_3"], 5)
    assert both == [searcher.similar(each, 5) for each in ("P_1", copied("P_2"), "P_3")]
    with pytest.raises(search.TrackNotFound, match="'Q_1'"):
        searcher.similar_many([copied("P_2"), "Q_1"])


def test_works_are_re_ranked_one_by_one_and_the_rest_follows(searcher, monkeypatch):
    found = searcher.works("P_9", 10, rerank=True)
    assert found[0].work_id == "W_2"
    assert len({match.work_id for match in found}) == len(found) == 10
    best = {match.work_id: match for match in reversed(searcher.similar("P_9", 39, rerank=True))}
    assert found == [best[match.work_id] for match in found]
    monkeypatch.setattr("search.searcher.CANDIDATES", 3)
    few = searcher.works("P_9", 10, rerank=True)
    assert {match.work_id for match in few} == {match.work_id for match in found}
    assert [match.alignment is None for match in few] == sorted(
        match.alignment is None for match in few
    )


def test_a_medley_is_of_both_its_works_and_they_stay_two(searcher):
    parts = [noisy(make_tune(work, 35, 1, 3), 50 + work) for work in (1, 6)]
    medley = Query(vector_of(CALIBRATED, "P_0"), np.concatenate(parts), "medley")
    found = searcher.identify(medley)
    assert {work.work_id for work in found.works[:2]} == {"W_1", "W_6"}
    assert min(work.probability for work in found.works[:2]) > 0.9
    assert found.works[2].probability < 0.1 > found.probability_of_none
    assert not any(work.same_as for work in found.works)
    best = [work.performances[0].alignment.stretches[0] for work in found.works[:2]]
    first, second = sorted(stretch.query_start for stretch in best)
    assert first < 5 < 30 < second
    listed = searcher.works(medley, 3, rerank=True)
    assert {match.work_id for match in listed if match.probability > 0.9} == {"W_1", "W_6"}


@pytest.mark.parametrize(
    ("sequence", "words"),
    [
        (None, "take.mp3 has no chroma sequence, so it cannot be aligned: ask without rerank, or"),
        (np.zeros((12, 2, 12)), "take.mp3 has 2.2 s of chroma, and an alignment needs at least"),
        (np.zeros((90, 12)), r"The sequence of take.mp3 has the shape \(90, 12\)"),
        (np.full((90, 2, 12), np.nan), "The sequence of take.mp3 is not finite"),
        (["la"], "The sequence of take.mp3 has the shape"),
    ],
)
def test_a_sequence_that_cannot_be_aligned_is_told(searcher, sequence, words):
    query = Query(vector_of(CALIBRATED, "P_9"), sequence, "take.mp3")
    with pytest.raises(InvalidQuery, match=words):
        searcher.similar(query, rerank=True)
    assert len(searcher.similar(query)) == 10
    if sequence is None:
        assert searcher.identify(query).works
        assert searcher.same_work(query, "P_1").alignment is None
    with pytest.raises(InvalidQuery, match=r"take\.mp3 was given twice"):
        searcher.same_work(query, query)


def test_a_collection_of_one_performance_can_be_asked():
    points = points_of(["P_1"], [[1.0, 2.0]], [{"work_id": "W"}], [make_tune(1)], RATE)
    with published(points) as engine:
        for sequence in (make_tune(1), make_tune(2)):
            (match,) = Searcher(engine).similar(Query([0, 2], sequence), rerank=True)
            assert (match.track_id, match.distance, match.relative_distance) == ("P_1", 1, 2)


@pytest.fixture
def home(tmp_path):
    search.connect(home=tmp_path).publish(make_points(12), "b")
    return tmp_path


def test_an_id_comes_before_a_file_of_the_same_name(home, monkeypatch):
    monkeypatch.chdir(home)
    (home / "P_9").write_text("not a recording", encoding="utf-8")
    code, out, err = covers("similar", "P_9", "--home", home)
    assert (code, err) == (0, "")
    assert "P_9" not in out


def origin_of(bundle) -> dict:
    return {"bundle": str(bundle), "sources": []}


def test_a_file_that_cannot_be_asked_about_is_one_sentence(home, monkeypatch):
    monkeypatch.chdir(home)
    (home / "take.mp3").write_text("not a recording", encoding="utf-8")
    (home / "song.h5").write_text("features", encoding="utf-8")
    publish = partial(search.connect(home=home).publish, make_points(12), "b")
    bundles.save(
        home / "foreign", ImportedConfig("CLEWS", 256), bundles.load("pretrained").training
    )
    for origin, name, words in (
        (None, "tkae.mp3", "There is no file tkae.mp3, and no performance of the collection has"),
        (None, "song.h5", "song.h5 holds features, and a question takes a recording"),
        (None, "take.mp3", "because the collection does not say which bundle made its vectors"),
        (origin_of(home / "gone"), "take.mp3", "the bundle of the collection is not at"),
        (origin_of(home / "foreign"), "take.mp3", "were made elsewhere, by CLEWS-"),
        (origin_of(bundles.PRETRAINED), "take.mp3", "the collection was made with b, and"),
    ):
        publish(origin=origin)
        code, _, err = covers("identify", name, "--home", home)
        assert code == 1
        assert words in err
        assert err.count("\n") == 1
