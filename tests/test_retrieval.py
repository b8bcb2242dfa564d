"""Retrieval metrics agree with hand-worked figures, torchmetrics and plain rankings."""

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from torchmetrics.functional.retrieval import (
    retrieval_average_precision,
    retrieval_hit_rate,
    retrieval_precision,
    retrieval_recall,
    retrieval_reciprocal_rank,
)
from vectors import collections, many, moved, plain_distances

from embedding.metrics import distances as blocks
from embedding.metrics.distances import DistanceMatrix, Euclidean
from embedding.metrics.retrieval import bootstrap_interval, retrieval, retrieval_of, shortlist


def plain_rankings(rows, tracks):
    """For each query, the other performances by distance and then by track id."""
    for query, distances in enumerate(plain_distances(rows)):
        others = np.delete(np.arange(len(distances)), query)
        yield query, np.array(sorted(others, key=lambda i: (distances[i], tracks[i])))


def relevance(rows, works, tracks):
    """For each query with a match, whether each ranked candidate is of its work."""
    rankings = plain_rankings(rows, tracks)
    relevant = {tracks[query]: np.array(works)[rank] == works[query] for query, rank in rankings}
    return {track: ranked for track, ranked in sorted(relevant.items()) if ranked.any()}


def assert_same(found, expected):
    assert found.summary() == expected.summary()
    assert found.per_query.equals(expected.per_query)


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
            "recall@k": 0.0,
            "k": 1,
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
        "recall_at_k": [0.0] * 5,
        "nar": pytest.approx([50, 200 / 3, 250 / 3, 100, 75]),
    }


@pytest.mark.parametrize(
    ("vectors", "tracks", "rank"),
    [
        ([0, 1, -1], ["P_1", "P_2", "P_3"], 1),
        ([0, 1, -1], ["P_1", "P_3", "P_2"], 2),
        ([0, 1, -1], ["P_1", "P_9", "P_10"], 2),  # ids are compared as text
        ([0, 1 + 1e-11, -1], ["P_1", "P_2", "P_3"], 2),
        ([0, 1 + 1e-14, -1], ["P_1", "P_2", "P_3"], 1),  # within the tie tolerance
    ],
)
def test_of_two_equally_near_the_smaller_track_id_ranks_first(vectors, tracks, rank):
    found = retrieval(Euclidean(np.c_[vectors]), ["W_a", "W_a", "W_b"], tracks)
    assert found.per_query["first"][0] == rank


@pytest.mark.parametrize(
    ("distances", "works", "firsts"),
    [
        # All alike: from P_1 the order is P_2, P_3, P_4; from P_4 it is P_1, P_2, P_3.
        (Euclidean(np.full((4, 3), 0.1)), "abba", [3, 2, 2, 1]),
        (Euclidean([[0], [1], [5]]), "aaa", [1, 1, 1]),
        # Given distances may differ by direction, and their diagonal is ignored.
        (DistanceMatrix([[9, 1, 2], [2, 9, 1], [1, 1, 9]]), "aab", [1, 2]),
    ],
)
def test_collections_without_a_usual_order_are_ranked(distances, works, firsts):
    found = retrieval(distances, list(works), [f"P_{i}" for i in range(len(works))])
    assert found.per_query["first"].to_list() == firsts
    if set(works) == {"a"}:
        assert (found.map, found.mr1, found.nar) == (1.0, 1.0, 0.0)
        assert found.intervals() == {}  # there is only one clique to draw


@given(collections())
def test_measures_agree_with_torchmetrics_and_with_a_plain_ranking(collection):
    rows, works, tracks = collection
    found = retrieval(Euclidean(rows), works, tracks)
    assert_same(retrieval_of(plain_rankings(rows, tracks), works, tracks), found)
    assert_same(retrieval(DistanceMatrix(plain_distances(rows)), works, tracks), found)
    rankings = relevance(rows, works, tracks)
    assert found.per_query["track_id"].to_list() == list(rankings)

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
    recall = mean(retrieval_recall, top_k=found.k)
    assert found.recall_at_k == pytest.approx(recall, rel=1e-5)
    assert found.p_at_10 == pytest.approx(mean(retrieval_precision, top_k=10), rel=1e-5)
    for query in found.per_query.iter_rows(named=True):
        ranked = rankings[query["track_id"]]
        above = np.cumsum(~ranked)[ranked]
        assert query["relevant"] == ranked.sum()
        assert query["first"] == ranked.argmax() + 1
        assert query["nar"] == pytest.approx(100 * above.mean() / max((~ranked).sum(), 1))


