"""The table that a catalogue team works through: one work under two names, and wrong labels."""

from collections import Counter

import polars as pl
import pytest
from catalogue import altered, in_memory
from tunes import CALIBRATED

from flows.duplicates import duplicates as run_duplicates
from search import InvalidQuery, Searcher
from search.engines.embedded import Embedded, EmbeddedCollection

#: P_9 is of W_2, and W_4 and W_5 are told to be one more work each than they are.
WRONG = {"P_9": "W_7", "P_18": "W_99", "P_19": "W_99"}


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


def expected() -> set[frozenset[str]]:
    wrong = {frozenset(("P_9", f"P_{i}")) for i in (8, 10, 11)}
    split = {frozenset((f"P_{i}", f"P_{j}")) for i in (16, 17) for j in (18, 19)}
    return wrong | split


def test_wrong_labels_and_split_works_are_found_and_nothing_else(home, monkeypatch):
    monkeypatch.setattr("search.searcher.NEIGHBOURS", 39)  # these vectors find nothing
    found = Searcher(Embedded(home / "qdrant" / "covers")).duplicates(min_probability=0.5)
    assert {frozenset((one.track_id, one.match.track_id)) for one in found} == expected()
    stated = [one.match.probability for one in found]
    assert stated == sorted(stated, reverse=True)
    assert all(one.match.alignment.stretches for one in found)
    assert all(one.work_id != one.match.work_id for one in found)


def test_a_limit_keeps_the_most_probable(home, monkeypatch):
    monkeypatch.setattr("search.searcher.NEIGHBOURS", 39)
    searcher = Searcher(Embedded(home / "qdrant" / "covers"))
    assert searcher.duplicates(3) == searcher.duplicates(100)[:3]


def test_a_catalogue_is_gone_through_some_performances_at_a_time(home, monkeypatch):
    monkeypatch.setattr("search.searcher.NEIGHBOURS", 39)
    searcher = Searcher(Embedded(home / "qdrant" / "covers"))
    expected = searcher.duplicates(min_probability=0.01)
    asked = []

    class Counted(EmbeddedCollection):
        def nearest(self, vectors, limit, conditions):
            asked.append(len(vectors))
            return super().nearest(vectors, limit, conditions)

    collection = searcher.engine.open()
    monkeypatch.setattr(collection, "__class__", Counted)
    monkeypatch.setattr("search.nearest.BATCH_QUERIES", 9)
    assert searcher.duplicates(min_probability=0.01) == expected
    assert asked == [9, 9, 9, 9, 4]


def test_where_all_labels_are_right_there_is_nothing_to_report():
    with in_memory() as directory:
        engine = Embedded(directory / "qdrant" / "covers")
        engine.publish(CALIBRATED, "b")
        assert Searcher(engine).duplicates() == []


def test_what_is_not_a_probability_is_refused(home):
    with pytest.raises(InvalidQuery, match="min_probability=2 is not a probability"):
        Searcher(Embedded(home / "qdrant" / "covers")).duplicates(min_probability=2)


def test_the_table_counts_the_pairs_between_two_works(home, monkeypatch, prefect_server):
    monkeypatch.setattr("search.searcher.NEIGHBOURS", 39)
    table = run_duplicates(home=home)
    rows = pl.read_csv(table)
    assert len(rows) == len(expected())
    works = Counter(frozenset(pair) for pair in rows.select("work_id", "other_work_id").rows())
    for pair, count in zip(
        rows.select("work_id", "other_work_id").rows(), rows["pairs"], strict=True
    ):
        assert works[frozenset(pair)] == count
    before = table.stat().st_mtime_ns
    assert run_duplicates(home=home) == table
    assert table.stat().st_mtime_ns == before
