"""vectors.parquet: a vector for each performance, and what it was made from."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl

from embedding.data.columns import KINDS
from embedding.data.metadata import METADATA
from search.fields import MEANINGS

VECTORS = "vectors.parquet"

#: The columns of text; the vector, an array of float32, follows.
IDS = ("track_id", "work_id", "fingerprint")

#: Columns that vectors of another model can add. A feature store has the same.
BROUGHT = {**METADATA, "subset": pl.String}

#: Columns that are not a data set's own, and names that its own columns cannot have.
FIELDS = (*IDS, "vector", *BROUGHT)
TAKEN = (*FIELDS, *MEANINGS)


def read(path: Path) -> pl.DataFrame:
    """Read the vectors: columns `IDS`, vector, those of `BROUGHT` that the file has, and own ones.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged.
    """
    with _reading(path):
        table = pl.read_parquet(path, memory_map=False)
        brought = [name for name in BROUGHT if name in table.columns]
        own = [name for name in table.columns if name not in FIELDS]
        table = table.select(*IDS, "vector", *brought, *own)
    wanted = dict.fromkeys(IDS, pl.String) | {name: BROUGHT[name] for name in brought}
    as_written = all(table.schema[name] == kind for name, kind in wanted.items())
    as_written &= all(table.schema[name] in KINDS.values() for name in own)
    if not (as_written and isinstance(table.schema["vector"], pl.Array)):
        raise _damaged(path, f"its columns are {', '.join(map(str, table.schema.dtypes()))}")
    if not np.isfinite(table["vector"].to_numpy()).all():
        raise _damaged(path, "a vector is not finite")
    return table


def read_ids(path: Path) -> pl.DataFrame:
    """Read the columns `IDS` of vectors; the errors are those of `read`."""
    with _reading(path):
        return pl.read_parquet(path, columns=list(IDS), memory_map=False)


def origin(path: Path) -> dict[str, str]:
    """Read what vectors were made from.

    Returns
    -------
    dict of str to str
        `bundle` and, if there are any, `features`, as `Workspace.relative` writes them; the
        `bundle_id`; the name of the `data`; and for vectors of another model the `source`, the
        file that they were imported from.

    Raises
    ------
    FileNotFoundError, ValueError
        As `read`, or if the file does not say it.
    """
    with _reading(path):
        made_with = pl.read_parquet_metadata(path)
    if not {"bundle", "bundle_id", "data"} <= set(made_with):
        raise ValueError(
            f"{path} does not say which bundle made it: make vectors with `covers embed`, or bring "
            "these in with `covers publish`."
        )
    return made_with


def told(path: Path) -> str:
    """Return the data and the bundle of a file in words, or its name if they are not known."""
    try:
        made_with = origin(path)
    except (OSError, ValueError):
        return path.name
    return f"{made_with['data']} with {made_with['bundle_id']}"


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    if not path.is_file():
        raise FileNotFoundError(f"There is no {path}: name a vectors.parquet of `covers embed`.")
    try:
        yield
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise _damaged(path, str(error).partition("\n")[0]) from error


def _damaged(path: Path, reason: str) -> ValueError:
    ours = path.name == VECTORS  # in a directory of its own
    remedy = f"delete {path.parent}, and run the same again" if ours else "name another file"
    return ValueError(f"{path} is damaged ({reason}): {remedy}.")
