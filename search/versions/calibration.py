"""Calibration: from a distance or an alignment to the probability that two share a work.

The calibration of a bundle gives likelihood ratios: how much more often such a distance or
alignment occurs between versions of one work than between performances of two works. They are
fitted on works that the encoder was not trained on, and hold in any catalogue. The prior, which is
the probability before any comparison, differs between catalogues. It follows from the collection's
own cliques, and from an estimate of the versions that they do not link (`search.versions.hidden`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]

#: Maximum share of the performances that have a version: another may always be of a new work.
MAX_LINKED = 0.95

#: Number of vectors that the usual distance is estimated from, to a few per cent.
MAX_REFERENCES = 1000

#: Minimum number of distances that the usual distance is the mean of, if there are as many.
MIN_USUAL = 3

TINY = 1e-9


@dataclass(frozen=True)
class Logistic:
    """A log likelihood ratio: `columns @ weights + bias`, fitted by logistic regression."""

    weights: tuple[float, ...]
    bias: float

    def log_ratio(self, columns: Numbers) -> Numbers:
        """Return log P(columns | one work) - log P(columns | two works) for (n, k) columns."""
        found: Numbers = columns @ np.array(self.weights) + self.bias
        return found


@dataclass(frozen=True)
class Calibration:
    """How a bundle turns distances and alignments into probabilities.

    Attributes
    ----------
    distance : Logistic
        Takes the relative distance.
    alignment : Logistic or None
        Takes `alignment_columns`; None if the calibration was fitted without sequences.
    """

    distance: Logistic
    alignment: Logistic | None = None

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """Read what `dataclasses.asdict` and JSON wrote.

        Raises a KeyError, TypeError or ValueError if the content is not a calibration.
        """

        def curve(part: dict[str, Any], columns: int) -> Logistic:
            found = Logistic(tuple(map(float, part["weights"])), float(part["bias"]))
            if len(found.weights) != columns or not np.isfinite([*found.weights, found.bias]).all():
                raise ValueError(f"{part} is not a part of a calibration.")
            return found

        alignment = content["alignment"]
        return cls(
            curve(content["distance"], 1), None if alignment is None else curve(alignment, 4)
        )


def usual_distances(vectors: npt.NDArray[np.float32]) -> Numbers:
    """Return what is usual for the distances from each vector to others, shape=(n, 2).

    The others are up to `MAX_REFERENCES` of the vectors, shape=(n, d), of the catalogue, without
    the vector itself. See `usual_of`.
    """
    count = len(vectors)
    chosen = np.sort(np.random.default_rng(0).permutation(count)[:MAX_REFERENCES])
    centre = vectors.mean(axis=0, dtype=np.float64)
    references = vectors[chosen] - centre
    own = (references**2).sum(axis=1)
    usual = np.empty((count, 2))
    for start in range(0, count, 1024):
        rows = slice(start, start + 1024)
        block = vectors[rows] - centre
        squares = own + (block**2).sum(axis=1)[:, None] - 2 * block @ references.T
        distances = np.sqrt(np.maximum(squares, 0))
        distances[np.arange(count)[rows, None] == chosen] = np.inf
        usual[rows] = usual_of(distances, len(chosen) - 1)
    return usual


def usual_of(distances: Numbers, count: int) -> Numbers:
    """Return mean and standard deviation of the shorter half of each row of distances, (n, 2).

    Some performances (hubs) are near to everything, and in a catalogue of one kind of music all
    distances are small. So a distance is informative only relative to these. The longer half says
    little about how near an unrelated performance can be. This is the adaptive symmetric score
    normalisation of speaker verification (Matějka et al., Analysis of Score Normalization in
    Multilingual Speaker Recognition, Interspeech 2017), with half of the cohort. `count` of each
    row are finite. With fewer than two, the result is 0 and 1.
    """
    if count < 2:
        return np.tile([0.0, 1.0], (len(distances), 1))
    nearest = min(max(MIN_USUAL, (count + 1) // 2), count)
    shorter = np.partition(distances, nearest - 1, axis=1)[:, :nearest]
    mean, spread = shorter.mean(axis=1), shorter.std(axis=1)
    return np.stack([mean, np.where(spread < TINY, 1, spread)], axis=1)


def relative(
    values: npt.ArrayLike, query_usual: npt.ArrayLike, match_usual: npt.ArrayLike
) -> Numbers:
    """Return values relative to what is usual for both of a pair: the sum of two z-scores.

    `values`, shape=(n,), are distances or log similarities. The usual mean and standard deviation
    of each performance, shape=(n, 2) or (2,), come from `usual_distances` or from
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
    """Return the columns of aligned pairs, shape=(n, 4), the same for both orders of a pair.

    They are the relative similarity, its square where it is positive, the relative distance, and
    how far the two backgrounds exceed the mean background of the catalogue. Distances, from
    `relative`, and similarities have the shape (n,), and backgrounds (n, 2) or (2,); both come from
    `search.versions.reranking`.
    """
    similarity = relative(log_similarity, query_background, match_background)
    hub = np.zeros_like(similarity) - 2 * mean_background
    for background in (query_background, match_background):
        hub = hub + np.asarray(background, np.float64).T[0]
    distance = np.asarray(relative_distance, np.float64)
    return np.stack([similarity, np.maximum(similarity, 0) ** 2, distance, hub], axis=-1)


def pair_probability(log_ratio: Numbers, versions: float, points: int) -> Numbers:
    """Return the probability that each pair shares a work, from log likelihood ratios, shape=(n,).

    `versions` is the mean number of other versions that a performance has in the catalogue, above
    0, and `points` the number of performances.
    """
    probability: Numbers = 1 / (
        1 + np.exp(-np.clip(log_ratio + _log_odds(versions, points), -700, 700))
    )
    return probability


def with_versions(probability: float, before: float, versions: float, points: int) -> float:
    """Return a probability of `pair_probability` for another number of versions than `before`."""
    ratio = np.exp(_log_odds(versions, points) - _log_odds(before, points))
    return float(probability * ratio / (probability * ratio + 1 - probability))


def _log_odds(versions: float, points: int) -> float:
    prior = min(versions / max(points - 1, 2), 0.5)
    return float(np.log(prior / (1 - prior)))


def work_probabilities(
    evidence: Sequence[Numbers], linked: float, points: int
) -> tuple[Numbers, float]:
    """Return the probability that a query is of each work, and the probability of no work.

    The query is a version of one performance of the work, any of them. So the likelihood ratio of a
    work is the mean over its performances. The prior `linked`, that the query has a version in the
    catalogue, is divided among the works by size. The remaining prior is that of no work.

    `evidence` has, for each work, the log likelihood ratios of the query with its performances. A
    performance without a ratio counts as impossible. `linked`, 0 to 1, is the share of the
    performances in the catalogue whose work has another performance, and `points` their number.
    """
    linked = min(linked, MAX_LINKED)
    shared = np.log(linked / (1 - linked) / max(points - 1, 1))
    # The prior of a work is proportional to its size, and size x mean ratio is the sum of ratios.
    odds = np.array([0.0, *(shared + np.logaddexp.reduce(ratios) for ratios in evidence)])
    odds = np.exp(odds - odds.max())
    odds /= odds.sum()
    return odds[1:], float(odds[0])
