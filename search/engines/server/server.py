"""The engine behind QDRANT_URL: a Qdrant server, with an alias that says what is current.

Searchers find the current collection by an alias, which moves in one request. A query goes to the
alias and takes one request: each point says which collection it is in, and where that isn't the one
whose facts (its description, and the mean of its backgrounds) are known, they are read and the
query is asked again. Which collections were current before is kept in each collection's metadata,
and so is the deployment it belongs to: collections without that mark are left alone. Searching
needs a read-only API key and no more.

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
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

import numpy as np

from search.engines.engine import Engine, Results
from search.engines.patience import threads
from search.engines.sequences import mean_background
from search.engines.server import companion
from search.engines.server.collection import ServerCollection
from search.engines.server.connection import BATCH_POINTS, Connection
from search.errors import CollectionGone, DamagedCollection, NoCollection, SearchError
from search.fields import FIELDS, MEANINGS
from search.points import (
    DIGEST,
    Description,
    Frames,
    Points,
    Vectors,
    is_exact,
    point_id,
    sequence_digest,
)
from search.settings import COLLECTION

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

logger = logging.getLogger(__name__)

#: Seconds after which a searcher reads anew what the current collection says of itself. That it is
#: still the current one, every answer says.
FACTS_SECONDS = 30.0

#: Of the graph (HNSW) that the server searches in larger collections: links a point, and the
#: breadth of the search that builds it.
HNSW_M, HNSW_EF_CONSTRUCT = 24, 200

#: Past so many bytes of vectors, one byte a component stays in memory and the vectors don't.
QUANTIZED_BYTES = 2**30

#: A collection is changed in place until more than a tenth of the performances it was built with
#: has been written or deleted since. For a mean over all of them to be off by a tenth of a standard
#: deviation, the mean of those would have to differ by a whole one.
CHANGED_SHARE = 0.1

#: Digests in one request; strict mode lets no more through.
DIGESTS = 10_000

#: Uploads at a time: one alone waits for the server half of its time.
UPLOADERS = 4

#: Seconds between two looks at a graph that is being built.
POLL = 1.0


@dataclass(frozen=True)
class _Facts:
    """What a collection's metadata says, and when it was read."""

    description: Description
    mean_background: float
    metadata: dict[str, Any]
    read: float


