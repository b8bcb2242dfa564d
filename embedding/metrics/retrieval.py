"""Retrieval metrics: at which ranks the other versions of a query's work are found."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain

import numpy as np
import polars as pl

from embedding.metrics.cliques import Cliques, group
from embedding.metrics.distances import Distances, Floats, Ints, over_blocks

#: Candidates within which recall is measured: as many as a search aligns.
SHORTLIST = 100

#: In a small collection, they are less than one of this many candidates. In a longer list, any
#: distance would find nearly everything.
CANDIDATES_PER_LISTED = 5


def shortlist(performances: int, most: int = SHORTLIST) -> int:
    """Return how many candidates a list has: `most`, or the largest number below a fifth of all.

    A collection of a few performances has none, and the result is 0.
    """
    return max(min(most, (performances - 2) // CANDIDATES_PER_LISTED), 0)


@dataclass(frozen=True)
class Retrieval:
    """How well distances find the other performances of a query's work.

    Every performance whose work has another performance is a query. All other performances are
    its candidates, ranked by distance and then by track id. R of them are relevant; their ranks,
    counted from 1, are r_1 < ... < r_R. Average precision and precision at 10: Manning, Raghavan
    and Schütze, Introduction to Information Retrieval, 2008, chapter 8; reciprocal rank: Voorhees,
    The TREC-8 Question Answering Track Report, 1999.

    Attributes
    ----------
    map : float in (0, 1]
        Mean over queries of the average precision, which is the mean of j / r_j.
    mr1 : float, at least 1
        Mean of r_1.
    mrr : float in (0, 1]
        Mean of 1 / r_1.
    hits_at_1, hits_at_10 : float in [0, 1]
        Share of queries with r_1 <= 1, and with r_1 <= 10.
    p_at_10 : float in [0, 1]
        Mean number of relevant candidates among the first 10, divided by 10 even if R is smaller.
    recall_at_k : float in [0, 1]
        Mean share of the R relevant candidates that are among the first k.
    k : int, at least 1
        `shortlist` of the performances, or 1: 100, unless the collection is small.
    nar : float in [0, 100]
        Normalised average rank in per cent: the share of non-relevant candidates that are ranked
        above a relevant candidate, (r_j - j) / (candidates - R), averaged over the relevant and
        then over the queries; 0 without non-relevant candidates. After Müller et al., Performance
        evaluation in content-based image retrieval, 2001, who divide by all candidates.
    counts : dict of str to int
        performances, works, cliques, noise_works, queries.
    per_query : pl.DataFrame
        One row per query, sorted by track id: track_id, work_id, relevant (R), first (r_1), ap,
        p_at_10, recall_at_k, nar.
    """

    map: float
    mr1: float
    mrr: float
    hits_at_1: float
    hits_at_10: float
    p_at_10: float
    recall_at_k: float
    k: int
    nar: float
    counts: dict[str, int]
    per_query: pl.DataFrame

    def summary(self) -> dict[str, float | int]:
        """Return the figures by their usual names, ready for JSON."""
        names = ("map", "mr1", "mrr", "hits@1", "hits@10", "p@10", "recall@k", "k", "nar")
        return {name: getattr(self, name.replace("@", "_at_")) for name in names} | self.counts

    def intervals(self) -> dict[str, tuple[float, float]]:
        """Return the 95 % intervals of MAP and MR1; a single clique has none."""
        queries = self.per_query
        if queries["work_id"].n_unique() < 2:
            return {}
        return {
            name: bootstrap_interval(queries[column].to_numpy(), queries["work_id"], seed=0)
            for name, column in {"map": "ap", "mr1": "first"}.items()
        }


def retrieval(
    distances: Distances,
    work_ids: Iterable[str],
    track_ids: Iterable[str],
    sample: int | None = None,
    seed: int = 0,
) -> Retrieval:
    """Rank all candidates for every query, or for a random sample of the queries.

    Row i of the distances belongs to the i-th ids, and track ids are unique. With a sample, time
    grows with n instead of n squared, all performances stay candidates, and every mean is an
    unbiased estimate.

    Raises ValueError if the ids do not fit the distances or each other, no work has two
    performances, or the sample is empty.

    Examples
    --------
    >>> from embedding.metrics.distances import Euclidean
    >>> found = retrieval(Euclidean([[0], [1], [3]]), ["W_1", "W_2", "W_1"], ["P_1", "P_2", "P_3"])
    >>> found.map, found.mr1
    (0.5, 2.0)
    """
    cliques = group(work_ids, track_ids)
    cliques.check(distances)
    ordered = distances.reordered(cliques.order)
    queries = cliques.sample(cliques.queries, sample, seed)

    def rank(run: slice) -> list[Ints]:
        rows = queries[run]
        return [
            _relevant_ranks(ordered, cliques, query, row)
            for query, row in zip(rows.tolist(), ordered.block(rows), strict=True)
        ]

    runs = over_blocks(len(queries), len(ordered), rank)
    return _measured(list(chain.from_iterable(runs)), cliques, queries)


def retrieval_of(
    rankings: Iterable[tuple[int, Ints]], work_ids: Iterable[str], track_ids: Iterable[str]
) -> Retrieval:
    """Measure rankings that do not come from distances.

    `rankings` gives the index of each query in the ids, and the indices of all its candidates, best
    first. Queries without a match are ignored. Raises ValueError as `retrieval`, or if a ranking
    does not hold each candidate once.
    """
    cliques = group(work_ids, track_ids)
    row_of = np.argsort(cliques.order)
    ranks = {}
    for query, ranking in rankings:
        if not np.array_equal(np.sort(np.append(ranking, query)), np.arange(len(row_of))):
            raise ValueError(
                f"The ranking of query {query} does not hold each of the {len(row_of) - 1} other "
                "performances once: rank all of them."
            )
        row = row_of[query]
        versions = np.flatnonzero(cliques.work[row_of[ranking]] == cliques.work[row])
        if len(versions):
            ranks[row] = versions + 1
    if not ranks:
        raise ValueError("No ranked query has a match: rank queries whose work has two versions.")
    rows = np.array(sorted(ranks))
    return _measured([ranks[row] for row in rows], cliques, rows)


def _measured(ranks: list[Ints], cliques: Cliques, rows: Ints) -> Retrieval:
    """Compute the figures from the sorted ranks of the relevant candidates of each query."""
    n = len(cliques.order)
    relevant = np.array([len(each) for each in ranks])
    starts = np.cumsum(relevant) - relevant
    flat = np.concatenate(ranks)
    found = 1 + np.arange(len(flat)) - np.repeat(starts, relevant)  # j for each r_j
    first = flat[starts]
    ap = np.add.reduceat(found / flat, starts) / relevant
    p_at_10 = np.add.reduceat(flat <= 10, starts, dtype=np.float64) / 10
    k = max(shortlist(n), 1)
    recall = np.add.reduceat(flat <= k, starts, dtype=np.float64) / relevant
    above = np.add.reduceat(flat - found, starts) / relevant
    nar = 100 * above / np.maximum(n - 1 - relevant, 1)
    return Retrieval(
        map=float(ap.mean()),
        mr1=float(first.mean()),
        mrr=float((1 / first).mean()),
        hits_at_1=float((first <= 1).mean()),
        hits_at_10=float((first <= 10).mean()),
        p_at_10=float(p_at_10.mean()),
        recall_at_k=float(recall.mean()),
        k=k,
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
                "recall_at_k": recall,
                "nar": nar,
            }
        ).sort("track_id"),
    )


def bootstrap_interval(
    values: Floats, work_ids: Iterable[str], seed: int, n: int = 1000
) -> tuple[float, float]:
    """Return the 95 % interval of the mean of values, one per query, by resampling cliques.

    The queries of a clique share their music, so they are drawn together. Each of `n` samples
    draws as many cliques as there are, with replacement, and averages over their queries. The
    interval lies between the 2.5th and the 97.5th percentile of these averages (Efron and
    Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13).
    """
    works, clique = np.unique(np.array(list(work_ids), dtype=np.str_), return_inverse=True)
    totals = np.bincount(clique, weights=values)
    sizes = np.bincount(clique)
    draw = np.random.default_rng(seed)
    means = np.empty(n)
    for sample in range(n):
        drawn = draw.integers(len(works), size=len(works))
        means[sample] = totals[drawn].sum() / sizes[drawn].sum()
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def _relevant_ranks(distances: Distances, cliques: Cliques, query: int, row: Floats) -> Ints:
    """Return the sorted ranks of a query's relevant candidates, from its row of distances."""
    row[query] = np.inf  # a query is not its own candidate
    relevant = np.flatnonzero(cliques.work == cliques.work[query])
    relevant = relevant[relevant != query]
    low, high = distances.ties(row[relevant])
    by_distance = np.sort(row)
    nearer = by_distance.searchsorted(low, "left")
    tied = by_distance.searchsorted(high, "right") - nearer
    for i in np.flatnonzero(tied > 1):
        others = cliques.track_rank[(row >= low[i]) & (row <= high[i])]
        nearer[i] += (others < cliques.track_rank[relevant[i]]).sum()
    return np.sort(nearer) + 1
