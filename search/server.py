"""The engine behind QDRANT_URL: a Qdrant server, with an alias that says what is current.

Searchers find the current collection by the alias `covers`, which moves in one request, and then
keep to that collection's own name, so that one answer never mixes two. Which collection was
current before is kept in each collection's metadata, and so is that it is one of ours: others on
the same server are left alone. Searching needs a read-only API key and no more.

A collection is searched by its size, and set up for that when it is published:

- Vectors of up to `EXACT_BYTES` (32 MB) are compared one by one, which is exact and takes some
  milliseconds; there is no graph.
- More are found by a graph (HNSW), whose links make it several times faster than comparing.
- Past `QUANTIZED_BYTES` (1 GB), memory is what a server runs out of: so one byte a component stays
  in it, the vectors themselves on the disk, and four times the wanted number is compared again by
  the vectors. One bit a component, Qdrant's binary quantization, is meant for 1024 components and
  more, and ours are a quarter of that.

The graph is built once, when all points are there, and not again and again while they come in.

Where little of the current collection differs from what is to be published, it is changed in place.
The digests in the payloads say what differs, whoever wrote it, so that a change that was broken off
is completed by publishing again. Meanwhile each performance is its old or its new self: sequences
come before the points they belong to and go after them, and what the collection says of itself
comes last. What is computed from all of it (usual distances and backgrounds of what stays, the mean
background, the graph, how much is compared exactly) is left as it was built, which is why only
`CHANGED_SHARE` of it may change until it is built anew.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import logging
import os
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlsplit

import numpy as np

from search import companion
from search.collection import (
    DIGEST,
    Candidate,
    Description,
    Frames,
    Payload,
    Points,
    Stored,
    Vectors,
    is_exact,
    point_id,
)
from search.errors import (
    CollectionGone,
    DamagedCollection,
    NoCollection,
    SearchError,
    ServerBusy,
    ServerRefused,
    ServerUnreachable,
)
from search.fields import FIELDS, MEANINGS, RESULTS, AnyOf, Condition, Result
from search.sequences import mean_background

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")

ALIAS = "covers"

#: Of the graph (HNSW) that the server searches in larger collections: links a point, and the
#: breadth of the search that builds it and of the one that answers. At 100,000 x 128, with noise in
#: every dimension, the embedded engine's same graph found 98.5 % of the nearest ten.
HNSW_M, HNSW_EF_CONSTRUCT, HNSW_EF = 24, 200, 384

#: Past so many bytes of vectors, one byte a component stays in memory and the vectors don't; and
#: so many times the wanted number of candidates are compared by the vectors again.
QUANTIZED_BYTES, OVERSAMPLING = 2**30, 4.0

#: A collection is changed in place until more than a tenth of the performances it was built with
#: has been written or deleted since. For a mean over all of them to be off by a tenth of a standard
#: deviation, the mean of those would have to differ by a whole one.
CHANGED_SHARE = 0.1

#: Digests in one request; strict mode lets no more through.
DIGESTS = 10_000

#: Points in one request, up or down.
BATCH = 512

#: So many queries together are asked by gRPC, where the server takes it, and all that is uploaded.
GRPC_QUERIES = 32

#: Seconds that the server's gRPC port has to answer; a firewall may swallow what is sent there.
GRPC_WAIT = 2.0

#: Uploads at a time: one alone waits for the server half of its time.
UPLOADERS = 4

#: Seconds to wait before an upload that failed is tried again: half a minute in all, which is a
#: server's restart.
PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)

#: Seconds that a snapshot may take to be made, sent, or taken in.
SNAPSHOT_TIMEOUT = 3600

#: Seconds between two looks at a graph that is being built.
POLL = 1.0

#: Seconds that a request may take; a batch is confirmed only when it is applied.
TIMEOUT = 60

#: What gRPC's refusals would be over HTTP.
HTTP_STATUS = {
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "INVALID_ARGUMENT": 400,
    "RESOURCE_EXHAUSTED": 429,
}


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
    grpc_port : int, optional
        Of the same host. What is many vectors goes there if it answers, else as JSON too.
    ca_cert : Path, optional
        PEM file of the authority that signed the server's certificate, instead of those known.
    shards, replicas : int, optional
        Of each collection, on a cluster; the server's defaults without.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None,
        lock: Path,
        *,
        grpc_port: int | None = None,
        ca_cert: Path | None = None,
        shards: int | None = None,
        replicas: int | None = None,
    ) -> None:
        self._url = url
        self._api_key = api_key
        self.lock = lock
        self._grpc_port = grpc_port
        self._ca_cert = ca_cert
        self._shards, self._replicas = shards, replicas
        self._connected: tuple[int, QdrantClient] | None = None
        self._fast: tuple[int, QdrantClient] | None = None

    kind = "server"

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
        from qdrant_client.common.version_check import is_compatible

        client = self._make_client(TIMEOUT)
        with self._asking():
            theirs = client.info().version
        ours = importlib.metadata.version("qdrant-client")
        if not is_compatible(ours, theirs):
            raise SearchError(
                f"The Qdrant server at {self.location} is version {theirs}, which qdrant-client "
                f"{ours} doesn't understand: run a server at most one minor version away."
            )
        return client

    def _make_client(self, timeout: int, **more: Any) -> "QdrantClient":
        from qdrant_client import QdrantClient

        if self._ca_cert is not None:
            more["verify"] = ssl.create_default_context(cafile=self._ca_cert)
        return QdrantClient(
            url=self._url,
            # As a plain header: given as api_key, the client warns of every http address, and
            # inside a private network http is what there is.
            headers={"api-key": self._api_key} if self._api_key else None,
            timeout=timeout,
            # It would check in a thread, and warn; we want a sentence.
            check_compatibility=False,
            **more,
        )

    def _for_many(self, name: str) -> "QdrantClient":
        """Return the connection for many vectors: by gRPC, where the server takes it."""
        if self._fast is None or self._fast[0] != os.getpid():
            self._fast = (os.getpid(), self._connect_for_many(name))
        return self._fast[1]

    def _connect_for_many(self, name: str) -> "QdrantClient":
        import grpc
        from qdrant_client import grpc as messages

        if self._grpc_port is None:
            return self.client
        options = {}
        if self._ca_cert is not None:
            options["root_certificates"] = self._ca_cert.read_bytes()
        client = self._make_client(
            TIMEOUT, prefer_grpc=True, grpc_port=self._grpc_port, grpc_options=options
        )
        # Another Qdrant may listen there: it is ours if it has the collection.
        request = messages.CollectionExistsRequest(collection_name=name)
        try:
            answer = client.grpc_collections.CollectionExists(request, timeout=GRPC_WAIT)
            if answer.result.exists:
                return client
            why = f"it has no {name}"
        except grpc.RpcError as error:
            why = error.code().name.lower().replace("_", " ")
        client.close()
        logger.info(
            "port %d of %s doesn't answer as its gRPC port (%s), so vectors travel as JSON",
            self._grpc_port,
            urlsplit(self._url).hostname,
            why,
        )
        return self.client

    def close(self) -> None:
        """Close the connections of this process; asking again makes new ones."""
        for connection in (self._connected, self._fast):
            if connection is not None and connection[0] == os.getpid():
                connection[1].close()
        self._connected = self._fast = None

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        """Put what a request can fail of into a sentence, without the key."""
        import grpc
        from qdrant_client.common.client_exceptions import QdrantException
        from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

        try:
            yield
        except ResponseHandlingException as error:
            raise self._unreachable(error.source) from error
        except UnexpectedResponse as error:
            raise self._refusal(error.status_code or 500, _reason(error)) from error
        except QdrantException as error:
            raise ServerBusy(
                f"The Qdrant server at {self.location} asks to be left alone ({error}): try later."
            ) from error
        except grpc.RpcError as error:
            code, words = error.code(), error.details()
            if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                raise self._unreachable(words) from error
            raise self._refusal(HTTP_STATUS.get(code.name, 500), f"{code.name}: {words}") from error

    def _unreachable(self, why: object) -> SearchError:
        if "CERTIFICATE_VERIFY_FAILED" in str(why):
            return ServerUnreachable(
                f"This machine doesn't trust the certificate of {self.location} ({why}): set "
                "QDRANT_CA_CERT to the PEM file of the authority that signed it."
            )
        return ServerUnreachable(
            f"No Qdrant server answers at {self.location} ({why}): start it, or "
            "correct QDRANT_URL; without QDRANT_URL the embedded engine is used."
        )

    def _refusal(self, status: int, reason: str) -> SearchError:
        if status in (401, 403):
            key = "the key in QDRANT_API_KEY" if self._api_key else "a request without a key"
            return ServerRefused(
                f"The Qdrant server at {self.location} refuses {key}: set QDRANT_API_KEY to "
                "one that may do this (a read-only key to search, a full one to publish)."
            )
        if status == 404:
            return CollectionGone(
                f"The Qdrant server at {self.location} has no such collection any more."
            )
        kind = ServerBusy if status >= 500 or status == 429 else SearchError
        return kind(f"The Qdrant server at {self.location} answers {reason}: its log says more.")

    def _patiently(self, ask: Callable[[], Answer]) -> Answer:
        """Ask for something that may be asked for twice, again if the server is busy or away."""
        for pause in PAUSES:
            try:
                with self._asking():
                    return ask()
            except (ServerBusy, ServerUnreachable) as error:
                logger.info("waiting %g s: %s", pause, error)
                time.sleep(pause)
        with self._asking():
            return ask()

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
        return self._facts(name)[0]

    def _facts(self, name: str) -> tuple[Description, float]:
        """Read what a collection says of itself, and the mean of its backgrounds.

        At every query anew, for it may have been changed; that takes one request.
        """
        if not (metadata := self._metadata(name)):
            raise CollectionGone(
                f"The Qdrant server at {self.location} has no collection {name} any more."
            )
        if "exactly" in metadata:
            exactly = json.loads(metadata["exactly"])
            content, mean = exactly["description"], exactly["mean_background"]
        else:  # published by an earlier version, which kept no sequences
            content, mean = {**metadata["covers"], "rate": None}, 0.0
        return Description.from_json({**content, "name": name}), mean

    def build(self, description: Description, points: Points) -> None:
        """Create a collection under its own name, which no alias points to yet, and fill it."""
        from qdrant_client import models

        name = description.name
        background = np.zeros((len(points), 2), np.float32)
        if points.sequences is not None:
            background = points.backgrounds()
        self.drop(name)
        quantized = description.points * description.dimension * 4 > QUANTIZED_BYTES
        with self._asking():
            self.client.create_collection(
                name,
                vectors_config=models.VectorParams(
                    size=points.dimension, distance=models.Distance.EUCLID, on_disk=quantized
                ),
                hnsw_config=models.HnswConfigDiff(m=0),  # none, or not yet
                strict_mode_config=_strictness(description.points),
                metadata={
                    **_facts_as_metadata(description, mean_background(background)),
                    "fields": MEANINGS,
                    "built": len(points),
                    "changed": 0,
                },
                **self._placement(),
            )
            # Before the points, so that the graph is built with the filters in mind.
            self._index_fields(name, FIELDS)

        self._upload_points(description, points, range(len(points)))
        if points.sequences is not None:
            self._build_companion(description, points.track_ids, points.sequences, background)
        if not is_exact(description.points, description.dimension):
            self._index(description, quantized)

    def change(self, description: Description, points: Points) -> list[int] | None:
        """Compare the digests of all performances, and write those that differ."""
        name, beside = description.name, companion.companion(description.name)
        metadata = self._metadata(name)
        current, mean = self._facts(name)
        ids = [str(point_id(track_id)) for track_id in points.track_ids]
        unknown = ["", ""]
        there = {
            str(record.id): (record.payload or {}).get(DIGEST, unknown)
            for record in self._scroll(name, DIGESTS, with_payload=[DIGEST])
        }
        heard = set(there)  # those with a sequence, if there are any
        if points.sequences is not None:
            try:
                heard = {str(record.id) for record in self._scroll(beside, DIGESTS)}
            except CollectionGone:  # which no change mends
                return None
        rows = [
            i
            for i, id_ in enumerate(ids)
            if there.get(id_) != points.digests[i] or id_ not in heard
        ]
        withdrawn = sorted((there.keys() | heard).difference(ids))
        changed = metadata.get("changed", 0) + len(rows) + len(withdrawn)
        if changed > CHANGED_SHARE * metadata.get("built", 0):
            return None
        most = max(len(there), len(points))
        self._note(replace(current, content=""), mean, changed, most)
        if points.sequences is not None:
            unheard = [
                i
                for i in rows
                if ids[i] not in heard or there.get(ids[i], unknown)[1] != points.digests[i][1]
            ]
            # Until both are written, these are like nothing that may be published next.
            self._in_batches(
                [ids[i] for i in unheard if ids[i] in there],
                lambda some: self.client.delete_payload(name, [DIGEST], points=some, wait=True),
            )
            if unheard:
                self._upload_sequences(
                    beside,
                    [points.track_ids[i] for i in unheard],
                    [points.sequences[i] for i in unheard],
                    points.backgrounds_of(unheard),
                )
        self._upload_points(description, points, rows)
        self._delete(name, withdrawn)
        if points.sequences is not None:
            self._delete(beside, withdrawn)
        self._note(description, mean, changed, most)
        return rows

    def _note(self, description: Description, mean: float, changed: int, most: int) -> None:
        """Write down what a collection is now, and let all of `most` points be asked for."""
        metadata = _facts_as_metadata(description, mean)
        self._patiently(
            lambda: self.client.update_collection(
                description.name,
                metadata={**metadata, "changed": changed},
                strict_mode_config=_strictness(most),
            )
        )

    def _delete(self, name: str, ids: Sequence[str]) -> None:
        from qdrant_client import models

        self._in_batches(
            ids,
            lambda some: self.client.delete(name, models.PointIdsList(points=some), wait=True),
        )

    def _in_batches(self, ids: Sequence[str], ask: Callable[[Any], object]) -> None:
        for start in range(0, len(ids), BATCH):
            some = list(ids[start : start + BATCH])
            self._patiently(partial(ask, some))

    def _index_fields(self, name: str, fields: Iterable[str]) -> None:
        """Have fields indexed, which are left as they are where they are indexed already."""
        from qdrant_client import models

        index = {
            str: models.PayloadSchemaType.KEYWORD,
            int: models.PayloadSchemaType.INTEGER,
            bool: models.PayloadSchemaType.BOOL,
            float: models.PayloadSchemaType.FLOAT,
        }
        for field in fields:
            schema = index[FIELDS[field]]
            self.client.create_payload_index(name, field, field_schema=schema, wait=True)

    def annotate(self, name: str, values: Mapping[str, Mapping[str, Result | None]]) -> None:
        """Set payload fields where they are, a batch of performances a request."""
        from qdrant_client import models

        operations: list[Any] = []
        for track_id, fields in values.items():
            points: list[Any] = [str(point_id(track_id))]
            known = {field: value for field, value in fields.items() if value is not None}
            if known:
                to_set = models.SetPayload(payload=known, points=points)
                operations.append(models.SetPayloadOperation(set_payload=to_set))
            if len(known) < len(fields):
                keys = models.DeletePayload(keys=[*(set(fields) - set(known))], points=points)
                operations.append(models.DeletePayloadOperation(delete_payload=keys))
        with self._asking():
            # Collections of earlier versions have no such fields, and by what isn't indexed
            # strict mode doesn't let anyone filter.
            self._index_fields(name, RESULTS)
        for start in range(0, len(operations), BATCH):
            write = partial(
                self.client.batch_update_points,
                name,
                operations[start : start + BATCH],
                wait=True,
            )
            self._patiently(write)

    def _placement(self) -> dict[str, Any]:
        """Where a collection's data lies."""
        majority = None if self._replicas is None else self._replicas // 2 + 1
        return {
            "on_disk_payload": True,  # indexes of what is filtered by are in memory all the same
            "shard_number": self._shards,
            "replication_factor": self._replicas,
            # More than half, so that of three copies one may be on a node that is down; what it
            # missed is sent to it before it answers again. Of two, both have to confirm.
            "write_consistency_factor": majority,
        }

    def _build_companion(
        self,
        description: Description,
        track_ids: Sequence[str],
        sequences: Sequence[Frames],
        background: Vectors,
    ) -> None:
        name = companion.companion(description.name)
        with self._asking():
            self.client.create_collection(
                name,
                vectors_config={},
                metadata={"sequences of": description.name, "rate": description.rate},
                **self._placement(),
            )
        self._upload_sequences(name, track_ids, sequences, background)

    def _upload_sequences(
        self,
        name: str,
        track_ids: Sequence[str],
        sequences: Sequence[Frames],
        background: Vectors,
    ) -> None:
        from qdrant_client import models

        def point(i: int) -> models.PointStruct:
            payload = companion.payload(track_ids[i], sequences[i], background[i])
            return models.PointStruct(id=str(point_id(track_ids[i])), vector={}, payload=payload)

        self._upload(name, companion.batches(sequences), point)

    def _upload_points(self, description: Description, points: Points, rows: Sequence[int]) -> None:
        from qdrant_client import models

        def point(place: int) -> models.PointStruct:
            i = rows[place]
            vector: Any = points.vectors[i].tolist()
            payload = points.payload(i, description.bundle)
            return models.PointStruct(
                id=str(point_id(points.track_ids[i])), vector=vector, payload=payload
            )

        starts = range(0, len(rows), BATCH)
        batches = [range(i, min(i + BATCH, len(rows))) for i in starts]
        self._upload(description.name, batches, point)

    def _upload(self, name: str, batches: list[range], point: Callable[[int], Any]) -> None:
        """Write points, several batches at a time, each made when its turn comes."""
        client = self._for_many(name)

        def upload(batch: range) -> None:
            made = [point(i) for i in batch]
            self._patiently(lambda: client.upsert(name, points=made, wait=True))

        with ThreadPoolExecutor(UPLOADERS) as threads:
            for done, _ in enumerate(threads.map(upload, batches), 1):
                if done % 100 == 0:
                    logger.info("uploaded %d of %d batches of %s", done, len(batches), name)

    def _index(self, description: Description, quantized: bool) -> None:
        """Have the graph built, and wait for it."""
        from qdrant_client import models

        bytes_ = models.ScalarQuantizationConfig(
            type=models.ScalarType.INT8, quantile=0.99, always_ram=True
        )
        self._patiently(
            lambda: self.client.update_collection(
                description.name,
                hnsw_config=models.HnswConfigDiff(m=HNSW_M, ef_construct=HNSW_EF_CONSTRUCT),
                quantization_config=models.ScalarQuantization(scalar=bytes_) if quantized else None,
            )
        )
        self._wait_for_index(description)

    def _wait_for_index(self, description: Description) -> None:
        from qdrant_client import models

        name = description.name
        # 100,000 x 128 took two busy cores four minutes.
        allowed = 600 + description.points / 100
        end, green = time.monotonic() + allowed, 0
        # Twice, for the first may be from before the server has begun.
        while green < 2:
            if time.monotonic() > end:
                raise SearchError(
                    f"The Qdrant server at {self.location} hasn't indexed {name} after "
                    f"{allowed:.0f} s: see in its dashboard what keeps it, and publish again."
                )
            time.sleep(POLL)
            info = self._patiently(lambda: self.client.get_collection(name))
            if info.status == models.CollectionStatus.RED:
                raise SearchError(
                    f"The Qdrant server at {self.location} failed to index {name} "
                    f"({info.optimizer_status}): its log says more."
                )
            green = green + 1 if info.status == models.CollectionStatus.GREEN else 0
            if info.status == models.CollectionStatus.GREY:
                # It waits for a write after a restart, and this is one that changes nothing.
                nothing = models.OptimizersConfigDiff()
                with self._asking():
                    self.client.update_collection(name, optimizers_config=nothing)

    def _scroll(
        self,
        name: str,
        limit: int,
        *,
        with_payload: bool | list[str] = False,
        with_vectors: bool = False,
    ) -> Iterator[Any]:
        """Go through all points, so many a request."""
        start: Any = None
        while True:
            with self._asking():
                records, start = self.client.scroll(
                    name,
                    limit=limit,
                    offset=start,
                    with_payload=with_payload,
                    with_vectors=with_vectors,
                )
            yield from records
            if start is None:
                return

    def drop(self, name: str) -> None:
        """Delete a collection, and before it what belongs to it."""
        for each in (companion.companion(name), name):
            with contextlib.suppress(CollectionGone), self._asking():
                self.client.delete_collection(each)

    def save(self, name: str, directory: Path) -> None:
        """Have the server make snapshots of a collection and its sequences, and fetch them."""
        client = self._make_client(SNAPSHOT_TIMEOUT)
        try:
            for each in self._parts(name):
                with self._asking():
                    shards = client.collection_cluster_info(each)
                    if len(shards.local_shards) < shards.shard_count:
                        raise SearchError(
                            f"The node at {self.location} has {len(shards.local_shards)} of the "
                            f"{shards.shard_count} shards of {each}, and a snapshot is of one "
                            "node: take the whole with `covers copy --to DIRECTORY`."
                        )
                    made = client.create_snapshot(each, wait=True)
                if made is None:
                    raise SearchError(f"The Qdrant server at {self.location} made no snapshot.")
                try:
                    path = directory / f"{each}.snapshot"
                    self._download(client, each, made.name, path)
                    if made.checksum is not None and made.checksum != _sha256(path):
                        raise SearchError(
                            f"The snapshot {made.name} of {each} arrived changed from "
                            f"{self.location}: take it again."
                        )
                finally:  # it has served, and takes as much room as the collection
                    with self._asking():
                        client.delete_snapshot(each, made.name, wait=True)
        finally:
            client.close()

    def _parts(self, name: str) -> list[str]:
        """Name a collection, and the one of its sequences if it has any."""
        has_sequences = self.describe(name).rate is not None
        return [name, companion.companion(name)] if has_sequences else [name]

    def _download(self, client: "QdrantClient", name: str, snapshot: str, path: Path) -> None:
        import httpx  # which is what the client sends its requests with; it can't stream an answer

        trusted: ssl.SSLContext | bool = True
        if self._ca_cert is not None:
            trusted = ssl.create_default_context(cafile=self._ca_cert)
        host = client.http.client.host.rstrip("/")
        url = f"{host}/collections/{quote(name, safe='')}/snapshots/{quote(snapshot, safe='')}"
        try:
            with (
                httpx.stream(
                    "GET",
                    url,
                    headers={"api-key": self._api_key} if self._api_key else None,
                    timeout=SNAPSHOT_TIMEOUT,
                    verify=trusted,
                ) as answer,
                path.open("wb") as file,
            ):
                if answer.status_code != 200:
                    reason = f"{answer.status_code} ({answer.reason_phrase})"
                    raise self._refusal(answer.status_code, reason)
                for part in answer.iter_bytes():
                    file.write(part)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def load(self, name: str, directory: Path) -> None:
        """Send the server what `save` fetched, which makes the collections that it is of."""
        from qdrant_client import models

        self.drop(name)
        client = self._make_client(SNAPSHOT_TIMEOUT)
        try:
            # The collection itself first: by it, the next publication finds what was begun. It may
            # have had another name.
            for path in sorted(directory.glob("*.snapshot"), key=lambda path: len(path.stem)):
                each = companion.companion(name) if path.stem.endswith(companion.END) else name
                with self._asking(), path.open("rb") as file:
                    client.http.snapshots_api.recover_from_uploaded_snapshot(
                        each,
                        wait=True,
                        priority=models.SnapshotPriority.SNAPSHOT,
                        checksum=_sha256(path),
                        snapshot=file,
                    )
        finally:
            client.close()

    def open(self, name: str | None = None) -> "ServerCollection":
        """Open a collection by its name, by default the one that the alias points to."""
        name = name or self._current()
        if name is None:
            raise NoCollection(
                f"There is no collection {ALIAS!r} on the Qdrant server at {self.location} yet: "
                "make one with `covers pipeline --data DIR`."
            )
        return ServerCollection(self, *self._facts(name))


