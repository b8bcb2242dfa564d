"""Separation metrics: how far apart cliques lie, compared with how far they spread."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np
import polars as pl

from embedding.metrics.cliques import Cliques, group
from embedding.metrics.distances import Distances, Floats, Ints, count_below, over_blocks

BINS = 40
# Cells of the fine histogram that the bins are made of, whose extent shows only in the end.
FINE = 2**15

# The works of a sample are divided into so many parts, whose differences say how far the figures of
# the whole can be trusted; and the 97.5th percentile of Student's t with one freedom less.
PARTS, STUDENT = 10, 2.262


@dataclass(frozen=True)
class Separation:
    """How the distances within cliques differ from those between works.

    An in-clique pair is two performances of one work, an out-of-clique pair two of different
    works, noise works among them. All pairs count, each once; of a sample, all pairs of a
    performance in it with any other.

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
        Mean over the performances of (b - a) / max(a, b), with a the mean distance to the others
        of its work and b the least mean distance to another work; 0 for a noise work, as in
        Rousseeuw, Silhouettes, 1987, and in scikit-learn's silhouette_score(vectors, work_ids).
    edges : np.ndarray, shape=(41,)
        Bin edges, equally spaced, from the smallest distance of all to just past the largest.
    in_counts, out_counts : np.ndarray of int, shape=(40,)
        In-clique and out-of-clique pairs in each bin.
    per_clique : pl.DataFrame
        A row a work with two performances or more, sorted by work id: work_id, performances,
        in_clique (mean over its pairs), out_of_clique (mean over all pairs of one of its
        performances with one of any other work). Of a sample, only the works that are in it.
    per_query : pl.DataFrame
        A row a performance whose work has another, of a sample those in it, sorted by track id:
        track_id, work_id, in_clique (mean distance to the others of its work).
    intervals : dict of str to (float, float)
        Of a sample: between what the means and the AUC of all pairs are expected, at 95 %, by the
        variance between random parts of it that share no work (Wolter, Introduction to Variance
        Estimation, 2007, chapter 2). Empty without a sample, or of one too small to divide.
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
    intervals: dict[str, tuple[float, float]]

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
    total: float  # the distances of these pairs, added up
    out_sums: Floats  # distances to all other works, added up, shape=(rows,)
    silhouettes: Floats  # shape=(rows,)


