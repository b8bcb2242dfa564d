"""Re-ranking: candidates that the vectors found, ordered by how well their sequences align.

A similarity means little by itself, since some performances resemble everything (hubs). So each
performance's background, its usual similarity to others of the catalogue, is measured once when a
collection is published, and discounts it as a candidate. Where the bundle is calibrated, the
candidates are ordered by how likely they are versions, which weighs in their distance too.
"""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from search.versions.alignment import Chroma, Floats, similarities

logger = logging.getLogger(__name__)

#: So many of the nearest performances are aligned with the query; those beyond keep their place.
CANDIDATES = 100

#: Performances that each background is measured against.
REFERENCES = 32

TRIMMED = 0.1  # share of the references left out of a background, the most similar ones
FLOOR = 0.1  # added before logarithms: a small similarity is common
HUB_POWER = 0.75  # of the candidate's background, in ranking
SPREAD = 0.3  # added to the spread of a background, which so few references tell badly


def log_similarity(similarity: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the log of similarities, shape=(n,): what is compared and averaged."""
    return np.log(np.asarray(similarity, np.float64) + FLOOR)


def ranking_score(similarity: npt.ArrayLike, background: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """What candidates are ordered by where there is no calibration, highest first.

    Parameters
    ----------
    similarity : array_like, shape=(n,), at least 0
        Of each candidate to the query.
    background : array_like, shape=(n, 2)
        Of each candidate.
    """
    return log_similarity(similarity) - HUB_POWER * np.asarray(background, np.float64)[:, 0]


def backgrounds(
    sequences: Sequence[Chroma], rate: float, known: npt.ArrayLike | None = None
) -> Floats:
    """Measure how much each performance resembles others anyway: high for a hub.

    The references are the first `REFERENCES` that have a sequence, so let the order be an arbitrary
    one. Of a performance's similarities to them, the highest tenth is left out of the mean, for
    these may be versions of it and no sign of a hub; and so is its similarity to itself.

    Takes `REFERENCES` alignments a performance, on every core.

    Parameters
    ----------
    sequences : sequence of np.ndarray, each shape=(F, 2, 12)
        Of the whole catalogue; any may be empty.
    rate : float
        Frames a second.
    known : array_like, shape=(n, 2), optional
        Backgrounds that were measured before, NaN where none was. They stay as they are: other
        references would say nearly the same.

    Returns
    -------
    np.ndarray, shape=(n, 2), float32
        Mean log similarity, that of similarity 0 for an empty sequence; and its standard deviation,
        with `SPREAD` added.
    """
    from joblib import cpu_count  # takes longer to import than a search to answer

    chosen = [i for i in range(len(sequences)) if len(sequences[i])][:REFERENCES]
    references = [np.asarray(sequences[i]) for i in chosen]

    def measure(i: int) -> tuple[float, float]:
        others = [r for j, r in zip(chosen, references, strict=True) if j != i]
        ordered = np.sort(similarities(np.asarray(sequences[i]), others, rate)[0])
        kept = ordered[: int(np.ceil(len(ordered) * (1 - TRIMMED)))]
        usual = log_similarity(kept if len(kept) else [0.0])
        return float(usual.mean()), float(usual.std()) + SPREAD

    found = np.full((len(sequences), 2), np.nan, np.float32)
    if known is not None:
        found[:] = known
    missing = np.flatnonzero(np.isnan(found[:, 0])).tolist()
    # The compiled loops release the interpreter, so threads do.
    with ThreadPoolExecutor(cpu_count()) as threads:
        measured = threads.map(measure, missing)
        for done, (i, value) in enumerate(zip(missing, measured, strict=True), 1):
            found[i] = value
            if done % 1000 == 0:
                logger.info("compared %d of %d with the references", done, len(missing))
    return found
