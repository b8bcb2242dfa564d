"""Features are brought to one scale by the statistics of the training data alone."""

import numpy as np
import polars as pl
import pytest
from feature_stores import make_table
from hypothesis import given, settings
from hypothesis import strategies as st

from embedding.data.features import FEATURE_NAMES
from embedding.encoders.scaling import Standardizer


def means(table: pl.DataFrame) -> np.ndarray:
    return table.select(FEATURE_NAMES).to_numpy()


def test_training_features_get_mean_0_and_deviation_1():
    table = make_table()
    values = Standardizer.fit(means(table)).transform(means(table))
    assert values.shape == (45, 52)
    np.testing.assert_allclose(values.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(values.std(axis=0), 1, rtol=1e-12)


def test_other_features_are_scaled_by_the_training_statistics():
    training = make_table()
    one = training[:1].with_columns(tempo=pl.lit(200.0))
    tempo = training["tempo"].to_numpy()
    value = Standardizer.fit(means(training)).transform(means(one))[0, FEATURE_NAMES.index("tempo")]
    assert value == pytest.approx((200 - tempo.mean()) / tempo.std())


@settings(deadline=None)
@given(st.sampled_from(FEATURE_NAMES), st.floats(1e-3, 1e3), st.floats(-1e3, 1e3))
def test_the_unit_of_a_feature_does_not_matter(name, factor, offset):
    table = make_table(works=4)
    changed = table.with_columns(pl.col(name) * factor + offset)
    np.testing.assert_allclose(
        Standardizer.fit(means(changed)).transform(means(changed)),
        Standardizer.fit(means(table)).transform(means(table)),
        atol=1e-6,
    )


@pytest.mark.parametrize("rounding", [0, 1e-17])
def test_a_feature_that_was_constant_in_training_is_0_whatever_it_becomes(rounding):
    training = make_table()
    wobble = rounding * np.arange(len(training))
    training = training.with_columns(novfn=pl.Series(0.1 + wobble))
    other = training.with_columns(novfn=pl.lit(5.0))
    values = Standardizer.fit(means(training)).transform(means(other))
    np.testing.assert_array_equal(values[:, FEATURE_NAMES.index("novfn")], 0)
    assert np.abs(values).max() < 10


def test_the_statistics_come_back_from_tensors():
    fitted = Standardizer.fit(means(make_table()))
    again = Standardizer.from_tensors(fitted.tensors())
    np.testing.assert_array_equal(again.mean, fitted.mean)
    np.testing.assert_array_equal(again.scale, fitted.scale)
    with pytest.raises(ValueError, match=r"scaling.mean has shape \(51,\), expected \(52,\)"):
        Standardizer.from_tensors({**fitted.tensors(), "scaling.mean": fitted.mean[1:]})


def test_there_must_be_something_to_learn():
    with pytest.raises(ValueError, match="at least 2 performances to learn from, and there is 1"):
        Standardizer.fit(means(make_table()[:1]))
    same = pl.concat([make_table()[:1]] * 3)
    with pytest.raises(ValueError, match="All 3 training performances have the same features"):
        Standardizer.fit(means(same))