def separation(
    distances: Distances,
    work_ids: Iterable[str],
    track_ids: Iterable[str],
    sample: int | None = None,
    seed: int = 0,
) -> Separation:
    """Compare in-clique with out-of-clique distances, over all pairs or those of a sample.

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
    sample : int, optional
        How many performances to draw, each as likely as any other; all by default, or where there
        are no more.
    seed : int
        Of the sample.

    Raises
    ------
    ValueError
        If the ids don't fit the distances or each other, the distances aren't symmetric, no work
        has two performances, there is only one work, or the sample is empty or all noise works.
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
    drawn = cliques.sample(n, sample, seed)
    queries = drawn[drawn < cliques.queries]
    if not len(queries):
        raise ValueError(
            f"None of the {len(drawn)} performances drawn has another of its work: draw more."
        )
    starts = cliques.starts[cliques.work]  # by performance: where its work starts, and ends
    ends = starts + cliques.sizes[cliques.work]
    # A pair is counted at its first performance, or at its second if the first isn't drawn.
    missed = np.setdiff1d(np.arange(n), drawn, assume_unique=True)
    missed_before = np.searchsorted(missed, starts)

    def partners(row: int) -> Ints:
        before = missed[missed_before[row] : np.searchsorted(missed, row)]
        return np.concatenate([before, np.arange(row + 1, ends[row])])

    others = [partners(row) for row in queries.tolist()]
    inside = np.concatenate(
        [ordered.exact(row, there) for row, there in zip(queries.tolist(), others, strict=True)]
    )
    # An out-of-clique pair is nearer than an in-clique one if a block holds it below `low`, and
    # further above `high`; what lies between is as good as equal.
    low, high = ordered.bounds(np.sort(inside))
    edges = np.sort(np.concatenate([low, np.nextafter(high, np.inf)]))
    fine = FINE / ordered.upper if ordered.upper > 0 else 1.0

    def tally(rows: Ints) -> _Tally:
        block = ordered.block(rows)
        works = cliques.work[rows]
        block[np.arange(len(block)), rows] = 0
        sums = np.add.reduceat(block, cliques.starts, axis=1)
        # A clique is a run of neighbours, so what follows it makes each pair of works occur once.
        outside = np.concatenate(
            [row[end:] for row, end in zip(block, ends[rows], strict=True)]
            + [row[missed[:k]] for row, k in zip(block, missed_before[rows], strict=True) if k]
        )
        return _Tally(
            nearer=int(count_below(outside, edges).sum()),
            cells=_fine_cells(outside, fine),
            total=float(outside.sum()),
            out_sums=sums.sum(axis=1, where=np.arange(sums.shape[1]) != works[:, None]),
            silhouettes=silhouettes(sums, cliques.sizes, works),
        )

    def tallies(rows: Ints) -> list[_Tally]:
        return over_blocks(len(rows), n, lambda run: tally(rows[run]))

    parts = _parts(cliques, drawn, seed) if len(missed) else [drawn]
    by_part = [tallies(rows) for rows in parts]
    every = list(chain.from_iterable(by_part))
    out_cells = np.sum([each.cells for each in every], axis=0)
    out_pairs = int(out_cells.sum())
    in_counts, out_counts, bin_edges = _histograms(_fine_cells(inside, fine), out_cells, fine)
    figures = {
        "auc": 1 - sum(each.nearer for each in every) / (2 * len(inside) * out_pairs),
        "silhouette": float(np.concatenate([each.silhouettes for each in every]).mean()),
        "in_clique": float(inside.mean()),
        "out_of_clique": sum(each.total for each in every) / out_pairs,
    }
    query_of_pair = np.repeat(queries, [len(each) for each in others])
    intervals = {}
    if len(missed):
        insides = [inside[np.isin(query_of_pair, rows)] for rows in parts]
        if all(map(len, insides)):
            pairs = zip(insides, by_part, strict=True)
            intervals = _intervals(figures, [_figures(*part, fine) for part in pairs])
    in_works = cliques.work[query_of_pair], inside
    out_sums = np.concatenate([each.out_sums for each in every])
    return Separation(
        **figures,
        overlap=float(np.minimum(in_counts / len(inside), out_counts / out_pairs).sum()),
        edges=bin_edges,
        in_counts=in_counts,
        out_counts=out_counts,
        per_clique=_per_clique(cliques, in_works, (cliques.work[np.concatenate(parts)], out_sums)),
        per_query=_per_query(cliques, queries, (query_of_pair, np.concatenate(others)), inside),
        intervals=intervals,
    )


def _parts(cliques: Cliques, drawn: Ints, seed: int) -> list[Ints]:
    """Divide what is drawn at random, but all of a work into one part, and cliques evenly."""
    works, place = np.unique(cliques.work[drawn], return_inverse=True)
    rng = np.random.default_rng(seed)
    is_clique = works < cliques.count
    shuffled = np.concatenate(
        [rng.permutation(np.flatnonzero(one)) for one in (is_clique, ~is_clique)]
    )
    part_of = np.empty(len(works), dtype=np.intp)
    part_of[shuffled] = np.arange(len(works)) % PARTS
    return [drawn[part_of[place] == part] for part in range(PARTS)]


def _figures(inside: Floats, tallies: Sequence[_Tally], fine: float) -> dict[str, float]:
    """Return the figures of a part of a sample, the AUC as exactly as the fine cells tell it."""
    cells = np.sum([each.cells for each in tallies], axis=0)
    nearer = cells.cumsum() - cells / 2
    return {
        "auc": 1 - float(nearer[(inside * fine).astype(np.intp)].mean()) / int(cells.sum()),
        "silhouette": float(np.concatenate([each.silhouettes for each in tallies]).mean()),
        "in_clique": float(inside.mean()),
        "out_of_clique": sum(each.total for each in tallies) / int(cells.sum()),
    }


def _intervals(
    whole: dict[str, float], parts: Sequence[dict[str, float]]
) -> dict[str, tuple[float, float]]:
    """Return the 95 % interval around each figure of a sample, by how its parts differ."""
    spread = {name: np.std([part[name] for part in parts], ddof=1) for name in whole}
    half = {name: STUDENT * float(std) / math.sqrt(PARTS) for name, std in spread.items()}
    return {name: (value - half[name], value + half[name]) for name, value in whole.items()}


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


def _per_clique(
    cliques: Cliques, pairs: tuple[Ints, Floats], rows: tuple[Ints, Floats]
) -> pl.DataFrame:
    """Average by work: distances of in-clique pairs, and sums over other works' performances."""
    in_work, inside = pairs
    out_work, out_sums = rows
    measured = np.unique(in_work)
    sizes = cliques.sizes[measured]

    def mean(works: Ints, values: Floats) -> Floats:
        totals = np.bincount(works, values)[measured]
        return totals / np.bincount(works)[measured]

    return pl.DataFrame(
        {
            "work_id": cliques.works[measured],
            "performances": sizes,
            "in_clique": mean(in_work, inside),
            "out_of_clique": mean(out_work, out_sums) / (len(cliques.order) - sizes),
        }
    )


def _per_query(
    cliques: Cliques, queries: Ints, pairs: tuple[Ints, Ints], inside: Floats
) -> pl.DataFrame:
    """Average the distances of each query, which stands on either side of its pairs."""
    n = len(cliques.order)
    first, second = pairs
    sums = np.bincount(first, inside, n) + np.bincount(second, inside, n)
    return pl.DataFrame(
        {
            "track_id": cliques.track_ids[queries],
            "work_id": cliques.works[cliques.work[queries]],
            "in_clique": sums[queries] / (cliques.sizes[cliques.work[queries]] - 1),
        }
    ).sort("track_id")
