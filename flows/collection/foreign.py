"""Read a parquet table of vectors that another model made.

It has a row for each performance: track_id, work_id, vector (a list of numbers of equal length),
any of `vectors.BROUGHT`, and columns of its own. Its metadata can name the `model`.
"""

import hashlib
import logging
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from embedding.data.columns import kinds_of, settle, told
from flows.collection.vectors import BROUGHT, TAKEN

logger = logging.getLogger(__name__)

#: Required of each performance, with its vector.
LABELS = ("track_id", "work_id")

#: What a column may hold, by the type that it is read as.
EXPECTED: dict[Any, str] = {
    pl.String: "text (String)",
    pl.Int32: "whole numbers (Int32)",
    pl.Boolean: "true and false (Boolean)",
}


def read(path: Path) -> pl.DataFrame:
    """Read and check a table of vectors.

    Returns
    -------
    pl.DataFrame
        Sorted by track id: track_id, work_id, fingerprint (of the vector), vector (an array of
        float32), the columns of `BROUGHT` that the file has, and its own columns.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If something is missing or wrong, with the name of the column or the performance.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}: name a parquet file of vectors.")
    try:
        columns = list(pl.read_parquet_schema(path))
        for name in (*LABELS, "vector"):
            if name not in columns:
                raise ValueError(
                    f"{path} has no column {name} (it has {', '.join(columns)}): it needs "
                    f"{', '.join(LABELS)} and vector."
                )
        wanted = dict.fromkeys(LABELS, pl.String) | {
            name: kind for name, kind in BROUGHT.items() if name in columns
        }
        table = pl.read_parquet(path, memory_map=False)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"{path} cannot be read as a parquet file ({reason}): write it again, with a row for "
            "each performance."
        ) from error
    if table.is_empty():
        raise ValueError(f"{path} has no rows: write a row for each performance.")
    table = table.with_columns(_cast(table[name], kind, path) for name, kind in wanted.items())
    _check_labels(table, path)
    vectors = _vectors(table, path)
    known = (*wanted, "vector")
    (table,), left_out = settle([table], known, TAKEN)
    if line := told(kinds_of(table, known), left_out):
        logger.info("%s: %s", path, line)
    prints = [hashlib.blake2b(row.tobytes(), digest_size=16).hexdigest() for row in vectors]
    return table.select(
        *LABELS,
        pl.Series("fingerprint", prints),
        pl.Series("vector", vectors, dtype=pl.Array(pl.Float32, vectors.shape[1])),
        *(name for name in table.columns if name not in (*LABELS, "vector")),
    ).sort("track_id")


def _cast(column: pl.Series, kind: Any, path: Path) -> pl.Series:
    """Cast a column if no value changes."""
    given = column.dtype
    fits = given in (kind, pl.Null)
    if kind == pl.String:
        fits |= given in (pl.Categorical, pl.Enum)
    elif kind == pl.Int32:
        fits |= given.is_numeric()
    if not fits:
        raise ValueError(
            f"Column {column.name} of {path} is {given}, expected {EXPECTED[kind]}: write it so."
        )
    cast = column.cast(kind, strict=False)
    if not cast.cast(given).equals(column, null_equal=True):
        raise ValueError(
            f"Column {column.name} of {path} has a number that is out of range or not whole: "
            f"write {EXPECTED[kind]}."
        )
    return cast


def _check_labels(table: pl.DataFrame, path: Path) -> None:
    for name in LABELS:
        missing = table[name].fill_null("") == ""
        if missing.any():
            row = int(np.argmax(missing))
            track_id = table["track_id"][row]
            of = f" ({track_id})" if track_id else ""
            raise ValueError(
                f"Row {row + 1} of {path}{of} has no {name}: give it one, or leave it out."
            )
    twice = table["track_id"].is_duplicated()
    if twice.any():
        raise ValueError(
            f"Performance {table['track_id'].filter(twice)[0]} is in {path} more than once: leave "
            "all but one of its rows out."
        )


def _vectors(table: pl.DataFrame, path: Path) -> np.ndarray:
    """Return the vectors, shape=(n, d), float32."""
    column, tracks = table["vector"], table["track_id"]
    kind = column.dtype
    number = kind.inner if isinstance(kind, pl.List | pl.Array) else None
    if number is None or number not in (pl.Float32, pl.Float64):
        raise ValueError(
            f"Column vector of {path} is {kind}, expected lists of Float32 or Float64: write it so."
        )

    def refuse(wrong: pl.Series, why: str) -> None:
        if wrong.any():
            raise ValueError(
                f"The vector of {tracks.filter(wrong)[0]} in {path} {why}: correct it, or leave "
                "the row out."
            )

    refuse(column.is_null(), "is missing")
    lengths = column.cast(pl.List(number)).list.len()
    dimension = lengths.mode().sort()[-1]
    if dimension == 0:
        raise ValueError(f"The vectors in {path} are empty: write what the model made.")
    refuse(lengths != dimension, f"does not have {dimension} numbers, as most have")
    with np.errstate(over="ignore"):
        vectors = column.cast(pl.Array(pl.Float32, dimension)).to_numpy()
    bad = pl.Series(~np.isfinite(vectors).all(axis=1))
    refuse(bad, "has a number that is missing, not finite or too large for 32 bits")
    return vectors
