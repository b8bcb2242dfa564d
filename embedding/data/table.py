"""The prototype's table of means, a CSV with the columns `work,performance,<52 means>`."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np
import polars as pl

from embedding.data.features import FEATURE_NAMES
from embedding.errors import first_line


def read_table(path: Path) -> tuple[pl.DataFrame, dict[str, str]]:
    """Read and check the table.

    Columns may come in any order, and other columns are ignored. A trailing `.h5` of a performance
    is dropped, because the prototype's own tables hold file names. A performance without a work is
    a work of its own.

    Returns
    -------
    table : pl.DataFrame
        `track_id`, `work_id`, the 52 columns (Float64) and `fingerprint` (of the values), sorted
        by track id.
    rejects : dict
        Why other performances cannot be used, by track id: a value is not a finite number.

    Raises
    ------
    ValueError
        If the file is not a CSV, a column is missing, or a performance has no name or occurs
        twice. Rows are counted from the header, which is row 1.
    """
    path = Path(path)
    text = _read_text(path)
    names = text.select(
        track_id=pl.col("performance").str.strip_chars().str.strip_suffix(".h5"),
        work_id=pl.col("work").str.strip_chars().replace("", None),
    )
    empty = names["track_id"].fill_null("") == ""
    if empty.any():
        raise ValueError(f"{path} row {_row(empty)} has no performance: name it, or delete the row")
    repeated = ~names["track_id"].is_first_distinct()
    if repeated.any():
        row = _row(repeated)
        raise ValueError(f"{path} row {row} repeats performance {names['track_id'][row - 2]}")

    values = text.select(pl.col(FEATURE_NAMES).str.strip_chars().cast(pl.Float64, strict=False))
    rejects = {}
    finite = np.isfinite(values.fill_null(math.nan).to_numpy())
    for i in np.flatnonzero(~finite.all(axis=1)).tolist():
        column = FEATURE_NAMES[int(finite[i].argmin())]
        rejects[names["track_id"][i]] = (
            f"row {i + 2} has {text[column][i] or 'nothing'} in column {column}, where a finite "
            "number is expected: correct the table"
        )
    table = pl.concat([names, values], how="horizontal")
    table = table.filter(~pl.col("track_id").is_in(list(rejects)))
    digests = [
        hashlib.blake2b(row.tobytes(), digest_size=16).hexdigest()
        for row in np.ascontiguousarray(table.select(FEATURE_NAMES).to_numpy())
    ]
    table = with_own_works(table.with_columns(fingerprint=pl.Series(digests, dtype=pl.String)))
    return table.sort("track_id"), rejects


def with_own_works(table: pl.DataFrame) -> pl.DataFrame:
    """Make each performance whose `work_id` is null a work of its own, with an id of its own."""
    taken = pl.col("track_id").is_in(table["work_id"].drop_nulls().unique().to_list())
    own = pl.when(taken).then(pl.format("{} (no work)", "track_id")).otherwise("track_id")
    return table.with_columns(work_id=pl.coalesce("work_id", own))


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
            "52 feature columns (a list of works is read with its directory: name that)"
        )
    if text.is_empty():
        raise ValueError(f"{path} has a header but no rows")
    return text


def _row(marked: pl.Series) -> int:
    """Return the first marked row as an editor counts it: the header is row 1."""
    return int(marked.arg_max() or 0) + 2
