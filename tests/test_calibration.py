"""Likelihood ratios, priors, and the probabilities of pairs and works."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.versions.calibration import (
    Calibration,
    Logistic,
    alignment_columns,
    pair_probability,
    relative,
    usual_distances,
    with_versions,
    work_probabilities,
)

ratios = st.lists(st.floats(-8, 8), min_size=1, max_size=5).map(np.array)


def test_a_calibration_survives_json():
    distance, alignment = Logistic((-1.5,), 0.25), Logistic((1.0, 0.5, -0.75, 0.1), -3.0)
    for made in (Calibration(distance, alignment), Calibration(distance)):
        assert Calibration.from_json(json.loads(json.dumps(asdict(made)))) == made


@pytest.mark.parametrize(
    "content",
    [
        {"distance": {"weights": [1, 2], "bias": 0}, "alignment": None},
        {"distance": {"weights": [float("nan")], "bias": 0}, "alignment": None},
        {"distance": {"weights": ["much"], "bias": 0}, "alignment": None},
        {"distance": {"weights": [1]}, "alignment": None},
        {"alignment": None},
    ],
)
def test_content_that_is_not_a_calibration_is_refused(content):
    with pytest.raises((KeyError, ValueError)):
        Calibration.from_json(content)


@pytest.mark.parametrize(
    ("count", "precision"), [(50, 1e-5), pytest.param(2500, 0.1, id="estimated from 1000")]
)
def test_usual_distances_are_the_mean_and_spread_over_the_nearer_half(rng, count, precision):
    vectors = rng.normal(size=(count, 5)).astype(np.float32)
    usual = usual_distances(vectors)
    for i in range(0, count, 7):
        others = np.linalg.norm(np.delete(vectors, i, 0).astype(np.float64) - vectors[i], axis=1)
        nearer = np.sort(others)[: count // 2]
        assert usual[i] == pytest.approx([nearer.mean(), nearer.std()], rel=precision)


def test_of_few_others_at_least_three_are_usual():
    vectors = np.array([[0], [1], [3], [7], [20]], np.float32)
    assert usual_distances(vectors)[0] == pytest.approx([11 / 3, np.std([1, 3, 7])])
    assert usual_distances(vectors[:3])[0] == pytest.approx([2, 1])


def test_without_others_no_distance_is_usual():
    assert usual_distances(np.ones((1, 2), np.float32)).tolist() == [[0, 1]]
    assert usual_distances(np.ones((5, 2), np.float32)).tolist() == [[0, 1]] * 5


@given(ratios, st.floats(0.1, 2), st.floats(0.1, 2))
def test_what_is_known_of_a_pair_is_the_same_for_both_orders(values, spread, other):
    a, b = np.array([0.5, spread]), np.array([-0.25, other])
    np.testing.assert_allclose(relative(values, a, b), relative(values, b, a))
    near = relative(values, a, b)
    np.testing.assert_allclose(
        alignment_columns(near, values, a, b, 0.1), alignment_columns(near, values, b, a, 0.1)
    )


def test_relative_values_are_in_standard_deviations_from_the_usual():
    assert relative([3.0], [1.0, 2.0], [4.0, 0.5]) == pytest.approx([(3 - 1) / 2 + (3 - 4) / 0.5])
    several = relative([3.0, 1.0], [1.0, 2.0], [[4.0, 0.5], [0.0, 1.0]])
    assert several == pytest.approx([-1, 1])


@given(ratios, st.floats(0.001, 20), st.integers(2, 100_000))
def test_a_probability_rises_with_the_evidence_and_falls_with_the_catalogue(found, versions, n):
    p = pair_probability(np.sort(found), versions, n)
    assert ((p > 0) & (p < 1)).all()
    assert (np.diff(p) >= 0).all()
    assert (pair_probability(np.sort(found), versions, 2 * n + 2) <= p).all()


@given(ratios, st.floats(0.001, 20), st.floats(0.001, 20), st.integers(2, 1000))
def test_a_probability_is_moved_to_another_prior(found, before, after, n):
    moved = [with_versions(p, before, after, n) for p in pair_probability(found, before, n)]
    assert moved == pytest.approx(pair_probability(found, after, n))


def test_evidence_that_says_nothing_leaves_the_prior():
    assert pair_probability(np.zeros(1), 3, 301) == pytest.approx([0.01])
    probabilities, none = work_probabilities([np.zeros(4), np.zeros(2)], 0.75, 7)
    assert probabilities == pytest.approx([0.5, 0.25])
    assert none == pytest.approx(0.25)


@given(st.lists(ratios, max_size=6), st.floats(0.001, 1), st.integers(2, 1000))
def test_works_and_none_share_all_of_the_probability(evidence, linked, n):
    probabilities, none = work_probabilities(evidence, linked, n)
    assert len(probabilities) == len(evidence)
    assert probabilities.sum() + none == pytest.approx(1)
    assert none > 0


@given(ratios, ratios, st.floats(0.1, 3))
def test_more_evidence_for_a_work_makes_it_likelier(first, second, more):
    before, _ = work_probabilities([first, second], 0.5, 100)
    after, _ = work_probabilities([first + more, second], 0.5, 100)
    assert after[0] > before[0]
    assert after[1] < before[1]
