"""vectors.parquet: a vector a performance, and what they were made from."""

from pathlib import Path

import numpy as np
import polars as pl

from embedding.data.store import METADATA

VECTORS = "vectors.parquet"

#: Known of each performance; the vector, an array of float32, follows.
IDS = ("track_id", "work_id", "fingerprint")

#: What vectors from elsewhere can bring of a performance; a feature store knows the same.
BROUGHT = {**METADATA, "subset": pl.String}


def read(path: Path) -> pl.DataFrame:
    """Read the vectors: columns `IDS`, vector, and those of `BROUGHT` that the file has.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged.
    """
    _check_there(path)
    try:
        table = pl.read_parquet(path, memory_map=False)
        brought = [name for name in BROUGHT if name in table.columns]
        table = table.select(*IDS, "vector", *brought)
        kinds = table.select(*IDS, "vector").schema.dtypes()
        if (
            kinds[:-1] != [pl.String] * len(IDS)
            or not isinstance(kinds[-1], pl.Array)
            or any(table.schema[name] != BROUGHT[name] for name in brought)
        ):
            raise _damaged(path, f"its columns are {', '.join(map(str, table.schema.dtypes()))}")
        if not np.isfinite(table["vector"].to_numpy()).all():
            raise _damaged(path, "a vector is not finite")
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise _damaged(path, str(error).partition("\n")[0]) from error
    return table


def origin(path: Path) -> dict[str, str]:
    """Read what vectors were made from.

    Returns
    -------
    dict of str to str
        `bundle` and, where there are any, `features`, as `Workspace.relative` writes them; the
        `bundle_id`; the name of the `data`; and the `source`, where the vectors were made
        elsewhere: the file that they were brought in from.

    Raises
    ------
    FileNotFoundError, ValueError
        As `read`, or if the file does not say.
    """
    _check_there(path)
    try:
        made_with = pl.read_parquet_metadata(path)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise _damaged(path, str(error).partition("\n")[0]) from error
    if not {"bundle", "bundle_id", "data"} <= set(made_with):
        raise ValueError(
            f"{path} does not say which bundle made it: make vectors with `covers embed`, or bring "
            "these in with `covers publish`."
        )
    return made_with


def _check_there(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"There is no {path}: name a vectors.parquet of `covers embed`.")


def _damaged(path: Path, reason: str) -> ValueError:
    return ValueError(
        f"{path} is damaged ({reason}): delete {path.parent}, and run the same again."
    )