class ServerCollection:
    """A collection on a server; see `search.collection.Collection`."""

    def __init__(self, server: Server, description: Description, mean_background: float) -> None:
        from qdrant_client import models

        self.description = description
        self._server = server
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
            with self._server._asking():
                records = self._server.client.retrieve(name, ids=ids, with_payload=fields)
        except CollectionGone:
            if not self._server._metadata(self.description.name):
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
            f"{self._server.location} {how}: publish again, or go back with `covers rollback`."
        )

    def count(self) -> int:
        """Count the points."""
        return self._count(self.description.name)

    def _count(self, name: str) -> int:
        with self._server._asking():
            return self._server.client.count(name, exact=True).count

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
        name, many = self.description.name, len(requests) >= GRPC_QUERIES
        client = self._server._for_many(name) if many else self._server.client
        with self._server._asking():
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
        with self._server._asking():
            records, _ = self._server.client.scroll(
                self.description.name, limit=limit, with_payload=["track_id"]
            )
        return [record.payload["track_id"] for record in records if record.payload]

    def everything(self) -> Iterator[Stored]:
        """Scroll, a batch a request."""
        for record in self._server._scroll(
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


def _facts_as_metadata(description: Description, mean: float) -> dict[str, Any]:
    facts = asdict(description)
    del facts["name"]
    # The same as text too, since a server's JSON may round the last digit of a number.
    return {
        "covers": facts,
        "exactly": json.dumps({"description": facts, "mean_background": mean}),
    }


def _strictness(points: int) -> Any:
    """Keep other clients of the server from questions that would hold it up; ours are none."""
    from qdrant_client import models

    return models.StrictModeConfig(
        enabled=True,
        # A search of ours asks for all there is, where ties or `leave_out_same_work` want it.
        # The dashboard asks for so many neighbours of each point it draws, and both numbers are
        # multiplied: 5000 points by 20, and its own first picture is of 2000 by 15.
        max_query_limit=max(100_000, points),
        # Every field of ours is indexed.
        unindexed_filtering_retrieve=False,
        unindexed_filtering_update=False,
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _reason(error: Any) -> str:
    """The server's own words, from the body of an error response."""
    try:
        words = error.structured()["status"]["error"]
    except (ValueError, KeyError, TypeError):
        words = error.reason_phrase
    return f"{error.status_code} ({words})"
