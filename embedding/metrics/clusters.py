"""K-Means over a range of k, and what the clusters have to do with cliques."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import ArrayLike
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, v_measure_score

from embedding.metrics.distances import Euclidean, Floats, Ints, over_blocks
from embedding.metrics.separation import silhouettes

# Starts from new centres for each k, of which the one with the least inertia is kept.
STARTS = 5
# Above this many vectors the silhouette is the mean over a sample of so many of them, each
# measured against all vectors: a sample of the clusters too would thin them out.
SILHOUETTES = 5000


@dataclass(frozen=True)
class Clusters:
    """K-Means for several k, the best of them, and how its clusters compare with the works.

    Attributes
    ----------
    ks : tuple of int, ascending
    inertia : tuple of float
        For each k, the squared distances of all vectors to their cluster's centre, added up.
    silhouette : tuple of float in [-1, 1]
        For each k, the mean silhouette, over a sample beyond 5,000 vectors.
    k : int
        The one with the largest silhouette, and of several the smallest.
    labels : np.ndarray of int, shape=(performances,), in [0, k)
        The cluster of each vector, for this k, as are the following.
    cooccurrence : pl.DataFrame
        A row a work and cluster that meet, sorted: work_id, cluster, performances (how many of
        the work's lie in the cluster). With as many rows as there are works, no work is split.
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
        """Return the figures of the chosen k by name, ready for JSON."""
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
    """Cluster vectors by K-Means for each k, and keep the labels of the best.

    Parameters
    ----------
    vectors : array_like, shape=(performances, dimension)
        Finite.
    work_ids : iterable of str
        One for each vector.
    ks : iterable of int
        Numbers of clusters, at least 2 each and fewer than there are vectors.
    seed : int
        The same seed gives the same clusters.

    Raises
    ------
    ValueError
        If the vectors aren't a finite matrix, there is not one work id for each, or a k is out of
        range or more than there are different vectors.
    """
    distances = Euclidean(vectors)
    values = np.asarray(vectors)
    works = np.array(list(work_ids), dtype=np.str_)
    if len(works) != len(values):
        raise ValueError(
            f"There are {len(values)} vectors and {len(works)} work ids: give one for each vector."
        )
    tried = _checked(ks, distances)
    fits = [KMeans(k, n_init=STARTS, random_state=seed).fit(values) for k in tried]
    silhouette = tuple(_silhouette(distances, fit.labels_, seed) for fit in fits)
    best = int(np.argmax(silhouette))
    labels = fits[best].labels_.astype(np.intp)
    return Clusters(
        ks=tried,
        inertia=tuple(float(fit.inertia_) for fit in fits),
        silhouette=silhouette,
        k=tried[best],
        labels=labels,
        cooccurrence=pl.DataFrame({"work_id": works, "cluster": labels})
        .group_by("work_id", "cluster")
        .agg(performances=pl.len())
        .sort("work_id", "cluster"),
        v_measure=float(v_measure_score(works, labels)),
        adjusted_rand=float(adjusted_rand_score(works, labels)),
    )


def _checked(ks: Iterable[int], distances: Euclidean) -> tuple[int, ...]:
    tried = tuple(sorted(set(ks)))
    if not tried:
        raise ValueError("There is no k to try: give at least one number of clusters.")
    if tried[0] < 2 or tried[-1] >= len(distances):
        raise ValueError(
            f"k goes from {tried[0]} to {tried[-1]}, but {len(distances)} vectors fall into 2 to "
            f"{len(distances) - 1} clusters: choose k within this range."
        )
    if tried[-1] > distances.different:
        raise ValueError(
            f"{tried[-1]} clusters need as many different vectors, and there are "
            f"{distances.different}: choose a smaller k."
        )
    return tried


def _silhouette(distances: Euclidean, labels: Ints, seed: int) -> float:
    """Return the mean silhouette of the labels, of a sample of the vectors if they are many."""
    order = np.argsort(labels, kind="stable")
    ordered, own = distances.reordered(order), labels[order]
    sizes = np.bincount(labels)
    starts = np.cumsum(sizes) - sizes
    n = len(own)
    rows = np.random.default_rng(seed).permutation(n)[:SILHOUETTES]

    def measure(run: slice) -> Floats:
        sums = np.add.reduceat(ordered.block(rows[run]), starts, axis=1)
        return silhouettes(sums, sizes, own[rows[run]])

    return float(np.concatenate(over_blocks(len(rows), n, measure)).mean())
