"""Duplicates: works under two ids, and wrong labels."""

import polars as pl
import pytest
from catalogue import altered, in_memory, published
from tunes import CALIBRATED

from flows.duplicates import duplicates as run_duplicates
from search import InvalidQuery, Searcher
from search.engines.embedded import Embedded
from search.engines.embedded.collection import EmbeddedCollection

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


def test_wrong_labels_and_split_works_are_found_and_nothing_else(searcher):
    found = searcher.duplicates(min_probability=0.5)
    assert {frozenset((pair.track_id, pair.match.track_id)) for pair in found} == expected()
    probabilities = [pair.match.probability for pair in found]
    assert probabilities == sorted(probabilities, reverse=True)
    assert all(pair.match.alignment.stretches for pair in found)
    assert all(pair.work_id != pair.match.work_id for pair in found)
    with pytest.raises(InvalidQuery, match="min_probability=2 is not a probability"):
        searcher.duplicates(min_probability=2)


def test_a_catalogue_is_compared_in_batches_of_performances(searcher, monkeypatch):
    whole = searcher.duplicates(min_probability=0.01)
    assert searcher.duplicates(3, min_probability=0.01) == whole[:3]
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
    rows = pl.read_csv(table)
    assert len(rows) == len(expected())
    works = [frozenset(pair) for pair in rows.select("work_id", "other_work_id").rows()]
    assert rows["pairs"].to_list() == [works.count(pair) for pair in works]
    before = table.stat().st_mtime_ns
    assert run_duplicates(home=home) == table
    assert table.stat().st_mtime_ns == before
