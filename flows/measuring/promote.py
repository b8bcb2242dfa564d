"""Decide whether a retrained bundle may replace the published one."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from embedding import bundle as bundles
from embedding.metrics.distances import Euclidean
from embedding.metrics.retrieval import retrieval

#: How much lower the MAP of a new bundle may be: about the difference between two seeds.
MAX_MAP_LOSS = 0.02

#: With fewer common cliques than this, the comparison decides nothing.
MIN_CLIQUES = 10


@dataclass(frozen=True)
class Verdict:
    """Whether to publish a bundle, and the reason as a sentence."""

    publish: bool
    reason: str


def compare_with_published(bundle: Path, published: Path | None) -> Verdict:
    """Compare a bundle with the published one on the validation works that they share.

    Neither bundle was trained on them. Whether a work is used for validation follows from its id,
    so a growing catalogue keeps its validation works.
    """
    if published is None:
        return Verdict(True, "")
    try:
        old = bundles.load(published)
    except ValueError as error:
        return Verdict(True, f"There is no published bundle to compare with ({error}).")
    new = bundles.load(bundle)
    if old.id == new.id:
        return Verdict(True, f"{new.id} is already published.")
    both = new.training.validation.join(old.training.validation, on="track_id", suffix="_old")
    cliques = both.filter(pl.col("work_id").is_duplicated())["work_id"].n_unique()
    if cliques < MIN_CLIQUES:
        return Verdict(
            True, f"{new.id} and {old.id} have {cliques} common cliques, too few to compare them."
        )
    old_map, new_map = (
        retrieval(
            Euclidean(both[column].to_numpy().astype(np.float64)), both["work_id"], both["track_id"]
        ).map
        for column in ("vector_old", "vector")
    )
    comparison = (
        f"MAP {new_map:.3f}, compared with {old_map:.3f} of {old.id}, on {cliques} common cliques"
    )
    if new_map < old_map - MAX_MAP_LOSS:
        return Verdict(
            False, f"{new.id} is not published because it is worse: {comparison}. {old.id} stays."
        )
    return Verdict(True, f"{new.id} is not worse: {comparison}.")
