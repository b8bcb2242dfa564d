"""Change a collection on a Qdrant server in place, while it is searched.

The digests in the payloads say what differs, whoever wrote them, so the next publication completes
a change that was interrupted. Meanwhile each performance is its old or its new self: its sequence
is written before its point and deleted after its point.
"""

from dataclasses import dataclass

from search.engines.server import companion
from search.engines.server.connection import Connection
from search.engines.server.writing import (
    delete_points,
    in_batches,
    upload_points,
    upload_sequences,
)
from search.errors import CollectionGone
from search.point import point_id
from search.points import DIGEST, Description, Points, sequence_digest

#: Digests in one request; strict mode does not allow more.
BATCH_DIGESTS = 10_000


@dataclass(frozen=True)
class Difference:
    """What a collection lacks of the points that it shall hold, and what it holds beyond them.

    Attributes
    ----------
    rows : list of int
        Rows of the points to write.
    sequence_rows : list of int
        Those of the rows whose sequence is to be written too.
    outdated : list of str
        Ids of points that the collection holds with another sequence.
    withdrawn : list of str
        Ids of points to delete.
    held : int
        Number of points that the collection holds before the change.
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
            records = connection.scroll(companion.companion(name), BATCH_DIGESTS)
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
    name, companion_name = description.name, companion.companion(description.name)
    if points.sequences is not None and difference.sequence_rows:
        # Until sequence and point are both written, the point has no digest. Otherwise an
        # interrupted change could leave a new sequence beside an old digest.
        in_batches(
            connection,
            difference.outdated,
            lambda client, batch: client.delete_payload(name, [DIGEST], points=batch, wait=True),
        )
        upload_sequences(
            connection,
            companion_name,
            [points.track_ids[i] for i in difference.sequence_rows],
            [points.sequences[i] for i in difference.sequence_rows],
            points.backgrounds_of(difference.sequence_rows),
        )
    upload_points(connection, description, points, difference.rows)
    delete_points(connection, name, difference.withdrawn)
    if points.sequences is not None:
        delete_points(connection, companion_name, difference.withdrawn)
