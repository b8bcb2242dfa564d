"""The feature store: a directory with one row and one chroma sequence a performance.

```
features.parquet   a row a performance, sorted by track id (columns: `SCHEMA`)
chroma.npy         every sequence end to end: (total frames, 2, 12) float16, memory-mapped
rejects.parquet    what could not be read, and why (columns: `REJECTS`)
store.json         name, rates, counts and fingerprints
```
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import tempfile
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from embedding.data.features import FEATURE_NAMES

#: Counted up when the meaning of a column changes, so that older rows are read again.
FORMAT = 1

METADATA = {
    "work_title": pl.String,
    "work_artist": pl.String,
    "title": pl.String,
    "artist": pl.String,
    "year": pl.Int32,
    "instrumental": pl.Boolean,
}

SCHEMA: dict[str, Any] = {
    "track_id": pl.String,
    "work_id": pl.String,
    **dict.fromkeys(FEATURE_NAMES, pl.Float64),
    "frames": pl.Int64,  # of HPCP, at the data set's frame rate
    "seconds": pl.Float64,
    "nonfinite": pl.Float64,  # share of the values read, in [0, 1]
    "source": pl.String,  # relative to the data set's root
    "fingerprint": pl.String,  # of the contents, whatever the file is called
    "size": pl.Int64,  # bytes, summed over the files
    "mtime_ns": pl.Int64,  # the latest of the files
    "chroma_start": pl.Int64,
    "chroma_frames": pl.Int64,
    **METADATA,
    "subset": pl.String,
}

REJECTS: dict[str, Any] = {
    "track_id": pl.String,
    "work_id": pl.String,
    "source": pl.String,
    "reason": pl.String,
    "size": pl.Int64,  # null for what was found while listing rather than reading
    "mtime_ns": pl.Int64,
}

FRAME_SHAPE = (2, 12)  # channel (see chroma.CHANNELS), pitch class from A


class BadStore(ValueError):  # noqa: N818 - named for what it is, as httpx does
    """The directory is not a feature store, or its files contradict each other."""


class FeatureStore:
    """Rows and chroma sequences of many performances: a directory, or a choice of its rows.

    Attributes
    ----------
    path : Path
        The directory.
    name : str
        What the data set is called.
    table : pl.DataFrame
        Columns as in `SCHEMA`; sorted by track id unless `select` chose another order.
    rejects : pl.DataFrame
        Columns as in `REJECTS`, sorted by track id and source.
    frame_rate : float or None
        Frames a second of the data set; None for a table that never had frames.
    chroma_rate : float or None
        Frames a second of the chroma sequences.
    """

    def __init__(
        self,
        path: Path,
        *,
        name: str,
        table: pl.DataFrame,
        rejects: pl.DataFrame,
        chroma: np.ndarray,
        frame_rate: float | None,
        chroma_rate: float | None,
    ) -> None:
        self.path = path
        self.name = name
        self.table = table
        self.rejects = rejects
        self.frame_rate = frame_rate
        self.chroma_rate = chroma_rate
        self._chroma = chroma
        self._starts = table["chroma_start"].to_numpy()
        self._lengths = table["chroma_frames"].to_numpy()

    def __len__(self) -> int:
        return len(self.table)

    def __repr__(self) -> str:
        return f"<FeatureStore {self.name}: {len(self)} performances at {self.path}>"

    @property
    def means(self) -> np.ndarray:
        """The 52 columns, shape=(n, 52), float64, in the order of `FEATURE_NAMES`."""
        return np.ascontiguousarray(self.table.select(FEATURE_NAMES).to_numpy())

    def sequence(self, i: int) -> np.ndarray:
        """Row i's chroma frames: a view of shape=(F, 2, 12), float16, `chroma_rate` a second."""
        start = self._starts[i]
        return self._chroma[start : start + self._lengths[i]]

    @cached_property
    def fingerprint(self) -> str:
        """What everything computed from the rows depends on, as hex.

        Ids, works, the files' contents and the rates; neither times, paths nor titles, so that a
        copy of the data elsewhere has the same one.
        """
        return _digest(
            [FORMAT, self.frame_rate, self.chroma_rate],
            self.table.select("track_id", "work_id", "fingerprint"),
        )

    @cached_property
    def metadata_fingerprint(self) -> str:
        """What is shown beside a performance depends on this too: titles, year, subset; as hex."""
        return _digest([FORMAT], self.table.select("track_id", *METADATA, "subset"))

    def select(self, rows: np.ndarray | pl.Series | list[bool] | list[int]) -> FeatureStore:
        """The same store with some of its rows: a boolean mask, or indices in the order wanted.

        Raises
        ------
        ValueError
            If a mask has another length than the store, or an index is outside it.
        """
        chosen = np.asarray(rows)
        if chosen.dtype == bool:
            if chosen.shape != (len(self),):
                raise ValueError(f"a mask of {chosen.size} was given for {len(self)} performances")
            chosen = np.flatnonzero(chosen)
        if chosen.size and (chosen.min() < 0 or chosen.max() >= len(self)):
            raise ValueError(f"indices must lie between 0 and {len(self) - 1}")
        return FeatureStore(
            self.path,
            name=self.name,
            table=self.table[chosen.astype(np.int64)],
            rejects=self.rejects,
            chroma=self._chroma,
            frame_rate=self.frame_rate,
            chroma_rate=self.chroma_rate,
        )

    @classmethod
    def open(cls, path: Path) -> FeatureStore:
        """Open a store's directory; the chroma sequences stay on disk until they are looked at.

        Raises
        ------
        BadStore
            If a file is missing, unreadable or contradicts the others.
        """
        path = Path(path)
        if not (path / "store.json").is_file():
            raise BadStore(f"{path} is no feature store: it has no store.json; aggregate into it")
        try:
            facts = json.loads((path / "store.json").read_text(encoding="utf-8"))
            table = pl.read_parquet(path / "features.parquet", memory_map=False)
            rejects = pl.read_parquet(path / "rejects.parquet", memory_map=False)
            chroma = _open_chroma(path / "chroma.npy")
            format_, count = facts["format"], facts["performances"]
            store = cls(
                path,
                name=facts["name"],
                table=table.select(*SCHEMA),
                rejects=rejects.select(*REJECTS),
                chroma=chroma,
                frame_rate=facts["frame_rate"],
                chroma_rate=facts["chroma_rate"],
            )
        # polars and numpy answer a damaged file with any kind of error, polars even with a panic
        except (Exception, pl.exceptions.PanicException) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
            raise BadStore(f"{path} is damaged: {reason}; delete it and aggregate again") from error

        if format_ != FORMAT:
            raise BadStore(
                f"{path} has format {format_}, this version reads {FORMAT}; delete it and "
                "aggregate again"
            )
        for kind, frame, schema in (
            ("row", store.table, SCHEMA),
            ("reject", store.rejects, REJECTS),
        ):
            for column, dtype in schema.items():
                if frame.schema[column] != dtype:
                    raise BadStore(
                        f"{path} is damaged: {kind} column {column} is {frame.schema[column]}, "
                        f"not {dtype}; delete it and aggregate again"
                    )
        if len(store) != count:
            raise BadStore(
                f"{path} is damaged: {len(store)} rows where store.json counts {count}; "
                "delete it and aggregate again"
            )
        ends = store._starts + store._lengths
        if (store._starts < 0).any() or (store._lengths < 0).any() or (ends > len(chroma)).any():
            raise BadStore(
                f"{path} is damaged: chroma.npy has {len(chroma)} frames, fewer than the rows "
                "point at; delete it and aggregate again"
            )
        if store.fingerprint != facts.get("fingerprint"):
            raise BadStore(
                f"{path} is damaged: its rows are not those store.json was written for; "
                "delete it and aggregate again"
            )
        return store


