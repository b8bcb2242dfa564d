"""Separation metrics: how far apart cliques lie, compared with how far they spread."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl

from embedding.cliques import Cliques, group
from embedding.distances import Distances, Floats, Ints, count_below, over_blocks

BINS = 40
# Cells of the fine histogram that the bins are made of, whose extent shows only in the end.
FINE = 2**15


@dataclass(frozen=True)
class Separation:
    """How the distances within cliques differ from those between works.

    An in-clique pair is two performances of one work, an out-of-clique pair two of different
    works, noise works among them. All pairs count, each once.

    Attributes
    ----------
    in_clique, out_of_clique : float
        Mean distance of all in-clique and of all out-of-clique pairs.
    auc : float in [0, 1]
        Probability that a random in-clique pair is nearer than a random out-of-clique pair, a tie
        counting one half: the area under the ROC curve.
    overlap : float in [0, 1]
        Shared area of the two histograms below, each scaled to an area of one. It depends on the
        number of bins, which is always 40.
    silhouette : float in [-1, 1]
        Mean over all performances of (b - a) / max(a, b), with a the mean distance to the others
        of its work and b the least mean distance to another work; 0 for a noise work, as in
        Rousseeuw, Silhouettes, 1987, and in scikit-learn's silhouette_score(vectors, work_ids).
    edges : np.ndarray, shape=(41,)
        Bin edges, equally spaced, from the smallest distance of all to just past the largest.
    in_counts, out_counts : np.ndarray of int, shape=(40,)
        In-clique and out-of-clique pairs in each bin.
    per_clique : pl.DataFrame
        A row a work with two performances or more, sorted by work id: work_id, performances,
        in_clique (mean over its pairs), out_of_clique (mean over all pairs of one of its
        performances with one of any other work).
    per_query : pl.DataFrame
        A row a performance whose work has another, sorted by track id: track_id, work_id,
        in_clique (mean distance to the others of its work).
    """

    in_clique: float
    out_of_clique: float
    auc: float
    overlap: float
    silhouette: float
    edges: Floats
    in_counts: Ints
    out_counts: Ints
    per_clique: pl.DataFrame
    per_query: pl.DataFrame

    def summary(self) -> dict[str, float]:
        """Return the figures by name, ready for JSON."""
        return {
            "auc": self.auc,
            "overlap": self.overlap,
            "silhouette": self.silhouette,
            "in_clique": self.in_clique,
            "out_of_clique": self.out_of_clique,
        }


class _Tally(NamedTuple):
    """What is kept of a block of distances."""

    nearer: int  # out-of-clique pairs below each of the edges, added up over these
    cells: Ints  # out-of-clique pairs in each cell of the fine histogram, shape=(FINE + 1,)
    out_sums: Floats  # distances to all other works, added up, shape=(rows,)
    silhouettes: Floats  # shape=(rows,)


def separation(
    distances: Distances, work_ids: Iterable[str], track_ids: Iterable[str]
) -> Separation:
    """Compare in-clique with out-of-clique distances, over all pairs.

    In-clique distances are kept, so memory grows with their number; the others, which are
    nearly all, are only counted.

    Parameters
    ----------
    distances : Distances
        `Euclidean(vectors)` or a symmetric `DistanceMatrix(values)`; row i is the performance of
        the i-th ids.
    work_ids : iterable of str
        One for each performance.
    track_ids : iterable of str
        One for each performance, all different.

    Raises
    ------
    ValueError
        If the ids don't fit the distances or each other, the distances aren't symmetric, no work
        has two performances, or there is only one work.
    """
    cliques = group(work_ids, track_ids)
    cliques.check(distances)
    if len(cliques.works) == 1:
        raise ValueError(
            f"All {len(cliques.order)} performances are of {str(cliques.works[0])!r}, so there is "
            "nothing to separate it from: evaluate at least two works."
        )
    if not distances.symmetric:
        raise ValueError(
            "The distances differ by direction, so a pair has no one distance: average them with "
            "their transpose first."
        )
    ordered = distances.reordered(cliques.order)
    n = len(ordered)
    ends = (cliques.starts + cliques.sizes)[cliques.work]  # by performance: where its work ends
    inside = np.concatenate(
        [ordered.exact(row, slice(row + 1, ends[row])) for row in range(cliques.queries)]
    )
    # An out-of-clique pair is nearer than an in-clique one if a block holds it below `low`, and
    # further above `high`; what lies between is as good as equal.
    low, high = ordered.bounds(np.sort(inside))
    edges = np.sort(np.concatenate([low, np.nextafter(high, np.inf)]))
    fine = FINE / ordered.upper if ordered.upper > 0 else 1.0

    def tally(rows: slice) -> _Tally:
        block = ordered.block(rows)
        works = cliques.work[rows]
        here = np.arange(len(block))
        block[here, rows.start + here] = 0
        sums = np.add.reduceat(block, cliques.starts, axis=1)
        # A clique is a run of neighbours, so what follows it makes each pair of works occur once.
        outside = np.concatenate([row[end:] for row, end in zip(block, ends[rows], strict=True)])
        return _Tally(
            nearer=int(count_below(outside, edges).sum()),
            cells=_fine_cells(outside, fine),
            out_sums=sums.sum(axis=1, where=np.arange(sums.shape[1]) != works[:, None]),
            silhouettes=silhouettes(sums, cliques.sizes, works),
        )

    tallies = over_blocks(n, n, tally)
    out_sums = np.concatenate([each.out_sums for each in tallies])
    out_pairs = int((n - ends).sum())
    in_counts, out_counts, bin_edges = _histograms(
        _fine_cells(inside, fine), np.sum([each.cells for each in tallies], axis=0), fine
    )
    return Separation(
        in_clique=float(inside.mean()),
        out_of_clique=float(out_sums.sum() / (2 * out_pairs)),  # the sums hold a pair twice
        auc=1 - sum(each.nearer for each in tallies) / (2 * len(inside) * out_pairs),
        overlap=float(np.minimum(in_counts / len(inside), out_counts / out_pairs).sum()),
        silhouette=float(np.concatenate([each.silhouettes for each in tallies]).mean()),
        edges=bin_edges,
        in_counts=in_counts,
        out_counts=out_counts,
        per_clique=_per_clique(cliques, inside, out_sums),
        per_query=_per_query(cliques, inside, ends),
    )


def silhouettes(sums: Floats, sizes: Ints, own: Ints) -> Floats:
    """Return the silhouette of each of some points, shape=(points,).

    Parameters
    ----------
    sums : np.ndarray, shape=(points, groups)
        Distances from each point to all points of each group, added up.
    sizes : np.ndarray, shape=(groups,)
        Points in each group.
    own : np.ndarray, shape=(points,)
        The group each point is in. A point alone in its group has silhouette 0.
    """
    point = np.arange(len(own))
    inside = sums[point, own] / np.maximum(sizes[own] - 1, 1)
    means = sums / sizes
    means[point, own] = np.inf
    outside = means.min(axis=1)
    larger = np.maximum(inside, outside)
    known = (sizes[own] > 1) & (larger > 0)
    result: Floats = np.divide(outside - inside, larger, out=np.zeros(len(own)), where=known)
    return result


def _fine_cells(distances: Floats, fine: float) -> Ints:
    return np.bincount((distances * fine).astype(np.intp), minlength=FINE + 1)


def _histograms(inside: Ints, outside: Ints, fine: float) -> tuple[Ints, Ints, Floats]:
    """Return both histograms, in `BINS` bins over the cells that hold anything, and the edges."""
    held = np.flatnonzero(inside + outside)
    width = -(-(held[-1] + 1 - held[0]) // BINS)
    room = np.zeros(width * BINS, dtype=np.intp)
    binned = [
        np.concatenate([cells[held[0] :], room])[: len(room)].reshape(BINS, width).sum(axis=1)
        for cells in (inside, outside)
    ]
    return binned[0], binned[1], (held[0] + width * np.arange(BINS + 1)) / fine


def _per_clique(cliques: Cliques, inside: Floats, out_sums: Floats) -> pl.DataFrame:
    sizes = cliques.sizes[: cliques.count]
    pairs = sizes * (sizes - 1) // 2
    out_pairs = sizes * (len(cliques.order) - sizes)
    queries = out_sums[: cliques.queries]
    return pl.DataFrame(
        {
            "work_id": cliques.works[: cliques.count],
            "performances": sizes,
            "in_clique": np.add.reduceat(inside, np.cumsum(pairs) - pairs) / pairs,
            "out_of_clique": np.add.reduceat(queries, cliques.starts[: cliques.count]) / out_pairs,
        }
    )


def _per_query(cliques: Cliques, inside: Floats, ends: Ints) -> pl.DataFrame:
    """Add up, for each query, its distances among those of the pairs (row, row + 1 ... end)."""
    rows = np.arange(cliques.queries)
    later = ends[rows] - rows - 1
    first = np.repeat(rows, later)
    second = np.concatenate([np.arange(row + 1, ends[row]) for row in rows])
    sums = np.bincount(first, inside, len(rows)) + np.bincount(second, inside, len(rows))
    return pl.DataFrame(
        {
            "track_id": cliques.track_ids[rows],
            "work_id": cliques.works[cliques.work[rows]],
            "in_clique": sums / (cliques.sizes[cliques.work[rows]] - 1),
        }
    ).sort("track_id")
