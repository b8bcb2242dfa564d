"""Duplicates: works under two ids, and wrong labels."""

import json
from dataclasses import asdict, replace

import polars as pl
import pytest
from catalogue import altered, in_memory, published
from tunes import CALIBRATED

from flows.duplicates import SCHEMA, groups_of, read
from flows.duplicates import duplicates as run_duplicates
from search import Duplicate, InvalidQuery, Match, Searcher
from search.engines.embedded import Embedded
from search.engines.embedded.collection import EmbeddedCollection
from search.fields import FIELDS
from search.versions.duplicates import grouped

#: The true work of P_9 is W_2. P_18 and P_19 are of the same work as P_16 and P_17.
WRONG = {"P_9": "W_7", "P_18": "W_99", "P_19": "W_99"}


@pytest.fixture(autouse=True)
def all_are_neighbours(monkeypatch):
    """The random vectors do not bring versions together."""
    monkeypatch.setattr("search.searcher.NEIGHBOURS", 39)


@pytest.fixture(scope="module")
def home():
    payloads = [
        payload | {"work_id": WRONG.get(payload["track_id"], payload["work_id"])}
        for payload in CALIBRATED.payloads
    ]
    for payload in payloads:
        del payload["clique_size"]
    with in_memory() as directory:
        points = altered(CALIBRATED, payloads=payloads)
        Embedded(directory / "qdrant" / "covers").publish(points, "b")
        yield directory


@pytest.fixture
def searcher(home):
    return Searcher(Embedded(home / "qdrant" / "covers"))


def expected() -> set[frozenset[str]]:
    wrong = {frozenset(("P_9", f"P_{i}")) for i in (8, 10, 11)}
    split = {frozenset((f"P_{i}", f"P_{j}")) for i in (16, 17) for j in (18, 19)}
    return wrong | split


def pairs_of(groups):
    return [pair for group in groups for pair in group.pairs]


def test_a_group_has_the_performances_of_a_probable_work_and_its_weakest_link(searcher):
    groups = searcher.duplicates()
    assert {group.track_ids for group in groups} == {
        ("P_10", "P_11", "P_8", "P_9"),
        ("P_16", "P_17", "P_18", "P_19"),
    }
    assert {group.work_ids for group in groups} == {("W_2", "W_7"), ("W_4", "W_99")}
    for group in groups:
        probabilities = [pair.match.probability for pair in group.pairs]
        assert probabilities == sorted(probabilities, reverse=True)
        assert group.weakest_link in group.pairs
    weakest = [group.weakest_link.match.probability for group in groups]
    assert weakest == sorted(weakest, reverse=True)
    json.dumps([asdict(group) for group in groups])


def pair(a, b, probability, works=None):
    """A pair of performances, each a work of its own unless `works` says otherwise."""
    match = Match(**dict.fromkeys(FIELDS), distance=1.0, relative_distance=0.0, same_work=False)
    work_a, work_b = works or (a, b)
    match = replace(match, track_id=b, work_id=work_b, probability=probability)
    return Duplicate(a, work_a, None, None, None, None, match)


def test_the_weakest_link_is_the_least_probable_pair_that_holds_a_group_together():
    """Two triangles that one weak pair connects, and a pair that stands alone."""
    strong = [
        pair("A", "B", 0.99),
        pair("D", "E", 0.98),
        pair("B", "C", 0.97),
        pair("E", "F", 0.96),
    ]
    alone, bridge, inside = pair("X", "Y", 0.9), pair("C", "D", 0.6), pair("A", "C", 0.55)
    first, second = grouped([*strong, alone, bridge, inside])
    assert (first.track_ids, first.weakest_link) == (("X", "Y"), alone)
    assert (second.track_ids, second.weakest_link) == (tuple("ABCDEF"), bridge)
    assert second.pairs == (*strong, bridge, inside)


def test_pairs_of_the_same_two_works_are_one_group_but_a_shared_work_is_not_enough():
    split = [pair("A1", "B1", 0.9, ("A", "B")), pair("A2", "B2", 0.8, ("A", "B"))]
    other = pair("A3", "C1", 0.7, ("A", "C"))
    first, second = grouped([*split, other])
    assert (first.track_ids, first.work_ids) == (("A1", "A2", "B1", "B2"), ("A", "B"))
    assert second.work_ids == ("A", "C")


def test_ids_of_digits_stay_texts_in_the_table(tmp_path):
    """Numbers first and other texts later, as a guess from the first rows would get wrong."""
    row = dict.fromkeys(SCHEMA) | {"group": 1, "weakest_link": True, "probability": 0.9}
    ids = [f"{i:06d}" for i in range(150)] + ["P_1"]
    rows = [row | {"group": i, "track_id": each, "other_track_id": "000000"} for i, each in
            enumerate(ids)]  # fmt: skip
    pl.DataFrame(rows, schema=SCHEMA).write_csv(tmp_path / "duplicates.csv")
    table = read(tmp_path / "duplicates.csv")
    assert table["track_id"].to_list() == ids
    groups = groups_of(table)
    assert [each["track_id"] for each in groups[1]["performances"]] == ["000000", "000001"]


def test_wrong_labels_and_split_works_are_found_and_nothing_else(searcher):
    found = pairs_of(searcher.duplicates(min_probability=0.5))
    assert {frozenset((pair.track_id, pair.match.track_id)) for pair in found} == expected()
    assert all(pair.match.alignment.stretches for pair in found)
    assert all(pair.work_id != pair.match.work_id for pair in found)
    with pytest.raises(InvalidQuery, match="min_probability=2 is not a probability"):
        searcher.duplicates(min_probability=2)


def test_a_catalogue_is_compared_in_batches_of_performances(searcher, monkeypatch):
    whole = searcher.duplicates(min_probability=0.01)
    likeliest = sorted(pairs_of(whole), key=lambda found: -found.match.probability)[:3]
    few = pairs_of(searcher.duplicates(3, min_probability=0.01))
    assert sorted(few, key=lambda found: -found.match.probability) == likeliest
    batches = []

    class Counted(EmbeddedCollection):
        def nearest(self, vectors, limit, conditions):
            batches.append(len(vectors))
            return super().nearest(vectors, limit, conditions)

    collection = searcher.engine.open()
    monkeypatch.setattr(collection, "__class__", Counted)
    monkeypatch.setattr("search.nearest.BATCH_QUERIES", 9)
    assert searcher.duplicates(min_probability=0.01) == whole
    assert batches == [9, 9, 9, 9, 4]


def test_where_all_labels_are_right_there_is_nothing_to_report():
    with published(CALIBRATED) as engine:
        assert Searcher(engine).duplicates() == []


def test_the_table_counts_the_pairs_between_two_works(home, prefect_server):
    table = run_duplicates(home=home)
    rows = read(table)
    assert len(rows) == len(expected())
    works = [frozenset(pair) for pair in rows.select("work_id", "other_work_id").rows()]
    assert rows["pairs"].to_list() == [works.count(pair) for pair in works]
    before = table.stat().st_mtime_ns
    assert run_duplicates(home=home) == table
    assert table.stat().st_mtime_ns == before
