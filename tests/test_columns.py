"""Columns of the publisher's own, such as an ISRC or an owner, and the paths of recordings."""

import json
from dataclasses import asdict

import numpy as np
import polars as pl
import pytest
from catalogue import ENGINES, altered, empty, points_of, published

import search
from search import InvalidPoints, InvalidQuery, Searcher, between, none_of

COLUMNS = {
    "isrc": "text",
    "Rights owner": "text",
    "share": "number",
    "plays": "whole number",
    "cleared": "yes/no",
}
OWN = [
    {"isrc": "000123", "Rights owner": "EMI", "share": 0.5, "plays": 7, "cleared": True},
    {"isrc": "GBAYE0601498", "Rights owner": "EMI", "share": 1.0, "plays": 2**53, "cleared": False},
    {"isrc": "USRC17607839", "Rights owner": "Sony", "plays": 70, "recording": "W 1/A - B.mp3"},
    {},
]
POINTS = points_of(
    [f"P_{i}" for i in range(4)],
    np.arange(4.0)[:, None],
    [{"work_id": "W_1", **own} for own in OWN],
    columns=COLUMNS,
)


@pytest.fixture(scope="module", params=ENGINES)
def searcher(request):
    with published(POINTS, request.param) as engine:
        yield Searcher(engine)


def test_a_match_shows_the_columns_and_the_recording(searcher):
    first, second, third = searcher.similar("P_3")
    assert first.columns == dict.fromkeys(COLUMNS) | {
        name: value for name, value in OWN[2].items() if name in COLUMNS
    }
    assert (first.recording, second.recording) == ("W 1/A - B.mp3", None)
    assert third.columns["isrc"] == "000123"
    assert json.loads(json.dumps(asdict(second)))["columns"] == OWN[1]
    table = pl.DataFrame([first, second, third]).unnest("columns")
    assert table["plays"].to_list() == [70, 2**53, 7]
    assert {third: 1}[third] == 1  # a match can still be a key


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"isrc": "000123"}, ["P_0"]),
        ({"ISRC": ["000123", "USRC17607839"]}, ["P_2", "P_0"]),
        ({"Rights owner": "EMI", "plays": between(None, 100)}, ["P_0"]),
        ({"Rights owner": none_of("EMI")}, ["P_2"]),
        ({"plays": 2**53}, ["P_1"]),
        ({"share": between(0.75, None)}, ["P_1"]),
        ({"cleared": True}, ["P_0"]),
        ({"cleared": none_of(True)}, ["P_2", "P_1"]),
        ({"recording": "W 1/A - B.mp3"}, ["P_2"]),
    ],
)
def test_columns_can_be_filtered_by(searcher, where, expected):
    assert [match.track_id for match in searcher.similar("P_3", where=where)] == expected


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ({"label": "EMI"}, "no field 'label' .* in_map, isrc, Rights owner, share, plays, cleared"),
        ({"isrc": 123}, "isrc is text, so it cannot be 123"),
        ({"plays": "many"}, "plays is an integer"),
        ({"share": 0.5}, "hardly any performance has exactly"),
        ({"isrc": search.contains("GB")}, "isrc has no words to search for: only title"),
    ],
)
def test_an_impossible_filter_by_a_column_says_what_is_wrong(searcher, where, words):
    with pytest.raises(InvalidQuery, match=words):
        searcher.similar("P_3", where=where)


def test_a_filter_by_a_column_that_finds_nothing_says_what_is_near(searcher):
    assert "near ones are '000123'" in searcher.why_nothing({"isrc": "00123"})
    assert "it is 7 to 9007199254740992" in searcher.why_nothing({"plays": 8})


@pytest.mark.parametrize("kind", ENGINES)
def test_other_columns_make_another_collection_which_an_open_searcher_knows(kind):
    with published(POINTS, kind) as engine:
        searcher = Searcher(engine)
        assert "label" not in searcher.fields()
        first = engine.status().current
        own = {"work_id": "W_1", "label": "Blue Note"}
        with_label = altered(POINTS, payloads=[own] * 4, columns={"label": "text"})
        second = Searcher(engine).engine.publish(with_label, "b")
        assert second.name != first.name
        assert [
            match.columns for match in searcher.similar("P_0", 1, where={"label": own["label"]})
        ] == [{"label": "Blue Note"}]
        with empty() as target:
            assert search.copy(engine, target).columns == {"label": "text"}
        assert engine.rollback().columns == COLUMNS


@pytest.mark.parametrize(
    ("payload", "columns", "words"),
    [
        ({"isrc": 123}, {"isrc": "text"}, "isrc of performance P_1 cannot be 123: it is text"),
        ({"isrc": "1"}, {}, "a field 'isrc' that points do not have: .* further `columns`"),
        ({}, {"isrc": "words"}, "'isrc' cannot hold 'words': the kinds are text, whole number"),
        ({}, {"year": "text"}, "'year' cannot name a column"),
        ({}, {'6" single': "text"}, "cannot name a column"),
        ({}, dict.fromkeys(map(str, range(33)), "text"), "There are 33 columns .* up to 32"),
    ],
)
def test_columns_are_checked_before_anything_is_published(payload, columns, words):
    with pytest.raises(InvalidPoints, match=words):
        points_of(["P_1"], [[0.0]], [{"work_id": "W_1", **payload}], columns=columns)
