"""A shard of the embedded engine: written once, and opened as a collection."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as edge

from search.engines.collection import Candidate, Sequences, Stored
from search.errors import DamagedCollection, SearchError
from search.fields import FIELDS, AnyOf, Between, Condition, NoneOf, path_of
from search.point import Payload, Vectors, point_id
from search.points import DIGEST, Description, is_exact

#: Each index takes the engine 10 to 50 ms to open, so only the usual fields of filters have one.
#: For any other field, the payloads are read one after the other: 0.1 s at 25,000.
INDEXED_FIELDS = ("work_id", "work_artist", "artist", "year", "instrumental", "subset")

INDEX_TYPES = {
    str: edge.PayloadSchemaType.Keyword,
    int: edge.PayloadSchemaType.Integer,
    bool: edge.PayloadSchemaType.Bool,
}

#: Above `EXACT_BYTES`, vectors are first compared by one byte per component, and this many times
#: the wanted number of candidates then exactly. At 100,000 x 128 that found all of the nearest ten
#: in 2 ms. A graph took longer, found 98.5 % of them, and took minutes instead of seconds to build.
OVERSAMPLING = 4.0

#: Points that are written or read at once.
BATCH_POINTS = 1000


def write(
    directory: Path, description: Description, points: Iterable[tuple[Vectors, Payload]]
) -> None:
    """Write a shard into a new directory."""
    exact = is_exact(description.points, description.dimension)
    bytes_ = edge.ScalarQuantizationConfig(
        edge.ScalarType.Int8, quantile=0.99, memory=edge.Memory.Cached
    )
    shard = edge.EdgeShard.create(
        str(directory),
        edge.EdgeConfig(
            vectors=edge.EdgeVectorParams(
                size=description.dimension, distance=edge.Distance.Euclid
            ),
            # Without links there is no graph, and the vectors are in a single plain file.
            hnsw_config=edge.HnswIndexConfig(m=0, ef_construct=100, full_scan_threshold=10_000),
            quantization_config=None if exact else bytes_,
            optimizers=edge.EdgeOptimizersConfig(default_segment_number=1, indexing_threshold=1),
            # A log of writes would only be copied by every reader. An interrupted build is not
            # resumed.
            wal_enabled=False,
        ),
    )
    remaining = iter(points)
    while rows := list(islice(remaining, BATCH_POINTS)):
        batch = [
            edge.Point(id=point_id(payload["track_id"]), vector=vector.tolist(), payload=payload)
            for vector, payload in rows
        ]
        shard.update(edge.UpdateOperation.upsert_points(batch))
    shard.optimize()
    # Only now, because otherwise each index would be built twice.
    for field in INDEXED_FIELDS:
        shard.update(edge.UpdateOperation.create_field_index(field, INDEX_TYPES[FIELDS[field]]))
    shard.flush()
    shard.close()


class EmbeddedCollection:
    """A collection loaded into this process; see `search.engines.collection.Collection`."""

    def __init__(
        self, description: Description, shard: edge.EdgeShard, sequences: Sequences | None
    ) -> None:
        self.description = description
        self.sequences = sequences
        self._shard = shard
        rescore = edge.QuantizationSearchParams(rescore=True, oversampling=OVERSAMPLING)
        exact = is_exact(description.points, description.dimension)
        self._params = edge.SearchParams(exact=exact, quantization=None if exact else rescore)

    def _damaged(self, reason: str) -> DamagedCollection:
        return DamagedCollection(
            f"The collection {self.description.name} cannot be searched ({reason}): make it again "
            "with `covers pipeline --data DIR`, or go back with `covers rollback`."
        )

    def count(self) -> int:
        """Count the points."""
        return self._shard.count(edge.CountRequest(exact=True))

    def performances(self, track_ids: Sequence[str]) -> list[Stored | None]:
        """Look points up by their ids."""
        return [
            None if record is None else _stored(record)
            for record in self._retrieve(track_ids, True, True)
        ]

    def digests(self, track_ids: Sequence[str]) -> list[str | None]:
        """Read the digests alone."""
        return [
            None if record is None else record.payload.get(DIGEST)
            for record in self._retrieve(track_ids, [DIGEST], False)
        ]

    def _retrieve(self, track_ids: Sequence[str], payload: Any, vectors: bool) -> list[Any | None]:
        ids = [point_id(track_id) for track_id in track_ids]
        with engine_errors(self._damaged):
            records = self._shard.retrieve(list(set(ids)), payload, vectors)
        found = {record.id: record for record in records}
        return [found.get(id_) for id_ in ids]

    def around(
        self, track_ids: Sequence[str], limit: int, conditions: Sequence[Condition]
    ) -> list[tuple[Stored, list[Candidate]] | None]:
        """Look the performances up, then find one more than the limit, which may be itself."""
        stored = self.performances(track_ids)
        known = [found for found in stored if found is not None]
        if not known:
            return [None] * len(stored)
        vectors = np.stack([found.vector for found in known])
        nearest = iter(self.nearest(vectors, limit + 1, conditions))
        return [
            None if found is None else (found, _without(next(nearest), track_id)[:limit])
            for track_id, found in zip(track_ids, stored, strict=True)
        ]

    def nearest(
        self, vectors: Vectors, limit: int, conditions: Sequence[Condition]
    ) -> list[list[Candidate]]:
        """Search for all vectors in one batch, which passes over the collection once."""
        requests = [
            edge.QueryRequest(
                limit=limit,
                query=edge.Query.Nearest(vector),
                filter=_filter(conditions),
                params=self._params,
                with_payload=True,
            )
            for vector in vectors.tolist()
        ]
        with engine_errors(self._damaged):
            answers = self._shard.query_batch(edge.QueryBatchRequest(requests))
        return [
            [Candidate(point.score, point.payload or {}) for point in found] for found in answers
        ]

    def values(self, field: str, limit: int, conditions: Sequence[Condition] = ()) -> list[Any]:
        """Scroll by point id, which is effectively random."""
        request = edge.ScrollRequest(
            limit=limit,
            filter=_filter(conditions),
            with_payload=[path_of(field)],
            with_vector=False,
        )
        with engine_errors(self._damaged):
            records, _ = self._shard.scroll(request)
        payloads = [record.payload or {} for record in records]
        return [payload[field] for payload in payloads if field in payload]

    def everything(self) -> Iterator[Stored]:
        """Scroll through all points, a batch at a time."""
        start: Any = None
        while True:
            request = edge.ScrollRequest(
                offset=start, limit=BATCH_POINTS, with_payload=True, with_vector=True
            )
            with engine_errors(self._damaged):
                records, start = self._shard.scroll(request)
            yield from map(_stored, records)
            if start is None:
                return


def _stored(record: Any) -> Stored:
    return Stored(np.array(record.vector, dtype=np.float32), record.payload or {})


def _without(candidates: list[Candidate], track_id: str) -> list[Candidate]:
    return [each for each in candidates if each.payload["track_id"] != track_id]


def _filter(conditions: Sequence[Condition]) -> Any:
    return edge.Filter(must=[_condition(each) for each in conditions]) if conditions else None


def _condition(condition: Condition) -> Any:
    key = path_of(condition.field)
    if isinstance(condition, Between):
        span = edge.RangeFloat(gte=condition.low, lte=condition.high)
        return edge.FieldCondition(key, range=span)
    if isinstance(condition, NoneOf):
        return edge.Filter(must_not=[_condition(AnyOf(condition.field, condition.values))])
    values: Any = condition.values
    if not isinstance(values[0], bool):
        return edge.FieldCondition(key, match=edge.MatchAny(list(values)))
    # qdrant-edge 0.9 takes Python's True for the integer 1, which matches no bool; not numpy's.
    either: list[Any] = [
        edge.FieldCondition(key, match=edge.MatchValue(value))  # type: ignore[arg-type]
        for value in map(np.bool_, values)
    ]
    return edge.Filter(should=either)


@contextlib.contextmanager
def engine_errors(make_error: Callable[[str], SearchError]) -> Iterator[None]:
    """Raise the engine's failures, bare Exceptions and Rust panics, as errors of this package."""
    try:
        yield
    except BaseException as error:
        panic = type(error).__name__ == "PanicException"  # a BaseException, and not importable
        if type(error) is Exception or panic:
            raise make_error(str(error).splitlines()[0].rstrip(".")) from error
        raise
