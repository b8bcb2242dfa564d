"""The quality of each performance: whether it lies near the other versions of its work."""

import numpy as np
import polars as pl

from embedding.metrics.retrieval import Retrieval
from embedding.metrics.separation import Separation


def quality(found: Retrieval, apart: Separation) -> pl.DataFrame:
    """Say for each query how near its versions are, and whether it is an outlier.

    An outlier is further from its versions than the upper inner fence: the third quartile of all
    such distances plus 1.5 times the interquartile range (Tukey, Exploratory Data Analysis, 1977,
    chapter 2). Few performances are flagged; sort by `clique_distance` to see the next ones. The
    distance is not compared with those to other works: where labels were swapped at random, that
    found them no better, and the distance is what an editor sees.

    The result has one row per query, sorted by track id: track_id, work_id, nearest_cover (rank of
    its nearest version), clique_distance (mean distance to its versions), outlier. ValueError is
    raised if the ranks and the distances are of different performances.
    """
    first = found.per_query.select("track_id", "work_id", nearest_cover="first")
    spread = apart.per_query.select("track_id", "work_id", clique_distance="in_clique")
    if not first.select("track_id", "work_id").equals(spread.select("track_id", "work_id")):
        raise ValueError(
            f"The ranks are of {len(first)} performances and the distances of {len(spread)}, or of "
            "others: measure both on the same performances."
        )
    low, high = np.percentile(spread["clique_distance"], [25, 75])
    # Equal distances may differ in their last digits, and that must not make an outlier.
    fence = (high + 1.5 * (high - low)) * (1 + 1e-9)
    return first.join(spread, on=["track_id", "work_id"], maintain_order="left").with_columns(
        outlier=pl.col("clique_distance") > fence
    )
