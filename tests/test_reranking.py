"""Reranking by sequences, and how sequences and backgrounds are stored."""

import os

import numpy as np
import pytest
from catalogue import altered, make_points, points_of, published
from tunes import (
    EMPTY,
    POINTS,
    RATE,
    SEQUENCE,
    SHORT,
    SILENT,
    make_tune,
    noisy,
)

from search import DamagedCollection, InvalidPoints, InvalidQuery, PublishError, Searcher
from search.engines.embedded import Embedded
from search.point import point_id
from search.versions import reranking
from search.versions.alignment import explain, similarities


@pytest.fixture(scope="module")
def searcher():
    with published(POINTS) as engine:
        yield Searcher(engine)


def track_ids(matches) -> list[str]:
    return [match.track_id for match in matches]


def brute_force(track_id: str, candidates: list[str]) -> list[str]:
    """The candidates by log(s + 0.1) - 0.75 b, b measured here from its definition."""
    by_id = sorted(SEQUENCE, key=lambda name: point_id(name).bytes)
    references = [name for name in by_id if len(SEQUENCE[name])][:32]
    scores = []
    for name in candidates:
        similarity = float(similarities(SEQUENCE[track_id], [SEQUENCE[name]], RATE)[0][0])
        others = [SEQUENCE[reference] for reference in references if reference != name]
        usual = sorted(similarities(SEQUENCE[name], others, RATE)[0])[: -(len(others) // 10)]
        hub = float(np.mean(np.log(np.array(usual) + 0.1)))
        score = np.log(similarity + 0.1) - 0.75 * hub
        scores.append(score if similarity > 0 else -np.inf)
    return [candidates[i] for i in np.argsort(-np.array(scores), kind="stable")]


@pytest.mark.parametrize("query", ["P_0", "P_13", "P_22"])
def test_matches_are_in_the_order_of_the_ranking_score(searcher, query):
    nearest = track_ids(searcher.similar(query, 39))
    found = searcher.similar(query, 39, rerank=True)
    assert track_ids(found) == brute_force(query, nearest)
    assert found == searcher.similar(query, 39, rerank=True)
    assert searcher.similar(query, 5, rerank=True) == found[:5]


def test_versions_come_first_whatever_the_vectors_say(searcher):
    assert not all(match.same_work for match in searcher.similar("P_0", 3))
    found = searcher.similar("P_0", 3, rerank=True)
    assert all(match.same_work for match in found)
    ups = {match.track_id: match.alignment.transposition % 12 for match in found}
    assert ups == {"P_1": 5, "P_2": 10, "P_3": 3}
    tempi = {match.track_id: match.alignment.tempo for match in found}
    assert tempi == pytest.approx({"P_1": 1.15, "P_2": 1 / 1.15, "P_3": 1})


def test_each_match_is_explained_and_only_where_it_was_asked_for(searcher):
    for match in searcher.similar("P_5", 39, rerank=True):
        pair = SEQUENCE["P_5"], SEQUENCE[match.track_id]
        similarity, hypothesis = similarities(pair[0], [pair[1]], RATE)
        assert match.alignment == explain(*pair, RATE, float(similarity[0]), hypothesis[0])
    assert all(match.alignment is None for match in searcher.similar("P_5", 39))


def test_what_cannot_be_aligned_comes_last_in_its_old_order(searcher):
    last = searcher.similar("P_5", 39, rerank=True)[-3:]
    nearest = track_ids(searcher.similar("P_5", 39))
    assert track_ids(last) == [name for name in nearest if name in {EMPTY, SILENT, SHORT}]
    assert all(not match.alignment.similarity for match in last)
    assert all(not match.alignment.stretches for match in last)


def test_only_the_nearest_are_aligned_and_the_others_follow(searcher, monkeypatch):
    nearest = track_ids(searcher.similar("P_0", 39))
    monkeypatch.setattr("search.searcher.CANDIDATES", 8)
    found = searcher.similar("P_0", 20, rerank=True)
    assert track_ids(found) == brute_force("P_0", nearest[:8]) + nearest[8:20]
    assert [match.alignment is not None for match in found] == [True] * 8 + [False] * 12


def test_conditions_hold_for_candidates(searcher):
    found = searcher.similar("P_0", 39, rerank=True, where={"subset": "benchmark"})
    assert sorted(track_ids(found)) == sorted(f"P_{i}" for i in range(1, 40, 2))
    found = searcher.similar("P_0", 39, rerank=True, leave_out_same_work=True)
    assert len(found) == 36
    assert not any(match.same_work for match in found)


@pytest.mark.parametrize(
    ("query", "words"), [(EMPTY, "has no chroma sequence in"), (SHORT, "has 2.2 s of chroma in")]
)
def test_a_query_too_short_to_align_is_named_and_searched_without(searcher, query, words):
    with pytest.raises(InvalidQuery, match=f"Performance {query} {words}"):
        searcher.similar(query, rerank=True)
    assert len(searcher.similar(query)) == 10


def test_a_silent_query_leaves_the_candidates_as_they_are(searcher):
    nearest = track_ids(searcher.similar(SILENT))
    assert track_ids(searcher.similar(SILENT, rerank=True)) == nearest


def test_published_sequences_read_back(searcher):
    collection = searcher.engine.open()
    assert collection.description.rate == collection.sequences.rate == RATE
    for read, track_id in zip(collection.sequences.of(POINTS.track_ids), SEQUENCE, strict=True):
        assert read.dtype == np.float16
        np.testing.assert_array_equal(read, SEQUENCE[track_id])


def test_sequences_stay_readable_when_their_collection_is_pruned_and_damage_is_told(embedded):
    name = embedded.publish(POINTS, "b").name
    opened = embedded.open()
    embedded.publish(make_points(12), "b", keep=1)
    assert name not in embedded.names()
    np.testing.assert_array_equal(opened.sequences.of(["P_7"])[0], SEQUENCE["P_7"])

    embedded.publish(POINTS, "b")
    frames = embedded.directory / name / "sequences" / "frames.npy"
    os.truncate(frames, frames.stat().st_size - 1)
    with pytest.raises(DamagedCollection, match=r"frames\.npy is missing or cut short"):
        Searcher(Embedded(embedded.directory)).similar("P_1")


def test_without_sequences_re_ranking_says_what_it_needs(engine):
    assert engine.publish(make_points(12), "b").rate is None
    with pytest.raises(InvalidQuery, match="holds none: publish performances that have chroma"):
        Searcher(engine).similar("P_1", rerank=True)


def test_a_collection_is_named_by_its_sequences_too():
    sequences = POINTS.sequences
    plain = altered(POINTS, sequences=None, rate=None)
    same = altered(POINTS)
    emptied = altered(POINTS, sequences=[sequence[:0] for sequence in sequences])
    changed = altered(POINTS, sequences=[sequences[0][::-1], *sequences[1:]])
    faster = altered(POINTS, rate=2 * RATE)
    names = [
        points.describe("b", "mine").name
        for points in (POINTS, same, plain, emptied, changed, faster)
    ]
    assert names[0] == names[1]
    assert names[2] == names[3]
    assert len(set(names)) == 4


def test_sequences_that_do_not_read_back_are_not_published(embedded):
    build = embedded.build
    bent = altered(POINTS, sequences=POINTS.sequences[::-1])
    bent.digests = POINTS.digests
    embedded.build = lambda description, points: build(description, bent)
    with pytest.raises(PublishError, match="the sequence of P_0 does not read back as it was"):
        embedded.publish(POINTS, "b")
    assert embedded.names() == []


def test_a_background_is_high_for_what_resembles_many_and_blind_to_one_version():
    tunes = [make_tune(seed, 30) for seed in range(12)]
    plain = reranking.backgrounds(tunes, RATE)[:, 0]
    tunes[1] = noisy(tunes[0], 1)
    pair = reranking.backgrounds(tunes, RATE)[:, 0]
    assert pair[0] < plain.max() + 0.1
    tunes[2], tunes[3] = noisy(tunes[0], 2), noisy(tunes[0], 3)
    many, spread = reranking.backgrounds([*tunes, tunes[0][:0]], RATE).T
    assert many[:4].mean() > many[4:].max()
    assert many[12] == np.float32(np.log(0.1))
    assert spread.min() == np.float32(0.3)
    assert reranking.backgrounds(tunes[:1], RATE).tolist() == [[many[12], np.float32(0.3)]]


def test_one_version_among_few_performances_does_not_raise_a_background():
    tunes = [make_tune(seed, 30) for seed in range(3)]
    [alone, *_] = reranking.backgrounds(tunes, RATE).tolist()
    [background, *_] = reranking.backgrounds([*tunes, tunes[0]], RATE).tolist()
    assert background == pytest.approx(alone, abs=0.3)


def test_backgrounds_that_are_known_are_not_measured_again(embedded, monkeypatch):
    embedded.publish(POINTS, "b")
    before = embedded.open().sequences.backgrounds(POINTS.track_ids)
    changed = list(POINTS.sequences)
    changed[3] = changed[3][::-1]
    measured = []

    def counted(query, *rest):
        measured.append(query)
        return similarities(query, *rest)

    monkeypatch.setattr(reranking, "similarities", counted)
    embedded.publish(altered(POINTS, sequences=changed), "b")
    assert len(measured) == 1
    np.testing.assert_array_equal(measured[0], changed[3])
    after = embedded.open().sequences.backgrounds(POINTS.track_ids)
    assert (after[3] != before[3]).any()
    np.testing.assert_array_equal(np.delete(after, 3, 0), np.delete(before, 3, 0))


@pytest.mark.parametrize(
    ("sequences", "rate", "words"),
    [
        ([np.zeros((5, 2, 12)), np.zeros((5, 12))], RATE, r"P_2 has the shape \(5, 12\)"),
        ([np.zeros((5, 2, 12)), np.full((5, 2, 12), np.nan)], RATE, "P_2 is not finite"),
        ([np.zeros((5, 2, 12))] * 2, None, "their rate in frames per second, which cannot be None"),
        ([np.zeros((5, 2, 12))] * 2, 0.0, "cannot be 0.0"),
    ],
)  # fmt: skip
def test_sequences_that_cannot_be_aligned_are_refused(sequences, rate, words):
    with pytest.raises(InvalidPoints, match=words):
        points_of(["P_1", "P_2"], np.zeros((2, 1)), [{"work_id": "W_1"}] * 2, sequences, rate)
