"""The quality of each performance: whether it lies where the versions of its work do."""

import numpy as np
import polars as pl

from embedding.metrics.retrieval import Retrieval
from embedding.metrics.separation import Separation


def quality(found: Retrieval, apart: Separation) -> pl.DataFrame:
    """Say of each performance whose work has another one how near its versions are.

    An outlier is further from its versions than nearly all others are from theirs: beyond the
    upper inner fence, the third quartile plus 1.5 times the distance between the quartiles (Tukey,
    Exploratory Data Analysis, 1977, chapter 2). It goes by the distance itself, and not by how that
    compares with the performance's distances to other works: where labels were swapped at random,
    the two told which equally well, and the distance is what an editor sees. Few are flagged;
    sorted by `clique_distance`, the next ones follow.

    Parameters
    ----------
    found : Retrieval
        Of all performances that are measured together.
    apart : Separation
        Of the same.

    Returns
    -------
    pl.DataFrame
        A row a performance whose work has another, sorted by track id: track_id, work_id,
        nearest_cover (rank of its nearest version among all others; 1 where nothing else is
        nearer), clique_distance (mean distance to its versions), outlier. Noise works have no row.

    Raises
    ------
    ValueError
        If the two are of different performances.
    """
    first = found.per_query.select("track_id", "work_id", nearest_cover="first")
    spread = apart.per_query.select("track_id", "work_id", clique_distance="in_clique")
    if not first.select("track_id", "work_id").equals(spread.select("track_id", "work_id")):
        raise ValueError(
            f"The ranks are of {len(first)} performances and the distances of {len(spread)}, or of "
            "others: measure both on the same performances."
        )
    low, high = np.percentile(spread["clique_distance"], [25, 75])
    # Equal distances may differ in their last digits, and none of them is an outlier for that.
    fence = (high + 1.5 * (high - low)) * (1 + 1e-9)
    return first.join(spread, on=["track_id", "work_id"], maintain_order="left").with_columns(
        outlier=pl.col("clique_distance") > fence
    )
