"""The feature store: a directory with one row and one chroma sequence per performance.

```
features.parquet   one row per performance, sorted by track id (columns: `SCHEMA`)
chroma.npy         all sequences end to end: (total frames, 2, 12) float16, memory-mapped
rejects.parquet    what could not be read, and why (columns: `REJECTS`)
store.json         name, frame rate, count and fingerprint
```
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from embedding.data.atomic import whole_directory
from embedding.data.chroma import CHROMA_RATE
from embedding.data.columns import KINDS
from embedding.data.features import FEATURE_NAMES
from embedding.data.metadata import METADATA
from embedding.errors import first_line

#: Increased when the meaning of a column or of the sequences changes, so that files are read again.
FORMAT = 4

SCHEMA: dict[str, Any] = {
    "track_id": pl.String,
    "work_id": pl.String,
    **dict.fromkeys(FEATURE_NAMES, pl.Float64),
    "frames": pl.Int64,  # of HPCP, at the frame rate of the data set
    "seconds": pl.Float64,
    "nonfinite": pl.Float64,  # share of the values, in [0, 1]
    "label": pl.String,  # the work that the files name; null if they name none
    "source": pl.String,  # relative to the directory of the data set
    "fingerprint": pl.String,  # of the contents, not of the name
    "size": pl.Int64,  # bytes of all files
    "mtime_ns": pl.Int64,  # the latest of the files
    "chroma_start": pl.Int64,
    "chroma_frames": pl.Int64,
    **METADATA,
    "subset": pl.String,
}

#: A further column: a struct of the data set's own columns (see `columns`), or null if it has none.
OWN = "columns"

REJECTS: dict[str, Any] = {
    "track_id": pl.String,
    "work_id": pl.String,
    "source": pl.String,
    "reason": pl.String,
    "size": pl.Int64,  # null for files that were rejected by their name
    "mtime_ns": pl.Int64,
}

FRAME_SHAPE = (2, 12)  # channel and pitch class, see `chroma.CHANNELS`


class BadStore(ValueError):  # noqa: N818 - named for what it is, as httpx does
    """The directory is not a feature store, or its files contradict each other."""


@dataclass(frozen=True, repr=False, eq=False)
class FeatureStore:
    """Rows and chroma sequences of many performances: all of a directory, or some of its rows.

    Attributes
    ----------
    path : Path
        The directory.
    name : str
        Name of the data set.
    table : pl.DataFrame
        Columns as in `SCHEMA`, and `OWN`; sorted by track id unless `select` gave another order.
    rejects : pl.DataFrame
        Columns as in `REJECTS`, sorted by track id and source.
    chroma : np.ndarray, shape=(frames, 2, 12), float16
        The sequences of the directory, end to end; `sequence` finds those of a row.
    frame_rate : float or None
        Frames per second of the data set; None for a table of means, which has no sequences.
    """

    path: Path
    name: str
    table: pl.DataFrame
    rejects: pl.DataFrame
    chroma: np.ndarray
    frame_rate: float | None

    def __len__(self) -> int:
        return len(self.table)

    def __repr__(self) -> str:
        return f"<FeatureStore {self.name}: {len(self)} performances at {self.path}>"

    @property
    def means(self) -> np.ndarray:
        """The 52 feature means, shape=(n, 52), float64, in the order of `FEATURE_NAMES`."""
        return np.ascontiguousarray(self.table.select(FEATURE_NAMES).to_numpy())

    @property
    def facts(self) -> pl.DataFrame:
        """What is known of each performance: `track_id`, `METADATA`, `subset`, own columns."""
        known = self.table.select("track_id", *METADATA, "subset", OWN)
        return known.drop(OWN) if known.schema[OWN] == pl.Null else known.unnest(OWN)

    @property
    def chroma_rate(self) -> float | None:
        """Frames per second of the sequences; None for a table of means."""
        return None if self.frame_rate is None else CHROMA_RATE

    def inputs(self, kind: str) -> Any:
        """Return what encoders take: the "means", or "chroma" as a list of `sequence`."""
        return self.means if kind == "means" else [self.sequence(i) for i in range(len(self))]

    def check_inputs(self, kind: str) -> None:
        """Raise ValueError if this is a table of means, and an encoder takes chroma."""
        if kind == "chroma" and self.frame_rate is None:
            raise lacks_chroma(self.name)

    def sequence(self, i: int) -> np.ndarray:
        """Return the sequence of row i: a view of shape=(F, 2, 12), float16, at `CHROMA_RATE`."""
        start, frames = self._place[i]
        return self.chroma[start : start + frames]

    @cached_property
    def _place(self) -> np.ndarray:
        return self.table.select("chroma_start", "chroma_frames").to_numpy()

    @cached_property
    def fingerprint(self) -> str:
        """A hash of ids, works, contents of the files and the frame rate, as hex.

        Everything that is computed from the rows depends on these. Times, paths and titles are not
        included, so a copy of the data elsewhere has the same fingerprint.
        """
        return _fingerprint(self.table, self.frame_rate)

    def select(self, rows: np.ndarray | pl.Series | list[bool] | list[int]) -> FeatureStore:
        """Return the store with some of its rows, given as a mask or as indices in any order.

        Raises
        ------
        ValueError
            If a mask has another length than the store, or an index is outside it.
        """
        chosen = np.asarray(rows)
        if chosen.dtype == bool:
            if chosen.shape != (len(self),):
                raise ValueError(f"A mask of {chosen.size} was given for {len(self)} performances.")
            chosen = np.flatnonzero(chosen)
        if chosen.size and (chosen.min() < 0 or chosen.max() >= len(self)):
            raise ValueError(f"Indices must be between 0 and {len(self) - 1}.")
        return replace(self, table=self.table[chosen.astype(np.int64)])

    @classmethod
    def open(cls, path: Path) -> FeatureStore:
        """Open the directory of a store; the sequences stay on the disk until they are used.

        Raises
        ------
        BadStore
            If a file is missing, unreadable or contradicts the others.
        """
        path = Path(path)
        if not (path / "store.json").is_file():
            raise BadStore(
                f"{path} is not a feature store (store.json is missing). Make one with `covers "
                "aggregate DIR`."
            )
        try:
            facts = json.loads((path / "store.json").read_text(encoding="utf-8"))
            table = pl.read_parquet(path / "features.parquet", memory_map=False)
            rejects = pl.read_parquet(path / "rejects.parquet", memory_map=False)
            store = cls(
                path,
                name=facts["name"],
                table=table.select(*SCHEMA, OWN),
                rejects=rejects.select(*REJECTS),
                chroma=_open_chroma(path / "chroma.npy"),
                frame_rate=facts["frame_rate"],
            )
            format_, count = facts["format"], facts["performances"]
        # Damaged files make polars and numpy raise any kind of error, and polars even a panic.
        except (Exception, pl.exceptions.PanicException) as error:
            raise _damaged(path, first_line(error)) from error
        if format_ != FORMAT:
            raise BadStore(
                f"{path} has format {format_}, and this version reads {FORMAT}. Delete it, and "
                "aggregate again."
            )
        store._check(count, facts.get("fingerprint"))
        return store

    def _check(self, count: int, fingerprint: str) -> None:
        """Raise BadStore if the files contradict each other."""
        for kind, frame, schema in (
            ("row", self.table, SCHEMA),
            ("reject", self.rejects, REJECTS),
        ):
            for column, dtype in schema.items():
                if (found := frame.schema[column]) != dtype:
                    raise _damaged(self.path, f"{kind} column {column} is {found}, not {dtype}")
        own = self.table.schema[OWN]
        held = own.fields if isinstance(own, pl.Struct) else []
        is_own = own == pl.Null or isinstance(own, pl.Struct)
        if not is_own or any(field.dtype not in KINDS.values() for field in held):
            raise _damaged(self.path, f"row column {OWN} is {own}")
        if len(self) != count:
            raise _damaged(self.path, f"{len(self)} rows where store.json counts {count}")
        frames = len(self.chroma)
        if (self._place < 0).any() or (self._place.sum(axis=1) > frames).any():
            raise _damaged(self.path, f"chroma.npy has {frames} frames, fewer than its rows need")
        if self.fingerprint != fingerprint:
            raise _damaged(self.path, "its rows are not those that store.json was written for")


def lacks_chroma(name: str) -> ValueError:
    """Return the error for an encoder of chroma that is given a table of means."""
    return ValueError(
        f"{name} is a table of means, which has no chroma, and this encoder needs chroma: name the "
        "directory of the features, or use an encoder of means, such as `--encoder autoencoder`."
    )


def _damaged(path: Path, reason: str) -> BadStore:
    return BadStore(f"{path} is damaged: {reason.rstrip('.')}. Delete it, and aggregate again.")


def write(
    path: Path,
    *,
    name: str,
    table: pl.DataFrame,
    sequences: Iterable[np.ndarray],
    rejects: pl.DataFrame | None = None,
    frame_rate: float | None,
) -> FeatureStore:
    """Write a store as a whole or not at all, and open it.

    Parameters
    ----------
    path : Path
        The directory to make or replace.
    name : str
        Name of the data set.
    table : pl.DataFrame
        In any order. Missing columns of `SCHEMA` and `OWN` become null; `chroma_start` is filled
        in.
    sequences : iterable of np.ndarray, each shape=(F, 2, 12), float16
        In the order of the rows, with F as in `chroma_frames`; empty if F is 0 in all rows. They
        need not fit in memory together.
    rejects : pl.DataFrame, optional
        Columns of `REJECTS`.
    frame_rate : float or None
        Frames per second of the data set; None for a table of means.

    Raises
    ------
    ValueError
        If a track id is there twice, or a sequence does not have the shape that its row states.
    """
    path = Path(path)
    nothing = pl.Series(OWN, [None] * len(table), pl.Null)
    own = table[OWN] if OWN in table.columns else nothing
    table = _conform(table, SCHEMA).with_columns(own, pl.col("chroma_frames").fill_null(0))
    rejects = _conform(pl.DataFrame() if rejects is None else rejects, REJECTS)
    if table["track_id"].is_duplicated().any():
        repeated = table.filter(pl.col("track_id").is_duplicated())["track_id"][0]
        raise ValueError(f"Track {repeated} is there twice. A store holds each performance once.")
    ends = pl.col("chroma_frames").cum_sum()
    table = table.with_row_index("given").sort("track_id")
    table = table.with_columns(chroma_start=ends - pl.col("chroma_frames")).rechunk()
    with whole_directory(path) as scratch:
        _write_chroma(scratch / "chroma.npy", table.sort("given"), sequences)
        table.drop("given").write_parquet(scratch / "features.parquet")
        rejects = rejects.sort("track_id", "source", "reason").rechunk()
        rejects.write_parquet(scratch / "rejects.parquet")
        facts = {
            "format": FORMAT,
            "name": name,
            "frame_rate": frame_rate,
            "performances": len(table),
            "fingerprint": _fingerprint(table, frame_rate),
        }
        text = json.dumps(facts, indent=1, ensure_ascii=False) + "\n"
        (scratch / "store.json").write_text(text, encoding="utf-8")
    return FeatureStore.open(path)


def _conform(frame: pl.DataFrame, schema: dict[str, Any]) -> pl.DataFrame:
    columns = [
        (pl.col(name) if name in frame.columns else pl.lit(None)).cast(dtype).alias(name)
        for name, dtype in schema.items()
    ]
    return frame.select(columns) if frame.width else pl.DataFrame(schema=schema)


def _write_chroma(path: Path, table: pl.DataFrame, sequences: Iterable[np.ndarray]) -> None:
    total = int(table["chroma_frames"].sum())
    # It is written piece by piece, as a memory map would keep every page in memory.
    header = {"descr": "<f2", "fortran_order": False, "shape": (total, *FRAME_SHAPE)}
    frame_bytes = math.prod(FRAME_SHAPE) * np.dtype(np.float16).itemsize
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        if total == 0:
            return
        first = file.tell()
        rows = table.select("track_id", "chroma_start", "chroma_frames").iter_rows()
        for (track_id, start, frames), sequence in zip(rows, sequences, strict=True):
            if sequence.dtype != np.float16 or sequence.shape != (frames, *FRAME_SHAPE):
                raise ValueError(
                    f"{track_id} has a chroma sequence of {sequence.dtype} {sequence.shape}, "
                    f"expected float16 {(frames, *FRAME_SHAPE)}"
                )
            file.seek(first + start * frame_bytes)
            file.write(sequence.tobytes())


def _open_chroma(path: Path) -> np.ndarray:
    chroma = np.load(path, mmap_mode="r", allow_pickle=False)
    if chroma.dtype != np.float16 or chroma.shape[1:] != FRAME_SHAPE:
        raise ValueError(
            f"chroma.npy is {chroma.dtype} of shape {chroma.shape}, expected float16 "
            "(frames, 2, 12)"
        )
    return np.asarray(chroma)


def _fingerprint(table: pl.DataFrame, frame_rate: float | None) -> str:
    rows = table.select("track_id", "work_id", "fingerprint").iter_rows()
    # In JSON lines, a quoted text cannot run into its neighbour.
    lines = [json.dumps([FORMAT, frame_rate]), *map(json.dumps, rows)]
    return hashlib.blake2b("\n".join(lines).encode(), digest_size=16).hexdigest()
