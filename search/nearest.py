"""Find the nearest performances: exact ranks with ties by track id, from an engine's candidates."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from search.asked import Query, check_ids, look_up
from search.engines.collection import Candidate, Collection, Stored
from search.fields import FIELDS, Condition, NoneOf
from search.matches import Match
from search.point import Payload
from search.points import USUAL_DISTANCE, USUAL_SPREAD
from search.suggestions import unknown_track
from search.versions import judging
from search.versions.calibration import relative

Item = TypeVar("Item")

#: Maximum number of queries, and of candidates, in one request to the engine.
BATCH_QUERIES, BATCH_CANDIDATES = 1000, 100_000

#: Maximum number of candidates of one query, unless the collection is larger. It may have grown
#: since it was described.
MAX_CANDIDATES = 100_000

#: Additional candidates if the query's own work is left out; nearly all works are smaller.
OWN_WORK_CANDIDATES = 16


@dataclass(frozen=True)
class Request:
    """What all queries of a call ask for: up to `limit` matches that meet the conditions."""

    limit: int
    conditions: tuple[Condition, ...] = ()
    leave_out_same_work: bool = False
    one_per_work: bool = False

    @property
    def candidates(self) -> int:
        """Number of candidates to ask the engine for: a few more than the limit."""
        return (4 * self.limit if self.one_per_work else self.limit) + 2

    @property
    def first_candidates(self) -> int:
        """Number of candidates in the first request, in which the query's own work may be."""
        return self.candidates + self.leave_out_same_work * OWN_WORK_CANDIDATES

    def conditions_of(self, query: Stored) -> tuple[Condition, ...]:
        """Return the conditions, including the one on the query's own work."""
        if not self.leave_out_same_work or query.work_id is None:
            return self.conditions
        return (*self.conditions, NoneOf("work_id", (query.work_id,)))


def find(
    collection: Collection, asked: Sequence[str | Query], request: Request
) -> list[list[Match]]:
    """Find the performances nearest to performances and queries; the errors are of `look_up`."""
    if any(isinstance(each, Query) for each in asked):
        return near(collection, look_up(collection, asked), request)
    check_ids(asked)
    track_ids = [str(each) for each in asked]
    matches = []
    count = request.first_candidates
    for batch in _batches(track_ids, count):
        queries, candidates = [], []
        found = collection.around(batch, count, request.conditions)
        for track_id, answer in zip(batch, found, strict=True):
            if answer is None:
                raise unknown_track(collection, track_id)
            stored, nearest = answer
            queries.append(stored)
            candidates.append(nearest)
        matches += _settle(collection, queries, request, candidates)
    return matches


def near(collection: Collection, queries: Sequence[Stored], request: Request) -> list[list[Match]]:
    """Find the performances nearest to vectors."""
    matches = []
    count = request.first_candidates
    for batch in _batches(queries, count):
        vectors = np.stack([query.vector for query in batch])
        candidates = collection.nearest(vectors, count, request.conditions)
        matches += _settle(collection, batch, request, candidates)
    return matches


def as_matches(
    collection: Collection, candidates: Sequence[Candidate], query: Stored
) -> list[Match]:
    """Describe candidates as matches of a query."""
    if not candidates:
        return []
    relative_distances: list[float | None] = [None] * len(candidates)
    if USUAL_DISTANCE in query.payload:
        distances = [candidate.distance for candidate in candidates]
        usual = [_usual(candidate.payload) for candidate in candidates]
        relative_distances = [*relative(distances, _usual(query.payload), usual).tolist()]
    columns = collection.description.columns
    matches = []
    for candidate, relative_distance in zip(candidates, relative_distances, strict=True):
        fields: dict[str, Any] = {name: candidate.payload.get(name) for name in FIELDS}
        same_work = None if query.work_id is None else fields["work_id"] == query.work_id
        matches.append(
            Match(
                **fields,
                distance=candidate.distance,
                relative_distance=relative_distance,
                same_work=same_work,
                columns={name: candidate.payload.get(name) for name in columns},
            )
        )
    return matches


def compare(collection: Collection, query: Stored, others: Sequence[Stored]) -> list[Match]:
    """Describe other performances as matches of a query, in their order."""
    return as_matches(
        collection,
        [
            Candidate(float(np.linalg.norm(query.vector - other.vector)), other.payload)
            for other in others
        ],
        query,
    )


def _usual(payload: Payload) -> tuple[float, float]:
    return payload[USUAL_DISTANCE], payload[USUAL_SPREAD]


def _batches(items: Sequence[Item], candidates: int) -> Iterator[Sequence[Item]]:
    """Divide queries that have this many candidates each."""
    size = max(1, min(BATCH_QUERIES, BATCH_CANDIDATES // candidates))
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _settle(
    collection: Collection,
    queries: Sequence[Stored],
    request: Request,
    candidates: Iterable[list[Candidate]],
) -> list[list[Match]]:
    """Choose matches among candidates, and ask for more candidates while the cut is in doubt.

    The cut is in doubt if too few are left without the query itself (or its work, or further
    performances of one work), or if the last candidate is as far away as the last match. The engine
    has then cut a tie at random, and ties are broken by track id.
    """
    count = request.first_candidates
    limit = max(MAX_CANDIDATES, collection.description.points)
    # From the second time on, the engine leaves out the query's own work.
    next_count = request.candidates if request.leave_out_same_work else 4 * count
    chosen: list[list[Candidate]] = [[] for _ in queries]
    fetched: Iterable[tuple[int, list[Candidate]]] = enumerate(candidates)
    while True:
        in_doubt = []
        for i, found in fetched:
            best = _choose(found, queries[i], request)[: request.limit]
            chosen[i] = best
            all_seen = len(found) < count or count >= limit
            clear_cut = len(best) == request.limit and best[-1].distance < found[-1].distance
            if not (all_seen or clear_cut):
                in_doubt.append(i)
        if not in_doubt:
            break
        count, next_count = min(next_count, limit), 4 * next_count
        fetched = _fetch(collection, queries, request, count, in_doubt)
    return [
        judging.by_distance(collection, as_matches(collection, best, query))
        for best, query in zip(chosen, queries, strict=True)
    ]


def _fetch(
    collection: Collection,
    queries: Sequence[Stored],
    request: Request,
    count: int,
    rows: Iterable[int],
) -> Iterator[tuple[int, list[Candidate]]]:
    """Ask for the candidates of some queries; queries with equal conditions are asked together."""
    alike: dict[tuple[Condition, ...], list[int]] = {}
    for i in rows:
        alike.setdefault(request.conditions_of(queries[i]), []).append(i)
    for conditions, same in alike.items():
        for batch in _batches(same, count):
            vectors = np.stack([queries[i].vector for i in batch])
            yield from zip(batch, collection.nearest(vectors, count, conditions), strict=True)


def _choose(candidates: Sequence[Candidate], query: Stored, request: Request) -> list[Candidate]:
    """Order candidates as matches, without the query itself and what the request leaves out."""
    best = []
    seen_works = {query.work_id} if request.leave_out_same_work else set()
    for candidate in sorted(candidates, key=lambda c: (c.distance, c.payload["track_id"])):
        work_id = candidate.payload["work_id"]
        if candidate.payload["track_id"] == query.track_id or work_id in seen_works:
            continue
        if request.one_per_work:
            seen_works.add(work_id)
        best.append(candidate)
    return best
