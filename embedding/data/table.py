"""The prototype's table of means, a CSV with the columns `work,performance,<52 means>`."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import polars as pl

from embedding.data.features import FEATURE_NAMES
from embedding.errors import first_line


def read_table(path: Path) -> pl.DataFrame:
    """Read and check the table.

    Columns may come in any order, and other columns are ignored. A trailing `.h5` of a performance
    is dropped, because the prototype's own tables hold file names.

    Returns
    -------
    pl.DataFrame
        `track_id`, `work_id`, the 52 columns (Float64) and `fingerprint` (of the values), sorted
        by track id.

    Raises
    ------
    ValueError
        If the file is not a CSV, a column is missing, a name is empty, a performance occurs twice,
        or a value is not a finite number. Rows are counted from the header, which is row 1.
    """
    path = Path(path)
    text = _read_text(path)
    names = text.select(
        track_id=pl.col("performance").str.strip_chars().str.strip_suffix(".h5"),
        work_id=pl.col("work").str.strip_chars(),
    )
    for column, name in (("performance", "track_id"), ("work", "work_id")):
        empty = names[name].is_null() | (names[name] == "")
        if empty.any():
            raise ValueError(f"{path} row {_row(empty)} has no {column}")
    repeated = ~names["track_id"].is_first_distinct()
    if repeated.any():
        row = _row(repeated)
        raise ValueError(f"{path} row {row} repeats performance {names['track_id'][row - 2]}")

    values = text.select(pl.col(FEATURE_NAMES).str.strip_chars().cast(pl.Float64, strict=False))
    for name in FEATURE_NAMES:
        bad = ~values[name].is_finite().fill_null(value=False)
        if bad.any():
            row = _row(bad)
            raise ValueError(
                f"{path} row {row} has {text[name][row - 2]!r} in column {name}, "
                "where a finite number is expected"
            )
    digests = [
        hashlib.blake2b(row.tobytes(), digest_size=16).hexdigest()
        for row in np.ascontiguousarray(values.to_numpy())
    ]
    table = pl.concat([names, values], how="horizontal")
    return table.with_columns(fingerprint=pl.Series(digests)).sort("track_id")


def _read_text(path: Path) -> pl.DataFrame:
    """Read all columns as text: a schema guessed from the first rows would hide later errors."""
    try:
        text = pl.read_csv(path, infer_schema=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ValueError(f"{path} could not be read as a CSV table: {first_line(error)}") from error
    wanted = ["work", "performance", *FEATURE_NAMES]
    if missing := [name for name in wanted if name not in text.columns]:
        raise ValueError(
            f"{path} has no column {', '.join(missing[:3])}{' …' if len(missing) > 3 else ''} "
            f"({len(missing)} of {len(wanted)} missing); expected work, performance and the "
            "52 feature columns"
        )
    if text.is_empty():
        raise ValueError(f"{path} has a header but no rows")
    return text


def _row(marked: pl.Series) -> int:
    """Return the first marked row as an editor counts it: the header is row 1."""
    return int(marked.arg_max() or 0) + 2
