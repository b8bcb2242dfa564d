"""K-Means over a range of k, and how its clusters compare with the works."""

import numpy as np
import pytest
from sklearn.metrics import silhouette_score
from vectors import many

from embedding.metrics import clusters as module
from embedding.metrics.clusters import cluster

# Three pairs, far apart: a, a | b, b | c, n.
APART = np.array([[0, 0], [0, 2], [100, 0], [100, 2], [0, 100], [0, 104]], dtype=np.float32)
WORKS = ["W_a", "W_a", "W_b", "W_b", "W_c", "W_n"]


def test_separate_groups_are_found_and_compared_with_the_works():
    found = cluster(APART, WORKS, [4, 3, 2, 3])
    assert found.ks == (2, 3, 4)
    assert found.k == 3
    # Two pairs 1 from their centre each, one pair 2 from it: 2 + 2 + 8.
    assert found.inertia[1] == pytest.approx(12)
    assert list(found.inertia) == sorted(found.inertia, reverse=True)
    first = found.labels[[0, 2, 4]]
    assert sorted(first) == [0, 1, 2]
    assert found.labels.tolist() == np.repeat(first, 2).tolist()
    # Every clique is in one cluster, so complete; c and n share one, so homogeneity falls short by
    # a third of log 2 out of H(works) = 2/3 log 3 + 1/3 log 6 = log 3 + 1/3 log 2.
    homogeneity = 1 - (np.log(2) / 3) / (np.log(3) + np.log(2) / 3)
    assert found.v_measure == pytest.approx(2 * homogeneity / (homogeneity + 1))
    # Of 15 pairs, 2 are together in both, 2 by work and 3 by cluster: by chance 2 * 3 / 15.
    assert found.adjusted_rand == pytest.approx((2 - 0.4) / (2.5 - 0.4))
    assert found.summary() == {
        "k": 3,
        "inertia": found.inertia[1],
        "silhouette": found.silhouette[1],
        "v_measure": found.v_measure,
        "adjusted_rand": found.adjusted_rand,
    }


def test_cooccurrence_counts_the_performances_of_each_work_in_each_cluster():
    found = cluster(APART, ["W_a", "W_a", "W_a", "W_b", "W_b", "W_b"], [3])
    first, second, third = (int(found.labels[row]) for row in (0, 2, 4))
    expected = [("W_a", first, 2), ("W_a", second, 1), ("W_b", second, 1), ("W_b", third, 2)]
    assert found.cooccurrence.columns == ["work_id", "cluster", "performances"]
    assert found.cooccurrence.rows() == sorted(expected)


def test_the_silhouette_is_that_of_scikit_learn():
    rows, works, _ = many(n_cliques=20, noise_works=20)
    found = cluster(rows, works, [5])
    assert found.silhouette[0] == pytest.approx(silhouette_score(rows, found.labels), abs=1e-6)


def test_with_many_vectors_the_silhouette_is_estimated_from_a_sample(monkeypatch):
    rows, works, _ = many()
    exact = cluster(rows, works, [4])
    monkeypatch.setattr(module, "MAX_SILHOUETTES", 200)
    sampled = cluster(rows, works, [4])
    assert sampled.silhouette != exact.silhouette
    assert sampled.silhouette[0] == pytest.approx(exact.silhouette[0], abs=0.02)
    assert sampled.labels.tolist() == exact.labels.tolist()


def test_the_same_seed_gives_the_same_clusters():
    rows, works, _ = many(n_cliques=20, noise_works=20)
    first, again = (cluster(rows, works, [4, 6], seed=3) for _ in range(2))
    assert first.labels.tolist() == again.labels.tolist()
    assert (first.inertia, first.silhouette) == (again.inertia, again.silhouette)


@pytest.mark.parametrize(
    ("rows", "ks", "message"),
    [
        (APART, [], "There is no k to try"),
        (APART, [1, 2], "k goes from 1 to 2, but 6 vectors fall into 2 to 5 clusters"),
        (APART, [2, 6], "k goes from 2 to 6, but 6 vectors fall into 2 to 5 clusters"),
        (APART[[0, 0, 0, 1, 1, 1]], [3], "3 clusters need as many distinct vectors.* are 2"),
        (APART[:5], [2], "There are 5 vectors and 6 work ids"),
        (np.full((6, 2), np.nan), [2], "6 vectors hold NaN"),
    ],
)
def test_impossible_numbers_of_clusters_are_refused(rows, ks, message):
    with pytest.raises(ValueError, match=message):
        cluster(rows, WORKS, ks)