@pytest.mark.parametrize(
    ("performances", "k"), [(2, 0), (7, 1), (11, 1), (12, 2), (193, 38), (502, 100), (10**6, 100)]
)
def test_a_shortlist_is_100_or_less_than_a_fifth_of_the_candidates(performances, k):
    assert shortlist(performances) == k
    assert k == 100 or k < (performances - 1) / 5 <= k + 1


def test_recall_is_the_share_of_all_versions_within_the_shortlist():
    # From 0, the candidates of a line are ranked by their place; 21 others make k = 4.
    works = ["W_a"] * 3 + [f"W_{i}" for i in range(19)]
    places = [0, 2, 9, 1, 3, 4, *range(10, 26)]
    found = retrieval(Euclidean(np.c_[places]), works, [f"P_{i:02}" for i in range(22)])
    assert found.k == 4
    # P_00 finds one of its two versions at rank 2 and the other at rank 6; P_01 the same at ranks
    # 3 and 5; P_02 has 10, 11, 12 and 13 before them.
    assert found.per_query["recall_at_k"].to_list() == [1 / 2, 1 / 2, 0]
    assert found.recall_at_k == pytest.approx(1 / 3)


def test_neither_blocks_nor_order_nor_place_nor_direction_of_the_vectors_matters(monkeypatch):
    rows, works, tracks = many()
    expected = retrieval(Euclidean(rows), works, tracks)
    firsts = [int(ranked.argmax()) + 1 for ranked in relevance(rows, works, tracks).values()]
    assert expected.per_query["first"].to_list() == firsts
    for vectors, *ids in moved(rows, works, tracks):
        assert_same(retrieval(Euclidean(vectors), *ids), expected)
    monkeypatch.setattr(blocks, "MIN_BLOCK_ROWS", 1)
    for block in (1, 5000):
        monkeypatch.setattr(blocks, "BLOCK_SIZE", block)
        assert_same(retrieval(Euclidean(rows), works, tracks), expected)


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


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(ValueError, match="distances of 3 performances and ids of 2"):
        retrieval(Euclidean([[0], [1], [2]]), ["W_a", "W_a"], ["P_1", "P_2"])
    with pytest.raises(ValueError, match="A sample of 0 measures nothing"):
        retrieval(Euclidean(LINE), LINE_WORKS, LINE_TRACKS, sample=0)


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
    for seed in range(100):
        low, high = bootstrap_interval(np.repeat(rng.normal(size=40), 5), works, seed, n=200)
        covered += low <= 0 <= high
    assert 0.88 <= covered / 100 <= 0.99


def test_an_interval_follows_from_its_seed():
    values, works = np.random.default_rng(0).random(30), [f"W_{row // 3}" for row in range(30)]
    interval = bootstrap_interval(values, works, seed=7)
    assert interval == bootstrap_interval(values, pl.Series(works), seed=7)
    assert interval != bootstrap_interval(values, works, seed=8)


def test_a_query_that_is_drawn_is_measured_among_all_candidates():
    rows, works, tracks = many()
    distances = Euclidean(rows)
    every = retrieval(distances, works, tracks)
    found = retrieval(distances, works, tracks, sample=50)
    assert (found.counts["queries"], found.counts["performances"]) == (50, len(rows))
    drawn = found.per_query["track_id"]
    assert found.per_query.equals(every.per_query.filter(pl.col("track_id").is_in(drawn.implode())))
    assert_same(retrieval(distances, works, tracks, 50), found)
    other = retrieval(distances, works, tracks, 50, seed=1).per_query
    assert not other["track_id"].equals(drawn)
    for size in (every.counts["queries"], len(rows)):
        assert_same(retrieval(distances, works, tracks, size, seed=3), every)


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
