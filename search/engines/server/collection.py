"""A collection on a Qdrant server, open for searching."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from qdrant_client import QdrantClient, models

from search.engines.collection import Candidate, Stored
from search.engines.server.companion import ServerSequences
from search.engines.server.connection import BATCH_POINTS, Connection
from search.engines.server.facts import Facts
from search.errors import CollectionGone
from search.fields import AnyOf, Between, Condition, NoneOf, path_of
from search.point import Vectors, point_id
from search.points import COLLECTION, DIGEST, is_exact
from search.words import WORDS

Answer = TypeVar("Answer")

#: Breadth of the search in the graph (HNSW) of larger collections. At 100,000 x 128, with noise in
#: every dimension, the same graph in the embedded engine found 98.5 % of the nearest ten.
HNSW_EF = 384

#: If one byte per component is in memory, this many times the wanted number of candidates is
#: compared again by the vectors.
OVERSAMPLING = 4.0

#: Fields of a candidate that are not needed.
UNREAD_FIELDS = [COLLECTION, DIGEST, WORDS]


class ServerCollection:
    """A collection on a server; see `search.engines.collection.Collection`.

    What is known about the current collection may be outdated, because another collection may be
    current by now. So the first requests go to `name`, the alias, and each point of an answer names
    its collection. As soon as an answer has confirmed what was known, requests go to the
    collection's own name, so that all answers come from the same collection. `renew` finds out
    which collection is current now, and returns its name.
    """

    def __init__(
        self, connection: Connection, facts: Facts, name: str, renew: Callable[[], str]
    ) -> None:
        self.description = description = facts.description
        self._connection = connection
        self._name = name
        self._renew = renew
        # This has no effect on a collection that is not quantized.
        again = models.QuantizationSearchParams(rescore=True, oversampling=OVERSAMPLING)
        self._params = (
            models.SearchParams(exact=True)
            if is_exact(description.points, description.dimension)
            else models.SearchParams(hnsw_ef=HNSW_EF, quantization=again)
        )
        self.sequences: ServerSequences | None = None
        if description.rate is not None:
            self.sequences = ServerSequences(
                connection,
                description,
                facts.mean_background,
                renew,
                lambda track_id: self.performances([track_id]) == [None],
            )

    def _ask(self, request: Callable[[QdrantClient, str], Answer], fast: bool = False) -> Answer:
        """Send a request, which is given the name of the collection."""
        name = self._name
        try:
            return self._connection.ask(lambda client: request(client, name), fast=fast)
        except CollectionGone:
            self._renew()
            raise

    def _query(self, requests: Sequence[Any]) -> list[Any]:
        """Send a batch of queries, which the server answers from the same collection."""
        answers = self._ask(
            lambda client, name: client.query_batch_points(name, requests), fast=True
        )
        return [answer.points for answer in answers]

    def _confirm(self, points: Iterable[Any]) -> None:
        """Check that points are of this collection; without points, ask which one is current."""
        name = self.description.name
        if self._name == name:
            return
        names = {(point.payload or {}).get(COLLECTION) for point in points}
        if names != {name}:
            names = {self._renew()}
        if names != {name}:
            raise CollectionGone(f"{name} is not current any more.")
        self._name = name

    def count(self) -> int:
        """Count the points."""
        self._confirm(())
        return self._connection.count(self.description.name)

    def performances(self, track_ids: Sequence[str]) -> list[Stored | None]:
        """Retrieve points by their ids."""
        records = self._retrieve(track_ids, with_payload=True, with_vectors=True)
        return [None if record is None else _stored(record) for record in records]

    def digests(self, track_ids: Sequence[str]) -> list[str | None]:
        """Retrieve the digests alone."""
        records = self._retrieve(track_ids, with_payload=[DIGEST, COLLECTION], with_vectors=False)
        return [None if record is None else record.payload.get(DIGEST) for record in records]

    def _retrieve(self, track_ids: Sequence[str], **parts: Any) -> list[Any | None]:
        """Retrieve points by their ids, a batch per request; None for an id that is not here."""
        ids = [str(point_id(track_id)) for track_id in track_ids]
        wanted = list(dict.fromkeys(ids))
        found: dict[str, Any] = {}
        for start in range(0, len(wanted), BATCH_POINTS):
            batch = wanted[start : start + BATCH_POINTS]
            records = self._ask(
                lambda client, name, batch=batch: client.retrieve(  # type: ignore[misc]
                    name, ids=batch, **parts
                )
            )
            self._confirm(records)
            found.update((str(record.id), record) for record in records)
        return [found.get(id_) for id_ in ids]

    def around(
        self, track_ids: Sequence[str], limit: int, conditions: Sequence[Condition]
    ) -> list[tuple[Stored, list[Candidate]] | None]:
        """Send a batch of queries per request, which also retrieves the performances themselves."""
        found: list[tuple[Stored, list[Candidate]] | None] = []
        for start in range(0, len(track_ids), BATCH_POINTS):
            found += self._around(track_ids[start : start + BATCH_POINTS], limit, conditions)
        return found

    def _around(
        self, track_ids: Sequence[str], limit: int, conditions: Sequence[Condition]
    ) -> list[tuple[Stored, list[Candidate]] | None]:
        ids = [str(point_id(track_id)) for track_id in track_ids]
        themselves = models.QueryRequest(
            filter=models.Filter(must=[models.HasIdCondition(has_id=list(dict.fromkeys(ids)))]),
            limit=len(ids),
            with_payload=True,
            with_vector=True,
        )
        try:
            looked_up, *answers = self._query(
                [themselves, *(self._request(id_, limit, conditions) for id_ in ids)]
            )
        except CollectionGone:
            # Either the collection or one of the performances does not exist.
            there = self.performances(track_ids)
            if None not in there:
                raise
            known = [name for name, one in zip(track_ids, there, strict=True) if one is not None]
            rest = iter(self._around(known, limit, conditions) if known else ())
            return [None if one is None else next(rest) for one in there]
        self._confirm(looked_up)
        stored = {str(point.id): _stored(point) for point in looked_up}
        return [
            (stored[id_], _candidates(points)) if id_ in stored else None
            for id_, points in zip(ids, answers, strict=True)
        ]

    def nearest(
        self, vectors: Vectors, limit: int, conditions: Sequence[Condition]
    ) -> list[list[Candidate]]:
        """Send a batch of queries per request."""
        any_point = models.QueryRequest(limit=1, with_payload=[COLLECTION])
        requests = [self._request(vector, limit, conditions) for vector in vectors.tolist()]
        found: list[list[Candidate]] = []
        for start in range(0, len(requests), BATCH_POINTS):
            points, *answers = self._query([any_point, *requests[start : start + BATCH_POINTS]])
            self._confirm(points)
            found += map(_candidates, answers)
        return found

    def _request(self, query: Any, limit: int, conditions: Sequence[Condition]) -> Any:
        return models.QueryRequest(
            query=query,
            limit=limit,
            filter=_filter(conditions),
            params=self._params,
            with_payload=models.PayloadSelectorExclude(exclude=UNREAD_FIELDS),
        )

    def values(self, field: str, limit: int, conditions: Sequence[Condition] = ()) -> list[Any]:
        """Scroll by point id, which is effectively random."""
        records, _ = self._ask(
            lambda client, name: client.scroll(
                name, _filter(conditions), limit=limit, with_payload=[path_of(field), COLLECTION]
            )
        )
        self._confirm(records)
        payloads = [record.payload or {} for record in records]
        return [payload[field] for payload in payloads if field in payload]

    def everything(self) -> Iterator[Stored]:
        """Scroll through all points, a batch per request."""
        self._confirm(())
        for record in self._connection.scroll(
            self.description.name, BATCH_POINTS, with_payload=True, with_vectors=True
        ):
            yield _stored(record)


def _stored(record: Any) -> Stored:
    return Stored(np.array(record.vector, dtype=np.float32), record.payload or {})


def _candidates(points: Iterable[Any]) -> list[Candidate]:
    # A distance is a float32, and JSON has only as many digits as tell it from other float32.
    return [Candidate(float(np.float32(point.score)), point.payload or {}) for point in points]


def _filter(conditions: Sequence[Condition]) -> Any:
    return models.Filter(must=[_condition(each) for each in conditions]) if conditions else None


def _condition(condition: Condition) -> Any:
    key = path_of(condition.field)
    if isinstance(condition, Between):
        span = models.Range(gte=condition.low, lte=condition.high)
        return models.FieldCondition(key=key, range=span)
    if isinstance(condition, NoneOf):
        either_of = AnyOf(condition.field, condition.values)
        return models.Filter(must_not=[_condition(either_of)])
    if not isinstance(condition.values[0], bool):
        match = models.MatchAny(any=list(condition.values))  # type: ignore[arg-type]
        return models.FieldCondition(key=key, match=match)
    # Qdrant cannot match a list of bools.
    either: list[Any] = [
        models.FieldCondition(key=key, match=models.MatchValue(value=value))
        for value in condition.values
    ]
    return models.Filter(should=either)
