"""Hidden versions: how many versions does a catalogue hold that its labels do not link?

The prior of every probability depends on it, and in a catalogue without labels nothing else tells.
So a sample of the performances is aligned with their nearest neighbours of other works when a
collection is built. The share of versions that makes these likelihood ratios likeliest is found by
expectation maximisation (Saerens, Latinne and Decaestecker, Adjusting the Outputs of a Classifier
to New a Priori Probabilities, Neural Computation 14, 2002).
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from search.versions.alignment import STACK_SECONDS, Chroma, similarities
from search.versions.calibration import Logistic, Numbers, alignment_columns, relative
from search.versions.reranking import log_similarity

#: Performances that are drawn, and their nearest that are aligned with them.
QUERIES, NEAREST = 100, 20

ITERATIONS = 2000


@dataclass(frozen=True)
class Hidden:
    """What an estimate says.

    Attributes
    ----------
    versions : float, above 0
        Mean number of versions of a performance that have another label.
    linked : float in (0, 1)
        Share that has such a version, of the performances without versions of their own label.
    """

    versions: float
    linked: float


def estimate(
    vectors: npt.NDArray[np.float32],
    works: npt.NDArray[np.str_],
    usual: Numbers,
    sequences: Sequence[Chroma],
    rate: float,
    backgrounds: npt.NDArray[np.float32],
    alignment: Logistic,
) -> Hidden | None:
    """Estimate the hidden versions of a catalogue; None if fewer than two can be aligned.

    Row i of all arrays is of performance i. `usual` and `backgrounds` have the shape (n, 2), and
    `alignment` is the part of the calibration for aligned pairs.
    """
    from joblib import cpu_count  # importing it takes longer than a search

    long_enough = np.array([len(each) >= STACK_SECONDS * rate for each in sequences])
    queries = np.random.default_rng(0).permutation(np.flatnonzero(long_enough))[:QUERIES]
    if len(queries) < 2:
        return None
    squares = np.einsum("ij,ij->i", vectors, vectors)
    mean_background = float(backgrounds[:, 0].mean())

    def ratios(query: int) -> Numbers:
        near = squares - 2 * (vectors @ vectors[query])  # the square of the distance, but for |q|^2
        near[(works == works[query]) | ~long_enough] = np.inf
        nearest = np.argpartition(near, min(NEAREST, len(near)) - 1)[:NEAREST]
        nearest = nearest[np.isfinite(near[nearest])]
        if not len(nearest):
            return np.empty(0)
        others = [np.asarray(sequences[i]) for i in nearest]
        similarity = similarities(np.asarray(sequences[query]), others, rate)[0]
        distance = np.linalg.norm(vectors[nearest].astype(np.float64) - vectors[query], axis=1)
        columns = alignment_columns(
            relative(distance, usual[query], usual[nearest]),
            log_similarity(similarity),
            backgrounds[query],
            backgrounds[nearest],
            mean_background,
        )
        return alignment.log_ratio(columns)

    with ThreadPoolExecutor(cpu_count()) as threads:  # compiled code releases the GIL
        found = list(threads.map(ratios, queries.tolist()))
    others = len(vectors) - 1
    versions = others * share(np.concatenate(found), len(queries) * others)
    _, work, sizes = np.unique(works, return_inverse=True, return_counts=True)
    single = [each for each, i in zip(found, queries, strict=True) if sizes[work[i]] == 1]
    # As in `work_probabilities`, the evidence for any version is the mean over all others.
    evidence = [np.logaddexp.reduce(each, initial=-np.inf) - np.log(others) for each in single]
    return Hidden(versions, share(np.array(evidence), len(single)))


def share(log_ratios: Numbers, count: int) -> float:
    """Return the likeliest share of positives among `count` items, in (0, 1).

    Items without a log likelihood ratio are negatives. One more positive and one more negative are
    assumed, so that a few items do not exclude anything.
    """
    found = 0.5
    for _ in range(ITERATIONS):
        before = found
        log_odds = log_ratios + np.log(found / (1 - found))
        posterior = 1 / (1 + np.exp(-np.clip(log_odds, -700, 700)))
        found = float((posterior.sum() + 1) / (count + 2))
        if abs(found - before) < 1e-4 * found:
            break
    return found
