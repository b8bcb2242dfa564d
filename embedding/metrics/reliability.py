"""How far stated probabilities can be trusted: do 80 % of the pairs said to be 80 % sure hold?"""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

#: Probabilities in so many bins of equal width.
BINS = 10

#: Where a user may draw the line between a version and none.
THRESHOLDS = (0.5, 0.8, 0.9, 0.95)


@dataclass(frozen=True)
class Reliability:
    """Stated probabilities against what came true.

    Attributes
    ----------
    error : float in [0, 1]
        Expected calibration error: mean over pairs of the difference between the mean probability
        and the share that is true in the pair's bin (Guo et al., On Calibration of Modern Neural
        Networks, 2017).
    curve : pl.DataFrame
        A row a bin that isn't empty: low, high, pairs, stated (mean probability), observed (share
        that is true).
    """

    error: float
    curve: pl.DataFrame


def reliability(probabilities: ArrayLike, true: ArrayLike) -> Reliability:
    """Compare probabilities with the truth.

    Parameters
    ----------
    probabilities : array_like, shape=(pairs,), in [0, 1]
        At least one.
    true : array_like of bool, shape=(pairs,)
        Whether it is so.

    Raises
    ------
    ValueError
        If there are none, not as many of the one as of the other, or one is no probability.
    """
    stated, truth = _checked(probabilities, true)
    place = np.minimum((stated * BINS).astype(np.intp), BINS - 1)
    pairs = np.bincount(place, minlength=BINS)
    filled = pairs > 0
    mean = np.bincount(place, stated, BINS)[filled] / pairs[filled]
    share = np.bincount(place, truth, BINS)[filled] / pairs[filled]
    low = np.flatnonzero(filled) / BINS
    return Reliability(
        error=float((pairs[filled] * np.abs(mean - share)).sum() / len(stated)),
        curve=pl.DataFrame(
            {
                "low": low,
                "high": low + 1 / BINS,
                "pairs": pairs[filled],
                "stated": mean,
                "observed": share,
            }
        ),
    )


def at_thresholds(probabilities: ArrayLike, true: ArrayLike, relevant: int) -> pl.DataFrame:
    """Say what would be right, and what found, if pairs were accepted from some probability on.

    Parameters
    ----------
    probabilities, true
        As for `reliability`.
    relevant : int
        How many true pairs there are in all, also among those that have no probability.

    Returns
    -------
    pl.DataFrame
        A row for each of `THRESHOLDS`: threshold, accepted, precision (null if none is accepted),
        recall.
    """
    stated, truth = _checked(probabilities, true)
    rows = []
    for threshold in THRESHOLDS:
        accepted = stated >= threshold
        count, right = int(accepted.sum()), int(truth[accepted].sum())
        rows.append((threshold, count, right / count if count else None, right / max(relevant, 1)))
    schema = {
        "threshold": pl.Float64,
        "accepted": pl.Int64,
        "precision": pl.Float64,
        "recall": pl.Float64,
    }
    return pl.DataFrame(rows, schema=schema, orient="row")


def recall_at_precision(
    probabilities: ArrayLike, true: ArrayLike, relevant: int, precision: float
) -> float:
    """Return the largest share of the relevant pairs that any threshold finds at this precision.

    0 if no threshold reaches the precision. Parameters are those of `at_thresholds`.
    """
    stated, truth = _checked(probabilities, true)
    order = np.argsort(-stated, kind="stable")
    right = truth[order].cumsum()
    accepted = np.arange(1, len(order) + 1)
    # Equal probabilities are accepted together.
    last = np.r_[np.diff(stated[order]) != 0, True]
    good = last & (right >= precision * accepted)
    return float(right[good].max(initial=0) / max(relevant, 1))


def _checked(
    probabilities: ArrayLike, true: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    stated, truth = np.asarray(probabilities, np.float64), np.asarray(true, np.bool_)
    if stated.ndim != 1 or stated.shape != truth.shape or not len(stated):
        raise ValueError(
            f"There are probabilities of shape {stated.shape} and answers of shape {truth.shape}: "
            "give one of each for at least one pair."
        )
    if not ((stated >= 0) & (stated <= 1)).all():  # which NaN fails
        raise ValueError("Probabilities must lie from 0 to 1: one of them doesn't.")
    return stated, truth
