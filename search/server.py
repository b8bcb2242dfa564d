"""The engine behind QDRANT_URL: a Qdrant server, with an alias that says what is current.

Searchers find the current collection by the alias `covers`, which moves in one request, and then
keep to that collection's own name, so that one answer never mixes two. Which collection was
current before is kept in each collection's metadata, and so is that it is one of ours: others on
the same server are left alone. Searching needs a read-only API key and no more.
"""

import contextlib
import importlib.metadata
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

from search.collection import (
    Candidate,
    Description,
    Points,
    Stored,
    Vectors,
    is_exact,
    point_id,
)
from search.errors import (
    CollectionGone,
    NoCollection,
    SearchError,
    ServerRefused,
    ServerUnreachable,
)
from search.fields import FIELDS, AnyOf, Condition

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

ALIAS = "covers"

#: Of the graph (HNSW) that the server searches in larger collections: links a point, and the
#: breadth of the search that builds it and of the one that answers. At 100,000 x 128, with noise in
#: every dimension, the embedded engine's same graph found 98.5 % of the nearest ten.
HNSW_M, HNSW_EF_CONSTRUCT, HNSW_EF = 24, 200, 384

#: Points in one request, up or down.
BATCH = 512

#: Seconds that a request may take; a batch is confirmed only when it is applied.
TIMEOUT = 60


class Server:
    """Collections on a Qdrant server.

    Safe to share between threads; a forked child makes its own connections.

    Parameters
    ----------
    url : str
        Like http://localhost:6333.
    api_key : str or None
        A read-only one is enough for searching.
    lock : Path
        A file that keeps publishers of one workspace from each other. Publishers on several
        machines are not kept apart: let one pipeline publish to a server.
    """

    def __init__(self, url: str, api_key: str | None, lock: Path) -> None:
        self._url = url
        self._api_key = api_key
        self.lock = lock
        self._connected: tuple[int, QdrantClient] | None = None
        self._described: dict[str, Description] = {}

    def __repr__(self) -> str:
        return f"Server({self.location!r})"

    @property
    def location(self) -> str:
        """The URL, without the user and password it may carry."""
        parts = urlsplit(self._url)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()

    @property
    def client(self) -> "QdrantClient":
        """The connection of this process, made at its first use."""
        if self._connected is None or self._connected[0] != os.getpid():
            self._connected = (os.getpid(), self._connect())
        return self._connected[1]

    def _connect(self) -> "QdrantClient":
        from qdrant_client import QdrantClient
        from qdrant_client.common.version_check import is_compatible

        client = QdrantClient(
            url=self._url,
            # As a plain header: given as api_key, the client warns of every http address, and
            # inside a private network http is what there is.
            headers={"api-key": self._api_key} if self._api_key else None,
            timeout=TIMEOUT,
            # It would check in a thread, and warn; we want a sentence.
            check_compatibility=False,
        )
        with self._asking():
            theirs = client.info().version
        ours = importlib.metadata.version("qdrant-client")
        if not is_compatible(ours, theirs):
            raise SearchError(
                f"The Qdrant server at {self.location} is version {theirs}, which qdrant-client "
                f"{ours} doesn't understand: run a server at most one minor version away."
            )
        return client

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        """Put what a request can fail of into a sentence, without the key."""
        from qdrant_client.common.client_exceptions import QdrantException
        from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

        try:
            yield
        except ResponseHandlingException as error:
            raise ServerUnreachable(
                f"No Qdrant server answers at {self.location} ({error.source}): start it, or "
                "correct QDRANT_URL; without QDRANT_URL the embedded engine is used."
            ) from error
        except UnexpectedResponse as error:
            if error.status_code in (401, 403):
                key = "the key in QDRANT_API_KEY" if self._api_key else "a request without a key"
                raise ServerRefused(
                    f"The Qdrant server at {self.location} refuses {key}: set QDRANT_API_KEY to "
                    "one that may do this (a read-only key to search, a full one to publish)."
                ) from error
            if error.status_code == 404:
                raise CollectionGone(
                    f"The Qdrant server at {self.location} has no such collection any more."
                ) from error
            raise SearchError(
                f"The Qdrant server at {self.location} answers {_reason(error)}: its log says more."
            ) from error
        except QdrantException as error:
            raise SearchError(
                f"The Qdrant server at {self.location} asks to be left alone ({error}): try later."
            ) from error

    def names(self) -> list[str]:
        """Names of the collections that were begun by a publication, whole or not."""
        with self._asking():
            listed = [found.name for found in self.client.get_collections().collections]
        return sorted(name for name in listed if self._metadata(name))

    def _metadata(self, name: str) -> dict[str, Any]:
        """What a publication noted in a collection; nothing if it isn't ours, or isn't there."""
        try:
            with self._asking():
                metadata = self.client.get_collection(name).config.metadata or {}
        except CollectionGone:
            return {}
        return metadata if "covers" in metadata else {}

    def history(self) -> list[str]:
        """Follow the alias, then from each collection the name of the one before it."""
        history: list[str] = []
        name = self._current()
        while name and name not in history and (metadata := self._metadata(name)):
            history.append(name)
            name = metadata.get("previous")
        return history

    def _current(self) -> str | None:
        with self._asking():
            aliases = self.client.get_aliases().aliases
        return next((found.collection_name for found in aliases if found.alias_name == ALIAS), None)

    def serve(self, history: Sequence[str]) -> None:
        """Note what was before each collection, then move the alias in one request."""
        from qdrant_client import models

        create = models.CreateAlias(collection_name=history[0], alias_name=ALIAS)
        delete = models.DeleteAlias(alias_name=ALIAS)
        move: list[Any] = [models.CreateAliasOperation(create_alias=create)]
        if self._current():
            move.insert(0, models.DeleteAliasOperation(delete_alias=delete))
        with self._asking():
            for name, previous in pairwise([*history, ""]):
                self.client.update_collection(name, metadata={"previous": previous})
            self.client.update_collection_aliases(move)

    def describe(self, name: str) -> Description:
        """Read a collection's metadata."""
        if name not in self._described:
            if not (metadata := self._metadata(name)):
                raise CollectionGone(
                    f"The Qdrant server at {self.location} has no collection {name} any more."
                )
            self._described[name] = Description.from_json({"name": name, **metadata["covers"]})
        return self._described[name]

    def build(self, description: Description, points: Points) -> None:
        """Create a collection under its own name, which no alias points to yet, and fill it."""
        from qdrant_client import models

        name = description.name
        facts = asdict(replace(description, rate=None))  # sequences aren't kept here
        del facts["name"]
        index = {
            str: models.PayloadSchemaType.KEYWORD,
            int: models.PayloadSchemaType.INTEGER,
            bool: models.PayloadSchemaType.BOOL,
        }
        self.drop(name)
        with self._asking():
            self.client.create_collection(
                name,
                vectors_config=models.VectorParams(
                    size=points.dimension, distance=models.Distance.EUCLID
                ),
                hnsw_config=models.HnswConfigDiff(m=HNSW_M, ef_construct=HNSW_EF_CONSTRUCT),
                metadata={"covers": facts},
            )
            # Before the points, so that the graph is built with the filters in mind.
            for field, kind in FIELDS.items():
                self.client.create_payload_index(name, field, field_schema=index[kind], wait=True)
            self.client.upload_points(
                name,
                (
                    models.PointStruct(
                        id=str(point_id(track_id)),
                        vector=points.vectors[i].tolist(),
                        payload=points.payload(i, description.bundle),
                    )
                    for i, track_id in enumerate(points.track_ids)
                ),
                batch_size=BATCH,
                wait=True,
                max_retries=3,
            )

    def drop(self, name: str) -> None:
        """Delete a collection."""
        self._described.pop(name, None)
        with contextlib.suppress(CollectionGone), self._asking():
            self.client.delete_collection(name)

    def open(self, name: str | None = None) -> "ServerCollection":
        """Open a collection by its name, by default the one that the alias points to."""
        name = name or self._current()
        if name is None:
            raise NoCollection(
                f"There is no collection {ALIAS!r} on the Qdrant server at {self.location} yet: "
                "make one with `covers pipeline --data DIR`."
            )
        return ServerCollection(self, self.describe(name))


