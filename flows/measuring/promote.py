"""May a retrained bundle take the place of the published one?"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from embedding import bundle as bundles
from embedding.metrics.distances import Euclidean
from embedding.metrics.retrieval import retrieval

#: How much lower the new one's MAP may be: about what another seed makes of the same data.
MARGIN = 0.02

#: With fewer common cliques than this, there is no telling which is better.
CLIQUES = 10


@dataclass(frozen=True)
class Verdict:
    """What came of the comparison.

    Attributes
    ----------
    publish : bool
        Whether the new bundle may be published.
    reason : str
        A sentence.
    """

    publish: bool
    reason: str


def compare_with_published(bundle: Path, published: Path | None) -> Verdict:
    """Compare a bundle with the published one on the works that both were chosen by.

    Neither had learnt from these when it made the vectors that are compared. A work's side of the
    split follows from its id, so a catalogue that grows keeps its validation works.

    Parameters
    ----------
    bundle : Path
        A bundle to publish.
    published : Path or None
        The bundle of the current collection, if there is one.
    """
    if published is None:
        return Verdict(True, "There is no published bundle to compare with.")
    try:
        old = bundles.load(published)
    except ValueError as error:
        return Verdict(True, f"There is no published bundle to compare with ({error}).")
    new = bundles.load(bundle)
    if old.id == new.id:
        return Verdict(True, f"{new.id} is published already.")
    both = new.training.validation.join(old.training.validation, on="track_id", suffix="_old")
    cliques = both.filter(pl.col("work_id").is_duplicated())["work_id"].n_unique()
    if cliques < CLIQUES:
        return Verdict(
            True, f"{new.id} and {old.id} have {cliques} cliques in common, too few to compare."
        )
    ids = both["work_id"], both["track_id"]
    before, after = (
        retrieval(Euclidean(both[column].to_numpy().astype(np.float64)), *ids).map
        for column in ("vector_old", "vector")
    )
    facts = f"MAP {after:.3f}, where {old.id} has {before:.3f}, on the {cliques} cliques they share"
    if after < before - MARGIN:
        return Verdict(
            False, f"{new.id} is not published, as it is worse: {facts}. The old one serves on."
        )
    return Verdict(True, f"{new.id} is no worse: {facts}.")