def write(
    path: Path,
    *,
    name: str,
    table: pl.DataFrame,
    sequences: Iterable[np.ndarray],
    rejects: pl.DataFrame | None = None,
    frame_rate: float | None,
    chroma_rate: float | None,
) -> FeatureStore:
    """Write a store as a whole or not at all, and open it.

    It is built in a sibling directory and renamed; a store already at `path` is replaced, and
    whoever has it open keeps reading the old one.

    Parameters
    ----------
    path : Path
        The directory to make.
    name : str
        What the data set is called.
    table : pl.DataFrame
        Any order; columns of `SCHEMA` it lacks become null, and `chroma_start` is filled in here.
    sequences : iterable of np.ndarray, each shape=(F, 2, 12), float16
        In the order of `table`'s rows, with F as in `chroma_frames`; none if that is 0 throughout.
        Taken one at a time, so that they need not fit in memory.
    rejects : pl.DataFrame, optional
        Columns of `REJECTS`.
    frame_rate, chroma_rate : float or None
        Frames a second of the data set and of `sequences`.

    Raises
    ------
    ValueError
        If a track id comes twice, or a sequence is not the one its row announces.
    """
    path = Path(path)
    table = _conform(table, SCHEMA).with_columns(pl.col("chroma_frames").fill_null(0))
    rejects = _conform(pl.DataFrame() if rejects is None else rejects, REJECTS)
    if table["track_id"].is_duplicated().any():
        twice = table.filter(pl.col("track_id").is_duplicated())["track_id"][0]
        raise ValueError(f"track {twice} comes twice; a store holds each performance once")

    # Where each row's sequence goes once the rows are sorted; the sequences come in table's order.
    order = table["track_id"].arg_sort().to_numpy()
    lengths = table["chroma_frames"].to_numpy()
    starts = np.empty(len(table), dtype=np.int64)
    starts[order] = np.cumsum(lengths[order]) - lengths[order]
    table = table.with_columns(chroma_start=pl.Series(starts, dtype=pl.Int64))

    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
    try:
        scratch.chmod(0o755)  # mkdtemp's 0700 would keep the operator's other users out
        _write_chroma(scratch / "chroma.npy", table, sequences, int(lengths.sum()))
        table = table[order].rechunk()
        table.write_parquet(scratch / "features.parquet")
        rejects = rejects.sort("track_id", "source", "reason").rechunk()
        rejects.write_parquet(scratch / "rejects.parquet")
        store = FeatureStore(
            scratch,
            name=name,
            table=table,
            rejects=rejects,
            chroma=np.empty((0, *FRAME_SHAPE), np.float16),
            frame_rate=frame_rate,
            chroma_rate=chroma_rate,
        )
        facts = {
            "format": FORMAT,
            "name": name,
            "frame_rate": frame_rate,
            "chroma_rate": chroma_rate,
            "performances": len(table),
            "rejects": len(rejects),
            "fingerprint": store.fingerprint,
            "metadata_fingerprint": store.metadata_fingerprint,
        }
        text = json.dumps(facts, indent=1, ensure_ascii=False) + "\n"
        (scratch / "store.json").write_text(text, encoding="utf-8")
        _replace(scratch, path)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    return FeatureStore.open(path)


