"""Distances in blocks agree with a plain computation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from embedding.metrics import distances as module
from embedding.metrics.distances import DistanceMatrix, Euclidean, over_blocks

vectors = npst.arrays(
    np.float32,
    st.tuples(st.integers(1, 12), st.integers(1, 5)),
    elements=st.one_of(st.floats(-100, 100, width=32), st.integers(-2, 2).map(float)),
)


def plain(rows: np.ndarray) -> np.ndarray:
    rows = rows.astype(np.float64)
    return np.sqrt(((rows[:, None] - rows[None]) ** 2).sum(axis=2))


@given(vectors, st.randoms(use_true_random=False))
def test_blocks_hold_the_plain_distances_in_the_order_given(rows, random):
    order = np.array(random.sample(range(len(rows)), len(rows)))
    expected = plain(rows)[order][:, order]
    for distances in (Euclidean(rows), DistanceMatrix(plain(rows))):
        moved = distances.reordered(order)
        block = moved.block(slice(None))
        low, high = moved.ties(expected)
        assert ((low <= block) & (block <= high)).all()
        some = np.arange(len(rows))[::2]
        low, high = moved.ties(block[:, some])
        part = moved.block(slice(None), some)
        assert ((low <= part) & (part <= high)).all()
        assert block.max() <= distances.upper * (1 + 1e-12)


def test_identical_vectors_have_distance_0_however_far_from_the_origin():
    rows = 1e6 + np.random.default_rng(0).normal(size=(40, 16))
    rows[1::2] = rows[::2]
    distances = Euclidean(rows)
    assert (distances.block(slice(None))[np.arange(40), np.arange(40) ^ 1] == 0).all()


def test_a_block_loses_nothing_to_a_large_common_offset():
    rows = np.random.default_rng(0).normal(size=(50, 32)) + 1e5
    np.testing.assert_allclose(Euclidean(rows).block(slice(None)), plain(rows), rtol=1e-9)


@pytest.mark.parametrize(("dimension", "scale"), [(2, 1e-3), (512, 1.0), (4096, 1e3)])
def test_distances_tie_only_within_the_stated_tolerance(dimension, scale):
    rows = scale * np.random.default_rng(0).normal(size=(10, dimension))
    distances = Euclidean(rows)
    low, high = distances.ties(np.array([distances.upper]))
    assert 0 < high[0] - low[0] < 10 * (dimension + 16) * 1e-15 * distances.upper


@pytest.mark.parametrize("block", [1, 30, 10**6])
def test_blocks_come_in_order_and_cover_each_row_once(monkeypatch, block):
    monkeypatch.setattr(module, "BLOCK_SIZE", block)
    monkeypatch.setattr(module, "MIN_BLOCK_ROWS", 1)
    runs = over_blocks(17, 10, lambda rows: list(range(rows.start, rows.stop)))
    assert [row for run in runs for row in run] == list(range(17))


def test_an_error_in_a_block_is_raised():
    with pytest.raises(ZeroDivisionError):
        over_blocks(3, 3, lambda rows: 1 // 0)


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (Euclidean, [1.0, 2.0], r"Vectors have shape \(2,\)"),
        (Euclidean, np.zeros((3, 0)), r"Vectors have shape \(3, 0\)"),
        (Euclidean, [[1.0], [np.nan], [np.inf]], "2 vectors hold NaN .*, the first in row 1"),
        (Euclidean, [[1e200], [0.0]], "The vectors reach 1e\\+200"),
        (DistanceMatrix, np.zeros((2, 3)), r"The distances have shape \(2, 3\)"),
        (DistanceMatrix, [[0.0, np.nan], [1.0, 0.0]], "The distances range from nan"),
        (DistanceMatrix, [[0.0, np.inf], [1.0, 0.0]], "The distances range from 0 to inf"),
        (DistanceMatrix, [[0.0, -1.0], [-1.0, 0.0]], "The distances range from -1 to 0"),
    ],
)
def test_values_that_are_not_vectors_or_distances_are_refused(kind, values, message):
    with pytest.raises(ValueError, match=message):
        kind(values)


def test_a_matrix_knows_whether_it_is_symmetric():
    assert DistanceMatrix([[0, 1], [1, 0]]).symmetric
    assert not DistanceMatrix([[0, 1], [2, 0]]).symmetric
