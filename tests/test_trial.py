"""The trial measures the ranks, probabilities and identifications that users get."""

import numpy as np
import polars as pl
import pytest
from catalogue import altered, make_points
from tunes import CALIBRATED, RATE, SHORT

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
    return trial.ask(searcher, ["P_0", "P_9", SHORT], 39)


@pytest.mark.parametrize("rerank", [True, False])
def test_the_responses_are_those_of_search(searcher, responses, rerank):
    asked = searcher.similar("P_9", 39, rerank=rerank)
    rows = (responses.reranked if rerank else responses.distance).filter(query="P_9")
    assert rows["match"].to_list() == [match.track_id for match in asked]
    assert rows["probability"].to_list() == [match.probability for match in asked]
    assert rows["rank"].to_list() == list(range(1, 40))


def test_a_query_that_is_too_short_to_align_is_ranked_by_distance(responses):
    by_distance = responses.distance.filter(query=SHORT)
    assert len(by_distance) == 39
    assert responses.reranked.filter(query=SHORT).equals(by_distance)


def test_the_names_are_those_of_search(searcher, responses):
    for query, named, none in responses.names.iter_rows():
        found = searcher.identify(query)
        assert (named, none) == (found.work and found.work.work_id, found.probability_of_none)


def test_a_ranking_continues_by_distance_after_the_matches(responses):
    few = responses.reranked.filter(pl.col("rank") <= 3)
    ((row, ranking), *_) = trial.rankings(few.filter(query="P_9"), CALIBRATED)
    assert CALIBRATED.track_ids[row] == "P_9"
    ranked = [CALIBRATED.track_ids[i] for i in ranking]
    assert ranked[:3] == few.filter(query="P_9")["match"].to_list()
    distances = np.linalg.norm(CALIBRATED.vectors - CALIBRATED.vectors[row], axis=1)
    rest = sorted(set(CALIBRATED.track_ids) - {"P_9", *ranked[:3]})
    place = {track_id: i for i, track_id in enumerate(CALIBRATED.track_ids)}
    assert ranked[3:] == sorted(rest, key=lambda track_id: distances[place[track_id]])


def test_certainty_counts_all_versions_of_the_queries_as_relevant(searcher):
    matches = trial.ask(searcher, ["P_0", "P_9", "P_22"], 39).reranked
    found = trial.certainty(matches, CALIBRATED)
    assert found["calibration_error"] < 0.1
    assert found["recall_at_precision_95"] == 1
    nothing = matches.with_columns(probability=pl.lit(0.0))
    assert trial.certainty(nothing, CALIBRATED)["recall_at_precision_95"] == 0
    one = matches.filter(pl.col("match") != "P_1")  # a version of P_0, of 3
    rows = trial.certainty(one, CALIBRATED)["thresholds"]
    assert rows[0]["recall"] == pytest.approx(8 / 9)


def test_identifications_are_compared_with_the_labels():
    works = ["W_1", "W_1", "W_2"]
    points = altered(make_points(3), payloads=[{"work_id": work} for work in works])
    rows = [("P_0", "W_1", 0.1), ("P_1", None, 0.9), ("P_2", None, 0.7)]
    found = trial.identified(pl.DataFrame(rows, trial.NAME_COLUMNS, orient="row"), points)
    assert found["identified"] == pytest.approx(2 / 3)
    assert found["none_auroc"] == 0.5  # P_2, a noise work, has a higher probability than P_0 only
    assert found["none_calibration_error"] == pytest.approx((0.1 + 0.9 + 0.3) / 3)


def test_beyond_a_limit_whole_works_are_drawn_as_queries(monkeypatch):
    monkeypatch.setattr(trial, "MAX_QUERIES", 10)
    queries = trial.choose_queries(CALIBRATED)
    assert 10 <= len(queries) < 14
    works = {WORKS[track_id] for track_id in queries}
    assert set(queries) == {track_id for track_id, work in WORKS.items() if work in works}
    assert queries == trial.choose_queries(CALIBRATED)
    monkeypatch.setattr(trial, "MAX_QUERIES", 40)
    assert trial.choose_queries(CALIBRATED) == list(CALIBRATED.track_ids)


@pytest.mark.parametrize(
    ("performances", "depth"),
    [(2, 0), (11, 0), (12, 2), (33, 6), (193, 38), (501, 99), (502, 100), (15_000, 100)],
)
def test_less_than_a_fifth_of_the_candidates_is_aligned(performances, depth):
    assert trial.rerank_depth(performances) == depth
    assert depth < (performances - 1) / 5


def test_reranking_does_not_hide_what_the_vectors_are_worth(tmp_path):
    # These vectors are random, and versions align almost perfectly.
    found, depth = trial.rerank(CALIBRATED, "b")
    assert depth == 7
    measured = trial.measure_search(CALIBRATED, "b", tmp_path)["reranked"]
    assert (measured["map"], measured["depth"]) == (found.map, 7)
    assert found.map < 0.5


def test_too_few_performances_to_rerank_are_not_reranked(tmp_path):
    few = altered(make_points(11, clique=4), sequences=CALIBRATED.sequences[:11], rate=RATE)
    with pytest.raises(ValueError, match="11 performances are too few to measure reranking, which"):
        trial.rerank(few, "b")
    assert "reranked" not in trial.measure_search(few, "b", tmp_path)


def test_search_is_measured_with_reranking_and_probabilities(tmp_path, monkeypatch):
    monkeypatch.setattr("embedding.metrics.retrieval.CANDIDATES_PER_LISTED", 1)
    result = trial.measure_search(CALIBRATED, "b", tmp_path)
    assert result["reranked"]["map"] > 0.85
    assert result["reranked"]["depth"] == 38
    low, high = result["reranked"]["intervals"]["map"]
    assert low <= result["reranked"]["map"] <= high
    assert set(result["certainty"]) == {"distance", "reranked"}
    assert result["certainty"]["reranked"]["identified"] > 0.8
    assert {path.name for path in tmp_path.iterdir()} == {
        "matches_distance.parquet", "matches_reranked.parquet"
    }  # fmt: skip


def test_without_sequences_or_calibration_less_is_measured(tmp_path):
    plain = altered(CALIBRATED, sequences=None, rate=None)
    assert set(trial.measure_search(plain, "b", tmp_path)["certainty"]) == {"distance"}
    assert trial.measure_search(altered(plain, calibration=None), "b", tmp_path) == {}
