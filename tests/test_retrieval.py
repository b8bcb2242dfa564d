"""Retrieval metrics agree with hand-worked figures, torchmetrics and plain rankings."""

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.retrieval import (
    retrieval_average_precision,
    retrieval_hit_rate,
    retrieval_precision,
    retrieval_reciprocal_rank,
)
from vectors import collections, many

from embedding.metrics import distances as blocks
from embedding.metrics.distances import DistanceMatrix, Euclidean
from embedding.metrics.retrieval import bootstrap_interval, retrieval, retrieval_of


def plain_rankings(rows, works, tracks):
    """For each query, whether each candidate is relevant, nearest first."""
    rows = np.asarray(rows, dtype=np.float64)
    rankings = {}
    for query in range(len(rows)):
        distances = np.sqrt(((rows - rows[query]) ** 2).sum(axis=1))
        others = [other for other in range(len(rows)) if other != query]
        others.sort(key=lambda other: (distances[other], tracks[other]))
        relevant = [works[other] == works[query] for other in others]
        if any(relevant):
            rankings[tracks[query]] = np.array(relevant)
    return rankings


# Six performances on a line; P_6 is the only one of its work.
#
#   P_1 a   P_4 b       P_2 a   P_6 n               P_3 a   P_5 b
#    0       1           3       4                   10      11
LINE = [[0], [3], [10], [1], [11], [4]]
LINE_WORKS = ["W_a", "W_a", "W_a", "W_b", "W_b", "W_n"]
LINE_TRACKS = ["P_1", "P_2", "P_3", "P_4", "P_5", "P_6"]


def test_six_performances_on_a_line_agree_with_hand_worked_figures():
    # query  candidates by distance                      relevant at   AP
    # P_1    P_4 1, P_2 3*, P_6 4, P_3 10*, P_5 11       2, 4          (1/2 + 2/4) / 2 = 1/2
    # P_2    P_6 1, P_4 2, P_1 3*, P_3 7*, P_5 8         3, 4          (1/3 + 2/4) / 2 = 5/12
    # P_3    P_5 1, P_6 6, P_2 7*, P_4 9, P_1 10*        3, 5          (1/3 + 2/5) / 2 = 11/30
    # P_4    P_1 1, P_2 2, P_6 3, P_3 9, P_5 10*         5             1/5
    # P_5    P_3 1, P_6 7, P_2 8, P_4 10*, P_1 11        4             1/4
    #
    # Non-relevant above each relevant, over all non-relevant: P_1 1/3, 2/3; P_2 2/3, 2/3;
    # P_3 2/3, 3/3; P_4 4/4; P_5 3/4. Their means in per cent: 50, 200/3, 250/3, 100, 75.
    found = retrieval(Euclidean(LINE), LINE_WORKS, LINE_TRACKS)
    assert found.summary() == pytest.approx(
        {
            "map": (1 / 2 + 5 / 12 + 11 / 30 + 1 / 5 + 1 / 4) / 5,
            "mr1": (2 + 3 + 3 + 5 + 4) / 5,
            "mrr": (1 / 2 + 1 / 3 + 1 / 3 + 1 / 5 + 1 / 4) / 5,
            "hits@1": 0.0,
            "hits@10": 1.0,
            "p@10": (2 + 2 + 2 + 1 + 1) / 10 / 5,
            "nar": (50 + 200 / 3 + 250 / 3 + 100 + 75) / 5,
            "performances": 6,
            "works": 3,
            "cliques": 2,
            "noise_works": 1,
            "queries": 5,
        },
        rel=1e-12,
    )
    assert found.per_query.to_dict(as_series=False) == {
        "track_id": LINE_TRACKS[:5],
        "work_id": LINE_WORKS[:5],
        "relevant": [2, 2, 2, 1, 1],
        "first": [2, 3, 3, 5, 4],
        "ap": pytest.approx([1 / 2, 5 / 12, 11 / 30, 1 / 5, 1 / 4]),
        "p_at_10": [0.2, 0.2, 0.2, 0.1, 0.1],
        "nar": pytest.approx([50, 200 / 3, 250 / 3, 100, 75]),
    }


@pytest.mark.parametrize(
    ("version", "other", "rank"),
    [("P_2", "P_3", 1), ("P_3", "P_2", 2), ("P_9", "P_10", 2)],  # ids are compared as text
)
def test_of_two_equally_near_the_smaller_track_id_ranks_first(version, other, rank):
    found = retrieval(Euclidean([[0], [1], [-1]]), ["W_a", "W_a", "W_b"], ["P_1", version, other])
    assert found.per_query["first"][0] == rank


