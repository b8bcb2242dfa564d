"""Hubness: whether some performances are among the nearest of very many others."""

from collections.abc import Iterable

import numpy as np

from embedding.metrics.cliques import Ints
from embedding.metrics.distances import Distances, Floats, over_blocks

#: Number of nearest performances that are counted.
NEIGHBOURS = 10


def hubness(
    distances: Distances, track_ids: Iterable[str], sample: int | None = None, seed: int = 0
) -> float:
    """Return the skewness of the k-occurrences, with k = `NEIGHBOURS`.

    Skewness is the third central moment divided by the cubed standard deviation (Radovanović,
    Nanopoulos and Ivanović, Hubs in Space, JMLR 11, 2010). It is about 0 if all performances are
    near to equally many others, positive if a few hubs are near to most, and 0 if all counts are
    equal. The parameters are those of `k_occurrences`.
    """
    counts = k_occurrences(distances, track_ids, NEIGHBOURS, sample, seed).astype(np.float64)
    deviation = counts - counts.mean()
    variance = (deviation**2).mean()
    return float((deviation**3).mean() / variance**1.5) if variance > 0 else 0.0


def k_occurrences(
    distances: Distances,
    track_ids: Iterable[str],
    k: int,
    sample: int | None = None,
    seed: int = 0,
) -> Ints:
    """Count how often each performance is among the k nearest of another, shape=(n,).

    Equally near performances are taken in the order of their track ids; row i of the distances
    belongs to the i-th id. With a sample, the nearest of that many performances are counted, drawn
    at random.

    Raises ValueError if the lengths differ.
    """
    order = np.argsort(np.array(list(track_ids), dtype=np.str_))
    if len(order) != len(distances):
        raise ValueError(
            f"There are distances of {len(distances)} performances and {len(order)} track ids: "
            "give an id for every row."
        )
    ordered, n = distances.reordered(order), len(order)
    rows = np.arange(n)
    if sample is not None and sample < n:
        rows = np.sort(np.random.default_rng(seed).choice(n, sample, replace=False))

    def count(run: slice) -> Ints:
        found = np.zeros(n, dtype=np.intp)
        for query, row in zip(rows[run].tolist(), ordered.block(rows[run]), strict=True):
            row[query] = np.inf
            found[_nearest(ordered, row, min(k, n - 1))] += 1
        return found

    counts = np.zeros(n, dtype=np.intp)
    counts[order] = np.sum(over_blocks(len(rows), n, count), axis=0)
    return counts


def _nearest(distances: Distances, row: Floats, k: int) -> Ints:
    """Return the k nearest of a row; of those that tie with the last, the first ones."""
    if k < 1:
        return np.empty(0, dtype=np.intp)
    low, high = distances.ties(np.partition(row, k - 1)[k - 1 : k])
    nearer = np.flatnonzero(row < low)
    tied = np.flatnonzero((row >= low) & (row <= high))
    return np.concatenate([nearer, tied[: k - len(nearer)]])
