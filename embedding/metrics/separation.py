"""Separation metrics: distances within cliques, compared with distances between works."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from embedding.metrics.cliques import Cliques, group
from embedding.metrics.distances import Distances, Floats, Ints, over_blocks

#: Bins of the histograms. They are made of the cells of a finer histogram, because the range of
#: the distances is known only in the end.
HISTOGRAM_BINS = 40
FINE_CELLS = 2**15

#: A sample is divided into this number of parts, whose spread gives the intervals; and the 97.5th
#: percentile of Student's t distribution with one degree of freedom less.
SAMPLE_PARTS, STUDENT_T = 10, 2.262


@dataclass(frozen=True)
class Separation:
    """How the distances within cliques differ from those between works.

    An in-clique pair is two performances of one work; an out-of-clique pair is two performances of
    different works, including noise works. Every pair counts once. With a sample, only the pairs
    that contain a drawn performance count.

    Attributes
    ----------
    in_clique, out_of_clique : float
        Mean distance of the in-clique pairs and of the out-of-clique pairs.
    auc : float in [0, 1]
        Area under the ROC curve: the probability that a random in-clique pair is nearer than a
        random out-of-clique pair, where a tie counts one half (Hanley and McNeil, The meaning and
        use of the area under a receiver operating characteristic curve, 1982).
    overlap : float in [0, 1]
        Shared area of the two histograms, each scaled to an area of 1 (Swain and Ballard, Color
        indexing, 1991). It depends on the number of bins, which is always 40.
    silhouette : float in [-1, 1]
        Mean over performances of (b - a) / max(a, b), where a is the mean distance to the others
        of the work and b the smallest mean distance to another work; 0 for a noise work
        (Rousseeuw, Silhouettes, 1987; scikit-learn's silhouette_score).
    edges : np.ndarray, shape=(41,)
        Bin edges, equally spaced, from the smallest distance to just above the largest.
    in_counts, out_counts : np.ndarray of int, shape=(40,)
        In-clique and out-of-clique pairs in each bin.
    per_clique : pl.DataFrame
        A row for each work with in-clique pairs, by work id: work_id, performances, in_clique (mean
        over its in-clique pairs), out_of_clique (mean from its measured performances to others).
    per_query : pl.DataFrame
        A row for each measured query, by track id: track_id, work_id, in_clique (mean distance to
        the others of its work).
    intervals : dict of str to (float, float)
        With a sample that is large enough: the 95 % intervals of the means, the silhouette and the
        AUC, by the variance between random parts of the sample that share no work (Wolter,
        Introduction to Variance Estimation, 2007, chapter 2).
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
        names = ("auc", "overlap", "silhouette", "in_clique", "out_of_clique")
        return {name: getattr(self, name) for name in names}


class _InClique(NamedTuple):
    """The in-clique pairs, each with a drawn performance first; canonical rows and distances."""

    first: Ints
    second: Ints
    distances: Floats


class _Tally(NamedTuple):
    """Sums over the distances from drawn performances to all performances."""

    nearer: int  # over in-clique pairs: out-of-clique pairs nearer, plus those nearer or tied
    cells: Ints  # out-of-clique pairs in each cell of the fine histogram
    total: float  # sum of the distances of the out-of-clique pairs
    out_sums: Floats  # sum of the distances to other works, shape=(rows,)
    silhouettes: Floats  # shape=(rows,)


def separation(
    distances: Distances,
    work_ids: Iterable[str],
    track_ids: Iterable[str],
    sample: int | None = None,
    seed: int = 0,
) -> Separation:
    """Compare in-clique with out-of-clique distances, over all pairs or those of a sample.

    Row i of the distances belongs to the i-th ids, and track ids are unique. A sample is a number
    of performances, all equally likely. In-clique distances are held in memory, all others are only
    counted.

    Raises ValueError if the ids do not fit the distances or each other, the distances are not
    symmetric, no work has two performances, there is only one work, or no query is drawn.

    Examples
    --------
    >>> from embedding.metrics.distances import Euclidean
    >>> separation(Euclidean([[0], [1], [5]]), ["W_1", "W_1", "W_2"], ["P_1", "P_2", "P_3"]).auc
    1.0
    """
    cliques = group(work_ids, track_ids)
    _check(distances, cliques)
    ordered = distances.reordered(cliques.order)
    drawn = cliques.sample(len(ordered), sample, seed)
    inside = _in_clique_pairs(ordered, cliques, drawn)
    fine = FINE_CELLS / ordered.upper if ordered.upper > 0 else 1.0
    parts = _parts(cliques, drawn, seed)
    tallies = [_tally(ordered, cliques, inside, drawn, rows, fine) for rows in parts]
    every = _merged(tallies)
    in_cells = _fine_cells(inside.distances, fine)
    in_counts, out_counts, edges = _histograms(in_cells, every.cells, fine)
    figures = _figures(inside.distances, every, fine)
    figures["auc"] = float(1 - every.nearer / (2 * in_counts.sum() * out_counts.sum()))  # exact
    shares = in_counts / in_counts.sum(), out_counts / out_counts.sum()
    return Separation(
        **figures,
        overlap=float(np.minimum(*shares).sum()),
        edges=edges,
        in_counts=in_counts,
        out_counts=out_counts,
        per_clique=_per_clique(cliques, inside, np.concatenate(parts), every.out_sums),
        per_query=_per_query(cliques, inside, drawn),
        intervals=_intervals(figures, inside, parts, tallies, fine),
    )


def _check(distances: Distances, cliques: Cliques) -> None:
    cliques.check(distances)
    if len(cliques.works) == 1:
        raise ValueError(
            f"All {len(cliques.order)} performances are of {str(cliques.works[0])!r}, so there is "
            "nothing to separate it from: evaluate at least two works."
        )
    if not distances.symmetric:
        raise ValueError(
            "The distances differ by direction, so a pair has two distances: average them with "
            "their transpose first."
        )


def _tally(
    ordered: Distances, cliques: Cliques, inside: _InClique, drawn: Ints, rows: Ints, fine: float
) -> _Tally:
    """Sum over the distances from some of the drawn performances to all performances."""
    low, high = ordered.ties(np.sort(inside.distances))

    def tally(run: slice) -> _Tally:
        own = rows[run]
        block = ordered.block(own)
        block[np.arange(len(own)), own] = 0
        works = cliques.work[own]
        sums = np.add.reduceat(block, cliques.starts, axis=1)
        is_outside = cliques.work != works[:, None]
        outside = np.sort(block[_counted(own, drawn, len(ordered)) & is_outside])
        below = outside.searchsorted(low, "left") + outside.searchsorted(high, "right")
        return _Tally(
            nearer=int(below.sum()),
            cells=_fine_cells(outside, fine),
            total=float(outside.sum()),
            out_sums=sums.sum(axis=1, where=np.arange(sums.shape[1]) != works[:, None]),
            silhouettes=silhouettes(sums, cliques.sizes, works),
        )

    return _merged(over_blocks(len(rows), len(ordered), tally))


def _merged(tallies: Sequence[_Tally]) -> _Tally:
    nearer, cells, total, sums, points = zip(*tallies, strict=True)
    return _Tally(sum(nearer), sum(cells), sum(total), np.concatenate(sums), np.concatenate(points))


def _counted(rows: Ints, drawn: Ints, n: int) -> NDArray[np.bool_]:
    """Return in which columns each row's pairs are counted: at the first drawn performance."""
    not_drawn = np.ones(n, dtype=np.bool_)
    not_drawn[drawn] = False
    counted: NDArray[np.bool_] = (np.arange(n) > rows[:, None]) | not_drawn
    return counted


def _in_clique_pairs(ordered: Distances, cliques: Cliques, drawn: Ints) -> _InClique:
    queries = drawn[drawn < cliques.queries]
    if not len(queries):
        raise ValueError(
            f"None of the {len(drawn)} performances drawn has another of its work: draw more."
        )
    found = []
    for rows in np.split(queries, np.flatnonzero(np.diff(cliques.work[queries])) + 1):
        work = cliques.work[rows[0]]
        start, size = cliques.starts[work], cliques.sizes[work]
        counted = _counted(rows - start, rows - start, size)
        first, second = np.nonzero(counted)
        block = ordered.block(rows, slice(start, start + size))
        found.append(_InClique(rows[first], start + second, block[counted]))
    return _InClique(*(np.concatenate(column) for column in zip(*found, strict=True)))


def _parts(cliques: Cliques, drawn: Ints, seed: int) -> list[Ints]:
    """Divide a sample at random, by work, with cliques spread evenly; or return it as one part."""
    works, work = np.unique(cliques.work[drawn], return_inverse=True)
    if len(drawn) == len(cliques.order) or len(works) < SAMPLE_PARTS:
        return [drawn]
    rng = np.random.default_rng(seed)
    is_clique = works < cliques.count
    shuffled = np.concatenate(
        [rng.permutation(np.flatnonzero(kind)) for kind in (is_clique, ~is_clique)]
    )
    part_of = np.empty(len(works), dtype=np.intp)
    part_of[shuffled] = np.arange(len(works)) % SAMPLE_PARTS
    return [drawn[part_of[work] == part] for part in range(SAMPLE_PARTS)]


def _figures(inside: Floats, outside: _Tally, fine: float) -> dict[str, float]:
    """Return the figures of a part of the pairs, with the AUC to the precision of the cells."""
    pairs = int(outside.cells.sum())
    nearer = outside.cells.cumsum() - outside.cells / 2
    return {
        "auc": 1 - float(nearer[(inside * fine).astype(np.intp)].mean()) / pairs,
        "silhouette": float(outside.silhouettes.mean()),
        "in_clique": float(inside.mean()),
        "out_of_clique": outside.total / pairs,
    }


def _intervals(
    whole: dict[str, float],
    inside: _InClique,
    parts: Sequence[Ints],
    tallies: Sequence[_Tally],
    fine: float,
) -> dict[str, tuple[float, float]]:
    distances = [inside.distances[np.isin(inside.first, rows)] for rows in parts]
    if len(parts) == 1 or not all(map(len, distances)):
        return {}
    figures = [_figures(*part, fine) for part in zip(distances, tallies, strict=True)]
    spread = {name: np.std([part[name] for part in figures], ddof=1) for name in whole}
    half = {name: STUDENT_T * float(std) / math.sqrt(len(parts)) for name, std in spread.items()}
    return {name: (value - half[name], value + half[name]) for name, value in whole.items()}


def silhouettes(sums: Floats, sizes: Ints, own: Ints) -> Floats:
    """Return the silhouette of each point, shape=(points,).

    `sums` are the sums of distances from each point to all points of each group, shape=(points,
    groups); `sizes` are the numbers of points in the groups; `own` is the group of each point.
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
    return np.bincount((distances * fine).astype(np.intp), minlength=FINE_CELLS + 1)


def _histograms(inside: Ints, outside: Ints, fine: float) -> tuple[Ints, Ints, Floats]:
    """Merge the fine cells that hold pairs into bins; return both histograms and the edges."""
    held = np.flatnonzero(inside + outside)
    width = math.ceil((held[-1] + 1 - held[0]) / HISTOGRAM_BINS)
    borders = held[0] + width * np.arange(HISTOGRAM_BINS + 1)
    ends = np.minimum(borders, len(inside))
    in_counts, out_counts = (np.diff(np.r_[0, cells.cumsum()][ends]) for cells in (inside, outside))
    return in_counts, out_counts, borders / fine


def _per_clique(cliques: Cliques, inside: _InClique, rows: Ints, out_sums: Floats) -> pl.DataFrame:
    work, of_row = cliques.work[inside.first], cliques.work[rows]
    measured = np.unique(work)
    sizes = cliques.sizes[measured]

    def mean(works: Ints, values: Floats) -> Floats:
        return np.asarray(np.bincount(works, values)[measured] / np.bincount(works)[measured])

    return pl.DataFrame(
        {
            "work_id": cliques.works[measured],
            "performances": sizes,
            "in_clique": mean(work, inside.distances),
            "out_of_clique": mean(of_row, out_sums) / (len(cliques.order) - sizes),
        }
    )


def _per_query(cliques: Cliques, inside: _InClique, drawn: Ints) -> pl.DataFrame:
    n = len(cliques.order)
    queries = drawn[drawn < cliques.queries]
    sums = np.bincount(inside.first, inside.distances, n)
    sums += np.bincount(inside.second, inside.distances, n)
    return pl.DataFrame(
        {
            "track_id": cliques.track_ids[queries],
            "work_id": cliques.works[cliques.work[queries]],
            "in_clique": sums[queries] / (cliques.sizes[cliques.work[queries]] - 1),
        }
    ).sort("track_id")
