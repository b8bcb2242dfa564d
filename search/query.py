"""Asking a collection: which performances are nearest, and are they versions of the same work?"""

import string
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import islice
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from search import settings
from search.connecting import connect
from search.engines.collection import (
    USUAL_DISTANCE,
    USUAL_SPREAD,
    Candidate,
    Collection,
    Engine,
    Payload,
    Vectors,
)
from search.errors import CollectionGone, InvalidQuery, SearchError, TrackNotFound
from search.fields import Condition, NoneOf, conditions
from search.matches import Duplicate, Identification, Match
from search.publishing import Status
from search.publishing import status as published
from search.versions import judging
from search.versions.calibration import relative
from search.versions.duplicates import NEIGHBOURS
from search.versions.duplicates import duplicates as find_duplicates
from search.versions.reranking import CANDIDATES

Answer = TypeVar("Answer")
Item = TypeVar("Item")
Where = Mapping[str, object]

#: The most matches of one query, and of one call.
MAX_LIMIT, MAX_MATCHES = 10_000, 1_000_000

#: The most queries, and the most candidates, that the engine is asked for together.
BATCH, IN_FLIGHT = 1000, 100_000

#: The most candidates of one query, unless the collection is larger. Not what it says of its size,
#: since it may have grown.
MOST = 100_000

#: More candidates where a query's own work is left out, which is enough for nearly all works.
OWN_WORK = 16

#: An unknown id of up to this many characters is tried with every single mistake put right ...
MAX_ID = 32
#: ... and otherwise compared with this many ids of the collection.
SCANNED = 10_000


@dataclass(frozen=True)
class Query:
    """What to look for, and whose it is, if it is a performance of the collection."""

    vector: Vectors
    payload: Payload = field(default_factory=dict)

    @property
    def track_id(self) -> str | None:
        """Its id."""
        return self.payload.get("track_id")

    @property
    def work_id(self) -> str | None:
        """Its work."""
        return self.payload.get("work_id")


@dataclass(frozen=True)
class Wanted:
    """What every query of a call wants: at most `limit` matches that meet the conditions."""

    limit: int
    conditions: tuple[Condition, ...] = ()
    leave_out_same_work: bool = False
    one_a_work: bool = False

    @property
    def candidates(self) -> int:
        """How many to ask for: a few more than are wanted."""
        return (4 * self.limit if self.one_a_work else self.limit) + 2

    def conditions_of(self, query: Query) -> tuple[Condition, ...]:
        """The conditions, with that on the query's own work."""
        if not self.leave_out_same_work or query.work_id is None:
            return self.conditions
        return (*self.conditions, NoneOf("work_id", (query.work_id,)))


