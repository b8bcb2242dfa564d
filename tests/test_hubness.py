"""Hubness agrees with scikit-learn and SciPy, and hubs are found where they are known."""

import numpy as np
import pytest
from hypothesis import given
from scipy.stats import skew
from sklearn.neighbors import NearestNeighbors
from vectors import collections, many, moved, plain_distances

from embedding.metrics.distances import DistanceMatrix, Euclidean
from embedding.metrics.hubness import hubness, k_occurrences


def test_a_performance_in_the_middle_is_nearest_to_all_others():
    star = Euclidean([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]])
    counts = k_occurrences(star, ["P_5", "P_1", "P_2", "P_3", "P_4"], k=1)
    # The middle is nearest to the four; of these, it is nearest to P_1, the first by track id.
    assert counts.tolist() == [4, 1, 0, 0, 0]


def test_the_counts_and_their_skewness_are_those_of_independent_implementations():
    rows, _, tracks = many(n_cliques=30, noise_works=20)
    found = NearestNeighbors(n_neighbors=10).fit(rows).kneighbors(return_distance=False)
    expected = np.bincount(found.ravel(), minlength=len(rows))
    assert k_occurrences(Euclidean(rows), tracks, 10).tolist() == expected.tolist()
    assert hubness(Euclidean(rows), tracks) == pytest.approx(skew(expected))
    assert hubness(Euclidean(rows), tracks) > 0.5


@given(collections())
def test_every_performance_counts_its_k_nearest_with_ties_by_track_id(collection):
    rows, _, tracks = collection
    n = len(rows)
    for k in (1, 3, 10):
        expected = np.zeros(n, dtype=int)
        for query, row in enumerate(plain_distances(rows)):
            others = [i for i in range(n) if i != query]
            expected[sorted(others, key=lambda i: (row[i], tracks[i]))[:k]] += 1
        assert k_occurrences(Euclidean(rows), tracks, k).tolist() == expected.tolist()
        assert expected.sum() == n * min(k, n - 1)


def test_neither_order_nor_place_nor_direction_of_the_vectors_matters():
    rows, works, tracks = many(n_cliques=20)
    counts = dict(zip(tracks, k_occurrences(Euclidean(rows), tracks, 3).tolist(), strict=True))
    for vectors, _, ids in moved(rows, works, tracks):
        again = k_occurrences(Euclidean(vectors), ids, 3).tolist()
        assert dict(zip(ids, again, strict=True)) == counts


def test_no_performance_is_a_hub_if_all_count_alike():
    assert hubness(Euclidean(np.eye(8)), [f"P_{i}" for i in range(8)]) == 0
    assert hubness(DistanceMatrix([[0]]), ["P_1"]) == 0


def test_a_sample_counts_the_nearest_of_that_many():
    rows, _, tracks = many()
    every = k_occurrences(Euclidean(rows), tracks, 10)
    some = k_occurrences(Euclidean(rows), tracks, 10, sample=100)
    assert some.sum() == 1000
    assert (some <= every).all()
    assert k_occurrences(Euclidean(rows), tracks, 10, sample=len(rows)).tolist() == every.tolist()


def test_an_id_is_needed_for_every_row():
    with pytest.raises(ValueError, match="distances of 2 performances and 1 track ids"):
        hubness(Euclidean([[0], [1]]), ["P_1"])
