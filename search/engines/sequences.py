"""The chroma sequences of an embedded collection: files that are memory-mapped.

```
frames.npy       every sequence end to end: (total frames, 2, 12) float16
starts.npy       (n + 1,) int64: sequence i is frames[starts[i] : starts[i + 1]]
ids.npy          (n,) the bytes of the point ids, increasing
background.npy   (n, 2) float32, see `search.versions.reranking.backgrounds`
```
"""

import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from search.errors import DamagedCollection
from search.point import Frames, Vectors, point_id

FILES = ("frames.npy", "starts.npy", "ids.npy", "background.npy")


def mean_background(background: Vectors) -> float:
    """Return the mean of the first column, in double precision, so that the order is irrelevant."""
    return math.fsum(background[:, 0].tolist()) / len(background)


def write(
    directory: Path, track_ids: Sequence[str], sequences: Sequence[Frames], background: Vectors
) -> None:
    """Write sequences, not all of them empty, and their backgrounds."""
    ids = _ids(track_ids)
    order = np.argsort(ids)
    sequences = [sequences[i] for i in order]
    starts = np.cumsum([0, *map(len, sequences)], dtype=np.int64)
    directory.mkdir()
    frames = np.lib.format.open_memmap(
        directory / "frames.npy", "w+", np.float16, (int(starts[-1]), 2, 12)
    )
    for start, sequence in zip(starts, sequences, strict=False):
        frames[start : start + len(sequence)] = sequence
    frames.flush()
    np.save(directory / "starts.npy", starts)
    np.save(directory / "ids.npy", ids[order])
    np.save(directory / "background.npy", background[order])


class MappedSequences:
    """Sequences in the files that `write` wrote, which may be deleted once they are open.

    A ValueError says that a file is damaged.
    """

    def __init__(self, directory: Path, rate: float) -> None:
        self.rate = rate
        try:
            self._frames, self._starts, self._ids, self._background = (
                np.load(directory / file, mmap_mode="r", allow_pickle=False) for file in FILES
            )
        except (OSError, ValueError):
            raise
        except Exception as error:  # numpy raises any kind of error for a damaged header
            raise ValueError(f"a header cannot be read ({error!r})") from error
        self._check()

    def _check(self) -> None:
        count = len(self._ids)
        expected = {
            "frames.npy": (self._frames, "<f2", (len(self._frames), 2, 12)),
            "starts.npy": (self._starts, "<i8", (count + 1,)),
            "ids.npy": (self._ids, "|S16", (count,)),
            "background.npy": (self._background, "<f4", (count, 2)),
        }
        for file, (array, kind, shape) in expected.items():
            if array.dtype.str != kind or array.shape != shape:
                raise ValueError(
                    f"{file} holds {array.dtype.str} {array.shape}, not {kind} {shape}"
                )
        starts = self._starts
        if starts[0] != 0 or starts[-1] != len(self._frames) or (np.diff(starts) < 0).any():
            raise ValueError("starts.npy does not hold the starts of the sequences")
        # Logarithms of similarities, and their spread, to which something is added: see reranking.
        if not (np.abs(self._background) < 100).all() or (self._background[:, 1] < 0.01).any():
            raise ValueError("background.npy holds values that are not backgrounds")

    def count(self) -> int:
        """Count the sequences."""
        return len(self._ids)

    def of(self, track_ids: Sequence[str]) -> list[Frames]:
        """Return sequences as views of the file."""
        starts = self._starts
        return [self._frames[starts[row] : starts[row + 1]] for row in self._rows(track_ids)]

    def backgrounds(self, track_ids: Sequence[str]) -> Vectors:
        """Read the backgrounds of performances."""
        return np.asarray(self._background[self._rows(track_ids)])

    @cached_property
    def mean_background(self) -> float:
        """The mean over all sequences."""
        return mean_background(self._background)

    def _rows(self, track_ids: Sequence[str]) -> npt.NDArray[np.intp]:
        wanted = _ids(track_ids)
        rows = np.minimum(np.searchsorted(self._ids, wanted), len(self._ids) - 1)
        lost = self._ids[rows] != wanted
        if lost.any():
            raise DamagedCollection(
                f"The sequence of {track_ids[int(lost.argmax())]} is lost: make the collection "
                "again with `covers pipeline --data DIR`, or go back with `covers rollback`."
            )
        return rows


def _ids(track_ids: Sequence[str]) -> npt.NDArray[np.bytes_]:
    return np.array([point_id(track_id).bytes for track_id in track_ids], "S16")
