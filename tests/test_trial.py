"""Measuring what a user would be answered: ranks, probabilities, and which work was named."""

import numpy as np
import polars as pl
import pytest
from catalogue import altered, make_points
from tunes import CALIBRATED, SHORT

from flows.measuring import trial

WORKS = {
    track_id: payload["work_id"]
    for track_id, payload in zip(CALIBRATED.track_ids, CALIBRATED.payloads, strict=True)
}


@pytest.fixture(scope="module")
def searcher(tmp_path_factory):
    with trial.published(CALIBRATED, "b", tmp_path_factory.mktemp("trial")) as searcher:
        yield searcher


@pytest.fixture(scope="module")
def responses(searcher):
    return trial.ask(searcher, ["P_0", "P_9", SHORT])


@pytest.mark.parametrize("rerank", [True, False])
def test_the_responses_are_those_of_search(searcher, responses, rerank):
    asked = searcher.similar("P_9", 39, rerank=rerank)
    rows = (responses.reranked if rerank else responses.distance).filter(query="P_9")
    assert rows["match"].to_list() == [match.track_id for match in asked]
    assert rows["probability"].to_list() == [match.probability for match in asked]
    assert rows["rank"].to_list() == list(range(1, 40))


def test_what_is_too_short_to_be_aligned_is_answered_by_distance(responses):
    by_distance = responses.distance.filter(query=SHORT)
    assert len(by_distance) == 39
    assert responses.reranked.filter(query=SHORT).equals(by_distance)


def test_the_names_are_those_of_search(searcher, responses):
    for query, named, none in responses.names.iter_rows():
        found = searcher.identify(query)
        assert (named, none) == (found.work and found.work.work_id, found.probability_of_none)


def test_beyond_the_responses_the_others_follow_by_distance(responses):
    few = responses.reranked.filter(pl.col("rank") <= 3)
    ((row, ranking), *_) = trial.rankings(few.filter(query="P_9"), CALIBRATED)
    assert CALIBRATED.track_ids[row] == "P_9"
    ranked = [CALIBRATED.track_ids[i] for i in ranking]
    assert ranked[:3] == few.filter(query="P_9")["match"].to_list()
    distances = np.linalg.norm(CALIBRATED.vectors - CALIBRATED.vectors[row], axis=1)
    rest = sorted(set(CALIBRATED.track_ids) - {"P_9", *ranked[:3]})
    place = {track_id: i for i, track_id in enumerate(CALIBRATED.track_ids)}
    assert ranked[3:] == sorted(rest, key=lambda track_id: distances[place[track_id]])


def test_certainty_counts_each_query_s_versions_as_what_could_be_found(searcher):
    matches = trial.ask(searcher, ["P_0", "P_9", "P_22"]).reranked
    found = trial.certainty(matches, CALIBRATED)
    assert found["calibration_error"] < 0.1
    assert found["recall_at_precision_95"] == 1
    nothing = matches.with_columns(probability=pl.lit(0.0))
    assert trial.certainty(nothing, CALIBRATED)["recall_at_precision_95"] == 0
    one = matches.filter(pl.col("match") != "P_1")  # a version of P_0, of 3
    rows = trial.certainty(one, CALIBRATED)["thresholds"]
    assert rows[0]["recall"] == pytest.approx(8 / 9)


def test_a_work_is_named_rightly_or_not():
    sizes = {"W_1": 2, "W_2": 1}
    points = make_points(3)
    points = altered(points, payloads=[
        {"work_id": "W_1"}, {"work_id": "W_1"}, {"work_id": "W_2"}
    ])  # fmt: skip
    assert len(points) == sum(sizes.values())
    named = pl.DataFrame(
        {
            "query": ["P_0", "P_1", "P_2"],
            "named": ["W_1", None, None],
            "probability_of_none": [0.1, 0.9, 0.7],
        }
    )
    found = trial.identified(named, points)
    assert found["identified"] == pytest.approx(2 / 3)
    assert found["none_auroc"] == 0.5  # of P_0 and P_1, P_2 is surer than one


def test_of_very_many_performances_whole_works_are_asked_about(monkeypatch):
    monkeypatch.setattr(trial, "MAX_QUERIES", 10)
    chosen = trial.choose_queries(CALIBRATED)
    assert 10 <= len(chosen) < 14
    works = {WORKS[track_id] for track_id in chosen}
    assert set(chosen) == {track_id for track_id, work in WORKS.items() if work in works}
    assert chosen == trial.choose_queries(CALIBRATED)
    monkeypatch.setattr(trial, "MAX_QUERIES", 40)
    assert trial.choose_queries(CALIBRATED) == list(CALIBRATED.track_ids)


def test_an_evaluation_tells_what_re_ranking_brings_and_how_sure_it_is(tmp_path):
    result = trial.measure_search(CALIBRATED, "b", tmp_path)
    assert result["reranked"]["map"] > 0.9
    low, high = result["reranked"]["intervals"]["map"]
    assert low <= result["reranked"]["map"] <= high
    assert set(result["certainty"]) == {"distance", "reranked"}
    assert result["certainty"]["reranked"]["identified"] > 0.8
    assert {path.name for path in tmp_path.iterdir()} == {
        "matches_distance.parquet", "matches_reranked.parquet"
    }  # fmt: skip


def test_without_sequences_or_calibration_there_is_less_to_tell(tmp_path):
    plain = altered(CALIBRATED, sequences=None, rate=None)
    assert set(trial.measure_search(plain, "b", tmp_path)["certainty"]) == {"distance"}
    assert trial.measure_search(altered(plain, calibration=None), "b", tmp_path) == {}
