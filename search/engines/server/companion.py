"""Chroma sequences on a Qdrant server: in a collection beside the one they belong to.

A server has no place for arrays that are no vectors, and payloads of 50 kB and more would be in the
way of whoever looks at the collection itself. So there is a second collection, `<name>-sequences`,
with the same point ids, no vectors and a payload that is kept on the disk: `chroma` is the base64
of the float16 numbers as they are, frame by frame, little-endian (zlib would save 28 % and take
5 ms a megabyte to undo), and `background` the two numbers of
`search.versions.reranking.backgrounds`.
It is made, changed, checked and dropped together with the first one.
"""

import base64
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import chain, pairwise

import numpy as np

from search.point import Frames, Payload, Vectors, point_id

#: Sequences in one request: more than the candidates of a query and the query itself.
BATCH = 128

#: Bytes of payload that are sent in one request. A server takes 32 MB by default.
BATCH_BYTES = 4 * 2**20

#: So many sequences, some 60 kB each, are kept for when they are asked for again, which those of
#: hubs are, and the query's own always is.
KEPT = 512

#: How their names end.
END = "-sequences"


def companion(name: str) -> str:
    """Return the name of the collection that holds another one's sequences."""
    return f"{name}{END}"


def pack(sequence: Frames) -> str:
    """Write a sequence as text."""
    return base64.b64encode(np.ascontiguousarray(sequence, "<f2").tobytes()).decode("ascii")


def unpack(text: str) -> Frames:
    """Read a sequence, shape=(F, 2, 12), from what `pack` wrote.

    Raises
    ------
    ValueError
        If that didn't write it.
    """
    numbers = np.frombuffer(base64.b64decode(text, validate=True), "<f2")
    return numbers.astype(np.float16, copy=False).reshape(-1, 2, 12)


def payload(track_id: str, sequence: Frames, background: Vectors) -> Payload:
    """Return what is stored of a performance's sequence."""
    return {"track_id": track_id, "chroma": pack(sequence), "background": background.tolist()}


def batches(sequences: Sequence[Frames]) -> list[range]:
    """Divide the sequences so that no request is too large, unless one alone is."""
    starts, size = [0], 0
    for i, sequence in enumerate(sequences):
        bytes_ = sequence.nbytes * 4 // 3 + 200
        size += bytes_
        if i > starts[-1] and (size > BATCH_BYTES or i - starts[-1] == BATCH):
            starts.append(i)
            size = bytes_
    return [range(*ends) for ends in pairwise([*starts, len(sequences)])]


class ServerSequences:
    """The sequences of a collection on a server; see `search.engines.collection.Sequences`.

    Parameters
    ----------
    rate : float
        Frames a second.
    mean_background : float
        Over the whole collection, noted at its publication.
    retrieve : callable
        Gives, for at most `BATCH` point ids and the fields that are wanted, the payloads there are
        by their id, in one request.
    count : callable
        Counts the points.
    missing : callable
        Makes the error for a performance that has no sequence here, not even an empty one.
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
        self._kept: OrderedDict[str, tuple[Frames, list[float]]] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, track_ids: Sequence[str]) -> list[Frames]:
        """Ask for those that aren't kept, up to `BATCH` a request."""
        found = self._look_up(track_ids)
        return [found[track_id][0] for track_id in track_ids]

    def backgrounds(self, track_ids: Sequence[str]) -> Vectors:
        """Take them from what came with the sequences, or ask for them alone."""
        with self._lock:
            kept = {name: self._kept[name][1] for name in track_ids if name in self._kept}
        asked = [name for name in dict.fromkeys(track_ids) if name not in kept]
        for name, fields in self._ask(asked, ["background"]).items():
            kept[name] = fields["background"]
        return np.array([kept[name] for name in track_ids], np.float32).reshape(-1, 2)

    def _look_up(self, track_ids: Sequence[str]) -> dict[str, tuple[Frames, list[float]]]:
        with self._lock:
            found = {name: self._kept[name] for name in track_ids if name in self._kept}
        asked = [name for name in dict.fromkeys(track_ids) if name not in found]
        for name, fields in self._ask(asked, ["chroma", "background"]).items():
            try:
                found[name] = unpack(fields["chroma"]), fields["background"]
            except ValueError as error:
                raise self._missing(name) from error
        with self._lock:
            for name in track_ids:
                self._kept[name] = found[name]
                self._kept.move_to_end(name)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return found

    def _ask(self, track_ids: list[str], fields: list[str]) -> dict[str, Payload]:
        ids = [str(point_id(track_id)) for track_id in track_ids]
        parts = [ids[start : start + BATCH] for start in range(0, len(ids), BATCH)]
        found = dict(chain.from_iterable(self._retrieve(part, fields).items() for part in parts))
        for track_id, id_ in zip(track_ids, ids, strict=True):
            if not set(fields) <= set(found.get(id_, ())):
                raise self._missing(track_id)
        return {track_id: found[id_] for track_id, id_ in zip(track_ids, ids, strict=True)}
