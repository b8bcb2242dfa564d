"""Data sets that are read in no time: tables of the prototype, which have no chroma."""

from pathlib import Path

import polars as pl
from feature_stores import make_table

from embedding.data.features import FEATURE_NAMES


def write_table(
    path: Path, works: int = 20, each: int = 2, seed: int = 0, work: str = "W_"
) -> Path:
    """Write a data set whose performances are called after it: P_a000, … of W_0, … in a.csv."""
    table = make_table(works, each, seed)
    named = pl.lit(f"P_{path.stem}") + pl.col("track_id").str.strip_prefix("P_")
    path.parent.mkdir(parents=True, exist_ok=True)
    table.select(
        pl.col("work_id").str.replace("W_", work).alias("work"),
        named.alias("performance"),
        *FEATURE_NAMES,
    ).write_csv(path)
    return path
