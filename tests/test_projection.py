"""Projections: principal components without labels, and a discriminant of works with labels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedding.encoders.projection import Projection, fit_discriminant, fit_principal
from embedding.metrics.distances import Euclidean
from embedding.metrics.retrieval import retrieval


def rows_of_works(seed, works=40, each=4):
    """Two blocks of 8 columns: 3 tell works apart, and 5 are noise that varies more."""
    rng = np.random.default_rng(seed)
    labels = [f"W_{i // each}" for i in range(works * each)]
    own = np.repeat(rng.normal(size=(works, 2, 3)), each, axis=0)
    blocks = []
    for block in range(2):
        seen = own[:, block] + 0.2 * rng.normal(size=(works * each, 3))
        blocks.append(np.hstack([seen, 3 * rng.normal(size=(works * each, 5))]))
    return blocks, labels


def found(vectors, labels):
    return retrieval(Euclidean(vectors), labels, [f"{i:04d}" for i in range(len(labels))]).map


def test_other_works_are_told_apart_although_most_variance_is_within_works():
    projection = fit_discriminant(*rows_of_works(0), dimension=6, shrinkage=0.01)
    blocks, labels = rows_of_works(1)
    rows = np.hstack(blocks)
    plain = fit_principal(rows, dimension=6, tempering=0)
    assert found(projection(rows), labels) > 0.8
    assert found(plain(rows), labels) < 0.2


def test_a_block_of_noise_does_little_harm():
    def with_noise(seed):
        blocks, labels = rows_of_works(seed)
        return [*blocks, np.random.default_rng(seed).normal(size=(len(labels), 60))], labels

    projection = fit_discriminant(*with_noise(0), dimension=6, shrinkage=0.01)
    blocks, labels = with_noise(1)
    assert found(projection(np.hstack(blocks)), labels) > 0.7


@settings(max_examples=10)
@given(seed=st.integers(0, 99), scale=st.floats(0.01, 100))
def test_a_blocks_scale_does_not_matter(seed, scale):
    (first, second), labels = rows_of_works(seed)
    fitted = [
        fit_discriminant(blocks, labels, dimension=6, shrinkage=0.01)(np.hstack(blocks))
        for blocks in ((first, second), (scale * first, second))
    ]
    gram = [vectors @ vectors.T for vectors in fitted]
    np.testing.assert_allclose(gram[1], gram[0], rtol=0, atol=0.02)


def test_components_are_tempered():
    rows = np.random.default_rng(0).normal(size=(500, 3)) * [9, 4, 1]
    centred = rows - rows.mean(axis=0)
    for tempering, ratio in ((0, 9), (0.25, 3), (0.5, 1)):  # of the standard deviations
        axes = fit_principal(rows, dimension=3, tempering=tempering).matrix.astype(float)
        spreads = (centred @ axes).std(axis=0)
        assert spreads[0] / spreads[2] == pytest.approx(ratio, rel=0.15)


def test_more_columns_than_rows_give_the_same_components():
    rows = np.random.default_rng(0).normal(size=(30, 40))
    many = np.vstack([rows, rows])  # as many components, from the products of columns
    few, more = (fit_principal(each, dimension=10, tempering=0.2)(rows) for each in (rows, many))
    np.testing.assert_allclose(few @ few.T, more @ more.T, rtol=0, atol=5e-3)


def test_rows_that_are_all_the_same_teach_nothing():
    same = np.ones((6, 4))
    with pytest.raises(ValueError, match="nothing to learn"):
        fit_principal(same, dimension=2, tempering=0.3)
    with pytest.raises(ValueError, match="nothing to learn"):
        fit_discriminant([same], list("aabbcc"), dimension=2, shrinkage=0.1)


def test_it_comes_back_from_its_tensors_for_rows_of_its_length_only():
    made = fit_principal(np.random.default_rng(0).normal(size=(9, 4)), dimension=2, tempering=0.3)
    again = Projection.from_tensors(made.tensors(), 4)
    np.testing.assert_array_equal(again.matrix, made.matrix)
    with pytest.raises(ValueError, match=r"shapes \(4,\) and \(4, 2\), expected 5 rows"):
        Projection.from_tensors(made.tensors(), 5)
