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

from search.point import Frames, Payload, Vectors, point_id

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
    """Read a sequence, shape=(F, 2, 12), from what `pack` wrote.

    Raises
    ------
    ValueError
        If `pack` did not write it.
    """
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

    Parameters
    ----------
    rate : float
        Frames per second.
    mean_background : float
        Of the whole collection, noted when it was published.
    retrieve : callable
        Returns the payloads by point id, for up to `BATCH_SEQUENCES` ids and the wanted fields, in
        one request.
    count : callable
        Counts the points.
    missing : callable
        Makes the error for a performance that has no sequence, not even an empty one.
    """

    def __init__(
        self,
        rate: float,
        mean_background: float,
        retrieve: Callable[[list[str], list[str]], dict[str, Payload]],
        count: Callable[[], int],
        missing: Callable[[str], Exception],
    ) -> None:
        self.rate = rate
        self.mean_background = mean_background
        self.count = count
        self._retrieve = retrieve
        self._missing = missing
        self._cache: OrderedDict[str, tuple[Frames, list[float]]] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, track_ids: Sequence[str]) -> list[Frames]:
        """Return sequences, from the cache or the server."""
        found = self._look_up(track_ids)
        return [found[track_id][0] for track_id in track_ids]

    def backgrounds(self, track_ids: Sequence[str]) -> Vectors:
        """Return backgrounds, from the cache or alone from the server."""
        with self._lock:
            known = {name: self._cache[name][1] for name in track_ids if name in self._cache}
        asked = [name for name in dict.fromkeys(track_ids) if name not in known]
        for name, fields in self._ask(asked, ["background"]).items():
            known[name] = fields["background"]
        return np.array([known[name] for name in track_ids], np.float32).reshape(-1, 2)

    def _look_up(self, track_ids: Sequence[str]) -> dict[str, tuple[Frames, list[float]]]:
        with self._lock:
            found = {name: self._cache[name] for name in track_ids if name in self._cache}
        asked = [name for name in dict.fromkeys(track_ids) if name not in found]
        for name, fields in self._ask(asked, ["chroma", "background"]).items():
            try:
                found[name] = unpack(fields["chroma"]), fields["background"]
            except ValueError as error:
                raise self._missing(name) from error
        with self._lock:
            for name in track_ids:
                self._cache[name] = found[name]
                self._cache.move_to_end(name)
            while len(self._cache) > CACHED_SEQUENCES:
                self._cache.popitem(last=False)
        return found

    def _ask(self, track_ids: list[str], fields: list[str]) -> dict[str, Payload]:
        ids = [str(point_id(track_id)) for track_id in track_ids]
        found: dict[str, Payload] = {}
        for start in range(0, len(ids), BATCH_SEQUENCES):
            found |= self._retrieve(ids[start : start + BATCH_SEQUENCES], fields)
        for track_id, id_ in zip(track_ids, ids, strict=True):
            if not set(fields) <= set(found.get(id_, ())):
                raise self._missing(track_id)
        return {track_id: found[id_] for track_id, id_ in zip(track_ids, ids, strict=True)}
