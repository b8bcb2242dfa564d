"""Asking a collection on a Qdrant server: points, the nearest of them, their sequences."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from search import companion
from search.collection import (
    Candidate,
    Description,
    Payload,
    Stored,
    Vectors,
    is_exact,
    point_id,
)
from search.connection import BATCH, Connection
from search.errors import CollectionGone, DamagedCollection, SearchError
from search.fields import FIELDS, AnyOf, Condition

#: Breadth of the search in the graph (HNSW) of larger collections. At 100,000 x 128, with noise in
#: every dimension, the embedded engine's same graph (see `search.server`) found 98.5 % of the
#: nearest ten.
HNSW_EF = 384

#: Where one byte a component is in memory, so many times the wanted number of candidates are
#: compared by the vectors again.
OVERSAMPLING = 4.0

#: So many queries together are asked by gRPC, where the server takes it.
GRPC_QUERIES = 32


class ServerCollection:
    """A collection on a server; see `search.collection.Collection`."""

    def __init__(
        self, connection: Connection, description: Description, mean_background: float
    ) -> None:
        from qdrant_client import models

        self.description = description
        self._connection = connection
        exact = is_exact(description.points, description.dimension)
        # It says nothing to a collection that isn't quantized.
        again = models.QuantizationSearchParams(rescore=True, oversampling=OVERSAMPLING)
        self._params = (
            models.SearchParams(exact=True)
            if exact
            else models.SearchParams(hnsw_ef=HNSW_EF, quantization=again)
        )
        self.sequences: companion.ServerSequences | None = None
        if description.rate is not None:
            self.sequences = companion.ServerSequences(
                description.rate,
                mean_background,
                self._retrieve_sequences,
                lambda: self._count(companion.companion(description.name)),
                self._without_sequence,
            )

    def _retrieve_sequences(self, ids: list[str], fields: list[str]) -> dict[str, Payload]:
        name = companion.companion(self.description.name)
        try:
            with self._connection.asking():
                records = self._connection.client.retrieve(name, ids=ids, with_payload=fields)
        except CollectionGone:
            if not self._connection.metadata(self.description.name):
                raise  # both were pruned
            raise self._damaged("isn't there") from None
        return {str(record.id): record.payload or {} for record in records}

    def _without_sequence(self, track_id: str) -> SearchError:
        if self.performances([track_id]) == [None]:
            return CollectionGone(
                f"{track_id} was withdrawn from {self.description.name} while it was searched."
            )
        return self._damaged(f"has no sequence of {track_id}")

    def _damaged(self, how: str) -> DamagedCollection:
        return DamagedCollection(
            f"The collection {companion.companion(self.description.name)} on the Qdrant server at "
            f"{self._connection.location} {how}: publish again, or go back with `covers rollback`."
        )

    def count(self) -> int:
        """Count the points."""
        return self._count(self.description.name)

    def _count(self, name: str) -> int:
        with self._connection.asking():
            return self._connection.client.count(name, exact=True).count

    def performances(self, track_ids: Sequence[str]) -> list[Stored | None]:
        """Retrieve points by their ids, a batch a request."""
        ids = [str(point_id(track_id)) for track_id in track_ids]
        wanted = list(dict.fromkeys(ids))
        found: dict[str, Stored] = {}
        with self._connection.asking():
            for start in range(0, len(wanted), BATCH):
                for record in self._connection.client.retrieve(
                    self.description.name,
                    ids=wanted[start : start + BATCH],
                    with_payload=True,
                    with_vectors=True,
                ):
                    vector = np.array(record.vector, dtype=np.float32)
                    found[str(record.id)] = Stored(vector, record.payload or {})
        return [found.get(id_) for id_ in ids]

    def nearest(
        self, vectors: Vectors, limit: int, conditions: Sequence[Condition]
    ) -> list[list[Candidate]]:
        """Ask a batch of queries a request."""
        from qdrant_client import models

        met = models.Filter(must=[_condition(condition) for condition in conditions])
        requests = [
            models.QueryRequest(
                query=vector,
                limit=limit,
                filter=met if conditions else None,
                params=self._params,
                with_payload=True,
            )
            for vector in vectors.tolist()
        ]
        name, many = self.description.name, len(requests) >= GRPC_QUERIES
        client = self._connection.for_many(name) if many else self._connection.client
        with self._connection.asking():
            answers = [
                answer
                for start in range(0, len(requests), BATCH)
                for answer in client.query_batch_points(name, requests[start : start + BATCH])
            ]
        # A distance is a float32, of which JSON has only the digits that tell it from others.
        return [
            [
                Candidate(float(np.float32(point.score)), point.payload or {})
                for point in answer.points
            ]
            for answer in answers
        ]

    def some_track_ids(self, limit: int) -> list[str]:
        """Return the first track ids by point id, which is no order of theirs."""
        with self._connection.asking():
            records, _ = self._connection.client.scroll(
                self.description.name, limit=limit, with_payload=["track_id"]
            )
        return [record.payload["track_id"] for record in records if record.payload]

    def everything(self) -> Iterator[Stored]:
        """Scroll, a batch a request."""
        for record in self._connection.scroll(
            self.description.name, BATCH, with_payload=True, with_vectors=True
        ):
            yield Stored(np.array(record.vector, dtype=np.float32), record.payload or {})


def _condition(condition: Condition) -> Any:
    from qdrant_client import models

    key = condition.field
    if not isinstance(condition, AnyOf):
        span = models.Range(gte=condition.low, lte=condition.high)
        return models.FieldCondition(key=key, range=span)
    if FIELDS[key] is not bool:
        match = models.MatchAny(any=list(condition.values))  # type: ignore[arg-type]
        return models.FieldCondition(key=key, match=match)
    # A list of bools is nothing that Qdrant can match.
    either: list[Any] = [
        models.FieldCondition(key=key, match=models.MatchValue(value=value))
        for value in condition.values
    ]
    return models.Filter(should=either)