class ServerCollection:
    """A collection on a server; see `search.collection.Collection`."""

    #: A server has no place for arrays that are no vectors, so what is published here is without.
    sequences = None

    def __init__(self, server: Server, description: Description) -> None:
        from qdrant_client import models

        self.description = description
        self._server = server
        exact = is_exact(description.points, description.dimension)
        self._params = models.SearchParams(exact=exact, hnsw_ef=None if exact else HNSW_EF)

    def count(self) -> int:
        """Count the points."""
        with self._server._asking():
            return self._server.client.count(self.description.name, exact=True).count

    def performances(self, track_ids: Sequence[str]) -> list[Stored | None]:
        """Retrieve points by their ids, a batch a request."""
        ids = [str(point_id(track_id)) for track_id in track_ids]
        wanted = list(dict.fromkeys(ids))
        found: dict[str, Stored] = {}
        with self._server._asking():
            for start in range(0, len(wanted), BATCH):
                for record in self._server.client.retrieve(
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
        with self._server._asking():
            answers = [
                answer
                for start in range(0, len(requests), BATCH)
                for answer in self._server.client.query_batch_points(
                    self.description.name, requests[start : start + BATCH]
                )
            ]
        return [
            [Candidate(point.score, point.payload or {}) for point in answer.points]
            for answer in answers
        ]

    def some_track_ids(self, limit: int) -> list[str]:
        """Return the first track ids by point id, which is no order of theirs."""
        with self._server._asking():
            records, _ = self._server.client.scroll(
                self.description.name, limit=limit, with_payload=["track_id"]
            )
        return [record.payload["track_id"] for record in records if record.payload]

    def everything(self) -> Iterator[Stored]:
        """Scroll, a batch a request."""
        start: Any = None
        while True:
            with self._server._asking():
                records, start = self._server.client.scroll(
                    self.description.name,
                    limit=BATCH,
                    offset=start,
                    with_payload=True,
                    with_vectors=True,
                )
            for record in records:
                yield Stored(np.array(record.vector, dtype=np.float32), record.payload or {})
            if start is None:
                return


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


def _reason(error: Any) -> str:
    """The server's own words, from the body of an error response."""
    try:
        words = error.structured()["status"]["error"]
    except (ValueError, KeyError, TypeError):
        words = error.reason_phrase
    return f"{error.status_code} ({words})"
