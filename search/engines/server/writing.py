"""Write to a collection on a Qdrant server: points, sequences, indexes and the graph."""

import logging
from collections.abc import Callable, Sequence
from time import monotonic, sleep
from typing import Any

from qdrant_client import QdrantClient, models

from search.engines.comparing import Results
from search.engines.patience import threads
from search.engines.server import companion
from search.engines.server.connection import BATCH_POINTS, Connection
from search.errors import SearchError
from search.fields import FIELDS, KINDS, path_of
from search.point import Vectors, point_id
from search.points import Description, Points
from search.words import WORDS

logger = logging.getLogger(__name__)

#: Links per point of the graph (HNSW) that the server searches in larger collections, and the
#: breadth of the search that builds the graph.
HNSW_M, HNSW_EF_CONSTRUCT = 24, 200

#: Uploads at the same time. One alone waits for the server half of its time.
UPLOAD_THREADS = 4

#: Seconds between two looks at a graph that is being built.
POLL_SECONDS = 1.0

INDEX_TYPES = {
    str: models.PayloadSchemaType.KEYWORD,
    int: models.PayloadSchemaType.INTEGER,
    bool: models.PayloadSchemaType.BOOL,
    float: models.PayloadSchemaType.FLOAT,
}


#: The same on disk, where a column of one million performances takes 1 MB of memory, not 150.
ON_DISK: dict[type, Any] = {
    str: models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, on_disk=True),
    int: models.IntegerIndexParams(
        type=models.IntegerIndexType.INTEGER, lookup=True, range=True, on_disk=True
    ),
    bool: models.PayloadSchemaType.BOOL,
    float: models.FloatIndexParams(type=models.FloatIndexType.FLOAT, on_disk=True),
}


def index_fields(connection: Connection, description: Description) -> None:
    """Have all fields indexed at the same time: an index takes a server 0.2 s or more."""
    name, columns = description.name, description.columns
    schemas: dict[str, Any] = {field: INDEX_TYPES[kind] for field, kind in FIELDS.items()}
    # What has many different values, and is seldom asked for.
    seldom = {WORDS: str, "recording": str, **{each: KINDS[columns[each]] for each in columns}}
    schemas |= {path_of(field): ON_DISK[kind] for field, kind in seldom.items()}

    def index(field: str) -> None:
        schema = schemas[field]
        connection.ask(
            lambda client: client.create_payload_index(name, field, field_schema=schema, wait=True)
        )

    with threads(len(schemas)) as pool:
        list(pool.map(index, schemas))


def upload_points(
    connection: Connection, description: Description, points: Points, rows: Sequence[int]
) -> None:
    """Write the points of some rows."""

    def point(i: int) -> models.PointStruct:
        vector: Any = points.vectors[i].tolist()
        payload = points.payload(i, description)
        return models.PointStruct(
            id=str(point_id(points.track_ids[i])), vector=vector, payload=payload
        )

    batches = [rows[i : i + BATCH_POINTS] for i in range(0, len(rows), BATCH_POINTS)]
    _upload(connection, description.name, batches, point)


def upload_sequences(
    connection: Connection, name: str, points: Points, rows: Sequence[int], backgrounds: Vectors
) -> None:
    """Write the sequences of some rows, and their backgrounds, into the collection of that name."""
    sequences = points.sequences or []

    def point(i: int) -> models.PointStruct:
        track_id = points.track_ids[rows[i]]
        payload = companion.payload(track_id, sequences[rows[i]], backgrounds[i])
        return models.PointStruct(id=str(point_id(track_id)), vector={}, payload=payload)

    _upload(connection, name, companion.batches([sequences[row] for row in rows]), point)


def _upload(
    connection: Connection,
    name: str,
    batches: Sequence[Sequence[int]],
    point: Callable[[int], Any],
) -> None:
    """Write several batches of points at a time; each batch is made when its turn comes."""

    def upload(batch: Sequence[int]) -> None:
        made = [point(i) for i in batch]
        connection.ask(lambda client: client.upsert(name, points=made, wait=True), fast=True)

    with threads(UPLOAD_THREADS) as pool:
        for done, _ in enumerate(pool.map(upload, batches), 1):
            if done % 100 == 0:
                logger.info("uploaded %d of %d batches of %s", done, len(batches), name)


def delete_points(connection: Connection, name: str, ids: Sequence[str]) -> None:
    """Delete points by their ids."""
    in_batches(
        connection,
        ids,
        lambda client, batch: client.delete(name, models.PointIdsList(points=batch), wait=True),
    )


def write_results(connection: Connection, name: str, results: Results) -> None:
    """Set and remove payload fields of points."""
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
    in_batches(
        connection,
        operations,
        lambda client, batch: client.batch_update_points(name, batch, wait=True),
    )


def in_batches(
    connection: Connection,
    items: Sequence[Any],
    request: Callable[[QdrantClient, list[Any]], object],
) -> None:
    """Send a request for each batch of items."""
    for start in range(0, len(items), BATCH_POINTS):
        batch = list(items[start : start + BATCH_POINTS])
        connection.ask(lambda client, batch=batch: request(client, batch))  # type: ignore[misc]


def build_graph(connection: Connection, description: Description, quantized: bool) -> None:
    """Have the graph built, and wait until it is complete."""
    bytes_ = models.ScalarQuantizationConfig(
        type=models.ScalarType.INT8, quantile=0.99, always_ram=True
    )
    connection.ask(
        lambda client: client.update_collection(
            description.name,
            hnsw_config=models.HnswConfigDiff(m=HNSW_M, ef_construct=HNSW_EF_CONSTRUCT),
            quantization_config=models.ScalarQuantization(scalar=bytes_) if quantized else None,
        )
    )
    _wait_for_graph(connection, description)


def _wait_for_graph(connection: Connection, description: Description) -> None:
    name = description.name
    # 100,000 x 128 took two busy cores four minutes.
    allowed = 600 + description.points / 100
    end, green = monotonic() + allowed, 0
    # Green twice, because the first time may be before the server has begun.
    while green < 2:
        if monotonic() > end:
            raise SearchError(
                f"The Qdrant server at {connection.location} has not indexed {name} after "
                f"{allowed:.0f} s: see in its dashboard what keeps it, and publish again."
            )
        sleep(POLL_SECONDS)
        info = connection.ask(lambda client: client.get_collection(name))
        if info.status == models.CollectionStatus.RED:
            raise SearchError(
                f"The Qdrant server at {connection.location} failed to index {name} "
                f"({info.optimizer_status}): its log says more."
            )
        green = green + 1 if info.status == models.CollectionStatus.GREEN else 0
        if info.status == models.CollectionStatus.GREY:
            # After a restart the server waits for a write. This one changes nothing.
            connection.ask(
                lambda client: client.update_collection(
                    name, optimizers_config=models.OptimizersConfigDiff()
                )
            )
