"""Distances in blocks: as exact as they say, and as a plain computation gives them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from embedding.metrics import distances as module
from embedding.metrics.distances import DistanceMatrix, Euclidean, count_below, over_blocks

finite = st.floats(-100, 100, width=32)
vectors = npst.arrays(
    np.float32,
    st.tuples(st.integers(1, 12), st.integers(1, 5)),
    elements=st.one_of(finite, st.integers(-2, 2).map(float)),
)


def plain(rows: np.ndarray) -> np.ndarray:
    rows = rows.astype(np.float64)
    return np.sqrt(((rows[:, None] - rows[None]) ** 2).sum(axis=2))


@given(vectors)
def test_exact_distances_are_the_plain_ones_and_a_block_holds_them_within_their_bounds(rows):
    distances, expected = Euclidean(rows), plain(rows)
    block = distances.block(slice(None))
    for row in range(len(rows)):
        exact = distances.exact(row, slice(None))
        np.testing.assert_allclose(exact, expected[row], rtol=1e-14, atol=0)
        low, high = distances.bounds(exact)
        assert (low <= block[row]).all()
        assert (block[row] <= high).all()
    assert block.max() <= distances.upper * (1 + 1e-12)


@given(vectors, st.randoms(use_true_random=False))
def test_reordering_performances_reorders_their_distances(rows, random):
    order = np.array(random.sample(range(len(rows)), len(rows)))
    moved = Euclidean(rows).reordered(order)
    expected = plain(rows)[order][:, order]
    for row in range(len(rows)):
        np.testing.assert_allclose(moved.exact(row, slice(None)), expected[row], rtol=1e-14)
    matrix = DistanceMatrix(plain(rows)).reordered(order)
    np.testing.assert_array_equal(matrix.block(slice(None)), expected)
    np.testing.assert_array_equal(matrix.exact(0, np.arange(len(rows))), expected[0])


def test_identical_vectors_are_no_distance_apart_however_far_from_the_origin():
    rng = np.random.default_rng(0)
    rows = 1e6 + rng.normal(size=(40, 16))
    rows[1::2] = rows[::2]
    distances = Euclidean(rows)
    twins = np.arange(40) ^ 1
    assert (distances.block(slice(None))[np.arange(40), twins] == 0).all()
    for row in range(40):
        exact = distances.exact(row, slice(None))
        assert exact[twins[row]] == 0
        assert (exact[::2] == exact[1::2]).all()


def test_a_block_loses_nothing_to_a_large_common_offset():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(50, 32)) + 1e5
    np.testing.assert_allclose(Euclidean(rows).block(slice(None)), plain(rows), rtol=1e-9)


def test_different_counts_the_vectors_that_are():
    assert Euclidean([[0.0, 1.0], [-0.0, 1.0], [2.0, 1.0]]).different == 2


@given(
    npst.arrays(
        np.float64,
        st.integers(0, 60),
        elements=st.one_of(st.integers(0, 5).map(float), st.floats(0, 1e6), st.just(np.inf)),
    ),
    npst.arrays(
        np.float64,
        st.integers(1, 30),
        elements=st.one_of(st.integers(0, 5).map(float), st.floats(0, 1e6)),
    ),
)
def test_counting_below_edges_equals_sorting_and_searching(values, edges):
    edges = np.sort(edges)
    np.testing.assert_array_equal(
        count_below(values, edges), np.searchsorted(np.sort(values), edges)
    )


@pytest.mark.parametrize("edges", [[5.0], [5.0, 5.0], [5.0, np.nextafter(5.0, 6)], [0.0, 1e149]])
def test_counting_below_edges_holds_for_extreme_ranges_of_edges(edges):
    values = np.concatenate([np.random.default_rng(0).random(1000) * 10, [5.0, 1e150, 0, np.inf]])
    expected = np.searchsorted(np.sort(values), edges)
    np.testing.assert_array_equal(count_below(values, np.array(edges)), expected)


@pytest.mark.parametrize("block", [1, 30, 10**6])
def test_blocks_come_in_order_and_cover_each_row_once(monkeypatch, block):
    monkeypatch.setattr(module, "BLOCK", block)
    monkeypatch.setattr(module, "MIN_ROWS", 1)
    runs = over_blocks(17, 10, lambda rows: list(range(rows.start, rows.stop)))
    assert [row for run in runs for row in run] == list(range(17))


def test_what_goes_wrong_in_a_block_is_not_swallowed():
    with pytest.raises(ZeroDivisionError):
        over_blocks(3, 3, lambda rows: 1 // 0)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([1.0, 2.0], r"Vectors have shape \(2,\)"),
        (np.zeros((3, 0)), r"Vectors have shape \(3, 0\)"),
        ([[1.0], [np.nan], [np.inf]], "2 vectors hold NaN or infinity, the first in row 1"),
        ([[1e200], [0.0]], "The vectors reach 1e\\+200"),
    ],
)
def test_vectors_that_have_no_distances_are_refused(rows, message):
    with pytest.raises(ValueError, match=message):
        Euclidean(rows)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((2, 3)), r"The distances have shape \(2, 3\)"),
        ([[0.0, np.nan], [1.0, 0.0]], "The distances range from nan"),
        ([[0.0, np.inf], [1.0, 0.0]], "The distances range from 0 to inf"),
        ([[0.0, -1.0], [-1.0, 0.0]], "The distances range from -1 to 0"),
    ],
)
def test_matrices_that_hold_no_distances_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        DistanceMatrix(values)


def test_a_matrix_knows_whether_it_is_symmetric():
    assert DistanceMatrix([[0, 1], [1, 0]]).symmetric
    assert not DistanceMatrix([[0, 1], [2, 0]]).symmetric
