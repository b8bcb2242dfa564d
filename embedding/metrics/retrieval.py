"""Retrieval metrics: where a query's versions stand among all other performances."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import ArrayLike

from embedding.metrics.cliques import Cliques, group
from embedding.metrics.distances import Distances, Floats, Ints, count_below, over_blocks


@dataclass(frozen=True)
class Retrieval:
    """How well distances find the other performances of a query's work.

    Every performance whose work has another is a query; all the others are its candidates,
    ranked by distance and then by track id. R of them are relevant, at the ranks r_1 < ... < r_R,
    counted from 1.

    Attributes
    ----------
    map : float in (0, 1]
        Mean over queries of the average precision, the mean of j / r_j over j.
    mr1 : float, at least 1
        Mean rank of the first relevant, r_1.
    mrr : float in (0, 1]
        Mean of 1 / r_1.
    hits_at_1, hits_at_10 : float in [0, 1]
        Share of queries with r_1 within 1, 10.
    p_at_10 : float in [0, 1]
        Mean number of relevant among the first 10, over 10 however many there are.
    nar : float in [0, 100]
        Normalised average rank, in per cent: mean over queries of the mean over relevant of
        the share of non-relevant candidates ranked above it, (r_j - j) / (candidates - R). It is
        0 where there are none to rank above.
    counts : dict of str to int
        performances, works, cliques, noise_works, queries.
    per_query : pl.DataFrame
        A row a query, sorted by track id: track_id, work_id, relevant (R), first (r_1), ap,
        p_at_10, nar.
    """

    map: float
    mr1: float
    mrr: float
    hits_at_1: float
    hits_at_10: float
    p_at_10: float
    nar: float
    counts: dict[str, int]
    per_query: pl.DataFrame

    def summary(self) -> dict[str, float | int]:
        """Return the figures by their usual names, ready for JSON."""
        return {
            "map": self.map,
            "mr1": self.mr1,
            "mrr": self.mrr,
            "hits@1": self.hits_at_1,
            "hits@10": self.hits_at_10,
            "p@10": self.p_at_10,
            "nar": self.nar,
            **self.counts,
        }


def retrieval(
    distances: Distances,
    work_ids: Iterable[str],
    track_ids: Iterable[str],
    sample: int | None = None,
    seed: int = 0,
) -> Retrieval:
    """Rank all performances for every query and measure where its versions are.

    Of a sample of the queries, each as likely as any other, time grows with n instead of with its
    square, and every mean is an unbiased estimate of the one over all: `bootstrap_interval` says
    how good a one. Every performance stays a candidate.

    Parameters
    ----------
    distances : Distances
        `Euclidean(vectors)` for vectors, `DistanceMatrix(values)` for distances of any other
        kind; row i is the performance of the i-th ids.
    work_ids : iterable of str
        One for each performance.
    track_ids : iterable of str
        One for each performance, all different.
    sample : int, optional
        How many queries to draw; all by default, or where there are no more.
    seed : int
        Of the sample.

    Raises
    ------
    ValueError
        If the ids don't fit the distances or each other, no work has two performances, or the
        sample is empty.
    """
    cliques = group(work_ids, track_ids)
    cliques.check(distances)
    ordered = distances.reordered(cliques.order)
    queries = cliques.sample(cliques.queries, sample, seed)

    def rank(run: slice) -> list[Ints]:
        rows = queries[run]
        return [
            relevant_ranks(ordered, cliques, query, row)
            for query, row in zip(rows.tolist(), ordered.block(rows), strict=True)
        ]

    ranks = [each for run in over_blocks(len(queries), len(ordered), rank) for each in run]
    return _measured(ranks, cliques, queries)


def retrieval_of(
    rankings: Iterable[tuple[int, Ints]], work_ids: Iterable[str], track_ids: Iterable[str]
) -> Retrieval:
    """Measure rankings that were made in another way than by distances between all.

    Parameters
    ----------
    rankings : iterable of (int, np.ndarray of shape=(performances - 1,))
        Some queries, by their place in the ids, and the places of all others, the best first.
    work_ids, track_ids : iterable of str
        As for `retrieval`.

    Raises
    ------
    ValueError
        As for `retrieval`; or if a ranking is none, or none is of a query whose work has another
        performance. Others than these are left out.
    """
    cliques = group(work_ids, track_ids)
    place = np.argsort(cliques.order)
    ranks = {}
    for query, ranking in rankings:
        ranked = np.concatenate([[query], ranking])
        if not np.array_equal(np.sort(ranked), np.arange(len(place))):
            raise ValueError(
                f"The ranking of query {query} is not made of all {len(place) - 1} other "
                "performances, each once."
            )
        row = place[query]
        versions = np.flatnonzero(cliques.work[place[ranking]] == cliques.work[row])
        if len(versions):
            ranks[row] = versions + 1
    if not ranks:
        raise ValueError(
            "None of the rankings is of a query that has a match: rank those of other queries."
        )
    rows = np.array(sorted(ranks))
    return _measured([ranks[row] for row in rows], cliques, rows)


def _measured(ranks: Sequence[Ints], cliques: Cliques, rows: Ints) -> Retrieval:
    """Make the figures from the sorted ranks of what is relevant to the queries in these rows."""
    n = len(cliques.order)
    relevant = np.array([len(each) for each in ranks])
    starts = np.cumsum(relevant) - relevant
    flat = np.concatenate(ranks)
    found = 1 + np.arange(len(flat)) - np.repeat(starts, relevant)  # j beside r_j
    first = flat[starts]
    ap = np.add.reduceat(found / flat, starts) / relevant
    p_at_10 = np.add.reduceat(flat <= 10, starts, dtype=np.float64) / 10
    above = np.add.reduceat(flat - found, starts) / relevant
    nar = 100 * above / np.maximum(n - 1 - relevant, 1)
    return Retrieval(
        map=float(ap.mean()),
        mr1=float(first.mean()),
        mrr=float((1 / first).mean()),
        hits_at_1=float((first <= 1).mean()),
        hits_at_10=float((first <= 10).mean()),
        p_at_10=float(p_at_10.mean()),
        nar=float(nar.mean()),
        counts={**cliques.counts(), "queries": len(rows)},
        per_query=pl.DataFrame(
            {
                "track_id": cliques.track_ids[rows],
                "work_id": cliques.works[cliques.work[rows]],
                "relevant": relevant,
                "first": first,
                "ap": ap,
                "p_at_10": p_at_10,
                "nar": nar,
            }
        ).sort("track_id"),
    )


def bootstrap_interval(
    values: ArrayLike, work_ids: Iterable[str], seed: int, n: int = 1000
) -> tuple[float, float]:
    """Return the 95 % interval of a mean over queries, by resampling cliques.

    The queries of a clique share their music, so they are drawn together: each of `n` samples
    draws as many cliques as there are, with replacement, and averages over their queries. The
    interval lies between the 2.5th and 97.5th percentile of these averages (Efron and Tibshirani,
    An Introduction to the Bootstrap, 1993, chapter 13).

    Parameters
    ----------
    values : array_like, shape=(queries,)
        One finite value a query, as in `Retrieval.per_query`.
    work_ids : iterable of str
        One for each query.
    seed : int
        The same seed draws the same samples.
    n : int
        Number of samples.

    Raises
    ------
    ValueError
        If the two differ in length, a value isn't finite, or there are fewer than two cliques, of
        which no spread can be told.
    """
    per_query = np.asarray(values, dtype=np.float64)
    works, clique = np.unique(np.array(list(work_ids), dtype=np.str_), return_inverse=True)
    if per_query.shape != clique.shape:
        raise ValueError(
            f"There are {per_query.size} values and {clique.size} work ids: give one of each for "
            "every query."
        )
    if not np.isfinite(per_query).all():
        raise ValueError("A value to resample is not finite: leave out queries without one.")
    if len(works) < 2:
        raise ValueError(
            f"An interval needs at least 2 cliques to draw from, and there are {len(works)}: "
            "report the figure without one."
        )
    totals = np.bincount(clique, weights=per_query)
    sizes = np.bincount(clique)
    draw = np.random.default_rng(seed)
    means = np.empty(n)
    for sample in range(n):
        drawn = draw.integers(len(works), size=len(works))
        means[sample] = totals[drawn].sum() / sizes[drawn].sum()
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def relevant_ranks(distances: Distances, cliques: Cliques, query: int, row: Floats) -> Ints:
    """Return the sorted ranks, from 1, of a query's relevant candidates.

    Only these ranks are found, by counting who is nearer, instead of sorting all candidates.

    Parameters
    ----------
    distances : Distances
        In the canonical order of `cliques`, like all that follows.
    cliques : Cliques
        Whose versions are looked for.
    query : int
        Its row.
    row : np.ndarray, shape=(performances,)
        The query's row of `distances.block`, which this changes.
    """
    row[query] = np.inf  # never its own candidate
    start = cliques.starts[cliques.work[query]]
    members = np.arange(start, start + cliques.sizes[cliques.work[query]])
    relevant = members[members != query]
    exact = distances.exact(query, relevant)
    low, high = distances.bounds(exact)
    # Nearer for certain is what a block holds below `low`; what it holds up to `high` may be.
    edges = np.concatenate([low, np.nextafter(high, np.inf)])
    by_size = np.argsort(edges)
    below = np.empty(len(edges), dtype=np.intp)
    below[by_size] = count_below(row, edges[by_size])
    nearer, maybe = below[: len(low)], below[len(low) :]
    unsure = maybe - nearer > 1  # a relevant candidate is always within its own bounds
    for distance in set(exact[unsure]):
        level = np.flatnonzero(exact == distance)
        close = np.flatnonzero((row >= low[level[0]]) & (row <= high[level[0]]))
        measured = distances.exact(query, close)
        tied = np.sort(cliques.track_rank[close[measured == distance]])
        nearer[level] += (measured < distance).sum()
        nearer[level] += np.searchsorted(tied, cliques.track_rank[relevant[level]])
    return np.sort(nearer) + 1
