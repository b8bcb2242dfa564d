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
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import numpy as np

from search import companion
from search.collection import (
    DIGEST,
    Description,
    Frames,
    Points,
    Vectors,
    is_exact,
    point_id,
)
from search.connection import BATCH, Connection
from search.errors import CollectionGone, NoCollection, SearchError
from search.fields import FIELDS, MEANINGS, RESULTS, Result
from search.sequences import mean_background
from search.server_collection import ServerCollection

logger = logging.getLogger(__name__)

ALIAS = "covers"

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


class Server:
    """Collections on a Qdrant server.

    Parameters
    ----------
    url, api_key, grpc_port, ca_cert
        As of `search.connection.Connection`.
    lock : Path
        A file that keeps publishers of one workspace from each other. Publishers on several
        machines are not kept apart: let one pipeline publish to a server.
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
        self.connection = Connection(url, api_key, grpc_port, ca_cert)
        self.lock = lock
        self._shards, self._replicas = shards, replicas

    kind = "server"

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
        """Names of the collections that were begun by a publication, whole or not."""
        with self.connection.asking():
            listed = [found.name for found in self.connection.client.get_collections().collections]
        return sorted(name for name in listed if self.connection.metadata(name))

    def history(self) -> list[str]:
        """Follow the alias, then from each collection the name of the one before it."""
        history: list[str] = []
        name = self._current()
        while name and name not in history and (metadata := self.connection.metadata(name)):
            history.append(name)
            name = metadata.get("previous")
        return history

    def _current(self) -> str | None:
        with self.connection.asking():
            aliases = self.connection.client.get_aliases().aliases
        return next((found.collection_name for found in aliases if found.alias_name == ALIAS), None)

    def serve(self, history: Sequence[str]) -> None:
        """Note what was before each collection, then move the alias in one request."""
        from qdrant_client import models

        create = models.CreateAlias(collection_name=history[0], alias_name=ALIAS)
        delete = models.DeleteAlias(alias_name=ALIAS)
        move: list[Any] = [models.CreateAliasOperation(create_alias=create)]
        if self._current():
            move.insert(0, models.DeleteAliasOperation(delete_alias=delete))
        with self.connection.asking():
            for name, previous in pairwise([*history, ""]):
                self.connection.client.update_collection(name, metadata={"previous": previous})
            self.connection.client.update_collection_aliases(move)

    def describe(self, name: str) -> Description:
        """Read a collection's metadata."""
        return self._facts(name)[0]

    def _facts(self, name: str) -> tuple[Description, float]:
        """Read what a collection says of itself, and the mean of its backgrounds.

        At every query anew, for it may have been changed; that takes one request.
        """
        if not (metadata := self.connection.metadata(name)):
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
        with self.connection.asking():
            self.connection.client.create_collection(
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
        metadata = self.connection.metadata(name)
        current, mean = self._facts(name)
        ids = [str(point_id(track_id)) for track_id in points.track_ids]
        unknown = ["", ""]
        there = {
            str(record.id): (record.payload or {}).get(DIGEST, unknown)
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
                lambda some: self.connection.client.delete_payload(
                    name, [DIGEST], points=some, wait=True
                ),
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
        self.connection.patiently(
            lambda: self.connection.client.update_collection(
                description.name,
                metadata={**metadata, "changed": changed},
                strict_mode_config=_strictness(most),
            )
        )

    def _delete(self, name: str, ids: Sequence[str]) -> None:
        from qdrant_client import models

        self._in_batches(
            ids,
            lambda some: self.connection.client.delete(
                name, models.PointIdsList(points=some), wait=True
            ),
        )

    def _in_batches(self, ids: Sequence[str], ask: Callable[[Any], object]) -> None:
        for start in range(0, len(ids), BATCH):
            some = list(ids[start : start + BATCH])
            self.connection.patiently(partial(ask, some))

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
            self.connection.client.create_payload_index(name, field, field_schema=schema, wait=True)

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
        with self.connection.asking():
            # Collections of earlier versions have no such fields, and by what isn't indexed
            # strict mode doesn't let anyone filter.
            self._index_fields(name, RESULTS)
        for start in range(0, len(operations), BATCH):
            write = partial(
                self.connection.client.batch_update_points,
                name,
                operations[start : start + BATCH],
                wait=True,
            )
            self.connection.patiently(write)

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
        with self.connection.asking():
            self.connection.client.create_collection(
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
        client = self.connection.for_many(name)

        def upload(batch: range) -> None:
            made = [point(i) for i in batch]
            self.connection.patiently(lambda: client.upsert(name, points=made, wait=True))

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
        self.connection.patiently(
            lambda: self.connection.client.update_collection(
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
            info = self.connection.patiently(lambda: self.connection.client.get_collection(name))
            if info.status == models.CollectionStatus.RED:
                raise SearchError(
                    f"The Qdrant server at {self.location} failed to index {name} "
                    f"({info.optimizer_status}): its log says more."
                )
            green = green + 1 if info.status == models.CollectionStatus.GREEN else 0
            if info.status == models.CollectionStatus.GREY:
                # It waits for a write after a restart, and this is one that changes nothing.
                nothing = models.OptimizersConfigDiff()
                with self.connection.asking():
                    self.connection.client.update_collection(name, optimizers_config=nothing)

    def drop(self, name: str) -> None:
        """Delete a collection, and before it what belongs to it."""
        for each in (companion.companion(name), name):
            with contextlib.suppress(CollectionGone), self.connection.asking():
                self.connection.client.delete_collection(each)

    def save(self, name: str, directory: Path) -> None:
        """Have the server make snapshots of a collection and its sequences, and fetch them."""
        with self.connection.for_snapshots() as client:
            for each in self._parts(name):
                with self.connection.asking():
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
                    self.connection.download(each, made.name, path)
                    if made.checksum is not None and made.checksum != _sha256(path):
                        raise SearchError(
                            f"The snapshot {made.name} of {each} arrived changed from "
                            f"{self.location}: take it again."
                        )
                finally:  # it has served, and takes as much room as the collection
                    with self.connection.asking():
                        client.delete_snapshot(each, made.name, wait=True)

    def _parts(self, name: str) -> list[str]:
        """Name a collection, and the one of its sequences if it has any."""
        has_sequences = self.describe(name).rate is not None
        return [name, companion.companion(name)] if has_sequences else [name]

    def load(self, name: str, directory: Path) -> None:
        """Send the server what `save` fetched, which makes the collections that it is of."""
        from qdrant_client import models

        self.drop(name)
        with self.connection.for_snapshots() as client:
            # The collection itself first: by it, the next publication finds what was begun. It may
            # have had another name.
            for path in sorted(directory.glob("*.snapshot"), key=lambda path: len(path.stem)):
                each = companion.companion(name) if path.stem.endswith(companion.END) else name
                with self.connection.asking(), path.open("rb") as file:
                    client.http.snapshots_api.recover_from_uploaded_snapshot(
                        each,
                        wait=True,
                        priority=models.SnapshotPriority.SNAPSHOT,
                        checksum=_sha256(path),
                        snapshot=file,
                    )

    def open(self, name: str | None = None) -> ServerCollection:
        """Open a collection by its name, by default the one that the alias points to."""
        name = name or self._current()
        if name is None:
            raise NoCollection(
                f"There is no collection {ALIAS!r} on the Qdrant server at {self.location} yet: "
                "make one with `covers pipeline --data DIR`."
            )
        return ServerCollection(self.connection, *self._facts(name))


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
