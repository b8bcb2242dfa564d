"""A catalogue in which every performance is labelled as a work of its own."""

import json

import numpy as np
import pytest
from tunes import CALIBRATION, RATE, make_tune, noisy

import search
from search import Point, Points

WORKS, VERSIONS = 8, 3


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Three versions of each of eight tunes, with ids of digits."""
    home = tmp_path_factory.mktemp("unlabelled")
    points = []
    for i in range(WORKS * VERSIONS):
        work, version = divmod(i, VERSIONS)
        vector = np.random.default_rng(work).normal(size=8) + 0.01 * version
        tune = make_tune(work, 30, [1, 1.15, 1 / 1.15][version], version * 5)
        payload = {"work_id": f"{i:06}", "title": f"Tune {i}"}
        points.append(Point(f"{i:06}", vector.tolist(), payload, noisy(tune, i)))
    search.connect(home=home).publish(Points(points, rate=RATE, calibration=CALIBRATION), "tunes")
    return home


def test_versions_that_nobody_has_linked_are_one_answer(covers, home):
    found = json.loads(covers("identify", "000000", "--json", home=home).stdout)
    best = found["works"][0]
    assert {best["work_id"], *best["same_as"]} == {"000001", "000002"}
    assert best["probability"] > 0.5


def test_probable_works_are_groups_with_their_weakest_link(covers, home):
    found = covers("duplicates", "--min-probability", "0.9", "--json", home=home)
    groups = json.loads(found.stdout)["groups"]
    ids = {tuple(each["track_id"] for each in group["performances"]) for group in groups}
    assert ids == {
        tuple(f"{i:06}" for i in range(work, work + VERSIONS))
        for work in range(0, WORKS * VERSIONS, VERSIONS)
    }
    assert all(0.9 < group["weakest_link"]["probability"] <= 1 for group in groups)
