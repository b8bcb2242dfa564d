"""How sure: from a distance or an alignment to the probability that two are versions of one work.

A bundle's calibration gives likelihood ratios, how much more often versions of one work look like
this than performances of two works do. They are fitted on works that the encoder has not learnt
from, and hold in any catalogue. What differs between catalogues is the prior, how likely a pair is
before one has looked, which a collection's own cliques tell.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]

#: A catalogue whose works are hardly known yet may still hold versions: so many others are expected
#: of a performance at least, and this share of the performances to have any, at least and at most.
VERSIONS, LINKED = 0.5, (0.2, 0.95)

#: Vectors that tell what distance is usual; their mean is known to a few per cent.
REFERENCES = 1000

TINY = 1e-9


@dataclass(frozen=True)
class Logistic:
    """A log likelihood ratio: `columns @ weights + bias`, fitted by logistic regression."""

    weights: tuple[float, ...]
    bias: float

    def log_ratio(self, columns: Numbers) -> Numbers:
        """Return log P(columns | one work) - log P(columns | two works), shape=(n,).

        Parameters
        ----------
        columns : np.ndarray, shape=(n, len(weights))
            What is known of each pair.
        """
        found: Numbers = columns @ np.array(self.weights) + self.bias
        return found


@dataclass(frozen=True)
class Calibration:
    """What a bundle knows of how far to trust its distances.

    Attributes
    ----------
    distance : Logistic
        Of one column, the relative distance.
    alignment : Logistic or None
        Of `alignment_columns`; None where it was fitted without sequences.
    """

    distance: Logistic
    alignment: Logistic | None = None

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """The inverse of `dataclasses.asdict`, also after JSON has made lists of tuples.

        Raises
        ------
        KeyError, TypeError, ValueError
            If it is something else.
        """

        def curve(part: dict[str, Any], columns: int) -> Logistic:
            found = Logistic(tuple(map(float, part["weights"])), float(part["bias"]))
            if len(found.weights) != columns or not np.isfinite([*found.weights, found.bias]).all():
                raise ValueError(f"a calibration can't be {part}")
            return found

        alignment = content["alignment"]
        return cls(
            curve(content["distance"], 1), None if alignment is None else curve(alignment, 4)
        )


def usual_distances(vectors: npt.NDArray[np.float32]) -> Numbers:
    """Return how far away others usually are from each vector.

    Some performances are near to everything (hubs), and in a catalogue of one kind of music
    everything is nearer than elsewhere; so a distance says something only beside these.

    Parameters
    ----------
    vectors : np.ndarray, shape=(n, d)
        All vectors of a catalogue.

    Returns
    -------
    np.ndarray, shape=(n, 2)
        Mean and standard deviation of its distances to up to `REFERENCES` others; 0 and 1 where
        there are none.
    """
    count = len(vectors)
    chosen = np.sort(np.random.default_rng(0).permutation(count)[:REFERENCES])
    centre = vectors.mean(axis=0, dtype=np.float64)
    references = vectors[chosen] - centre
    own = (references**2).sum(axis=1)
    usual = np.zeros((count, 2))
    usual[:, 1] = 1
    for start in range(0, count, 1024):
        rows = slice(start, start + 1024)
        block = vectors[rows] - centre
        squares = own + (block**2).sum(axis=1)[:, None] - 2 * block @ references.T
        distances = np.sqrt(np.maximum(squares, 0))
        itself = np.arange(count)[rows, None] == chosen
        others = np.ma.masked_array(distances, itself)
        if (others.count(axis=1) > 1).all():
            usual[rows, 0] = others.mean(axis=1)
            usual[rows, 1] = others.std(axis=1)
    usual[usual[:, 1] < TINY, 1] = 1
    return usual


def relative(
    values: npt.ArrayLike, query_usual: npt.ArrayLike, match_usual: npt.ArrayLike
) -> Numbers:
    """Return values in standard deviations from what is usual for either of a pair, added up.

    Parameters
    ----------
    values : array_like, shape=(n,)
        Distances, or log similarities.
    query_usual, match_usual : array_like, shape=(n, 2) or (2,)
        Mean and standard deviation of each one's values with others: `usual_distances`, or
        `search.versions.reranking.backgrounds`.
    """
    values = np.asarray(values, np.float64)
    total: Numbers = np.zeros_like(values)
    for mean, spread in (np.asarray(query_usual).T, np.asarray(match_usual).T):
        total = total + (values - mean) / spread
    return total


def alignment_columns(
    relative_distance: npt.ArrayLike,
    log_similarity: npt.ArrayLike,
    query_background: npt.ArrayLike,
    match_background: npt.ArrayLike,
    mean_background: float,
) -> Numbers:
    """Turn what is known of aligned pairs into columns; the same for both orders of a pair.

    Parameters
    ----------
    relative_distance : array_like, shape=(n,)
        Of their vectors.
    log_similarity : array_like, shape=(n,)
        From `search.versions.reranking.log_similarity`.
    query_background, match_background : array_like, shape=(n, 2) or (2,)
        From `search.versions.reranking.backgrounds`.
    mean_background : float
        The mean background of the catalogue.

    Returns
    -------
    np.ndarray, shape=(n, 4)
        The relative similarity, the square of that where it is positive, the relative distance, and
        how much more the two resemble anything than others of the catalogue do.
    """
    similarity = relative(log_similarity, query_background, match_background)
    hub = np.zeros_like(similarity) - 2 * mean_background
    for background in (query_background, match_background):
        hub = hub + np.asarray(background, np.float64).T[0]
    distance = np.asarray(relative_distance, np.float64)
    return np.stack([similarity, np.maximum(similarity, 0) ** 2, distance, hub], axis=-1)


def pair_probability(log_ratio: Numbers, versions: float, points: int) -> Numbers:
    """Return the probability that each of some pairs is of one work, shape=(n,).

    Parameters
    ----------
    log_ratio : np.ndarray, shape=(n,)
        From a calibration.
    versions : float
        How many other performances of its work a performance has in the catalogue, on average.
    points : int
        Performances in the catalogue.
    """
    prior = min(max(versions, VERSIONS) / max(points - 1, 2), 0.5)
    return _from_log_odds(log_ratio + np.log(prior / (1 - prior)))


def work_probabilities(
    evidence: Sequence[Numbers], linked: float, points: int
) -> tuple[Numbers, float]:
    """Return the probability of each of some works to be a query's, and that it is none in sight.

    A query is a version of one of a work's performances, whichever: so a work's likelihood ratio
    is the mean of those of its performances. Works in proportion to their size share the prior
    `linked`, that the query has a version here; the rest of it is the prior of none.

    Parameters
    ----------
    evidence : sequence of np.ndarray, each shape=(its looked at performances,)
        Log likelihood ratios of the query with performances of each work. Those that were not
        looked at count as impossible.
    linked : float in [0, 1]
        Share of the catalogue's performances whose work has another one.
    points : int
        Performances in the catalogue.

    Returns
    -------
    tuple of (np.ndarray, shape=(works,), float)
        Summing to 1.
    """
    linked = float(np.clip(linked, *LINKED))
    shared = np.log(linked / (1 - linked) / max(points - 1, 1))
    # A work's share of the prior is as its size, and size x mean is the sum.
    odds = np.array([0.0, *(shared + np.logaddexp.reduce(ratios) for ratios in evidence)])
    odds = np.exp(odds - odds.max())
    odds /= odds.sum()
    return odds[1:], float(odds[0])


def _from_log_odds(log_odds: Numbers) -> Numbers:
    return 1 / (1 + np.exp(-np.clip(log_odds, -700, 700)))
