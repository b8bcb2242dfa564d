"""What a point is, and which performances can become points."""

from uuid import UUID, uuid5

import numpy as np
import pytest
from catalogue import altered, make_points, points_of
from hypothesis import given
from hypothesis import strategies as st

from search import InvalidPoints, Points
from search.fields import FIELDS
from search.point import NAMESPACE, point_id
from search.points import WORKS_IN_MAP


def points(ids=("P_1", "P_2"), vectors=((1, 2), (3, 4)), payloads=None) -> Points:
    return points_of(ids, vectors, payloads or [{"work_id": "W_1"}] * len(ids))


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
    description = made.describe("b", "mine")
    assert made.content(0, description) == {
        **made.payloads[0],
        "words": [],
        "bundle": "b",
        "collection": description.name,
        "digest": made.digests[0],
    }
    # The others are 9 and 1 away.
    computed = {"usual_distance": 5.0, "usual_spread": 4.0}
    assert made.payload(0, description) == made.content(0, description) | computed
    assert made.payload(1, description)["in_map"] is True  # another performance of W_1 is here
    assert (len(made), made.dimension) == (3, 2)
    assert repr(made) == "Points(P_1, P_10, P_2; dimension 2)"


def test_what_a_collection_holds_can_be_published_again():
    made = make_points(20)
    assert altered(made).describe("b", "mine") == made.describe("b", "mine")


def test_the_performances_of_the_largest_works_are_marked_for_a_picture():
    sizes = [*range(2, 22), 1, 1]
    works = [f"W_{i:02d}" for i, size in enumerate(sizes) for _ in range(size)]
    made = points(
        ids=[f"P_{i:03d}" for i in range(len(works))],
        vectors=np.arange(2 * len(works)).reshape(-1, 2),
        payloads=[{"work_id": work} for work in works],
    )
    description = made.describe("b", "mine")
    payloads = [made.payload(i, description) for i in range(len(made))]
    marked = {payload["work_id"] for payload in payloads if payload.get("in_map")}
    assert marked == {f"W_{i:02d}" for i in range(20 - WORKS_IN_MAP, 20)}


@given(order=st.permutations(range(5)))
def test_a_collection_is_named_by_its_content_in_whatever_order_it_comes(order):
    ids = [f"P_{i}" for i in order]
    vectors = [[i, i / 3] for i in order]
    payloads = [{"work_id": f"W_{i // 2}", "year": 1900 + i} for i in order]
    description = points(ids, vectors, payloads).describe("means", "mine", {"from": "here"})
    assert description.name == "mine-means-da8c89ed"
    assert description.origin == {"from": "here"}
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
    assert other.describe("b", "mine").name != points().describe("b", "mine").name


def test_a_digest_is_of_a_performance_alone():
    short = points()
    longer = points(
        ids=["P_1", "P_2", "P_3"],
        vectors=[[1, 2], [3, 4], [9, 9]],
        payloads=[{"work_id": "W_1", "clique_size": 2}] * 2 + [{"work_id": "W_2"}],
    )
    first, second = (
        made.payload(0, made.describe("b", "mine"))["usual_distance"] for made in (short, longer)
    )
    assert first != second
    assert longer.digests[:2] == short.digests
    assert len(set(longer.digests)) == 3


@pytest.mark.parametrize("bundle", ["", "a/b", "..", "a b", "ä", "x" * 101, "a.building"])
def test_a_bundle_that_cannot_be_part_of_a_name_is_refused(bundle):
    with pytest.raises(InvalidPoints, match="cannot name a bundle"):
        points().describe(bundle, "mine")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"ids": [], "vectors": [], "payloads": []}, "no performance to publish"),
        ({"ids": ["P_1", ""]}, "'' is not a track id"),
        ({"ids": ["P_1", None]}, "None is not a track id"),
        ({"ids": ["P_1", "\ud800"]}, "is not a track id"),
        ({"ids": ["P_1", "P_1"]}, "Performance P_1 is there twice"),
        ({"vectors": [[1, 2], [3, np.nan]]}, r"performance P_2 is not finite \(nan at component 1"),
        ({"vectors": [[1, -np.inf], [3, 4]]}, r"performance P_1 is not finite \(-inf at"),
        ({"vectors": [[1, 2], [1e300, 4]]}, r"performance P_2 is not finite \(inf at component 0"),
        ({"vectors": [[1, 2], [3]]}, "P_2 has 1 components where P_1 has 2"),
        ({"vectors": np.zeros(2)}, r"P_1 has the shape \(\), where it must be a list of numbers"),
        ({"vectors": np.zeros((2, 0))}, r"P_1 has the shape \(0,\)"),
    ],
)
def test_ids_and_vectors_that_must_not_go_in_are_refused_by_name(wrong, words):
    with pytest.raises(InvalidPoints, match=words):
        points(**wrong)


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        ({"work_id": ""}, "Performance P_2 has no work_id"),
        ({"work_id": None}, "Performance P_2 has no work_id"),
        ({"track_id": "Q"}, "The payload of performance P_2 has track_id Q"),
        ({"key": "C"}, f"field 'key' that points do not have: the fields are {', '.join(FIELDS)}"),
        ({"outlier": True}, "P_2 has 'outlier', which only an evaluation finds out"),
        ({"in_map": True}, "P_2 has 'in_map', which publishing fills in: leave it out"),
        ({"year": 1990.0}, "year of performance P_2 cannot be 1990.0: it is an integer"),
        ({"instrumental": 1}, "instrumental of performance P_2 cannot be 1: it is true or false"),
    ],
)
def test_a_payload_that_must_not_go_in_is_refused_by_name(payload, words):
    with pytest.raises(InvalidPoints, match=words):
        points(payloads=[{"work_id": "W"}, {"work_id": "W"} | payload])