def _conform(frame: pl.DataFrame, schema: dict[str, Any]) -> pl.DataFrame:
    columns = [
        (pl.col(name) if name in frame.columns else pl.lit(None)).cast(dtype).alias(name)
        for name, dtype in schema.items()
    ]
    return frame.select(columns) if frame.width else pl.DataFrame(schema=schema)


def _write_chroma(
    path: Path, table: pl.DataFrame, sequences: Iterable[np.ndarray], total: int
) -> None:
    # Written piece by piece: a map of the whole would keep every page of it in memory.
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
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        if version != (1, 0):
            raise ValueError(f"chroma.npy has .npy version {version}, expected (1, 0)")
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype != np.float16 or shape[1:] != FRAME_SHAPE:
        raise ValueError(
            f"chroma.npy is {dtype} of shape {shape}, expected float16 (frames, 2, 12)"
        )
    if shape[0] == 0:
        return np.empty(shape, np.float16)
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))


def _replace(scratch: Path, path: Path) -> None:
    if path.exists():
        # A directory cannot be renamed onto a full one: the old one steps aside first.
        aside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".old", dir=path.parent))
        path.rename(aside / path.name)
        scratch.rename(path)
        shutil.rmtree(aside, ignore_errors=True)
    else:
        scratch.rename(path)


def _digest(facts: list[Any], rows: pl.DataFrame) -> str:
    # JSON lines: a quoted text cannot run into its neighbour, as bare concatenation would let it.
    lines = [json.dumps(facts), *(json.dumps(row) for row in rows.iter_rows())]
    return hashlib.blake2b("\n".join(lines).encode(), digest_size=16).hexdigest()
