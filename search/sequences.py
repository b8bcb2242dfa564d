"""Chroma sequences beside a collection: to an embedded one, files that are memory-mapped.

```
frames.npy       every sequence end to end: (total frames, 2, 12) float16
starts.npy       (n + 1,) int64: sequence i is frames[starts[i] : starts[i + 1]]
ids.npy          (n,) the bytes of the point ids, increasing
background.npy   (n, 2) float32, see `search.reranking.backgrounds`
```
"""

import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from search.collection import Frames, Vectors, point_id

FILES = ("frames.npy", "starts.npy", "ids.npy", "background.npy")


class Sequences(Protocol):
    """The sequences of a collection, and the background of each."""

    @property
    def rate(self) -> float:
        """Frames a second."""

    @property
    def mean_background(self) -> float:
        """The mean of the first column over all performances of the collection."""

    def count(self) -> int:
        """Count them, the empty ones too."""

    def of(self, track_ids: Sequence[str]) -> list[Frames]:
        """Return the sequences of performances of the collection, each shape=(F, 2, 12)."""

    def backgrounds(self, track_ids: Sequence[str]) -> Vectors:
        """Return the backgrounds of performances of the collection, shape=(n, 2)."""


def mean_background(background: Vectors) -> float:
    """The mean of the first column; in double precision, so that its order doesn't matter."""
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
    """Sequences in files.

    Parameters
    ----------
    directory : Path
        Where `write` put them; once open, it may be deleted.
    rate : float
        Frames a second.
    """

    def __init__(self, directory: Path, rate: float) -> None:
        self.rate = rate
        self._frames, self._starts, self._ids, self._background = (
            np.load(directory / file, mmap_mode="r", allow_pickle=False) for file in FILES
        )

    def count(self) -> int:
        """Count them."""
        return len(self._ids)

    def of(self, track_ids: Sequence[str]) -> list[Frames]:
        """Return views of the file."""
        starts = self._starts
        return [self._frames[starts[row] : starts[row + 1]] for row in self._rows(track_ids)]

    def backgrounds(self, track_ids: Sequence[str]) -> Vectors:
        """Read the rows."""
        return np.asarray(self._background[self._rows(track_ids)])

    @cached_property
    def mean_background(self) -> float:
        """The mean over all of them."""
        return mean_background(self._background)

    def _rows(self, track_ids: Sequence[str]) -> npt.NDArray[np.intp]:
        return np.searchsorted(self._ids, _ids(track_ids))


def _ids(track_ids: Sequence[str]) -> npt.NDArray[np.bytes_]:
    return np.array([point_id(track_id).bytes for track_id in track_ids], "S16")
