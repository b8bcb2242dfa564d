"""Vectors that another model made elsewhere -> vectors.parquet, and a bundle in the model's place.

The file is a parquet table with a row a performance: track_id, work_id, vector (a list of numbers,
as many in each row), and any of `vectors.BROUGHT`. Its metadata can name the `model`.
"""

import hashlib
import logging
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from embedding import bundle as bundles
from embedding.bundle import Training
from embedding.data.store import FeatureStore
from embedding.encoders.encoder import LOSS_CURVE
from embedding.encoders.imported import ImportedConfig
from embedding.splits import split_works
from flows.measuring.calibrate import are_enough, calibrate, heard, sample
from flows.vectors import BROUGHT, VECTORS
from flows.workspace import Workspace

logger = logging.getLogger(__name__)

#: Counted up when the same file makes other vectors or another bundle, so that they are made anew.
VERSION = 1

#: What the file has to say of each performance, beside its vector.
LABELS = ("track_id", "work_id")

#: The share of the works that calibrate.
CALIBRATING = 0.2

#: Of their choice.
SEED = 0

#: What columns can hold, by the type that they are read as.
EXPECTED: dict[Any, str] = {
    pl.String: "text (String)",
    pl.Int32: "whole numbers (Int32)",
    pl.Boolean: "true and false (Boolean)",
}


def is_ours(path: Path) -> bool:
    """Whether a file is a vectors.parquet that `embed` or `bring_in` made."""
    try:
        return "bundle_id" in pl.read_parquet_metadata(path)
    except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException):
        return False  # what is wrong with it is said where it is read


def bring_in(path: Path, features: Path | None, model: str | None, home: Path) -> Path:
    """Bring in vectors that were made elsewhere, unless the same were brought in before.

    About a fifth of the works calibrate the distances, if they have versions enough, and alignments
    where there are features; `evaluate` leaves these works out.

    Parameters
    ----------
    path : Path
        The file.
    features : Path or None
        What `aggregate` made of the same performances. One that they lack is not re-ranked.
    model : str or None
        What made the vectors; by default the `model` in the file's metadata. Vectors of one model
        can share a collection; those of a file that does not name it can share one with no others.
    home : Path
        The workspace.

    Returns
    -------
    Path
        vectors.parquet; its metadata name the file and a bundle that cannot embed.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file or the features are not what they should be; the column or the performance is
        named.
    """
    workspace = Workspace(home)
    path = path.absolute()
    table = read(path)
    model = model or pl.read_parquet_metadata(path).get("model")
    file = None if model else str(path)
    config = ImportedConfig(model or path.stem, table["vector"].to_numpy().shape[1], file)
    store = None
    if features is not None:
        features = features.expanduser().resolve()
        store = FeatureStore.open(features)
        _check_features(table, store, path)
    bundle, bundle_id = _bundle(config, table, store, path.stem, workspace)
    calibrate(bundle, features)

    made_with = {
        "bundle": workspace.relative(bundle),
        "bundle_id": bundle_id,
        "data": path.stem,
        "source": str(path),
    }
    if features is not None:
        made_with["features"] = workspace.relative(features)
    if model:
        made_with["model"] = model

    def make(directory: Path) -> None:
        table.write_parquet(directory / VECTORS, metadata=made_with)

    made_of = (VERSION, made_with, _digest(table))
    return workspace.result("vectors", bundle_id, made_of, make) / VECTORS


