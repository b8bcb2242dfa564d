"""Columns of the publisher's own, such as an ISRC or an owner, and the paths of recordings."""

import json
from dataclasses import asdict

import numpy as np
import polars as pl
import pytest
from catalogue import ENGINES, altered, empty, in_memory, points_of, published
from feature_stores import make_store, make_table
from hypothesis import given, settings
from hypothesis import strategies as st

import search
from embedding.data import columns
from embedding.data.aggregate import aggregate_batch, assemble
from embedding.data.dataset import open_dataset
from embedding.data.store import OWN, FeatureStore
from flows.cli import tables
from flows.collection import points
from flows.collection.vectors import TAKEN
from search import InvalidPoints, InvalidQuery, Searcher, between, fields, none_of

COLUMNS = {
    "isrc": "text",
    "Rights owner": "text",
    "share": "number",
    "plays": "whole number",
    "cleared": "yes/no",
}
BROUGHT = [
    {"isrc": "000123", "Rights owner": "EMI", "share": 0.5, "plays": 7, "cleared": True},
    {"isrc": "GBAYE0601498", "Rights owner": "EMI", "share": 1.0, "plays": 2**53, "cleared": False},
    {"isrc": "USRC17607839", "Rights owner": "Sony", "plays": 70, "recording": "W 1/A - B.mp3"},
    {},
]
POINTS = points_of(
    [f"P_{i}" for i in range(4)],
    np.arange(4.0)[:, None],
    [{"work_id": "W_1", **own} for own in BROUGHT],
    columns=COLUMNS,
)


@pytest.fixture(scope="module", params=ENGINES)
def searcher(request):
    with published(POINTS, request.param) as engine:
        yield Searcher(engine)


def test_a_match_shows_the_columns_and_the_recording(searcher):
    first, second, third = searcher.similar("P_3")
    assert first.columns == dict.fromkeys(COLUMNS) | {
        name: value for name, value in BROUGHT[2].items() if name in COLUMNS
    }
    assert (first.recording, second.recording) == ("W 1/A - B.mp3", None)
    assert third.columns["isrc"] == "000123"
    assert json.loads(json.dumps(asdict(second)))["columns"] == BROUGHT[1]
    table = pl.DataFrame([first, second, third]).unnest("columns")
    assert table["plays"].to_list() == [70, 2**53, 7]
    assert {third: 1}[third] == 1  # a match can still be a key


def test_a_table_shows_three_columns_those_of_the_filter_first(searcher, capsys):
    tables.show_matches({"matches": searcher.similar("P_3")}, ["cleared"])
    heading, _, first, second, *_, line = capsys.readouterr().out.rstrip().split("\n")
    assert heading.endswith("same work  cleared  isrc          Rights owner")
    assert first.split()[-2:] == ["USRC17607839", "Sony"]
    assert second.split()[-3:] == ["no", "GBAYE0601498", "EMI"]
    assert line == "--json also shows share, plays."


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
    (unknown,) = searcher.unknown_values({"isrc": ["00123", "000123"]})
    assert "'00123'" in unknown


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


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["7", " 12 ", ""], [7, 12, None]),
        (["007", "12"], ["007", "12"]),
        (["1234567890123456"], ["1234567890123456"]),  # more than a float holds exactly
        (["0.5", "-3", "nan"], [0.5, -3.0, None]),
        (["1e5", "2"], ["1e5", "2"]),
        (["yes", "No", ""], [True, False, None]),
        (["GBAYE0601498", "12"], ["GBAYE0601498", "12"]),
    ],
)
def test_texts_of_a_csv_are_numbers_only_if_all_of_them_are(texts, expected):
    guessed = columns.guess(pl.Series("a", texts)).to_list()
    assert [*map(repr, guessed)] == [*map(repr, expected)]


def test_both_packages_know_the_same_kinds_and_number_of_columns():
    assert [*columns.KINDS] == [*fields.KINDS]
    assert columns.MAX_COLUMNS == fields.MAX_COLUMNS


