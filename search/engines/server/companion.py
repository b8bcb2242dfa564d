"""The chroma sequences of a collection on a Qdrant server, in a second collection.

A server stores no arrays except vectors, and payloads of 50 kB or more would disturb a person who
looks at the collection. The second collection, `<name>-sequences`, has the same point ids, no
vectors, and payloads on the disk. `chroma` is the base64 of the float16 numbers, frame by frame,
little-endian (zlib would save 28 % and take 5 ms per megabyte to undo). `background` are the two
numbers of `search.versions.reranking.backgrounds`. The second collection is made, changed, checked
and dropped together with the first.
"""

import base64
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from search.engines.server.connection import Connection
from search.errors import CollectionGone, DamagedCollection, SearchError
from search.point import Frames, Payload, Vectors, point_id
from search.points import Description

#: Sequences in one request, which is more than the candidates of a query and the query itself.
BATCH_SEQUENCES = 128

#: Bytes of payload in one upload. A server takes 32 MB by default.
BATCH_BYTES = 4 * 2**20

#: Sequences, of 60 kB or so, that are cached. The query's own is always needed again, and those of
#: performances that resemble many others often are.
CACHED_SEQUENCES = 512

#: The suffix of the name.
SUFFIX = "-sequences"


def companion(name: str) -> str:
    """Return the name of the collection that holds another one's sequences."""
    return f"{name}{SUFFIX}"


def pack(sequence: Frames) -> str:
    """Write a sequence as text."""
    return base64.b64encode(np.ascontiguousarray(sequence, "<f2").tobytes()).decode("ascii")


def unpack(text: str) -> Frames:
    """Read a sequence, shape=(F, 2, 12), from what `pack` wrote; else raise a ValueError."""
    numbers = np.frombuffer(base64.b64decode(text, validate=True), "<f2")
    return numbers.astype(np.float16, copy=False).reshape(-1, 2, 12)


def payload(track_id: str, sequence: Frames, background: Vectors) -> Payload:
    """Return the payload for a performance's sequence."""
    return {"track_id": track_id, "chroma": pack(sequence), "background": background.tolist()}


def batches(sequences: Sequence[Frames]) -> list[range]:
    """Divide the sequences so that no request is too large, unless one alone is."""
    starts, size = [0], 0
    for i, sequence in enumerate(sequences):
        bytes_ = sequence.nbytes * 4 // 3 + 200
        size += bytes_
        if i > starts[-1] and (size > BATCH_BYTES or i - starts[-1] == BATCH_SEQUENCES):
            starts.append(i)
            size = bytes_
    return [range(*ends) for ends in pairwise([*starts, len(sequences)])]


class ServerSequences:
    """The sequences of a collection on a server; see `search.engines.collection.Sequences`.

    `mean_background` was noted when the collection was published. `renew` finds out whether the
    collection is still the current one, and `is_withdrawn` whether a performance has left it.
    """

    def __init__(
        self,
        connection: Connection,
        description: Description,
        mean_background: float,
        renew: Callable[[], object],
        is_withdrawn: Callable[[str], bool],
    ) -> None:
        self.rate = description.rate or 0.0
        self.mean_background = mean_background
        self._connection = connection
        self._of = description.name
        self._name = companion(description.name)
        self._renew = renew
        self._is_withdrawn = is_withdrawn
        self._cache: OrderedDict[str, Payload] = OrderedDict()
        self._lock = threading.Lock()

    def count(self) -> int:
        """Count the points."""
        return self._connection.count(self._name)

    def of(self, track_ids: Sequence[str]) -> list[Frames]:
        """Return sequences, from the cache or the server."""
        found = self._look_up(track_ids, ["chroma", "background"])
        with self._lock:
            for track_id in track_ids:
                self._cache[track_id] = found[track_id]
                self._cache.move_to_end(track_id)
            while len(self._cache) > CACHED_SEQUENCES:
                self._cache.popitem(last=False)
        return [found[track_id]["chroma"] for track_id in track_ids]

    def backgrounds(self, track_ids: Sequence[str]) -> Vectors:
        """Return backgrounds, from the cache or alone from the server."""
        found = self._look_up(track_ids, ["background"])
        rows = [found[track_id]["background"] for track_id in track_ids]
        return np.array(rows, np.float32).reshape(-1, 2)

    def _look_up(self, track_ids: Sequence[str], fields: list[str]) -> dict[str, Payload]:
        """Return fields of performances, the sequence unpacked."""
        with self._lock:
            found = {name: self._cache[name] for name in track_ids if name in self._cache}
        asked = [name for name in dict.fromkeys(track_ids) if name not in found]
        for start in range(0, len(asked), BATCH_SEQUENCES):
            batch = {str(point_id(name)): name for name in asked[start : start + BATCH_SEQUENCES]}
            payloads = self._retrieve([*batch], fields)
            for id_, name in batch.items():
                try:
                    found[name] = {field: payloads[id_][field] for field in fields}
                    if "chroma" in fields:
                        found[name]["chroma"] = unpack(found[name]["chroma"])
                except (KeyError, ValueError) as error:
                    raise self._missing(name) from error
        return found

    def _retrieve(self, ids: list[str], fields: list[str]) -> dict[str, Payload]:
        try:
            records = self._connection.ask(
                lambda client: client.retrieve(self._name, ids=ids, with_payload=fields)
            )
        except CollectionGone:
            if self._connection.metadata(self._of) is None:
                self._renew()
                raise  # both were pruned
            raise self._damaged("is missing") from None
        return {str(record.id): record.payload or {} for record in records}

    def _missing(self, track_id: str) -> SearchError:
        if self._is_withdrawn(track_id):
            return CollectionGone(
                f"{track_id} was withdrawn from {self._of} while it was searched."
            )
        return self._damaged(f"has no sequence of {track_id}")

    def _damaged(self, how: str) -> DamagedCollection:
        return DamagedCollection(
            f"The collection {self._name} on the Qdrant server at {self._connection.location} "
            f"{how}: publish again, or go back with `covers rollback`."
        )
