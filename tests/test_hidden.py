"""The share of versions that no label links is estimated when a collection is built."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from catalogue import altered, published
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from tunes import CALIBRATED, EMPTY, POINTS

from search import Searcher
from search.points import MIN_LINKED, MIN_VERSIONS, Description
from search.versions import hidden
from search.versions.hidden import Hidden, share

UNLABELLED = altered(
    CALIBRATED,
    payloads=[{"track_id": t, "work_id": f"W_{t}"} for t in CALIBRATED.track_ids],
)


@pytest.fixture(autouse=True, scope="module")
def all_are_neighbours():
    """The random vectors do not bring versions together."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hidden, "NEAREST", 39)
        yield


@pytest.fixture(scope="module")
def unlabelled(all_are_neighbours):
    with published(UNLABELLED) as engine:
        yield Searcher(engine)


@given(st.lists(st.floats(-6, 6), min_size=1, max_size=8), st.integers(0, 50))
def test_the_share_makes_the_ratios_likeliest(ratios, negatives):
    count = len(ratios) + negatives

    def loss(s):  # with one more positive and one more negative
        odds = np.log1p(s * np.expm1(ratios)).sum() + negatives * np.log1p(-s)
        return -(odds + np.log(s) + np.log1p(-s))

    best = minimize_scalar(loss, bounds=(1e-6, 1 - 1e-6), method="bounded", options={"xatol": 1e-8})
    assert share(np.array(ratios), count) == pytest.approx(best.x, rel=0.02)


def test_versions_without_labels_are_estimated(unlabelled):
    description = unlabelled.status().current
    assert (description.versions, description.linked) == (0, 0)
    # Nine works have four performances, and one is left of the tenth: the others are too short,
    # silent or empty.
    assert description.expected_versions == pytest.approx(3, abs=0.6)
    assert 0.75 < description.expected_linked < 1


def test_where_the_labels_are_complete_few_versions_are_hidden():
    with published(CALIBRATED) as engine:
        description = Searcher(engine).status().current
    assert description.versions == 3
    assert description.expected_versions == pytest.approx(3, abs=0.1)
    assert description.hidden_versions < 0.1
    assert description.expected_linked == description.linked == 1


def test_labels_do_not_change_which_work_is_found(unlabelled):
    found = unlabelled.identify("P_9")
    assert {found.work.work_id, *found.work.same_as} <= {f"W_P_{i}" for i in (8, 10, 11)}
    assert found.probability_of_none < 0.1


@pytest.mark.parametrize(
    "points",
    [
        pytest.param(POINTS, id="without a calibration"),
        pytest.param(altered(CALIBRATED, sequences=None, rate=None), id="without sequences"),
    ],
)
def test_without_alignments_nothing_is_estimated_and_a_few_versions_are_assumed(points):
    assert points.hidden() is None
    description = points.describe("b", "mine")
    assert description.hidden_versions == MIN_VERSIONS
    assert (description.expected_versions, description.expected_linked) == (3, 1)
    none_known = replace(description, versions=0.1, linked=0.05)
    assert none_known.expected_versions == MIN_VERSIONS
    assert none_known.expected_linked == MIN_LINKED


def test_one_performance_that_can_be_aligned_tells_nothing():
    rows = [CALIBRATED.track_ids.index(track_id) for track_id in ("P_0", EMPTY)]
    few = altered(
        CALIBRATED,
        **{
            name: [getattr(CALIBRATED, name)[row] for row in rows]
            for name in ("track_ids", "vectors", "payloads", "sequences")
        },
    )
    assert few.hidden() is None


def test_a_description_keeps_the_estimate_and_one_of_before_has_none():
    made = replace(POINTS.describe("b", "mine"), hidden=Hidden(1.5, 0.25))
    content = json.loads(json.dumps(asdict(made)))
    assert Description.from_json(content) == made
    del content["hidden"]
    assert Description.from_json(content) == replace(made, hidden=None)
