"""Features are brought to one scale by the statistics of the training data alone."""

import numpy as np
import pytest
from feature_stores import make_table
from hypothesis import given
from hypothesis import strategies as st

from embedding.data.features import FEATURE_NAMES
from embedding.encoders.scaling import Standardizer

TEMPO = FEATURE_NAMES.index("tempo")


TABLE = make_table().select(FEATURE_NAMES).to_numpy()


def features() -> np.ndarray:
    return TABLE.copy()


def test_training_features_get_mean_0_and_deviation_1():
    values = Standardizer.fit(features()).transform(features())
    assert values.shape == (45, 52)
    np.testing.assert_allclose(values.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(values.std(axis=0), 1, rtol=1e-12)


def test_other_features_are_scaled_by_the_training_statistics():
    training, other = features(), features()[:1]
    other[0, TEMPO] = 200
    mean, deviation = training[:, TEMPO].mean(), training[:, TEMPO].std()
    value = Standardizer.fit(training).transform(other)[0, TEMPO]
    assert value == pytest.approx((200 - mean) / deviation)


@given(st.integers(0, 51), st.floats(1e-3, 1e3), st.floats(-1e3, 1e3))
def test_the_unit_of_a_feature_does_not_matter(column, factor, offset):
    plain, changed = features(), features()
    changed[:, column] = changed[:, column] * factor + offset
    results = [Standardizer.fit(each).transform(each) for each in (plain, changed)]
    np.testing.assert_allclose(*results, atol=1e-6)


@pytest.mark.parametrize("rounding", [0, 1e-17])
def test_a_feature_that_was_constant_in_training_becomes_0_for_any_value(rounding):
    training, other = features(), features()
    training[:, TEMPO] = 0.1 + rounding * np.arange(len(training))
    other[:, TEMPO] = 5
    values = Standardizer.fit(training).transform(other)
    np.testing.assert_array_equal(values[:, TEMPO], 0)
    assert np.abs(values).max() < 10


def test_the_statistics_come_back_from_tensors():
    fitted = Standardizer.fit(features())
    again = Standardizer.from_tensors(fitted.tensors())
    np.testing.assert_array_equal(again.mean, fitted.mean)
    np.testing.assert_array_equal(again.scale, fitted.scale)


def test_there_must_be_something_to_learn():
    with pytest.raises(ValueError, match="at least 2 performances to learn from, and there is 1"):
        Standardizer.fit(features()[:1])
    with pytest.raises(ValueError, match="All 3 training performances have the same features"):
        Standardizer.fit(features()[[0, 0, 0]])