def read(path: Path) -> pl.DataFrame:
    """Read and check a table of vectors.

    Returns
    -------
    pl.DataFrame
        Sorted by track id: track_id, work_id, fingerprint (of the vector), vector (an array of
        float32), and the columns of `BROUGHT` that the file has.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If something is missing or wrong; the column or the performance is named.
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
        table = pl.read_parquet(path, columns=[*wanted, "vector"], memory_map=False)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"{path} cannot be read as a parquet file ({reason}): write it again, with a row for "
            "each performance."
        ) from error
    if ignored := [name for name in columns if name not in table.columns]:
        logger.info("columns of %s that are ignored: %s", path, ", ".join(ignored))
    if table.is_empty():
        raise ValueError(f"{path} has no rows: write a row for each performance.")
    table = table.with_columns(_cast(table[name], kind, path) for name, kind in wanted.items())
    _check_labels(table, path)
    vectors = _vectors(table, path)
    prints = [hashlib.blake2b(row.tobytes(), digest_size=16).hexdigest() for row in vectors]
    return table.select(
        *LABELS,
        pl.Series("fingerprint", prints),
        pl.Series("vector", vectors, dtype=pl.Array(pl.Float32, vectors.shape[1])),
        *(name for name in wanted if name not in LABELS),
    ).sort("track_id")


def calibrating(table: pl.DataFrame, store: FeatureStore | None) -> pl.DataFrame:
    """Choose the performances that calibrate; none where there are too few versions for it.

    Parameters
    ----------
    table : pl.DataFrame
        As `read` returns it.
    store : FeatureStore or None
        Has the sequences to calibrate alignments with, which come first.
    """
    if table["work_id"].n_unique() < 2:
        return table.clear()
    # A work stays on its side when others join, so that it is either measured or not.
    side = split_works(table["work_id"], (1 - CALIBRATING, CALIBRATING), SEED, "calibration")
    chosen = table.filter(side == 1)
    candidates = [chosen] if store is None else [heard(chosen, store).drop("row"), chosen]
    for performances in candidates:
        # No more of them than a fit takes: all others can be measured.
        found = sample(performances, SEED)
        if are_enough(found["work_id"]):
            return found.sort("track_id")
    return table.clear()


def _cast(column: pl.Series, kind: Any, path: Path) -> pl.Series:
    """The column as the type that it is wanted as; every value stays what it is."""
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
    """The vectors, shape=(n, d), float32."""
    column, tracks = table["vector"], table["track_id"]
    kind = column.dtype
    number = kind.inner if isinstance(kind, pl.List | pl.Array) else None
    if number is None or number not in (pl.Float32, pl.Float64):
        raise ValueError(
            f"Column vector of {path} is {kind}, expected lists of Float32 or Float64: write it so."
        )
    if column.null_count():
        raise ValueError(
            f"The vector of {tracks.filter(column.is_null())[0]} in {path} is missing: give it "
            "one, or leave the row out."
        )
    lengths = column.cast(pl.List(number)).list.len()
    dimension = lengths.mode().sort()[-1]
    if dimension == 0:
        raise ValueError(f"The vectors in {path} are empty: write what the model made.")
    other = lengths != dimension
    if other.any():
        raise ValueError(
            f"The vector of {tracks.filter(other)[0]} in {path} has {lengths.filter(other)[0]} "
            f"numbers, most have {dimension}: write vectors of one model."
        )
    with np.errstate(over="ignore"):
        vectors = column.cast(pl.Array(pl.Float32, dimension)).to_numpy()
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"The vector of {tracks[int(np.argmin(finite))]} in {path} has a number that is "
            "missing, not finite or too large for 32 bits: correct it, or leave the row out."
        )
    return vectors


def _check_features(table: pl.DataFrame, store: FeatureStore, path: Path) -> None:
    unheard = table["track_id"].filter(~table["track_id"].is_in(store.table["track_id"].implode()))
    if len(unheard) == len(table):
        raise ValueError(
            f"{store.path} has features of none of the performances in {path}: name what "
            "`covers aggregate` made of them."
        )
    if len(unheard):
        logger.warning(
            "%d of the %d performances in %s have no features in %s, such as %s, and will not be "
            "aligned",
            len(unheard),
            len(table),
            path,
            store.path,
            unheard[0],
        )


def _bundle(
    model: ImportedConfig,
    table: pl.DataFrame,
    store: FeatureStore | None,
    data: str,
    workspace: Workspace,
) -> tuple[Path, str]:
    """Make a bundle in the model's place, unless it is there; return where it is, and its id."""
    validation = calibrating(table, store)
    content = _digest(validation)
    features = None if store is None else store.fingerprint

    def make(directory: Path) -> None:
        works = validation.select("work_id", side=pl.lit("validation")).unique()
        training = Training(
            data=data,
            fingerprint=content,
            seed=SEED,
            works=works.sort("work_id"),
            validation=validation.select(*LABELS, "vector"),
            loss_curve=pl.DataFrame(schema=LOSS_CURVE),
            figures={},
        )
        bundles.save(directory, model, training)

    made_of = (VERSION, vars(model), content, features)
    place = workspace.result("bundles", model.name, made_of, make)
    return place, bundles.load(place).id


def _digest(table: pl.DataFrame) -> str:
    """What the rows say, as hex; the fingerprints stand for the vectors."""
    rows = table.drop("vector").write_ndjson()
    return hashlib.blake2b(rows.encode(), digest_size=16).hexdigest()