class Server(Engine):
    """Collections on a Qdrant server.

    Threads may share it, and a forked child makes its own connections.

    Parameters
    ----------
    url, api_key, grpc_port, ca_cert
        As of `search.engines.server.connection.Connection`.
    lock : Path
        A file that keeps publishers of one workspace from each other. Publishers on several
        machines are not kept apart: let one pipeline publish to a server.
    collection : str
        The deployment: the alias, the beginning of its collections' names, and the mark in their
        metadata without which a collection is left alone.
    shards, replicas : int, optional
        Of each collection, on a cluster; the server's defaults without.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None,
        lock: Path,
        *,
        collection: str = COLLECTION,
        grpc_port: int | None = None,
        ca_cert: Path | None = None,
        shards: int | None = None,
        replicas: int | None = None,
    ) -> None:
        self.connection = Connection(url, api_key, grpc_port, ca_cert)
        self.lock = lock
        self.collection = collection
        self._shards, self._replicas = shards, replicas
        self._known: _Facts | None = None

    def __repr__(self) -> str:
        return f"Server({self.location!r})"

    @property
    def location(self) -> str:
        """The URL, without the user and password it may carry."""
        return self.connection.location

    def close(self) -> None:
        """Close the connections of this process; asking again makes new ones."""
        self.connection.close()

    def names(self) -> list[str]:
        """Names of the collections that have the mark."""
        return sorted(self._ours())

    def unfinished(self) -> list[str]:
        """Names of those that don't say what was current before them, as serving has them do."""
        return sorted(name for name, noted in self._ours().items() if "previous" not in noted)

    def _ours(self) -> dict[str, dict[str, Any]]:
        listed = self.connection.ask(lambda client: client.get_collections()).collections
        named = [
            each.name
            for each in listed
            if each.name.startswith(f"{self.collection}-") and not each.name.endswith(companion.END)
        ]
        read = {name: self._metadata_of(name) for name in named}
        return {name: metadata for name, metadata in read.items() if metadata is not None}

    def _metadata_of(self, name: str) -> dict[str, Any] | None:
        """Read the metadata of a collection; None if it isn't there, or not ours."""
        metadata = self.connection.metadata(name)
        return metadata if metadata is not None and self._is_ours(metadata) else None

    def _is_ours(self, metadata: Mapping[str, Any]) -> bool:
        return metadata.get("deployment") == self.collection

    def is_taken(self, name: str) -> bool:
        """Whether a collection or an alias has this name, or that of its sequences."""
        both = (name, companion.companion(name))
        return any(
            self.connection.ask(lambda client, each=each: client.collection_exists(each))  # type: ignore[misc]
            for each in both
        )

    def history(self) -> list[str]:
        """Follow the alias, then read there which were current before, and see which still are."""
        if (metadata := self._metadata_of_current()) is None:
            return []
        before = metadata.get("previous", ())
        earlier = [name for name in before if self._metadata_of(name) is not None]
        return [metadata["covers"]["name"], *earlier]

    def _metadata_of_current(self) -> dict[str, Any] | None:
        """Read the metadata of the collection that the alias points to; None without an alias."""
        metadata = self.connection.metadata(self.collection)
        if metadata is not None and not self._is_ours(metadata):
            raise SearchError(
                f"{self.collection!r} on the Qdrant server at {self.location} is a collection or "
                "alias of somebody else: set COVERS_COLLECTION to a name that is free there."
            )
        return metadata

    def _facts(self, name: str, metadata: dict[str, Any]) -> _Facts:
        try:
            exactly = json.loads(metadata["exactly"])
            description = Description.from_json(exactly["description"])
            return _Facts(description, exactly["mean_background"], metadata, monotonic())
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedCollection(
                f"{name} on the Qdrant server at {self.location} says of itself what this version "
                "doesn't understand: publish again."
            ) from error

    def serve(self, history: Sequence[str]) -> None:
        """Note what was before the first collection, then move the alias in one request."""
        from qdrant_client import models

        name, *previous = history
        self._metadata_of_current()  # refuses an alias of somebody else
        self.connection.ask(
            lambda client: client.update_collection(name, metadata={"previous": previous})
        )
        alias = self.collection
        create = models.CreateAlias(collection_name=name, alias_name=alias)
        delete = models.DeleteAlias(alias_name=alias)

        def move(client: "QdrantClient") -> None:
            there = {each.alias_name for each in client.get_aliases().aliases}
            steps: list[Any] = [models.CreateAliasOperation(create_alias=create)]
            if alias in there:
                steps.insert(0, models.DeleteAliasOperation(delete_alias=delete))
            client.update_collection_aliases(steps)

        self.connection.ask(move)
        self._known = None

    def describe(self, name: str) -> Description:
        """Read a collection's metadata."""
        return self._described(name).description

    def _described(self, name: str) -> _Facts:
        metadata = self._metadata_of(name)
        if metadata is None:
            raise CollectionGone(
                f"The Qdrant server at {self.location} has no collection {name} any more."
            )
        return self._facts(name, metadata)

    def build(self, description: Description, points: Points) -> None:
        """Create a collection under its own name, which no alias points to yet, and fill it."""
        from qdrant_client import models

        name = description.name
        background = np.zeros((len(points), 2), np.float32)
        if points.sequences is not None:
            background = points.backgrounds()
        quantized = description.points * description.dimension * 4 > QUANTIZED_BYTES
        self._create(
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
        )
        # Before the points, so that the graph is built with the filters in mind.
        self._index_fields(name)
        self._upload_points(description, points, range(len(points)))
        if points.sequences is not None:
            self._build_companion(description, points.track_ids, points.sequences, background)
        if not is_exact(description.points, description.dimension):
            self._index(description, quantized)

    def _create(self, name: str, *, metadata: dict[str, Any], **config: Any) -> None:
        """Create a collection with our mark, under a name that is free."""
        marked = {"deployment": self.collection, **metadata}
        try:
            self.connection.ask(
                lambda client: client.create_collection(
                    name, metadata=marked, **config, **self._placement()
                )
            )
        except SearchError as error:
            if type(error) is not SearchError:
                raise
            # A second try is told that the collection exists, if the first one's answer was lost.
            there = self.connection.metadata(name) or {}
            if any(there.get(key) != text for key, text in marked.items() if type(text) is str):
                raise

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

    def _index_fields(self, name: str) -> None:
        """Have each field indexed, all at the same time: one takes a server 0.2 s and more."""
        from qdrant_client import models

        kinds = {
            str: models.PayloadSchemaType.KEYWORD,
            int: models.PayloadSchemaType.INTEGER,
            bool: models.PayloadSchemaType.BOOL,
            float: models.PayloadSchemaType.FLOAT,
        }

        def index(field: str) -> None:
            kind = kinds[FIELDS[field]]
            self.connection.ask(
                lambda client: client.create_payload_index(
                    name, field, field_schema=kind, wait=True
                )
            )

        with threads(len(FIELDS)) as pool:
            for _ in pool.map(index, FIELDS):
                pass

    def change(self, description: Description, points: Points) -> list[int] | None:
        """Compare the digests of all performances, and write those that differ."""
        name, beside = description.name, companion.companion(description.name)
        known = self._described(name)
        ids = [str(point_id(track_id)) for track_id in points.track_ids]
        there = {
            str(record.id): str((record.payload or {}).get(DIGEST, ""))
            for record in self.connection.scroll(name, DIGESTS, with_payload=[DIGEST])
        }
        heard = set(there)  # those with a sequence, if there are any
        if points.sequences is not None:
            try:
                heard = {str(record.id) for record in self.connection.scroll(beside, DIGESTS)}
            except CollectionGone:  # which no change mends
                return None
        rows = [
            i
            for i, id_ in enumerate(ids)
            if there.get(id_) != points.digests[i] or id_ not in heard
        ]
        withdrawn = sorted((there.keys() | heard).difference(ids))
        changed = known.metadata.get("changed", 0) + len(rows) + len(withdrawn)
        if changed > CHANGED_SHARE * known.metadata.get("built", 0):
            return None
        mean, most = known.mean_background, max(len(there), len(points))
        self._note_change(replace(known.description, content=""), mean, changed, most)
        if points.sequences is not None:
            unheard = [
                i
                for i in rows
                if ids[i] not in heard
                or sequence_digest(there.get(ids[i])) != sequence_digest(points.digests[i])
            ]
            # Until both are written, these are like nothing that may be published next.
            self._in_batches(
                [ids[i] for i in unheard if ids[i] in there],
                lambda client, some: client.delete_payload(name, [DIGEST], points=some, wait=True),
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
        self._note_change(description, mean, changed, most)
        return rows

    def _note_change(self, description: Description, mean: float, changed: int, most: int) -> None:
        """Write down what a collection is now, and let all of `most` points be asked for."""
        metadata = {**_facts_as_metadata(description, mean), "changed": changed}
        self.connection.ask(
            lambda client: client.update_collection(
                description.name, metadata=metadata, strict_mode_config=_strictness(most)
            )
        )
        self._known = None

    def note(self, description: Description) -> None:
        """Replace the description in the metadata."""
        metadata = _facts_as_metadata(
            description, self._described(description.name).mean_background
        )
        self.connection.ask(
            lambda client: client.update_collection(description.name, metadata=metadata)
        )
        self._known = None

    def _delete(self, name: str, ids: Sequence[str]) -> None:
        from qdrant_client import models

        self._in_batches(
            ids,
            lambda client, some: client.delete(name, models.PointIdsList(points=some), wait=True),
        )

    def _in_batches(
        self, items: Sequence[Any], request: Callable[["QdrantClient", list[Any]], object]
    ) -> None:
        for start in range(0, len(items), BATCH_POINTS):
            some = list(items[start : start + BATCH_POINTS])
            self.connection.ask(partial(lambda some, client: request(client, some), some))

    def write_results(self, name: str, results: Results) -> None:
        """Set payload fields where they are, a batch of performances a request."""
        from qdrant_client import models

        operations: list[Any] = []
        for track_id, fields in results.items():
            points: list[Any] = [str(point_id(track_id))]
            known = {field: value for field, value in fields.items() if value is not None}
            if known:
                to_set = models.SetPayload(payload=known, points=points)
                operations.append(models.SetPayloadOperation(set_payload=to_set))
            if len(known) < len(fields):
                keys = models.DeletePayload(keys=[*(set(fields) - set(known))], points=points)
                operations.append(models.DeletePayloadOperation(delete_payload=keys))
        self._in_batches(
            operations,
            lambda client, some: client.batch_update_points(name, some, wait=True),
        )

    def _build_companion(
        self,
        description: Description,
        track_ids: Sequence[str],
        sequences: Sequence[Frames],
        background: Vectors,
    ) -> None:
        name = companion.companion(description.name)
        noted = {"sequences of": description.name, "rate": description.rate}
        self._create(name, vectors_config={}, metadata=noted)
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
            payload = points.payload(i, description)
            return models.PointStruct(
                id=str(point_id(points.track_ids[i])), vector=vector, payload=payload
            )

        starts = range(0, len(rows), BATCH_POINTS)
        batches = [range(i, min(i + BATCH_POINTS, len(rows))) for i in starts]
        self._upload(description.name, batches, point)

    def _upload(self, name: str, batches: list[range], point: Callable[[int], Any]) -> None:
        """Write points, several batches at a time, each made when its turn comes."""

        def upload(batch: range) -> None:
            made = [point(i) for i in batch]
            self.connection.ask_fast(lambda client: client.upsert(name, points=made, wait=True))

        with threads(UPLOADERS) as pool:
            for done, _ in enumerate(pool.map(upload, batches), 1):
                if done % 100 == 0:
                    logger.info("uploaded %d of %d batches of %s", done, len(batches), name)

    def _index(self, description: Description, quantized: bool) -> None:
        """Have the graph built, and wait for it."""
        from qdrant_client import models

        bytes_ = models.ScalarQuantizationConfig(
            type=models.ScalarType.INT8, quantile=0.99, always_ram=True
        )
        self.connection.ask(
            lambda client: client.update_collection(
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
        end, green = monotonic() + allowed, 0
        # Twice, for the first may be from before the server has begun.
        while green < 2:
            if monotonic() > end:
                raise SearchError(
                    f"The Qdrant server at {self.location} hasn't indexed {name} after "
                    f"{allowed:.0f} s: see in its dashboard what keeps it, and publish again."
                )
            sleep(POLL)
            info = self.connection.ask(lambda client: client.get_collection(name))
            if info.status == models.CollectionStatus.RED:
                raise SearchError(
                    f"The Qdrant server at {self.location} failed to index {name} "
                    f"({info.optimizer_status}): its log says more."
                )
            green = green + 1 if info.status == models.CollectionStatus.GREEN else 0
            if info.status == models.CollectionStatus.GREY:
                # It waits for a write after a restart, and this is one that changes nothing.
                self.connection.ask(
                    lambda client: client.update_collection(
                        name, optimizers_config=models.OptimizersConfigDiff()
                    )
                )

    def drop(self, name: str) -> None:
        """Delete a collection, and before it that of its sequences, if they are ours."""
        for each in (companion.companion(name), name):
            if self._metadata_of(each) is not None:
                with contextlib.suppress(CollectionGone):
                    self.connection.ask(
                        lambda client, each=each: client.delete_collection(each)  # type: ignore[misc]
                    )

    def open(self, name: str | None = None) -> ServerCollection:
        """Open a collection by its name, by default the one that the alias points to."""
        if name is not None:
            found = self._described(name)
            return ServerCollection(
                self.connection, found.description, found.mean_background, name, lambda: name
            )
        known = self._known
        if known is None or monotonic() > known.read + FACTS_SECONDS:
            known = self._renew()
        return ServerCollection(
            self.connection,
            known.description,
            known.mean_background,
            self.collection,
            lambda: self._renew().description.name,
        )

    def _renew(self) -> _Facts:
        self._known = None
        if (metadata := self._metadata_of_current()) is None:
            raise NoCollection(
                f"There is no collection {self.collection!r} on the Qdrant server at "
                f"{self.location} yet: make one with `covers pipeline --data DIR`."
            )
        self._known = self._facts(self.collection, metadata)
        return self._known


def _facts_as_metadata(description: Description, mean: float) -> dict[str, Any]:
    facts = asdict(description)
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
