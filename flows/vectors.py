"""vectors.parquet: a vector a performance, and what they were made from."""

from pathlib import Path

import numpy as np
import polars as pl

VECTORS = "vectors.parquet"

#: Of each performance; the vector, an array of float32, comes last.
IDS = ("track_id", "work_id", "fingerprint")


def read(path: Path) -> pl.DataFrame:
    """Read the vectors: columns `IDS` and vector, a row a performance.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged.
    """
    _check_there(path)
    try:
        table = pl.read_parquet(path, memory_map=False).select(*IDS, "vector")
        kinds = table.schema.dtypes()
        if kinds[:-1] != [pl.String] * len(IDS) or not isinstance(kinds[-1], pl.Array):
            raise _damaged(path, f"its columns are {', '.join(map(str, kinds))}")
        if not np.isfinite(table["vector"].to_numpy()).all():
            raise _damaged(path, "a vector isn't finite")
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise _damaged(path, str(error).partition("\n")[0]) from error
    return table


def origin(path: Path) -> dict[str, str]:
    """Read what they were made from: bundle, bundle_id, data and features.

    Raises
    ------
    FileNotFoundError, ValueError
        As `read`, or if it doesn't say.
    """
    _check_there(path)
    try:
        made_with = pl.read_parquet_metadata(path)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise _damaged(path, str(error).partition("\n")[0]) from error
    if not {"bundle", "bundle_id", "data", "features"} <= set(made_with):
        raise ValueError(f"{path} doesn't say which bundle made it: make it by `covers embed`.")
    return made_with


def _check_there(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"There is no {path}: name a vectors.parquet of `covers embed`.")


def _damaged(path: Path, reason: str) -> ValueError:
    return ValueError(
        f"{path} is damaged ({reason}): delete {path.parent}, and run the same again."
    )
