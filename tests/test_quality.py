"""Which performances are near their versions, and which are suspiciously far."""

import itertools

import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from vectors import collections

from embedding.metrics.distances import Euclidean
from embedding.metrics.quality import quality
from embedding.metrics.retrieval import retrieval
from embedding.metrics.separation import separation


def judged(rows, works, tracks) -> pl.DataFrame:
    distances = Euclidean(np.asarray(rows, np.float32))
    return quality(retrieval(distances, works, tracks), separation(distances, works, tracks))


def test_a_performance_far_from_its_versions_is_told_from_the_others():
    # Four pairs, 1, 2, 2 and 3 apart; a work of three, one of them 30 away; a noise work beside it.
    #
    #   a a   b b    c c    d d    e e        n e
    #   0 1   10 12  20 22  30 33  40 41     70 71
    rows = [[0], [1], [10], [12], [20], [22], [30], [33], [40], [41], [71], [70]]
    works = ["W_a", "W_a", "W_b", "W_b", "W_c", "W_c", "W_d", "W_d", "W_e", "W_e", "W_e", "W_n"]
    tracks = [f"P_{i:02}" for i in range(12)]
    found = judged(rows, works, tracks)
    assert found.columns == ["track_id", "work_id", "nearest_cover", "clique_distance", "outlier"]
    assert found["track_id"].to_list() == tracks[:11]  # the noise work has no row
    assert found["work_id"].to_list() == works[:11]
    # From 71, n is nearer, and then e at 41.
    assert found["nearest_cover"].to_list() == [1] * 10 + [2]
    expected = [1, 1, 2, 2, 2, 2, 3, 3, (1 + 31) / 2, (1 + 30) / 2, (31 + 30) / 2]
    assert found["clique_distance"].to_list() == pytest.approx(expected)
    # The quartiles are 2 and 9.25, so the fence is at 20.125.
    assert found.filter("outlier")["track_id"].to_list() == ["P_10"]


def test_distances_that_differ_in_their_last_digits_make_no_outlier():
    # From each corner of a box, the other corners are equally far, added up in another order.
    corners = itertools.product([0, 1], [0, 5], [0, 7])
    rows = [[100 * work + x, y, z] for x, y, z in corners for work in range(2)]
    found = judged(rows, ["W_0", "W_1"] * 8, [f"P_{i:02}" for i in range(16)])
    distances = found["clique_distance"]
    low, high = np.percentile(distances, [25, 75])
    assert distances.max() > high + 1.5 * (high - low)
    assert not found["outlier"].any()


@given(collections(), st.integers(-3, 3), st.randoms(use_true_random=False))
def test_neither_the_scale_nor_the_order_matters(collection, exponent, random):
    rows, works, tracks = collection
    assume(len(set(works)) > 1)
    expected = judged(rows, works, tracks)
    scale = 2.0**exponent  # which changes no digit
    order = random.sample(range(len(rows)), len(rows))
    found = judged(scale * rows[order], [works[i] for i in order], [tracks[i] for i in order])
    assert found.drop("clique_distance").equals(expected.drop("clique_distance"))
    distances = (found["clique_distance"] / scale).to_numpy()
    np.testing.assert_allclose(distances, expected["clique_distance"], rtol=1e-6, atol=1e-9)


@given(collections())
def test_each_distance_is_the_mean_over_the_versions(collection):
    rows, works, tracks = collection
    assume(len(set(works)) > 1)
    found = judged(rows, works, tracks)
    place = {track_id: i for i, track_id in enumerate(tracks)}
    for track_id, work_id, distance in found.select(
        "track_id", "work_id", "clique_distance"
    ).iter_rows():
        versions = [i for i in range(len(rows)) if works[i] == work_id and tracks[i] != track_id]
        away = np.linalg.norm(rows[versions].astype(float) - rows[place[track_id]], axis=1)
        assert distance == pytest.approx(away.mean())
    assert found["track_id"].to_list() == sorted(
        track_id for track_id, work in zip(tracks, works, strict=True) if works.count(work) > 1
    )


def test_figures_of_different_performances_are_refused():
    rows, works, tracks = [[0], [1], [5]], ["W_a", "W_a", "W_b"], ["P_1", "P_2", "P_3"]
    others = ["P_1", "P_4", "P_3"]
    distances = Euclidean(np.array(rows, np.float32))
    with pytest.raises(ValueError, match="measure both on the same performances"):
        quality(retrieval(distances, works, tracks), separation(distances, works, others))
