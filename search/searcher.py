"""The searcher: which performances are nearest, and are they versions of the same work?"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Self, TypeVar

import numpy as np

from search import identification, nearest, suggestions
from search.asked import Query, look_up
from search.connecting import connect
from search.engines.collection import Collection
from search.engines.engine import Engine, Status
from search.errors import CollectionGone, InvalidQuery, SearchError
from search.fields import Condition, conditions, fields_of, whole
from search.matches import DuplicateGroup, Identification, Match
from search.nearest import Request
from search.point import Payload
from search.versions import judging
from search.versions.duplicates import NEIGHBOURS, find_duplicates
from search.versions.reranking import CANDIDATES

Answer = TypeVar("Answer")
Where = Mapping[str, object] | Sequence[Mapping[str, object]]

#: Maximum number of matches of one query, and of one call.
MAX_LIMIT, MAX_MATCHES = 10_000, 1_000_000

#: Maximum number of attempts if the collection is dropped while it is searched.
ATTEMPTS = 5


class Searcher:
    """Search the collection that is current in an engine at each call.

    Matches are ordered by distance, with ties by track id, and never include the query. All answers
    of one call come from one collection. If a server changes the collection in place meanwhile,
    each performance is as it was before or after the change. Threads can share a searcher. A
    searcher is a context manager that closes its engine.

    Parameters
    ----------
    engine : Engine, optional
        From `search.connect`; by default the one that the environment selects.

    Examples
    --------
    >>> with Searcher() as searcher:
    ...     searcher.works("P_1", limit=1)
    [Match(track_id='P_10', work_id='W_2', title='Title 10', distance=0, ...)]
    """

    def __init__(self, engine: Engine | None = None) -> None:
        self.engine = connect() if engine is None else engine

    def __repr__(self) -> str:
        return f"Searcher({self.engine!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the engine's connections."""
        self.engine.close()

    def status(self) -> Status:
        """Return what is published, and what was published before."""
        return self.engine.status()

    def similar(
        self,
        query: str | Query,
        limit: int = 10,
        *,
        rerank: bool = False,
        leave_out_same_work: bool = False,
        where: Where | None = None,
    ) -> list[Match]:
        """Find the performances nearest to a performance.

        Parameters
        ----------
        query : str or Query
            The track id of a performance of the collection, or any other performance.
        limit : int in [1, 10000]
            Maximum number of matches.
        rerank : bool
            Align the nearest `CANDIDATES` (100) with the query, and put the likeliest versions
            first; the others follow by distance. It is slower, finds more covers, and each aligned
            match shows what matches. It needs a collection with sequences.
        leave_out_same_work : bool
            Leave out the work of the query, if it is in the collection.
        where : mapping or list of mappings, optional
            A filter, see `search.fields`. If nothing is found, `why_nothing` says why.

        Returns
        -------
        list of Match
            Best first.

        Raises
        ------
        TrackNotFound
            If the collection has no such performance; the message suggests ids.
        NoCollection
            If nothing is published.
        InvalidQuery
            If the limit or the filter is impossible, a query does not fit the collection, or there
            is nothing to align.
        """
        if not rerank:
            return self.similar_many(
                [query], limit, leave_out_same_work=leave_out_same_work, where=where
            )[0]
        limit = _checked_limit(limit)

        def answer(collection: Collection) -> list[Match]:
            asked = _conditions(collection, where)
            request = Request(max(limit, CANDIDATES), asked, leave_out_same_work)
            (matches,) = nearest.find(collection, [query], request)
            aligned = judging.Aligned(collection, query, matches[:CANDIDATES])
            return [*aligned.matches(aligned.order[:limit]), *matches[CANDIDATES:limit]]

        return self._ask(answer)

    def similar_many(
        self,
        queries: Sequence[str | Query],
        limit: int = 10,
        *,
        leave_out_same_work: bool = False,
        where: Where | None = None,
    ) -> list[list[Match]]:
        """Answer many queries of `similar` at once, several times faster; answer i is for query i.

        Raises
        ------
        TrackNotFound, NoCollection, InvalidQuery
            As `similar`, and if there may be more than `MAX_MATCHES` (1,000,000) matches in all.
        """
        if isinstance(queries, str | Query):
            raise InvalidQuery(f"similar_many takes a list of queries, not {queries!r}.")
        limit = _checked_limit(limit)
        queries = list(queries)
        if len(queries) * limit > MAX_MATCHES:
            raise InvalidQuery(
                f"{len(queries):,} queries with limit={limit} ask for {len(queries) * limit:,} "
                f"matches, and a call answers with up to {MAX_MATCHES:,}: ask in several calls, or "
                "for fewer matches."
            )

        def answer(collection: Collection) -> list[list[Match]]:
            request = Request(limit, _conditions(collection, where), leave_out_same_work)
            return nearest.find(collection, queries, request)

        return self._ask(answer)

    def works(
        self,
        query: str | Query,
        limit: int = 10,
        *,
        rerank: bool = False,
        leave_out_same_work: bool = False,
        where: Where | None = None,
    ) -> list[Match]:
        """Find the works nearest to a performance, each represented by its best performance.

        Parameters, order and errors are those of `similar`; `limit` counts works. Each work is
        judged by itself, so several can be probable, as for a medley.
        """
        limit = _checked_limit(limit)

        def answer(collection: Collection) -> list[Match]:
            asked = _conditions(collection, where)
            request = Request(limit, asked, leave_out_same_work, one_per_work=True)
            (by_distance,) = nearest.find(collection, [query], request)
            if not rerank:
                return by_distance
            all_of_works = replace(request, limit=CANDIDATES, one_per_work=False)
            (matches,) = nearest.find(collection, [query], all_of_works)
            aligned = judging.Aligned(collection, query, matches)
            best: dict[str, int] = {}
            for row in aligned.order:
                best.setdefault(matches[row].work_id, row)
            others = [match for match in by_distance if match.work_id not in best]
            return [*aligned.matches([*best.values()][:limit]), *others][:limit]

        return self._ask(answer)

    def why_nothing(self, where: Where | None = None) -> str:
        """Say why a filter finds nothing: what no performance has, and which values are near."""
        return self._ask(
            lambda collection: suggestions.why_nothing(collection, _conditions(collection, where))
        )

    def fields(self) -> dict[str, type]:
        """Return the fields that can be filtered by, the publisher's columns too, with types."""
        current = self.status().current
        return fields_of(current.columns if current else {})

    def unknown_values(self, where: Where | None = None) -> list[str]:
        """Say which of several values of a field no performance has, and which values are near."""
        return self._ask(
            lambda collection: suggestions.unknown_values(
                collection, _conditions(collection, where)
            )
        )

    def distance(self, a: str | Query, b: str | Query) -> float:
        """Return the Euclidean distance between two performances; raise TrackNotFound."""

        def answer(collection: Collection) -> float:
            first, second = look_up(collection, [a, b])
            return float(np.linalg.norm(first.vector - second.vector))

        return self._ask(answer)

    def same_work(self, a: str | Query, b: str | Query) -> Match:
        """Judge whether two performances are versions of one work.

        If both have sequences, they are aligned both ways, so the answer does not depend on their
        order. Performance b is returned as a match of a, with its `probability`; a query gets a
        work of its own, named as it is.

        Raises
        ------
        TrackNotFound
            If the collection has no such performance.
        InvalidQuery
            If both are the same, or the bundle has no calibration.
        """
        if a == b:
            raise InvalidQuery(f"{a} was given twice: name two different performances.")

        def answer(collection: Collection) -> Match:
            judging.calibration_of(collection)
            first, second = look_up(collection, [a, b])
            (match,) = nearest.compare(collection, first, [second])
            if isinstance(b, Query):
                match = replace(match, track_id=b.name, work_id=b.name, same_work=None)
            return judging.same_work(collection, a, b, match)

        return self._ask(answer)

    def identify(
        self, query: str | Query, limit: int = 5, *, where: Where | None = None
    ) -> Identification:
        """Name the work that a performance is a version of, if the collection has it.

        The label of the performance is not used, so labels can be checked this way. The nearest
        `CANDIDATES` (100) performances are considered, and aligned if they have sequences. Works
        that are probably one, although their labels differ, are answered as one, with the sum of
        their probabilities (`Work.same_as`); `search.identification` derives this. With a filter,
        `where`, only the performances that meet it are considered.

        Raises
        ------
        TrackNotFound
            If the collection has no such performance.
        InvalidQuery
            If the bundle has no calibration, or the filter is impossible.
        """
        limit = _checked_limit(limit)

        def answer(collection: Collection) -> Identification:
            judging.calibration_of(collection)
            request = Request(CANDIDATES, _conditions(collection, where))
            (matches,) = nearest.find(collection, [query], request)
            aligned = judging.align(collection, query, matches)
            return identification.identify(collection, query, matches, aligned, limit)

        return self._ask(answer)

    def duplicates(
        self, max_pairs: int = 1000, *, min_probability: float = 0.5
    ) -> list[DuplicateGroup]:
        """Find performances that share a work but not its label, in the whole collection.

        Each performance is compared with the `NEIGHBOURS` (10) nearest of other works, and aligned
        if it has a sequence. This takes some 10 ms per minute of music, on all cores. Pairs that
        share a performance, or that connect the same two works, are then one group: they are
        probably one work. Groups whose weakest link is strongest come first.

        Parameters
        ----------
        max_pairs : int in [1, 10000]
            Maximum number of pairs in all groups together; the most probable are kept.
        min_probability : float in [0, 1]
            Minimum probability of a pair.

        Raises
        ------
        InvalidQuery
            If the bundle has no calibration, or a number is out of range.
        """
        max_pairs = _checked_limit(max_pairs, "max_pairs")
        if not 0 <= min_probability <= 1:
            raise InvalidQuery(
                f"min_probability={min_probability!r} is not a probability: give a number from 0 "
                "to 1."
            )

        def answer(collection: Collection) -> list[DuplicateGroup]:
            judging.calibration_of(collection)
            neighbourhoods = _neighbourhoods(collection)
            return find_duplicates(collection, neighbourhoods, max_pairs, min_probability)

        return self._ask(answer)

    def _ask(self, answer: Callable[[Collection], Answer]) -> Answer:
        for _ in range(ATTEMPTS):
            try:
                return answer(self.engine.open())
            except CollectionGone as error:
                gone = error  # the collection that is current now has the answer
        raise SearchError(
            f"The collections in {self.engine.location} are replaced faster than they can be "
            "searched: ask again when publishing is over."
        ) from gone


def _checked_limit(limit: object, name: str = "limit") -> int:
    limit = whole(limit)
    if type(limit) is not int or not 1 <= limit <= MAX_LIMIT:
        raise InvalidQuery(
            f"{name}={limit!r} is out of range: give a number from 1 to {MAX_LIMIT}."
        )
    return limit


def _conditions(collection: Collection, where: Where | None) -> tuple[Condition, ...]:
    try:
        return conditions(where, collection.description.columns)
    except InvalidQuery:
        collection.count()  # raises CollectionGone if another collection is current by now
        raise


def _neighbourhoods(collection: Collection) -> Iterator[list[tuple[Payload, list[Match]]]]:
    """Yield all performances in batches, with the nearest performances of other works."""
    request = Request(NEIGHBOURS, leave_out_same_work=True)
    everything = collection.everything()
    while stored := list(islice(everything, nearest.BATCH_QUERIES)):
        matches = nearest.near(collection, stored, request)
        yield [(each.payload, found) for each, found in zip(stored, matches, strict=True)]
