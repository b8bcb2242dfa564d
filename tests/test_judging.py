"""Probabilities of matches, `same_work` and `identify`."""

import json
from dataclasses import asdict

import pytest
from catalogue import altered, points_of, published
from tunes import CALIBRATED, CALIBRATION, EMPTY, POINTS, SHORT

from search import Calibration, InvalidQuery, Query, Searcher
from search.versions.calibration import Logistic


@pytest.fixture(scope="module")
def searcher():
    with published(CALIBRATED) as engine:
        yield Searcher(engine)


@pytest.fixture(scope="module")
def by_distance():
    """A collection without sequences: a work's vectors lie together, works far apart."""
    points = points_of(
        [f"P_{i:02d}" for i in range(40)],
        [[i // 4 * 50 + i % 4, 0] for i in range(40)],
        [{"work_id": f"W_{i // 4}", "work_title": f"Work {i // 4}"} for i in range(40)],
        calibration=Calibration(Logistic((-4.0,), -8.0)),
    )
    with published(points) as engine:
        yield Searcher(engine)


def test_every_match_has_a_probability_and_aligned_ones_stand_in_its_order(searcher):
    assert all(0 < match.probability < 1 for match in searcher.similar("P_0", 39))
    found = searcher.similar("P_0", 36, rerank=True)
    stated = [match.probability for match in found]
    assert stated == sorted(stated, reverse=True)
    assert all(match.same_work == (match.probability > 0.5) for match in found)
    vector = searcher.engine.open().performances(["P_0"])[0].vector
    assert all(match.probability is not None for match in searcher.similar(Query(vector)))


def test_without_a_calibration_there_is_no_probability_and_a_sentence_says_why():
    with published(POINTS) as engine:
        searcher = Searcher(engine)
        assert all(match.probability is None for match in searcher.similar("P_0", rerank=True))
        for ask in (lambda: searcher.same_work("P_0", "P_1"), lambda: searcher.identify("P_0")):
            with pytest.raises(InvalidQuery, match="has no probabilities, because its bundle"):
                ask()


def test_two_performances_are_of_one_work_or_not_and_in_both_orders_alike(searcher):
    yes, no = searcher.same_work("P_0", "P_1"), searcher.same_work("P_0", "P_5")
    assert yes.probability > 0.9
    assert no.probability < 0.1
    assert yes.track_id == "P_1"
    assert yes.alignment.stretches
    assert searcher.same_work("P_1", "P_0").probability == pytest.approx(yes.probability)
    assert searcher.same_work("P_5", "P_0").probability == pytest.approx(no.probability)
    with pytest.raises(InvalidQuery, match="P_1 was given twice"):
        searcher.same_work("P_1", "P_1")


@pytest.mark.parametrize("other", [EMPTY, SHORT])
def test_what_cannot_be_aligned_is_judged_by_its_distance(searcher, other):
    found = searcher.same_work("P_0", other)
    assert found.alignment is None
    assert found.probability == searcher.same_work(other, "P_0").probability
    (among,) = (m for m in searcher.similar("P_0", 39, rerank=True) if m.track_id == other)
    assert among.probability == pytest.approx(found.probability)


def test_a_work_is_named_by_its_other_performances_whatever_the_label(searcher):
    found = searcher.identify("P_9")
    assert found.work.work_id == "W_2"
    assert found.work == found.works[0]
    assert {match.track_id for match in found.work.performances} == {"P_8", "P_10", "P_11"}
    assert found.work.probability > 0.9 > 0.1 > found.probability_of_none
    assert found.probability_of_none + sum(work.probability for work in found.works) <= 1 + 1e-9
    assert len(searcher.identify("P_9", limit=2).works) == 2


def test_a_performance_without_versions_is_of_no_work_here():
    alone = [0, 1, 2, 3, 4, *range(8, 40)]  # of W_1 only P_4 is left
    rows = [CALIBRATED.track_ids.index(f"P_{i}") for i in alone]
    points = points_of(
        [CALIBRATED.track_ids[row] for row in rows],
        CALIBRATED.vectors[rows],
        [CALIBRATED.payloads[row] | {"clique_size": None} for row in rows],
        [CALIBRATED.sequences[row] for row in rows],
        CALIBRATED.rate,
        CALIBRATION,
    )
    with published(points) as engine:
        found = Searcher(engine).identify("P_4")
        assert found.work is None
        assert found.probability_of_none > max(work.probability for work in found.works)


def test_works_that_are_probably_one_are_named_as_one():
    """Without labels, each performance is a work; the three versions of P_0 are one candidate."""
    payloads = [{"work_id": track_id} for track_id in CALIBRATED.track_ids]
    with published(altered(CALIBRATED, payloads=payloads)) as engine:
        searcher = Searcher(engine)
        found = searcher.identify("P_0", limit=100)
        versions = {"P_1", "P_2", "P_3"}
        assert {found.work.work_id, *found.work.same_as} == versions
        assert {match.track_id for match in found.work.performances} == versions
        assert found.work.probability > 0.9
        total = found.probability_of_none + sum(work.probability for work in found.works)
        assert total == pytest.approx(1)
        assert searcher.identify("P_0", limit=1).work == found.work
        assert len(repr(found)) < 300
        assert json.loads(json.dumps(asdict(found)))["work"]["same_as"] == [*found.work.same_as]


def test_without_sequences_the_distance_decides(by_distance):
    assert by_distance.same_work("P_00", "P_01").probability > 0.5
    assert by_distance.same_work("P_00", "P_30").probability < 0.1
    found = by_distance.identify("P_00")
    assert (found.work.work_id, found.work.work_title) == ("W_0", "Work 0")
    assert all(match.alignment is None for match in found.work.performances)
