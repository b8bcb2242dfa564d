"""What a point is, and what may become one."""

from uuid import UUID, uuid5

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search import InvalidPoints, Points
from search.collection import NAMESPACE, point_id
from search.fields import FIELDS


def points(ids=("P_1", "P_2"), vectors=((1, 2), (3, 4)), payloads=None) -> Points:
    return Points(list(ids), vectors, payloads or [{"work_id": "W_1"}] * len(ids))


def test_the_id_of_a_point_follows_from_the_track_id_for_ever():
    assert UUID("cee07c72-9fbf-5ce6-bb0e-2826bdd8ca19") == NAMESPACE
    assert point_id("P_547131") == uuid5(NAMESPACE, "P_547131")
    assert str(point_id("P_547131")) == "bcd6975f-cb8e-5908-b479-f64bf97beabc"


def test_points_are_sorted_and_completed():
    made = points(
        ids=["P_2", "P_10", "P_1"],
        vectors=[[2, 0], [10, 0], [1, 0]],
        payloads=[
            {"work_id": "W_1", "title": "Two", "year": None},
            {"work_id": "W_1", "clique_size": 7},
            {"work_id": "W_2"},
        ],
    )
    assert made.track_ids == ["P_1", "P_10", "P_2"]
    assert made.vectors.tolist() == [[1, 0], [10, 0], [2, 0]]
    assert made.vectors.dtype == np.float32
    assert made.payloads == [
        {"track_id": "P_1", "work_id": "W_2", "clique_size": 1},
        {"track_id": "P_10", "work_id": "W_1", "clique_size": 7},
        {"track_id": "P_2", "work_id": "W_1", "clique_size": 2, "title": "Two"},
    ]
    # The others are 9 and 1 away.
    computed = {"usual_distance": [5.0, 4.0], "digest": made.digests[0]}
    assert made.payload(0, "b") == {**made.payloads[0], "bundle": "b", **computed}
    assert (len(made), made.dimension) == (3, 2)


@given(order=st.permutations(range(5)))
def test_a_collection_is_named_by_its_content_in_whatever_order_it_comes(order):
    ids = [f"P_{i}" for i in order]
    vectors = [[i, i / 3] for i in order]
    payloads = [{"work_id": f"W_{i // 2}", "year": 1900 + i} for i in order]
    description = Points(ids, vectors, payloads).describe("means")
    assert description.name == "covers-means-5e5e22ac"
    assert (description.points, description.dimension) == (5, 2)


@pytest.mark.parametrize(
    "other",
    [
        points(vectors=[[1, 2], [3, 4.000001]]),
        points(ids=["P_1", "P_3"]),
        points(payloads=[{"work_id": "W_1"}, {"work_id": "W_2"}]),
        points(payloads=[{"work_id": "W_1"}, {"work_id": "W_1", "year": 1990}]),
        points(vectors=[[1, 2, 0], [3, 4, 0]]),
    ],
)
def test_another_content_has_another_name(other):
    assert other.describe("b").name != points().describe("b").name


def test_a_digest_is_of_a_performance_alone():
    one = points()
    longer = points(
        ids=["P_1", "P_2", "P_3"],
        vectors=[[1, 2], [3, 4], [9, 9]],
        payloads=[{"work_id": "W_1", "clique_size": 2}] * 2 + [{"work_id": "W_2"}],
    )
    assert one.payload(0, "b")["usual_distance"] != longer.payload(0, "b")["usual_distance"]
    assert longer.digests[:2] == one.digests
    assert len({point for point, _ in longer.digests}) == 3


@pytest.mark.parametrize("bundle", ["", "a/b", "..", "a b", "ä", "x" * 101, "a.building"])
def test_a_bundle_that_cannot_be_part_of_a_name_is_refused(bundle):
    with pytest.raises(InvalidPoints, match="can't name a bundle"):
        points().describe(bundle)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"ids": []}, "there are 0 ids, 2 vectors"),
        ({"ids": [], "vectors": [], "payloads": []}, "no performance to publish"),
        ({"payloads": [{"work_id": "W"}]}, "2 ids, 2 vectors and 1 payloads"),
        ({"ids": ["P_1", ""]}, "'' is no track id"),
        ({"ids": ["P_1", None]}, "None is no track id"),
        ({"ids": ["P_1", "\ud800"]}, "is no track id"),
        ({"ids": ["P_1", "P_1"]}, "Performance P_1 is there twice"),
        ({"vectors": [[1, 2], [3, np.nan]]}, r"performance P_2 is not finite \(nan at component 1"),
        ({"vectors": [[1, -np.inf], [3, 4]]}, r"performance P_1 is not finite \(-inf at"),
        ({"vectors": [[1, 2], [1e300, 4]]}, r"performance P_2 is not finite \(inf at component 0"),
        ({"vectors": [[1, 2], [3]]}, "P_2 has 1 components where the others have 2"),
        ({"vectors": np.zeros(2)}, r"not \(2,\)"),
        ({"vectors": np.zeros((2, 0))}, r"not \(2, 0\)"),
        ({"payloads": [{"work_id": "W"}, {"work_id": ""}]}, "Performance P_2 has no work_id"),
        ({"payloads": [{"work_id": "W"}, {}]}, "Performance P_2 has no work_id"),
        ({"payloads": [{"work_id": "W", "track_id": "Q"}, {"work_id": "W"}]}, "says it were Q"),
        (
            {"payloads": [{"work_id": "W", "key": "C"}, {"work_id": "W"}]},
            f"P_1 has a field 'key' that a point hasn't: the fields are {', '.join(FIELDS)}",
        ),
        (
            {"payloads": [{"work_id": "W"}, {"work_id": "W", "outlier": True}]},
            "P_2 has 'outlier', which only an evaluation finds out",
        ),
        (
            {"payloads": [{"work_id": "W"}, {"work_id": "W", "year": 1990.0}]},
            "year of performance P_2 can't be 1990.0: it is an integer",
        ),
        (
            {"payloads": [{"work_id": "W"}, {"work_id": "W", "instrumental": 1}]},
            "instrumental of performance P_2 can't be 1: it is true or false",
        ),
    ],
)
def test_what_must_not_go_in_is_refused_by_name(wrong, words):
    with pytest.raises(InvalidPoints, match=words):
        points(**wrong)