@given(collections())
def test_vectors_and_their_distances_and_their_rankings_measure_alike(collection):
    vectors, works, tracks = collection
    wide = vectors.astype(np.float64)
    matrix = np.sqrt(((wide[:, None] - wide[None]) ** 2).sum(axis=2))
    rankings = []
    for query, distances in enumerate(matrix):
        order = sorted(range(len(vectors)), key=lambda i: (distances[i], tracks[i]))
        rankings.append((query, np.array([i for i in order if i != query])))
    expected = retrieval(Euclidean(vectors), works, tracks)
    for found in (
        retrieval_of(rankings, works, tracks),
        retrieval(DistanceMatrix(matrix), works, tracks),
    ):
        assert found.summary() == expected.summary()
        assert found.per_query.equals(expected.per_query)


@pytest.mark.parametrize(("difference", "rank"), [(1e-11, 2), (1e-14, 1)])
def test_distances_within_the_tie_tolerance_rank_by_track_id(difference, rank):
    vectors = [[0], [1 + difference], [-1]]
    found = retrieval(Euclidean(vectors), ["W_a", "W_a", "W_b"], ["P_1", "P_2", "P_3"])
    assert found.per_query["first"][0] == rank


def test_vectors_all_alike_rank_by_track_id_alone():
    # From P_1 the order is P_2, P_3, P_4; from P_4 it is P_1, P_2, P_3.
    works = ["W_a", "W_b", "W_b", "W_a"]
    found = retrieval(Euclidean(np.full((4, 3), 0.1)), works, ["P_1", "P_2", "P_3", "P_4"])
    assert found.per_query["first"].to_list() == [3, 2, 2, 1]


def test_a_single_work_is_found_at_rank_1():
    found = retrieval(Euclidean([[0], [1], [5]]), ["W_a"] * 3, ["P_1", "P_2", "P_3"])
    assert (found.map, found.mr1, found.nar) == (1.0, 1.0, 0.0)


@given(collections())
def test_measures_agree_with_torchmetrics_and_with_a_plain_ranking(collection):
    rows, works, tracks = collection
    found = retrieval(Euclidean(rows), works, tracks)
    rankings = plain_rankings(rows, works, tracks)
    assert found.per_query["track_id"].to_list() == sorted(rankings)

    def mean(metric, **options):
        # Scores that fall with the rank, so that torchmetrics has no tie to break its own way.
        return np.mean(
            [
                float(metric(torch.arange(len(ranked), 0.0, -1), torch.tensor(ranked), **options))
                for ranked in rankings.values()
            ]
        )

    assert found.map == pytest.approx(mean(retrieval_average_precision), rel=1e-5)
    assert found.mrr == pytest.approx(mean(retrieval_reciprocal_rank), rel=1e-5)
    assert found.hits_at_1 == pytest.approx(mean(retrieval_hit_rate, top_k=1), rel=1e-5)
    assert found.hits_at_10 == pytest.approx(mean(retrieval_hit_rate, top_k=10), rel=1e-5)
    assert found.p_at_10 == pytest.approx(mean(retrieval_precision, top_k=10), rel=1e-5)
    for query in found.per_query.iter_rows(named=True):
        ranked = rankings[query["track_id"]]
        above = np.cumsum(~ranked)[ranked]
        assert query["relevant"] == ranked.sum()
        assert query["first"] == ranked.argmax() + 1
        assert query["nar"] == pytest.approx(100 * above.mean() / max((~ranked).sum(), 1))


def test_blocks_of_any_size_give_the_same_results(monkeypatch):
    rows, works, tracks = many()
    rankings = plain_rankings(rows, works, tracks)
    expected = retrieval(Euclidean(rows), works, tracks)
    firsts = [int(rankings[track].argmax()) + 1 for track in sorted(rankings)]
    assert expected.per_query["first"].to_list() == firsts
    for block, least in ((1, 1), (5000, 1)):
        monkeypatch.setattr(blocks, "BLOCK_SIZE", block)
        monkeypatch.setattr(blocks, "MIN_BLOCK_ROWS", least)
        found = retrieval(Euclidean(rows), works, tracks)
        assert found.summary() == expected.summary()
        assert found.per_query.equals(expected.per_query)


def test_given_distances_may_differ_by_direction_and_their_diagonal_is_ignored():
    matrix = [[9, 1, 2], [2, 9, 1], [1, 1, 9]]
    found = retrieval(DistanceMatrix(matrix), ["W_a", "W_a", "W_b"], ["P_1", "P_2", "P_3"])
    assert found.per_query["first"].to_list() == [1, 2]


def test_neither_order_nor_place_nor_direction_of_the_vectors_matters():
    rows, works, tracks = many()
    rng = np.random.default_rng(1)
    order, turn = rng.permutation(len(rows)), np.linalg.qr(rng.normal(size=(24, 24)))[0]
    expected = retrieval(Euclidean(rows), works, tracks)
    for moved in (rows[order], rows[order] @ turn + 1000):
        found = retrieval(
            Euclidean(moved), [works[row] for row in order], [tracks[row] for row in order]
        )
        assert found.summary() == expected.summary()
        assert found.per_query.equals(expected.per_query)