def test_a_column_has_one_type_in_all_sources_and_what_cannot_travel_is_told():
    first = pl.DataFrame({"track_id": ["P_1"], "id": ["7"], "share": [0.5], "year ": [1]})
    first = first.with_columns(nested=pl.lit([1]), **{f"c{i}": pl.lit(i) for i in range(31)})
    second = pl.DataFrame({"track_id": ["P_2"], "id": [8], "share": [1], "Share": [2]})
    second = second.with_columns(Year=pl.lit(1), none=pl.lit(""))
    (one, two), left_out = columns.settle([first, second], ["track_id"], ["year"])
    assert one.schema == two.schema
    assert (two["id"].to_list(), two["share"].to_list(), one["c0"].to_list()) == (["8"], [1.0], [0])
    assert len(one.columns) == 1 + columns.MAX_COLUMNS
    line = columns.told(columns.kinds_of(one, ["track_id"]), left_out)
    assert line.startswith("own columns: id (text), share (number), c0 (whole number)")
    for reason in (
        "nested (its values are nested: give each performance a text or a number)",
        "c30 (a collection has up to 32: take out columns before it)",
        "year  (a filter cannot use its name: rename the column)",
        "Year (another field has this name: rename the column)",
        "Share (another field has this name: rename the column)",
        "none (it has no values)",
    ):
        assert reason in line
    assert columns.told({}, {}) == ""


VALUES = st.one_of(
    st.lists(st.none() | st.booleans(), min_size=3, max_size=3),
    st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), min_size=3, max_size=3),
    st.lists(st.none() | st.floats(allow_nan=False, allow_infinity=False), min_size=3, max_size=3),
    st.lists(st.none() | st.text(max_size=8), min_size=3, max_size=3),
)
NAMES = st.text(max_size=8).filter(str.isprintable)


@settings(max_examples=20, deadline=None)
@given(brought=st.dictionaries(NAMES, VALUES, max_size=4))
def test_columns_come_through_a_store_into_the_payload_as_they_were_brought(brought):
    table = make_table(1, 3)
    stated = table.select("track_id").with_columns(
        columns.from_json(name, values) for name, values in brought.items() if name != "track_id"
    )
    (stated,), left_out = columns.settle([stated], ["track_id"], TAKEN)
    own = stated.columns[1:]
    assert {*own, *left_out} == brought.keys() - {"track_id"}
    if own:
        table = table.with_columns(stated.select(pl.struct(own).alias(OWN)))
    with in_memory() as directory:
        store = make_store(directory / "store", table)
        vector = pl.lit([0.0]).cast(pl.Array(pl.Float32, 1))
        vectors = table.select("track_id", "work_id", vector=vector)
        made = points.points_of(vectors, store, None)
    for i, payload in enumerate(made.payloads):
        assert {name: payload.get(name) for name in own} == {
            name: _kept(brought[name][i]) for name in own
        }
        assert made.columns == columns.kinds_of(stated, ["track_id"])


def _kept(value):
    value = columns.utf8(value).strip() if isinstance(value, str) else value
    return None if value in columns.MISSING else value


def test_what_a_list_and_the_metadata_say_goes_into_the_store_and_the_list_is_right(
    tree, tmp_path, caplog
):
    tree.title("W_1", "P_11", perf_title="Helo", isrc="000123", label="EMI", plays=7, extra=[1])
    tree.title("W_1", "P_12", isrc=5, work_title="Hello")
    rows = ["file;Title;Owner;plays", "P_11.h5;Hello;A;8.5", "P_21;;B;", "P_99;Gone;;"]
    (tree.root / "owners.csv").write_text("\n".join(rows))
    dataset = open_dataset(tree.root, taken=TAKEN)
    part = aggregate_batch(dataset.performances, dataset.frame_rate, tmp_path)
    store = assemble(dataset, [FeatureStore.open(part)], tmp_path / "store")
    assert dataset.columns == {"Owner": "text", "plays": "number", "isrc": "text", "label": "text"}
    assert [*dataset.left_out] == ["extra"]
    assert (
        "owners.csv lists 1 names of no file here, or of several, for example P_99" in caplog.text
    )
    assert not dataset.rejects
    facts = {row.pop("track_id"): row for row in store.facts.to_dicts()}
    expected = {"Owner": "A", "plays": 8.5, "isrc": "000123", "label": "EMI", "title": "Hello"}
    assert facts["P_11"] | expected | {"work_title": "Hello"} == facts["P_11"]
    assert [facts[each]["Owner"] for each in ("P_21", "P_22")] == ["B", None]
    assert facts["P_12"]["isrc"] == "5"