class Searcher:
    """Searches the current collection of an engine, whichever that is at each call.

    Matches are ordered by distance and then by track id, and never hold the query itself. One
    answer, and all answers of one `similar_many`, come from one collection; where it is a server's
    and changed in place meanwhile, each performance is its old or its new self. Threads may share
    it.

    Parameters
    ----------
    engine : Engine, optional
        From `connect`; by default the environment's.
    """

    def __init__(self, engine: Engine | None = None) -> None:
        self.engine = connect() if engine is None else engine

    def similar(
        self,
        track_id: str,
        limit: int = 10,
        *,
        rerank: bool = False,
        leave_out_same_work: bool = False,
        where: Where | None = None,
    ) -> list[Match]:
        """Find the performances nearest to one of the collection.

        Parameters
        ----------
        track_id : str
            The query.
        limit : int in [1, 10000]
            The most matches to return.
        rerank : bool
            Whether to align the nearest `CANDIDATES` (100) with the query and put the likeliest
            versions first, see `search.versions.reranking`; the others follow by distance. Slower,
            better at
            covers, and every aligned match says how. Needs a collection with sequences.
        leave_out_same_work : bool
            Whether to leave out the query's own work, to see what else is near.
        where : mapping, optional
            What matches must meet; its form is in `search.fields`.

        Returns
        -------
        list of Match
            Nearest first, or best aligned first; ties go by distance and then by track id.

        Raises
        ------
        TrackNotFound
            If the collection has no such performance; the message offers close ids.
        NoCollection
            If nothing is published.
        InvalidQuery
            If the limit or the filter is impossible, or there is nothing to align.
        """
        if not rerank:
            return self.similar_many(
                [track_id], limit, leave_out_same_work=leave_out_same_work, where=where
            )[0]
        _check_limit(limit)
        wanted = Wanted(max(limit, CANDIDATES), conditions(where), leave_out_same_work)

        def answer(collection: Collection) -> list[Match]:
            (nearest,) = _around(collection, [track_id], wanted)
            aligned = judging.Aligned(collection, track_id, nearest[:CANDIDATES])
            return [*aligned.matches(aligned.order[:limit]), *nearest[CANDIDATES:limit]]

        return self._ask(answer)

    def similar_many(
        self,
        track_ids: Sequence[str],
        limit: int = 10,
        *,
        leave_out_same_work: bool = False,
        where: Where | None = None,
    ) -> list[list[Match]]:
        """Do what `similar` does for many queries, several times faster; answer i is of query i.

        Raises
        ------
        TrackNotFound, NoCollection, InvalidQuery
            As `similar`; and if there may be more than `MAX_MATCHES` (1,000,000) matches in all.
        """
        if isinstance(track_ids, str):
            raise InvalidQuery(f"similar_many takes a list of track ids, not {track_ids!r}.")
        _check_limit(limit)
        wanted = Wanted(limit, conditions(where), leave_out_same_work)
        queries = list(track_ids)
        if len(queries) * limit > MAX_MATCHES:
            raise InvalidQuery(
                f"{len(queries):,} queries with limit={limit} ask for {len(queries) * limit:,} "
                f"matches, and a call answers with up to {MAX_MATCHES:,}: ask in several calls, or "
                "for fewer matches."
            )
        return self._ask(lambda collection: _around(collection, queries, wanted))

    def works(
        self,
        track_id: str,
        limit: int = 10,
        *,
        leave_out_same_work: bool = False,
        where: Where | None = None,
    ) -> list[Match]:
        """Find the works nearest to a performance, each by the nearest of its performances.

        Parameters, order and errors are those of `similar`; `limit` counts works.
        """
        _check_limit(limit)
        wanted = Wanted(limit, conditions(where), leave_out_same_work, one_a_work=True)
        return self._ask(lambda collection: _around(collection, [track_id], wanted)[0])

    def similar_to(
        self, vector: npt.ArrayLike, limit: int = 10, *, where: Where | None = None
    ) -> list[Match]:
        """Find the performances nearest to a vector that the collection's bundle made.

        Parameters
        ----------
        vector : array_like, shape=(d,)
            Finite, and of the collection's dimension.
        limit, where
            As for `similar`, whose errors these are too.

        Raises
        ------
        InvalidQuery
            If the vector is something else.
        """
        _check_limit(limit)
        wanted = Wanted(limit, conditions(where))

        def answer(collection: Collection) -> list[Match]:
            return _near(collection, [Query(_as_vector(vector, collection))], wanted)[0]

        return self._ask(answer)

    def distance(self, a: str, b: str) -> float:
        """Return the Euclidean distance between two performances of the collection.

        Raises
        ------
        TrackNotFound
            If either isn't in the collection.
        """

        def answer(collection: Collection) -> float:
            one, other = _look_up(collection, [a, b])
            return float(np.linalg.norm(one.vector - other.vector))

        return self._ask(answer)

    def same_work(self, a: str, b: str) -> Match:
        """Judge whether two performances are versions of one work.

        They are aligned where their sequences can be, both ways round, so that the answer is the
        same for both orders.

        Returns
        -------
        Match
            Of b, as it is seen from a, with its `probability`.

        Raises
        ------
        TrackNotFound
            If either isn't in the collection.
        InvalidQuery
            If the two are one, or the bundle isn't calibrated.
        """
        if a == b:
            raise InvalidQuery(f"{a} is one performance: name two different ones to compare.")

        def answer(collection: Collection) -> Match:
            judging.calibration_of(collection)
            one, other = _look_up(collection, [a, b])
            distance = float(np.linalg.norm(one.vector - other.vector))
            (match,) = _found([Candidate(distance, other.payload)], one)
            return judging.same_work(collection, a, match)

        return self._ask(answer)

    def identify(self, track_id: str, limit: int = 5) -> Identification:
        """Name the work that a performance is a version of, or say that it is none of those here.

        What the performance itself is labelled plays no part, so a label can be checked by it. The
        nearest `CANDIDATES` (100) performances are looked at, aligned where they can be.

        Parameters
        ----------
        track_id : str
            The query.
        limit : int in [1, 10000]
            The most works to list.

        Raises
        ------
        TrackNotFound
            If the collection has no such performance.
        InvalidQuery
            If the bundle isn't calibrated.
        """
        _check_limit(limit)

        def answer(collection: Collection) -> Identification:
            judging.calibration_of(collection)
            (nearest,) = _around(collection, [track_id], Wanted(CANDIDATES))
            aligned = judging.align(collection, track_id, nearest)
            return judging.identify(collection, track_id, nearest, aligned, limit)

        return self._ask(answer)

    def duplicates(self, limit: int = 100, *, least: float = 0.5) -> list[Duplicate]:
        """Go through the catalogue for performances of one work that are labelled as of two.

        Each performance is compared with the `NEIGHBOURS` (10) nearest of other works, aligned
        where they can be: some 10 ms a minute of music, on every core.

        Parameters
        ----------
        limit : int in [1, 10000]
            The most pairs to list.
        least : float in [0, 1]
            And none that is less probable.

        Returns
        -------
        list of Duplicate
            The most probable first.

        Raises
        ------
        InvalidQuery
            If the bundle isn't calibrated, or the limit or the probability is impossible.
        """
        _check_limit(limit)
        if not 0 <= least <= 1:
            raise InvalidQuery(f"least={least!r} is not a probability: give a number from 0 to 1.")

        def answer(collection: Collection) -> list[Duplicate]:
            judging.calibration_of(collection)
            return find_duplicates(collection, _neighbourhoods(collection), limit, least)

        return self._ask(answer)

    def status(self) -> Status:
        """Say what is published, and what was before."""
        return published(self.engine)

    def _ask(self, answer: Callable[[Collection], Answer]) -> Answer:
        for _ in range(5):
            try:
                return answer(self.engine.open())
            except CollectionGone as error:
                gone = error  # pruned on the way: whatever is current now has the answer
        raise SearchError(
            f"The collections in {self.engine.location} are replaced faster than they can be "
            "searched: ask again when publishing is over."
        ) from gone


