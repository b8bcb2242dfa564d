"""Separation metrics agree with hand-worked figures, scikit-learn and a matrix of all pairs."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, silhouette_score
from vectors import collections, many, moved, plain_distances

from embedding.metrics import distances as blocks
from embedding.metrics.cliques import group
from embedding.metrics.distances import DistanceMatrix, Euclidean
from embedding.metrics.separation import HISTOGRAM_BINS, separation, silhouettes


def pairs(rows, works):
    """All distances once, whether each is in a clique, and the whole matrix."""
    matrix, works = plain_distances(rows), np.array(works)
    first, second = np.triu_indices(len(works), 1)
    return matrix[first, second], works[first] == works[second], matrix


# Five performances on a line; P_5 is the only one of its work.
#
#   P_1 a       P_2 a   P_3 b           P_4 b       P_5 n
#    0           2       3               6           8
LINE = [[0], [2], [3], [6], [8]]
LINE_WORKS = ["W_a", "W_a", "W_b", "W_b", "W_n"]
LINE_TRACKS = ["P_1", "P_2", "P_3", "P_4", "P_5"]


def test_five_performances_on_a_line_agree_with_hand_worked_figures():
    # In-clique: 2 (a), 3 (b). Out-of-clique: a-b 3, 6, 1, 4; a-n 8, 6; b-n 5, 2.
    found = separation(Euclidean(LINE), LINE_WORKS, LINE_TRACKS)
    assert found.in_clique == pytest.approx((2 + 3) / 2)
    assert found.out_of_clique == pytest.approx((3 + 6 + 1 + 4 + 8 + 6 + 5 + 2) / 8)
    # Of 8 out-of-clique pairs, 6 are further than 2 and one as far; 5 further than 3, one as far.
    assert found.auc == pytest.approx((6 + 1 / 2 + 5 + 1 / 2) / 16)
    # At 2 and at 3, half of the in-clique pairs meet an eighth of the others.
    assert found.overlap == pytest.approx(1 / 8 + 1 / 8)
    # P_1: a = 2, b = (3 + 6) / 2 to work b.   P_2: a = 2, b = (1 + 4) / 2.
    # P_3: a = 3, b = (3 + 1) / 2 to work a.   P_4: a = 3, b = 2 to work n.   P_5 is alone: 0.
    expected = [(4.5 - 2) / 4.5, (2.5 - 2) / 2.5, (2 - 3) / 3, (2 - 3) / 3, 0]
    assert found.silhouette == pytest.approx(np.mean(expected))
    assert found.per_clique.to_dict(as_series=False) == {
        "work_id": ["W_a", "W_b"],
        "performances": [2, 2],
        "in_clique": pytest.approx([2, 3]),
        "out_of_clique": pytest.approx([(3 + 6 + 8 + 1 + 4 + 6) / 6, (3 + 1 + 5 + 6 + 4 + 2) / 6]),
    }
    assert found.per_query.to_dict(as_series=False) == {
        "track_id": ["P_1", "P_2", "P_3", "P_4"],
        "work_id": ["W_a", "W_a", "W_b", "W_b"],
        "in_clique": pytest.approx([2, 2, 3, 3]),
    }
    names = {"auc", "overlap", "silhouette", "in_clique", "out_of_clique"}
    assert set(found.summary()) == names
    matrix = plain_distances(LINE)
    np.fill_diagonal(matrix, 7.0)  # ignored
    given_distances = separation(DistanceMatrix(matrix), LINE_WORKS, LINE_TRACKS)
    assert given_distances.summary() == pytest.approx(found.summary())
    matrix[0, 1] += 1
    with pytest.raises(ValueError, match="differ by direction"):
        separation(DistanceMatrix(matrix), LINE_WORKS, LINE_TRACKS)


@given(collections(), st.booleans())
def test_figures_are_those_of_a_matrix_of_all_pairs(collection, as_matrix):
    rows, works, tracks = collection
    assume(len(set(works)) > 1)
    distances, inside, matrix = pairs(rows, works)
    vectors = DistanceMatrix(matrix) if as_matrix else Euclidean(rows)
    found = separation(vectors, works, tracks)
    all_drawn = separation(vectors, works, tracks, sample=len(rows), seed=3)
    assert all_drawn.summary() == found.summary()
    assert all_drawn.intervals == found.intervals == {}
    assert found.in_clique == pytest.approx(distances[inside].mean(), rel=1e-6)
    assert found.out_of_clique == pytest.approx(distances[~inside].mean(), rel=1e-6)
    assert found.auc == pytest.approx(roc_auc_score(inside, -distances), rel=1e-12)
    silhouette = silhouette_score(matrix, works, metric="precomputed")
    assert found.silhouette == pytest.approx(silhouette, rel=1e-6, abs=1e-6)
    assert len(found.edges) == HISTOGRAM_BINS + 1
    np.testing.assert_array_equal(found.in_counts, np.histogram(distances[inside], found.edges)[0])
    np.testing.assert_array_equal(
        found.out_counts, np.histogram(distances[~inside], found.edges)[0]
    )
    shares = found.in_counts / inside.sum(), found.out_counts / (~inside).sum()
    assert found.overlap == pytest.approx(np.minimum(*shares).sum())
    for clique in found.per_clique.iter_rows(named=True):
        members = np.array(works) == clique["work_id"]
        within = matrix[np.ix_(members, members)].sum() / members.sum() / (members.sum() - 1)
        assert clique["performances"] == members.sum()
        assert clique["in_clique"] == pytest.approx(within, rel=1e-6)
        out = matrix[np.ix_(members, ~members)].mean()
        assert clique["out_of_clique"] == pytest.approx(out, rel=1e-6)


def test_neither_blocks_nor_order_nor_place_nor_direction_of_the_vectors_matters(monkeypatch):
    rows, works, tracks = many()
    distances, inside, matrix = pairs(rows, works)
    expected = separation(Euclidean(rows), works, tracks)
    assert expected.summary() == pytest.approx(
        {
            "auc": roc_auc_score(inside, -distances),
            "overlap": expected.overlap,
            "silhouette": silhouette_score(matrix, works, metric="precomputed"),
            "in_clique": distances[inside].mean(),
            "out_of_clique": distances[~inside].mean(),
        },
        rel=1e-9,
    )
    for (vectors, *ids), precision in zip(moved(rows, works, tracks), (1e-9, 1e-6), strict=True):
        found = separation(Euclidean(vectors), *ids)
        assert found.summary() == pytest.approx(expected.summary(), rel=precision)
        assert found.per_clique["work_id"].equals(expected.per_clique["work_id"])
    monkeypatch.setattr(blocks, "MIN_BLOCK_ROWS", 1)
    for block in (1, 5000):
        monkeypatch.setattr(blocks, "BLOCK_SIZE", block)
        found = separation(Euclidean(rows), works, tracks)
        assert found.summary() == pytest.approx(expected.summary(), rel=1e-9)
        assert found.overlap == expected.overlap


def test_cliques_of_identical_vectors_are_perfectly_separated():
    works = ["W_a", "W_a", "W_b", "W_b"]
    found = separation(Euclidean([[0, 0], [0, 0], [3, 4], [3, 4]]), works, LINE_TRACKS[:4])
    assert (found.auc, found.overlap, found.silhouette) == (1.0, 0.0, 1.0)
    assert (found.in_clique, found.out_of_clique) == (0.0, 5.0)


def test_a_collapsed_encoder_does_not_separate_cliques():
    rows, works, tracks = many(n_cliques=300, noise_works=100)
    for value in (0.0, 0.3):
        found = separation(Euclidean(np.full_like(rows, value)), works, tracks)
        assert (found.auc, found.overlap, found.silhouette) == (0.5, 1.0, 0.0)
        assert (found.in_clique, found.out_of_clique) == (0.0, 0.0)
        assert (np.diff(found.edges) > 0).all()


def test_a_silhouette_is_zero_where_nothing_is_near_or_far():
    sums = np.array([[0.0, 4.0], [3.0, 0.0], [0.0, 0.0]])
    found = silhouettes(sums, sizes=np.array([2, 1]), own=np.array([0, 1, 0]))
    assert found.tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("rows", "works", "message"),
    [
        ([[0], [1]], ["W_a", "W_a"], "All 2 performances are of 'W_a'"),
        ([[0], [1], [2]], ["W_a", "W_a"], "distances of 3 performances and ids of 2"),
        (
            np.arange(1000)[:, None],
            ["W_a", "W_a", *(f"W_{n}" for n in range(998))],
            "None of the 2 performances drawn has another",
        ),
    ],
)
def test_a_collection_that_cannot_be_measured_is_refused(rows, works, message):
    tracks = [f"P_{row:03d}" for row in range(len(works))]
    with pytest.raises(ValueError, match=message):
        separation(Euclidean(rows), works, tracks, sample=2)


@given(collections(), st.integers(1, 25), st.integers(0, 9))
def test_a_sample_measures_all_pairs_that_contain_a_drawn_performance(collection, size, seed):
    rows, works, tracks = collection
    assume(len(set(works)) > 1)
    cliques = group(works, tracks)
    drawn = cliques.sample(len(rows), size, seed)
    assume((drawn < cliques.queries).any())
    found = separation(Euclidean(rows), works, tracks, size, seed)
    ordered = np.array(works)[cliques.order]
    all_distances, inside, matrix = pairs(np.asarray(rows)[cliques.order], ordered)
    first, second = np.triu_indices(len(rows), 1)
    counted = np.isin(first, drawn) | np.isin(second, drawn)
    assert found.in_clique == pytest.approx(all_distances[counted & inside].mean())
    assert found.out_of_clique == pytest.approx(all_distances[counted & ~inside].mean(), abs=1e-6)
    assert found.in_counts.sum() == (counted & inside).sum()
    assert found.out_counts.sum() == (counted & ~inside).sum()
    right = roc_auc_score(inside[counted], -all_distances[counted])
    assert found.auc == pytest.approx(right)
    for work, _, near, far in found.per_clique.iter_rows():
        own = np.flatnonzero(ordered == work)
        of_work = counted & inside & (ordered[first] == work)
        assert near == pytest.approx(all_distances[of_work].mean())
        apart = matrix[np.ix_(np.intersect1d(own, drawn), np.flatnonzero(ordered != work))]
        assert far == pytest.approx(apart.mean())


def test_the_intervals_of_a_sample_cover_the_figures_of_all_pairs():
    rows, works, tracks = many(noise_works=20)
    distances = Euclidean(rows)
    exact = separation(distances, works, tracks)
    samples = [separation(distances, works, tracks, 100, seed) for seed in range(20)]
    for name in ("auc", "silhouette", "in_clique", "out_of_clique"):
        true = getattr(exact, name)
        intervals = [sample.intervals[name] for sample in samples]
        assert sum(low <= true <= high for low, high in intervals) >= 17, name
