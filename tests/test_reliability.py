"""Whether stated probabilities can be trusted, and what a threshold accepts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding.metrics.reliability import at_thresholds, recall_at_precision, reliability


def test_four_pairs_agree_with_hand_worked_figures():
    found = reliability([0.15, 0.05, 0.95, 0.91], [False, False, True, False])
    # Bins: {.05} stated .05, true 0; {.15} .15, 0; {.95, .91} .93, 1/2.
    assert found.error == pytest.approx((0.05 + 0.15 + 2 * 0.43) / 4)
    assert found.curve["pairs"].to_list() == [1, 1, 2]
    assert found.curve["observed"].to_list() == [0, 0, 0.5]
    assert found.curve["low"].to_list() == pytest.approx([0, 0.1, 0.9])


def test_probabilities_that_are_right_have_almost_no_error(rng):
    stated = rng.random(200_000)
    assert reliability(stated, rng.random(200_000) < stated).error < 0.01
    assert reliability(stated, rng.random(200_000) < stated**2).error > 0.1


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=50))
def test_the_error_is_that_of_the_definition(pairs):
    stated, true = (np.array(each) for each in zip(*pairs, strict=True))
    expected = 0.0
    edges = np.linspace(0, 1, 11)
    for low, high in zip([-1, *edges[1:-1]], edges[1:], strict=True):
        inside = [i for i, p in enumerate(stated) if low < p <= high]
        if inside:
            gap = abs(np.mean(stated[inside]) - np.mean(true[inside]))
            expected += len(inside) / len(pairs) * gap
    assert reliability(stated, true).error == pytest.approx(expected)


def test_a_threshold_accepts_the_pairs_that_reach_it():
    stated, true = [0.95, 0.9, 0.8, 0.5, 0.1], [True, True, False, True, False]
    rows = at_thresholds(stated, true, relevant=6).rows()
    assert rows == [
        (0.5, 4, 3 / 4, 3 / 6),
        (0.8, 3, 2 / 3, 2 / 6),
        (0.9, 2, 1, 2 / 6),
        (0.95, 1, 1, 1 / 6),
    ]
    assert at_thresholds([0.2], [True], relevant=1)["precision"].to_list() == [None] * 4


def test_recall_at_a_precision_is_the_best_of_all_thresholds():
    stated, true = [0.9, 0.8, 0.8, 0.4, 0.3], [True, True, False, True, True]
    assert recall_at_precision(stated, true, 4, 0.95) == 1 / 4
    assert recall_at_precision(stated, true, 4, 0.75) == 1
    assert recall_at_precision([0.9, 0.8], [False, True], 1, 0.95) == 0
    assert recall_at_precision([0.9, 0.8], [False, False], 1, 0.95) == 0


def test_values_that_are_not_probabilities_are_refused():
    with pytest.raises(ValueError, match="between 0 and 1"):
        reliability([0.5, np.nan], [True, False])
    with pytest.raises(ValueError, match="at least one pair"):
        reliability([], [])