def _check_limit(limit: object) -> None:
    if type(limit) is not int or not 1 <= limit <= MAX_LIMIT:
        raise InvalidQuery(f"limit={limit!r} is out of range: ask for 1 to {MAX_LIMIT} matches.")


def _as_vector(vector: npt.ArrayLike, collection: Collection) -> Vectors:
    try:
        with np.errstate(over="ignore"):  # what float32 can't hold becomes infinite, and is found
            array = np.asarray(vector, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise InvalidQuery(f"A vector is a list of numbers, which this isn't: {error}.") from error
    name, dimension = collection.description.name, collection.description.dimension
    if array.shape != (dimension,):
        raise InvalidQuery(
            f"A vector of shape {array.shape} can't be compared with {name}, whose vectors have "
            f"{dimension} components: embed it with the bundle {collection.description.bundle}."
        )
    if not np.isfinite(array).all():
        at = int(np.argmin(np.isfinite(array)))
        raise InvalidQuery(f"The vector isn't finite: its component {at} is {array[at]}.")
    return array


def _check_ids(track_ids: Sequence[object]) -> None:
    for track_id in track_ids:
        if not isinstance(track_id, str):
            raise InvalidQuery(f"A track id is a text, which {track_id!r} isn't.")


def _look_up(collection: Collection, track_ids: Sequence[str]) -> list[Query]:
    _check_ids(track_ids)
    queries = []
    for track_id, found in zip(track_ids, collection.performances(track_ids), strict=True):
        if found is None:
            raise _not_found(collection, track_id)
        queries.append(Query(found.vector, found.payload))
    return queries


def _batches(items: Sequence[Item], candidates: int) -> Iterator[Sequence[Item]]:
    """Divide queries, each with so many candidates, for the engine and for our memory."""
    size = max(1, min(BATCH, IN_FLIGHT // candidates))
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _around(collection: Collection, track_ids: Sequence[str], wanted: Wanted) -> list[list[Match]]:
    """Answer queries that are performances of the collection."""
    _check_ids(track_ids)
    matches = []
    fetch = wanted.candidates + wanted.leave_out_same_work * OWN_WORK
    for batch in _batches(track_ids, fetch):
        queries, candidates = [], []
        found = collection.around(batch, fetch, wanted.conditions)
        for track_id, one in zip(batch, found, strict=True):
            if one is None:
                raise _not_found(collection, track_id)
            queries.append(Query(one[0].vector, one[0].payload))
            candidates.append(one[1])
        matches += _settle(collection, queries, wanted, fetch, candidates)
    return matches


def _near(collection: Collection, queries: Sequence[Query], wanted: Wanted) -> list[list[Match]]:
    """Answer queries whose vectors are known."""
    matches = []
    fetch = wanted.candidates + wanted.leave_out_same_work * OWN_WORK
    for batch in _batches(queries, fetch):
        vectors = np.stack([query.vector for query in batch])
        candidates = collection.nearest(vectors, fetch, wanted.conditions)
        matches += _settle(collection, batch, wanted, fetch, candidates)
    return matches


def _settle(
    collection: Collection,
    queries: Sequence[Query],
    wanted: Wanted,
    fetch: int,
    candidates: Iterable[list[Candidate]],
) -> list[list[Match]]:
    """Choose matches among candidates, and ask for more as long as the cut is in doubt.

    It is in doubt when too few are left once the query itself is taken out (and its work, and
    further performances of the same works), or when the last candidate is as far away as the last
    match: then the engine has cut a tie at will, and ties are for the track id to break.
    """
    chosen: list[list[Candidate]] = [[] for _ in queries]
    most = max(MOST, collection.description.points)
    # The own work is then left out by the engine.
    following = wanted.candidates if wanted.leave_out_same_work else 4 * fetch
    fetched: Iterable[tuple[int, list[Candidate]]] = enumerate(candidates)
    while True:
        in_doubt = []
        for i, found in fetched:
            best = _choose(found, queries[i], wanted)[: wanted.limit]
            chosen[i] = best
            all_seen = len(found) < fetch or fetch >= most
            clear_cut = len(best) == wanted.limit and best[-1].distance < found[-1].distance
            if not (all_seen or clear_cut):
                in_doubt.append(i)
        if not in_doubt:
            break
        fetch, following = min(following, most), 4 * following
        fetched = _fetch(collection, queries, wanted, fetch, in_doubt)
    return [
        judging.by_distance(collection, _found(best, query))
        for best, query in zip(chosen, queries, strict=True)
    ]


def _fetch(
    collection: Collection,
    queries: Sequence[Query],
    wanted: Wanted,
    fetch: int,
    pending: Iterable[int],
) -> Iterator[tuple[int, list[Candidate]]]:
    """Ask for the candidates of some of the queries; those of one work are asked together."""
    alike: dict[tuple[Condition, ...], list[int]] = {}
    for i in pending:
        alike.setdefault(wanted.conditions_of(queries[i]), []).append(i)
    for met, rows in alike.items():
        for batch in _batches(rows, fetch):
            vectors = np.stack([queries[i].vector for i in batch])
            yield from zip(batch, collection.nearest(vectors, fetch, met), strict=True)


def _neighbourhoods(collection: Collection) -> Iterator[list[tuple[Payload, list[Match]]]]:
    """Go through a collection: some performances at a time, with the nearest of other works."""
    wanted = Wanted(NEIGHBOURS, leave_out_same_work=True)
    everything = collection.everything()
    while stored := list(islice(everything, BATCH)):
        queries = [Query(one.vector, one.payload) for one in stored]
        payloads = (one.payload for one in stored)
        yield list(zip(payloads, _near(collection, queries, wanted), strict=True))


def _choose(candidates: Sequence[Candidate], query: Query, wanted: Wanted) -> list[Candidate]:
    """Put candidates into the order of matches, without those that are none."""
    best = []
    seen = {query.work_id} if wanted.leave_out_same_work else set()
    for candidate in sorted(candidates, key=lambda c: (c.distance, c.payload["track_id"])):
        work_id = candidate.payload["work_id"]
        if candidate.payload["track_id"] == query.track_id or work_id in seen:
            continue
        if wanted.one_a_work:
            seen.add(work_id)
        best.append(candidate)
    return best


def _found(candidates: Sequence[Candidate], query: Query) -> list[Match]:
    if not candidates:
        return []
    near: list[float | None] = [None] * len(candidates)
    if USUAL_DISTANCE in query.payload:
        distances = [candidate.distance for candidate in candidates]
        usual = [_usual(candidate.payload) for candidate in candidates]
        near = [*relative(distances, _usual(query.payload), usual).tolist()]
    found = []
    for candidate, relative_distance in zip(candidates, near, strict=True):
        payload = candidate.payload
        match = Match(
            track_id=payload["track_id"],
            work_id=payload["work_id"],
            title=payload.get("title"),
            work_title=payload.get("work_title"),
            artist=payload.get("artist"),
            work_artist=payload.get("work_artist"),
            year=payload.get("year"),
            distance=candidate.distance,
            relative_distance=relative_distance,
            same_work=None if query.work_id is None else payload["work_id"] == query.work_id,
        )
        found.append(match)
    return found


def _usual(payload: Payload) -> tuple[float, float]:
    return payload[USUAL_DISTANCE], payload[USUAL_SPREAD]


def _not_found(collection: Collection, track_id: str) -> TrackNotFound:
    """Say so, and what may have been meant."""
    tries = list(dict.fromkeys(_slips(track_id))) if len(track_id) <= MAX_ID else []
    close = [
        meant
        for meant, found in zip(tries, collection.performances(tries), strict=True)
        if found is not None
    ][:3]
    if not close:
        close = get_close_matches(track_id, collection.some_track_ids(SCANNED), n=3)
    hint = (
        f"did you mean {' or '.join(close)}?"
        if close
        else f"its ids look like {', '.join(collection.some_track_ids(2))}."
    )
    where = collection.description.name
    return TrackNotFound(f"There is no performance {track_id!r} in {where}: {hint}")


def _slips(track_id: str) -> Iterator[str]:
    """Ids that `track_id` may be a slip for: another case, no prefix, one character wrong.

    Each is looked up by the point id it would have, which costs the same in any collection.
    """
    bare = track_id.strip()
    for form in (bare, bare.upper(), bare.lower()):
        yield from (form, f"P_{form}", form.replace("-", "_"))
    alphabet = string.digits + string.ascii_letters + "_-"
    for i in range(len(bare) + 1):
        head, tail = bare[:i], bare[i:]
        if len(tail) > 1:
            yield head + tail[1] + tail[0] + tail[2:]
        if tail:
            yield head + tail[1:]
            yield from (head + character + tail[1:] for character in alphabet)
        yield from (head + character + tail for character in alphabet)


_cached: tuple[settings.Settings, Searcher] | None = None


def _searcher() -> Searcher:
    """Return the environment's searcher: one a process, unless the environment changes."""
    global _cached
    environment = settings.read()
    if _cached is None or _cached[0] != environment:
        _cached = environment, Searcher()
    return _cached[1]


def similar(
    track_id: str,
    limit: int = 10,
    *,
    rerank: bool = False,
    leave_out_same_work: bool = False,
    where: Where | None = None,
) -> list[Match]:
    """Find the performances nearest to one of the collection; see `Searcher.similar`."""
    return _searcher().similar(
        track_id, limit, rerank=rerank, leave_out_same_work=leave_out_same_work, where=where
    )


def similar_many(
    track_ids: Sequence[str],
    limit: int = 10,
    *,
    leave_out_same_work: bool = False,
    where: Where | None = None,
) -> list[list[Match]]:
    """Answer many queries at once; see `Searcher.similar_many`."""
    return _searcher().similar_many(
        track_ids, limit, leave_out_same_work=leave_out_same_work, where=where
    )


def works(
    track_id: str, limit: int = 10, *, leave_out_same_work: bool = False, where: Where | None = None
) -> list[Match]:
    """Find the works nearest to a performance; see `Searcher.works`."""
    return _searcher().works(track_id, limit, leave_out_same_work=leave_out_same_work, where=where)


def similar_to(
    vector: npt.ArrayLike, limit: int = 10, *, where: Where | None = None
) -> list[Match]:
    """Find the performances nearest to a vector; see `Searcher.similar_to`."""
    return _searcher().similar_to(vector, limit, where=where)


def distance(a: str, b: str) -> float:
    """Return the Euclidean distance between two performances; see `Searcher.distance`."""
    return _searcher().distance(a, b)


def same_work(a: str, b: str) -> Match:
    """Judge whether two performances are versions of one work; see `Searcher.same_work`."""
    return _searcher().same_work(a, b)


def identify(track_id: str, limit: int = 5) -> Identification:
    """Name the work that a performance is a version of; see `Searcher.identify`."""
    return _searcher().identify(track_id, limit)


def duplicates(limit: int = 100, *, least: float = 0.5) -> list[Duplicate]:
    """Find performances of one work that are labelled as of two; see `Searcher.duplicates`."""
    return _searcher().duplicates(limit, least=least)


def status() -> Status:
    """Say what is published; see `Searcher.status`."""
    return _searcher().status()
