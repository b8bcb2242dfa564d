"""Whether stated probabilities can be trusted: do 80 % of the pairs stated at 80 % hold?"""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray
from sklearn.calibration import calibration_curve
from sklearn.metrics import precision_recall_curve

#: Bins of equal width for the probabilities.
PROBABILITY_BINS = 10

#: Probabilities from which on a user may accept a match.
THRESHOLDS = (0.5, 0.8, 0.9, 0.95)


@dataclass(frozen=True)
class Reliability:
    """Stated probabilities compared with the truth."""

    #: Expected calibration error, in [0, 1]: mean over pairs of the difference between the mean
    #: probability and the share of true pairs in the pair's bin (Guo et al., On Calibration of
    #: Modern Neural Networks, 2017).
    error: float
    #: One row per bin (low, high] that is not empty: low, high, pairs, stated (mean probability),
    #: observed (share of true pairs).
    curve: pl.DataFrame


def reliability(probabilities: ArrayLike, true: ArrayLike) -> Reliability:
    """Compare the stated probability of each pair, in [0, 1], with whether it is true.

    Raises ValueError if there are no pairs, the lengths differ, or a probability is out of range.

    Examples
    --------
    >>> round(reliability([0.95, 0.95, 0.05], [True, False, False]).error, 3)
    0.317
    """
    stated, truth = _checked(probabilities, true)
    observed, mean = calibration_curve(truth, stated, n_bins=PROBABILITY_BINS)
    edges = np.linspace(0, 1, PROBABILITY_BINS + 1)
    pairs = np.bincount(edges[1:-1].searchsorted(stated), minlength=PROBABILITY_BINS)
    low, high, pairs = edges[:-1][pairs > 0], edges[1:][pairs > 0], pairs[pairs > 0]
    columns = {"low": low, "high": high, "pairs": pairs, "stated": mean, "observed": observed}
    error = float(np.average(np.abs(mean - observed), weights=pairs))
    return Reliability(error, pl.DataFrame(columns))


def at_thresholds(probabilities: ArrayLike, true: ArrayLike, relevant: int) -> pl.DataFrame:
    """Compute precision and recall when pairs are accepted from each of `THRESHOLDS` on.

    `relevant` is the number of true pairs, including those without a probability. The columns are
    threshold, accepted, precision (null if no pair is accepted), recall.
    """
    stated, truth = _checked(probabilities, true)
    accepted = np.array([(stated >= threshold).sum() for threshold in THRESHOLDS])
    right = np.array([truth[stated >= threshold].sum() for threshold in THRESHOLDS])
    precision = [float(r / a) if a else None for r, a in zip(right, accepted, strict=True)]
    return pl.DataFrame(
        {
            "threshold": THRESHOLDS,
            "accepted": accepted,
            "precision": pl.Series(precision, dtype=pl.Float64),
            "recall": right / max(relevant, 1),
        }
    )


def recall_at_precision(
    probabilities: ArrayLike, true: ArrayLike, relevant: int, precision: float
) -> float:
    """Return the largest recall of any threshold with this precision; 0 if there is none."""
    stated, truth = _checked(probabilities, true)
    if not truth.any():
        return 0.0
    reached, recall, _ = precision_recall_curve(truth, stated)
    share = truth.sum() / max(relevant, 1)  # of the relevant pairs, those with a probability
    return float(recall[reached >= precision].max() * share)


def _checked(
    probabilities: ArrayLike, true: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    stated, truth = np.asarray(probabilities, np.float64), np.asarray(true, np.bool_)
    if stated.ndim != 1 or stated.shape != truth.shape or not len(stated):
        raise ValueError(
            f"There are probabilities of shape {stated.shape} and answers of shape {truth.shape}: "
            "give one of each for at least one pair."
        )
    if not ((stated >= 0) & (stated <= 1)).all():  # False for NaN
        raise ValueError("Probabilities must lie between 0 and 1: at least one does not.")
    return stated, truth