def test_rankings_of_some_queries_are_measured_among_all_candidates():
    rankings = [(0, np.array([3, 1, 5, 2, 4])), (5, np.array([0, 1, 2, 3, 4]))]
    found = retrieval_of(rankings, LINE_WORKS, LINE_TRACKS)
    assert found.per_query["track_id"].to_list() == ["P_1"]  # P_6 has no version
    assert found.map == 1 / 2
    assert (found.counts["queries"], found.counts["performances"]) == (1, 6)
    with pytest.raises(ValueError, match="ranking of query 0 does not hold each of the 5 other"):
        retrieval_of([(0, np.array([1, 2, 3]))], LINE_WORKS, LINE_TRACKS)
    with pytest.raises(ValueError, match="No ranked query has a match"):
        retrieval_of(rankings[1:], LINE_WORKS, LINE_TRACKS)


@pytest.mark.parametrize(
    ("rows", "works", "message"),
    [
        ([[0], [1], [2]], ["W_a", "W_a"], "distances of 3 performances and ids of 2"),
        ([[0], [1]], ["W_a", "W_b"], "No work has two performances"),
        ([[0], [1], [2]], ["W_a", "W_a", "W_b"], "A sample of 0 measures nothing"),
    ],
)
def test_a_collection_that_cannot_be_measured_is_refused(rows, works, message):
    tracks = [f"P_{row}" for row in range(len(works))]
    with pytest.raises(ValueError, match=message):
        retrieval(Euclidean(rows), works, tracks, sample=0)


def test_an_interval_comes_from_drawing_whole_cliques():
    # Two cliques, of means 0 and 1 and one query and three: a sample holds the first twice (mean
    # 0), one of each (3/4) or the second twice (1), with chances 1/4, 1/2 and 1/4.
    values, works = [0, 1, 1, 1], ["W_a", "W_b", "W_b", "W_b"]
    assert bootstrap_interval(values, works, seed=0) == (0.0, 1.0)
    assert bootstrap_interval(values, works, seed=0, n=1) in [(0.0, 0.0), (0.75, 0.75), (1.0, 1.0)]


def test_an_interval_covers_the_truth_about_as_often_as_it_says():
    # 40 cliques of 5 queries, whose values are their clique's alone: an interval that drew
    # queries one by one would be too narrow by a factor of sqrt(5), and cover 62 %.
    rng = np.random.default_rng(0)
    works = np.repeat([f"W_{clique}" for clique in range(40)], 5)
    covered = 0
    for seed in range(200):
        low, high = bootstrap_interval(np.repeat(rng.normal(size=40), 5), works, seed, n=200)
        covered += low <= 0 <= high
    assert 0.88 <= covered / 200 <= 0.99


def test_the_same_seed_gives_the_same_interval():
    values, works = np.random.default_rng(0).random(30), [f"W_{row // 3}" for row in range(30)]
    first = bootstrap_interval(values, works, seed=7)
    assert first == bootstrap_interval(pl.Series(values), pl.Series(works), seed=7)
    assert first != bootstrap_interval(values, works, seed=8)


@pytest.mark.parametrize(
    ("values", "works", "message"),
    [
        ([1, 2], ["W_a", "W_a"], "at least 2 cliques to draw from, and there are 1"),
        ([], [], "at least 2 cliques to draw from, and there are 0"),
        ([1, 2], ["W_a"], "There are 2 values and 1 work ids"),
        ([1, np.nan], ["W_a", "W_b"], "not finite"),
    ],
)
def test_an_interval_without_a_meaning_is_refused(values, works, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_interval(values, works, seed=0)


@settings(max_examples=20)
@given(collections(), st.integers(0, 9))
def test_a_sample_of_all_queries_is_the_whole(collection, seed):
    rows, works, tracks = collection
    found = retrieval(Euclidean(rows), works, tracks)
    drawn = retrieval(Euclidean(rows), works, tracks, sample=found.counts["queries"], seed=seed)
    assert drawn.per_query.equals(found.per_query)


def test_a_query_that_is_drawn_is_measured_among_all_candidates():
    rows, works, tracks = many()
    every = retrieval(Euclidean(rows), works, tracks).per_query
    found = retrieval(Euclidean(rows), works, tracks, sample=50)
    assert found.counts["queries"] == 50
    assert found.counts["performances"] == len(rows)
    drawn = found.per_query["track_id"]
    assert found.per_query.equals(every.filter(pl.col("track_id").is_in(drawn.implode())))
    assert retrieval(Euclidean(rows), works, tracks, 50).per_query.equals(found.per_query)
    other = retrieval(Euclidean(rows), works, tracks, 50, seed=1).per_query
    assert not other["track_id"].equals(drawn)


def test_the_interval_of_a_sample_covers_the_figure_of_all_queries():
    rows, works, tracks = many()
    distances = Euclidean(rows)
    exact = retrieval(distances, works, tracks).map
    covered = []
    for seed in range(20):
        queries = retrieval(distances, works, tracks, sample=100, seed=seed).per_query
        low, high = bootstrap_interval(queries["ap"], queries["work_id"], seed, n=200)
        covered.append(low <= exact <= high)
    assert sum(covered) >= 17
