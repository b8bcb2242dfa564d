"""Search with one function call: the collection that the environment selects."""

from collections.abc import Sequence

from search import settings
from search.asked import Query
from search.engines.engine import Status
from search.matches import DuplicateGroup, Identification, Match
from search.searcher import Searcher, Where

_cached: tuple[settings.Settings, Searcher] | None = None


def _searcher() -> Searcher:
    """Return the searcher of the environment; it is made once, unless the environment changes."""
    global _cached
    environment = settings.read()
    if _cached is None or _cached[0] != environment:
        _cached = environment, Searcher()
    return _cached[1]


def similar(
    query: str | Query,
    limit: int = 10,
    *,
    rerank: bool = False,
    leave_out_same_work: bool = False,
    where: Where | None = None,
) -> list[Match]:
    """Find the performances nearest to a performance; see `Searcher.similar`.

    >>> similar("P_1", limit=2, where={"subset": "benchmark"})[0].track_id
    'P_37'
    """
    return _searcher().similar(
        query, limit, rerank=rerank, leave_out_same_work=leave_out_same_work, where=where
    )


def similar_many(
    queries: Sequence[str | Query],
    limit: int = 10,
    *,
    leave_out_same_work: bool = False,
    where: Where | None = None,
) -> list[list[Match]]:
    """Answer many queries at once; see `Searcher.similar_many`.

    >>> [matches[0].track_id for matches in similar_many(["P_1", "P_2"])]
    ['P_10', 'P_13']
    """
    return _searcher().similar_many(
        queries, limit, leave_out_same_work=leave_out_same_work, where=where
    )


def works(
    query: str | Query,
    limit: int = 10,
    *,
    rerank: bool = False,
    leave_out_same_work: bool = False,
    where: Where | None = None,
) -> list[Match]:
    """Find the works nearest to a performance; see `Searcher.works`.

    >>> [match.work_id for match in works("P_1", limit=3)]
    ['W_2', 'W_9', 'W_8']
    """
    return _searcher().works(
        query, limit, rerank=rerank, leave_out_same_work=leave_out_same_work, where=where
    )


def distance(a: str | Query, b: str | Query) -> float:
    """Return the Euclidean distance between two performances; see `Searcher.distance`.

    >>> round(distance("P_1", "P_2"), 3)
    8.832
    """
    return _searcher().distance(a, b)


def same_work(a: str | Query, b: str | Query) -> Match:
    """Judge whether two performances are versions of one work; see `Searcher.same_work`.

    >>> same_work("P_0", "P_1").probability > 0.99
    True
    """
    return _searcher().same_work(a, b)


def identify(query: str | Query, limit: int = 5, *, where: Where | None = None) -> Identification:
    """Name the work that a performance is a version of; see `Searcher.identify`.

    >>> identify("P_0").work.work_title
    'Work 0'
    """
    return _searcher().identify(query, limit, where=where)


def duplicates(max_pairs: int = 1000, *, min_probability: float = 0.5) -> list[DuplicateGroup]:
    """Find performances that share a work, but not its label; see `Searcher.duplicates`.

    >>> groups = duplicates(min_probability=0.9)
    >>> [pair for group in groups for pair in group.pairs]
    []
    """
    return _searcher().duplicates(max_pairs, min_probability=min_probability)


def status() -> Status:
    """Return what is published; see `Searcher.status`.

    >>> status().current.bundle
    'example'
    """
    return _searcher().status()
