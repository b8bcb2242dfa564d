"""K-Means over a range of k, and how its clusters compare with the works."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import ArrayLike
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, v_measure_score

from embedding.metrics.distances import Euclidean, Floats, Ints, over_blocks
from embedding.metrics.separation import silhouettes

#: Starts from new centres for each k; the one with the lowest inertia is used.
KMEANS_STARTS = 5

#: With more vectors, the silhouette is the mean over a sample of this size. Each vector of the
#: sample is measured against all vectors, because a sample might miss a small cluster.
MAX_SILHOUETTES = 5000


@dataclass(frozen=True)
class Clusters:
    """K-Means for several k, the best k, and a comparison of its clusters with the works.

    Attributes
    ----------
    ks : tuple of int, ascending
    inertia : tuple of float
        For each k, the sum of squared distances from each vector to the centre of its cluster.
    silhouette : tuple of float in [-1, 1]
        For each k, the mean silhouette; beyond 5,000 vectors, over a sample (Rousseeuw,
        Silhouettes, 1987).
    k : int
        The k with the largest silhouette; if several tie, the smallest of them.
    labels : np.ndarray of int, shape=(performances,), in [0, k)
        The cluster of each vector for this k. What follows is for this k too.
    cooccurrence : pl.DataFrame
        One row per work and cluster that share performances, sorted: work_id, cluster,
        performances. With as many rows as works, no work is split.
    v_measure : float in [0, 1]
        Harmonic mean of homogeneity and completeness with respect to the works (Rosenberg and
        Hirschberg, V-Measure, 2007).
    adjusted_rand : float, at most 1
        Agreement with the works on pairs, 0 by chance (Hubert and Arabie, Comparing Partitions,
        1985).
    """

    ks: tuple[int, ...]
    inertia: tuple[float, ...]
    silhouette: tuple[float, ...]
    k: int
    labels: Ints
    cooccurrence: pl.DataFrame
    v_measure: float
    adjusted_rand: float

    def summary(self) -> dict[str, float | int]:
        """Return the figures of the best k by name, ready for JSON."""
        best = self.ks.index(self.k)
        return {
            "k": self.k,
            "inertia": self.inertia[best],
            "silhouette": self.silhouette[best],
            "v_measure": self.v_measure,
            "adjusted_rand": self.adjusted_rand,
        }


def cluster(
    vectors: ArrayLike, work_ids: Iterable[str], ks: Iterable[int], seed: int = 0
) -> Clusters:
    """Cluster vectors, shape=(performances, dimension), by K-Means for each number of clusters k.

    Raises ValueError if the vectors are not a finite matrix, there is not one work id for each, or
    a k is below 2, or not below the number of vectors, or above the number of distinct vectors.

    Examples
    --------
    >>> cluster([[0.0], [0.1], [9.0], [9.1]], ["W_1", "W_1", "W_2", "W_2"], [2, 3]).k
    2
    """
    distances = Euclidean(vectors)
    values = np.asarray(vectors)
    works = np.array(list(work_ids), dtype=np.str_)
    if len(works) != len(values):
        raise ValueError(
            f"There are {len(values)} vectors and {len(works)} work ids: give one for each vector."
        )
    tried = tuple(sorted(set(ks)))
    _check(tried, len(values), count_distinct(values))
    fits = [KMeans(k, n_init=KMEANS_STARTS, random_state=seed).fit(values) for k in tried]
    silhouette = tuple(_silhouette(distances, fit.labels_, seed) for fit in fits)
    best = int(np.argmax(silhouette))
    labels = fits[best].labels_.astype(np.intp)
    shared = pl.DataFrame({"work_id": works, "cluster": labels}).group_by("work_id", "cluster")
    return Clusters(
        ks=tried,
        inertia=tuple(float(fit.inertia_) for fit in fits),
        silhouette=silhouette,
        k=tried[best],
        labels=labels,
        cooccurrence=shared.agg(performances=pl.len()).sort("work_id", "cluster"),
        v_measure=float(v_measure_score(works, labels)),
        adjusted_rand=float(adjusted_rand_score(works, labels)),
    )


def count_distinct(vectors: ArrayLike) -> int:
    """Return the number of distinct vectors, the largest k that K-Means can have."""
    return len(np.unique(np.asarray(vectors), axis=0))


def _check(tried: tuple[int, ...], count: int, distinct: int) -> None:
    if not tried:
        raise ValueError("There is no k to try: give at least one number of clusters.")
    if tried[0] < 2 or tried[-1] >= count:
        raise ValueError(
            f"k goes from {tried[0]} to {tried[-1]}, but {count} vectors fall into 2 to "
            f"{count - 1} clusters: choose k within this range."
        )
    if tried[-1] > distinct:
        raise ValueError(
            f"{tried[-1]} clusters need as many distinct vectors, and there are {distinct}: "
            "choose a smaller k."
        )


def _silhouette(distances: Euclidean, labels: Ints, seed: int) -> float:
    order = np.argsort(labels, kind="stable")
    ordered, own = distances.reordered(order), labels[order]
    sizes = np.bincount(labels)
    starts = np.cumsum(sizes) - sizes
    n = len(own)
    rows = np.random.default_rng(seed).permutation(n)[:MAX_SILHOUETTES]

    def measure(run: slice) -> Floats:
        sums = np.add.reduceat(ordered.block(rows[run]), starts, axis=1)
        return silhouettes(sums, sizes, own[rows[run]])

    return float(np.concatenate(over_blocks(len(rows), n, measure)).mean())
