"""Change a collection on a Qdrant server in place, while it is searched.

The digests in the payloads say what differs, whoever wrote them, so the next publication completes
a change that was interrupted. Meanwhile each performance is its old or its new self: its sequence
is written before its point and deleted after its point.
"""

from dataclasses import dataclass

from search.engines.server import writing
from search.engines.server.companion import companion
from search.engines.server.connection import Connection
from search.errors import CollectionGone
from search.point import point_id
from search.points import DIGEST, Description, Points, sequence_digest

#: Digests in one request; strict mode does not allow more.
BATCH_DIGESTS = 10_000


@dataclass(frozen=True)
class Difference:
    """What a collection lacks of the points that it shall hold, and what it holds beyond them.

    `rows` are the rows of the points to write, and `sequence_rows` those of them whose sequence is
    to be written too. `outdated` are the ids of points that the collection holds with another
    sequence, and `withdrawn` those of points to delete. `held` counts the points before the change.
    """

    rows: list[int]
    sequence_rows: list[int]
    outdated: list[str]
    withdrawn: list[str]
    held: int

    def __len__(self) -> int:
        return len(self.rows) + len(self.withdrawn)


def find_difference(connection: Connection, name: str, points: Points) -> Difference | None:
    """Compare the digests of all points; None if the sequences are lost, which no change mends."""
    digests = {
        str(record.id): str((record.payload or {}).get(DIGEST, ""))
        for record in connection.scroll(name, BATCH_DIGESTS, with_payload=[DIGEST])
    }
    with_sequence = set(digests)
    if points.sequences is not None:
        try:
            records = connection.scroll(companion(name), BATCH_DIGESTS, with_payload=False)
            with_sequence = {str(record.id) for record in records}
        except CollectionGone:
            return None
    ids = [str(point_id(track_id)) for track_id in points.track_ids]
    rows, sequence_rows = [], []
    for i, id_ in enumerate(ids):
        has_sequence = id_ in with_sequence
        if has_sequence and digests.get(id_) == points.digests[i]:
            continue
        rows.append(i)
        same_sequence = sequence_digest(digests.get(id_)) == sequence_digest(points.digests[i])
        if points.sequences is not None and not (has_sequence and same_sequence):
            sequence_rows.append(i)
    return Difference(
        rows,
        sequence_rows,
        [ids[i] for i in sequence_rows if ids[i] in digests],
        sorted((digests.keys() | with_sequence).difference(ids)),
        len(digests),
    )


def apply(
    connection: Connection, description: Description, points: Points, difference: Difference
) -> None:
    """Write and delete what differs."""
    name, beside = description.name, companion(description.name)
    rows = difference.sequence_rows
    if points.sequences is not None and rows:
        # Until sequence and point are both written, the point has no digest. Otherwise an
        # interrupted change could leave a new sequence beside an old digest.
        writing.in_batches(
            connection,
            difference.outdated,
            lambda client, batch: client.delete_payload(name, [DIGEST], points=batch, wait=True),
        )
        writing.upload_sequences(connection, beside, points, rows, points.backgrounds_of(rows))
    writing.upload_points(connection, description, points, difference.rows)
    writing.delete_points(connection, name, difference.withdrawn)
    if points.sequences is not None:
        writing.delete_points(connection, beside, difference.withdrawn)
