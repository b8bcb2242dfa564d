"""One row a performance: the prototype's 52 columns, by its names and in its order."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

#: The averaged feature arrays and how many coefficients each has, in column order.
ARRAYS = {"chroma_cens": 12, "crema": 12, "hpcp": 12, "mfcc_htk": 13, "novfn": 1, "snovfn": 1}

FEATURE_NAMES: tuple[str, ...] = (
    *(f"chroma_cens_{i}" for i in range(12)),
    *(f"crema_{i}" for i in range(12)),
    *(f"hpcp_{i}" for i in range(12)),
    *(f"mfcc_htk_{i}" for i in range(13)),
    "novfn",
    "snovfn",
    "tempo",
)


@dataclass(frozen=True)
class Frames:
    """One performance's features, time first, in the floating-point type of the file.

    Attributes
    ----------
    hpcp, crema, chroma_cens : np.ndarray, shape=(T, 12)
        Lengths differ by a few frames.
    mfcc_htk : np.ndarray, shape=(T, 13)
        May hold NaN and infinities.
    novfn, snovfn : np.ndarray, shape=(T,)
    tempo : float
        The strongest, in bpm.
    fingerprint : str
        SHA-256 of the contents, of several files one after the other, as hex.
    size, mtime_ns : int
        Of the files as they were read; see `layout.Performance.stat`.
    """

    hpcp: np.ndarray
    crema: np.ndarray
    chroma_cens: np.ndarray
    mfcc_htk: np.ndarray
    novfn: np.ndarray
    snovfn: np.ndarray
    tempo: float
    fingerprint: str
    size: int
    mtime_ns: int


class Averages(NamedTuple):
    """What a performance's frames come to.

    Attributes
    ----------
    means : np.ndarray, shape=(52,), float64
        In the order of `FEATURE_NAMES`; the last is the tempo in bpm, as it is.
    nonfinite : float
        Share of the values that are NaN or infinite, in [0, 1].
    """

    means: np.ndarray
    nonfinite: float


def average(frames: Frames) -> Averages:
    """Average each coefficient over its finite frames.

    Parameters
    ----------
    frames : Frames
        One performance, time first.

    Raises
    ------
    ValueError
        If a coefficient has no finite value, or the tempo is not finite: a mean over nothing is
        not a number, and inventing one would put the performance in a wrong place.
    """
    arrays = [(name, getattr(frames, name)) for name in ARRAYS]
    averaged = [_finite_mean(name, values) for name, values in arrays]
    if not np.isfinite(frames.tempo):
        raise ValueError(f"tempo is {frames.tempo}, which is not a number of beats a minute")
    return Averages(
        np.concatenate([*(mean for mean, _ in averaged), [frames.tempo]]),
        sum(left_out for _, left_out in averaged) / sum(values.size for _, values in arrays),
    )


def _finite_mean(name: str, values: np.ndarray) -> tuple[np.ndarray, int]:
    """The mean of each column over its finite values, and how many of all are not."""
    # Summed in float64: float32 sums of 15,000 frames are already wrong in the sixth digit.
    columns = values.reshape(len(values), -1)
    with np.errstate(over="ignore", invalid="ignore"):
        mean = columns.mean(axis=0, dtype=np.float64)
        if np.isfinite(mean).all():  # one look at 13 sums instead of at 200,000 values
            return np.asarray(mean), 0
        finite = np.isfinite(columns)
        count = finite.sum(axis=0)
        if not count.all():
            empty = int(np.flatnonzero(count == 0)[0])
            what = name if (count == 0).all() else f"coefficient {empty} of {name}"
            raise ValueError(f"{what} has no finite value in {len(columns)} frames")
        mean = np.where(finite, columns, 0).sum(axis=0, dtype=np.float64) / count
    if not np.isfinite(mean).all():
        raise ValueError(f"{name} has values too large to average")
    return np.asarray(mean), int(columns.size - count.sum())


def read_csv(path: Path) -> pl.DataFrame:
    """Read the prototype's table, `work,performance,<52 columns>`.

    Parameters
    ----------
    path : Path
        The CSV. Its columns may come in any order, and others than these are ignored. A trailing
        `.h5` of a performance is dropped: the prototype's own tables hold file names there.

    Returns
    -------
    pl.DataFrame
        `track_id`, `work_id`, the 52 columns (Float64) and `fingerprint` (of the row's contents),
        sorted by track id.

    Raises
    ------
    ValueError
        If the file is no CSV, a column is missing, a name is empty, a performance comes twice, or
        a value is missing, not a number or not finite; the row is counted from the header's 1.
    """
    path = Path(path)
    try:
        # As text first: a schema guessed from the first rows would hide what is wrong later on.
        text = pl.read_csv(path, infer_schema=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f"{path} could not be read as a CSV table: {reason}") from error

    wanted = ["work", "performance", *FEATURE_NAMES]
    if missing := [name for name in wanted if name not in text.columns]:
        raise ValueError(
            f"{path} has no column {', '.join(missing[:3])}{' …' if len(missing) > 3 else ''} "
            f"({len(missing)} of {len(wanted)} missing); expected work, performance and the "
            "52 feature columns"
        )
    if text.is_empty():
        raise ValueError(f"{path} has a header but no rows")

    names = text.select(
        track_id=pl.col("performance").str.strip_chars().str.strip_suffix(".h5"),
        work_id=pl.col("work").str.strip_chars(),
    )
    for column, name in (("performance", "track_id"), ("work", "work_id")):
        empty = names[name].is_null() | (names[name] == "")
        if empty.any():
            raise ValueError(f"{path} row {_row(empty)} has no {column}")
    twice = ~names["track_id"].is_first_distinct()
    if twice.any():
        row = _row(twice)
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
    return (
        pl.concat([names, values], how="horizontal")
        .with_columns(fingerprint=pl.Series(digests))
        .sort("track_id")
    )


def _row(marked: pl.Series) -> int:
    """The first marked row as an editor counts it: the header is row 1."""
    return int(marked.arg_max() or 0) + 2
