"""Reranking: order the candidates that the vectors found by how well their sequences align.

A similarity means little by itself, because some performances (hubs) resemble everything. So the
background of each performance, its usual similarity to others of the catalogue, is measured once
when a collection is published, and is subtracted from its score as a candidate. If the bundle is
calibrated, the candidates are ordered by the probability that they are versions instead, which
depends on their distance too.
"""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from search.versions.alignment import Chroma, Floats, similarities

logger = logging.getLogger(__name__)

#: Number of nearest performances that are aligned with the query; the others follow by distance.
CANDIDATES = 100

MAX_REFERENCES = 32  # performances that each background is measured against
TRIMMED_SHARE = 0.1  # the most similar references, which are left out of a background
SIMILARITY_FLOOR = 0.1  # added before the logarithm, because similarities near 0 are common
HUB_WEIGHT = 0.75  # of the candidate's background in the ranking score
EXTRA_SPREAD = 0.3  # added to the spread of a background, which few references estimate badly


def log_similarity(similarity: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the logarithm of similarities, shape=(n,), which is compared and averaged."""
    return np.log(np.asarray(similarity, np.float64) + SIMILARITY_FLOOR)


def ranking_score(similarity: npt.ArrayLike, background: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Score the candidates in a collection without calibration; the best has the highest score.

    Similarities have the shape (n,), and backgrounds (n, 2).
    """
    return log_similarity(similarity) - HUB_WEIGHT * np.asarray(background, np.float64)[:, 0]


def backgrounds(
    sequences: Sequence[Chroma], rate: float, known: npt.ArrayLike | None = None
) -> Floats:
    """Measure how much each performance resembles others in general: high for a hub.

    The references are the first `MAX_REFERENCES` performances that have a sequence, so the order
    should be arbitrary. The similarity of a performance to itself and the highest tenth of its
    similarities, but at least one, are left out of the mean, because those references may be
    versions of it.

    `sequences`, each of shape (F, 2, 12) or empty, are those of all performances of the catalogue,
    at `rate` frames per second. `known`, shape=(n, 2), are backgrounds that were measured before,
    with NaN where there is none; they are kept, because other references would give nearly the
    same. It takes `MAX_REFERENCES` alignments per performance, and uses all cores.

    Returns
    -------
    np.ndarray, shape=(n, 2), float32
        Mean log similarity, and its standard deviation + `EXTRA_SPREAD`. An empty sequence has the
        log of similarity 0 as its mean.
    """
    from joblib import cpu_count  # takes longer to import than a search to answer

    chosen = [i for i in range(len(sequences)) if len(sequences[i])][:MAX_REFERENCES]
    references = [np.asarray(sequences[i]) for i in chosen]

    def measure(i: int) -> tuple[float, float]:
        others = [r for j, r in zip(chosen, references, strict=True) if j != i]
        ordered = np.sort(similarities(np.asarray(sequences[i]), others, rate)[0])
        trimmed = max(int(len(ordered) * TRIMMED_SHARE), min(len(ordered) - 1, 1))
        lower = ordered[: len(ordered) - trimmed]
        usual = log_similarity(lower if len(lower) else [0.0])
        return float(usual.mean()), float(usual.std()) + EXTRA_SPREAD

    found = np.full((len(sequences), 2), np.nan, np.float32)
    if known is not None:
        found[:] = known
    missing = np.flatnonzero(np.isnan(found[:, 0])).tolist()
    # Threads are enough, because the compiled loops release the interpreter lock.
    with ThreadPoolExecutor(cpu_count()) as threads:
        measured = threads.map(measure, missing)
        for done, (i, value) in enumerate(zip(missing, measured, strict=True), 1):
            found[i] = value
            if done % 1000 == 0:
                logger.info("measured %d of %d backgrounds", done, len(missing))
    return found
