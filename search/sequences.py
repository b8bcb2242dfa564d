"""Chroma sequences beside an embedded collection: files that are written once and memory-mapped.

```
frames.npy       every sequence end to end: (total frames, 2, 12) float16
starts.npy       (n + 1,) int64: sequence i is frames[starts[i] : starts[i + 1]]
ids.npy          (n,) the bytes of the point ids, increasing
background.npy   (n, 2) float32, see `search.reranking.backgrounds`
```
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from search.collection import Frames, point_id
from search.reranking import backgrounds

FILES = ("frames.npy", "starts.npy", "ids.npy", "background.npy")


def write(
    directory: Path,
    track_ids: Sequence[str],
    sequences: Sequence[Frames],
    rate: float,
    before: "Sequences | None" = None,
) -> None:
    """Write sequences, not all of them empty, and measure the backgrounds that `before` lacks."""
    known = None
    if before is not None and before.rate == rate:
        known = before.backgrounds_of_same(track_ids, sequences)
    ids = _ids(track_ids)
    # By point id, which is no order of theirs: so the first of them are a fair sample.
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
    known = None if known is None else known[order]
    np.save(directory / "background.npy", backgrounds(sequences, rate, known))


class Sequences:
    """The sequences of a collection, and the background of each.

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

    def of(self, track_ids: Sequence[str]) -> list[Frames]:
        """Sequences of performances of the collection, each shape=(F, 2, 12): views of the file."""
        starts = self._starts
        return [self._frames[starts[row] : starts[row + 1]] for row in self._rows(track_ids)]

    def backgrounds(self, track_ids: Sequence[str]) -> npt.NDArray[np.float32]:
        """Backgrounds of performances of the collection, shape=(n, 2)."""
        return np.asarray(self._background[self._rows(track_ids)])

    def backgrounds_of_same(
        self, track_ids: Sequence[str], sequences: Sequence[Frames]
    ) -> npt.NDArray[np.float32]:
        """Backgrounds of those whose sequence is the one kept here, NaN of others, shape=(n, 2)."""
        found = np.full((len(track_ids), 2), np.nan, np.float32)
        if self._background.ndim != 2:  # of an earlier version, which measured something else
            return found
        ids = _ids(track_ids)
        rows = np.minimum(np.searchsorted(self._ids, ids), len(self._ids) - 1)
        for i in np.flatnonzero(self._ids[rows] == ids).tolist():
            kept = self._frames[self._starts[rows[i]] : self._starts[rows[i] + 1]]
            if np.array_equal(kept, sequences[i]):
                found[i] = self._background[rows[i]]
        return found

    @cached_property
    def mean_background(self) -> float:
        """The mean over all of them."""
        return float(self._background[:, 0].mean(dtype=np.float64))

    def _rows(self, track_ids: Sequence[str]) -> npt.NDArray[np.intp]:
        return np.searchsorted(self._ids, _ids(track_ids))


def _ids(track_ids: Sequence[str]) -> npt.NDArray[np.bytes_]:
    return np.array([point_id(track_id).bytes for track_id in track_ids], "S16")
