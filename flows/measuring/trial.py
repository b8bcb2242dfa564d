"""What a user would be answered: a trial collection, published for nobody and asked about itself.

Re-ranking and probabilities are measured on what the parts of `search` say that answer users, so
that no second way of computing them can differ from the first.
"""

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import polars as pl
from sklearn.metrics import roc_auc_score

import search
from embedding.metrics.distances import Ints
from embedding.metrics.reliability import at_thresholds, recall_at_precision, reliability
from search.engines.embedded import Embedded
from search.matches import Identification, Match
from search.versions import judging
from search.versions.reranking import CANDIDATES

#: Past so many performances, whole works are drawn at random to be asked about; everything stays
#: a candidate. An alignment takes milliseconds, and each query has a hundred.
QUERIES = 1000

#: The matches of a query whose probabilities are compared with the truth: what a user looks at.
LOOKED_AT = 10


@contextmanager
def published(points: search.Points, bundle: str, scratch: Path) -> Iterator[search.Searcher]:
    """Publish points in a directory of their own, which is removed again.

    Parameters
    ----------
    points : Points
        At least two.
    bundle : str
        Id of the bundle that made them.
    scratch : Path
        Where to make that directory.
    """
    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        engine = Embedded(Path(directory))
        engine.publish(points, bundle)
        yield search.Searcher(engine)


@dataclass(frozen=True)
class Answers:
    """What `search` says of each query.

    Attributes
    ----------
    distance : pl.DataFrame
        Of the `CANDIDATES` nearest performances, nearest first: query, rank (from 1), match,
        same_work, distance, probability (null without calibration).
    reranked : pl.DataFrame
        The same, the likeliest versions first; nearest first where a query can't be aligned.
    names : pl.DataFrame or None
        query, named (a work, or null), none (the probability that there is no version of it); None
        without calibration.
    """

    distance: pl.DataFrame
    reranked: pl.DataFrame
    names: pl.DataFrame | None


def ask(searcher: search.Searcher, queries: Sequence[str]) -> Answers:
    """Ask `similar`, with `rerank` and without, and `identify`; each query is aligned once."""
    collection = searcher.engine.open()
    nearest = searcher.similar_many(queries, CANDIDATES)

    def look(query: str, matches: list[Match]) -> tuple[list[Match], Identification | None]:
        aligned = judging.align(collection, query, matches)
        named = None
        if collection.description.calibration is not None:
            named = judging.identify(collection, query, matches, aligned, 1)
        return matches if aligned is None else aligned.judged, named

    with ThreadPoolExecutor(joblib.cpu_count()) as threads:  # what is compiled lets others run
        looked = list(threads.map(look, queries, nearest))
    return Answers(
        _table(queries, nearest),
        _table(queries, [best for best, _ in looked]),
        _names([named for _, named in looked if named is not None]),
    )


def _table(queries: Sequence[str], ranked: Sequence[Sequence[Match]]) -> pl.DataFrame:
    rows = [
        (query, rank, one.track_id, one.same_work, one.distance, one.probability)
        for query, matches in zip(queries, ranked, strict=True)
        for rank, one in enumerate(matches, 1)
    ]
    schema = {
        "query": pl.String,
        "rank": pl.Int64,
        "match": pl.String,
        "same_work": pl.Boolean,
        "distance": pl.Float64,
        "probability": pl.Float64,
    }
    return pl.DataFrame(rows, schema=schema, orient="row")


def _names(found: Sequence[Identification]) -> pl.DataFrame | None:
    if not found:
        return None
    rows = [(one.track_id, one.work and one.work.work_id, one.probability_of_none) for one in found]
    schema = {"query": pl.String, "named": pl.String, "none": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _labelled(points: search.Points) -> Iterator[tuple[str, Any]]:
    return zip(points.track_ids, points.payloads, strict=True)


def choose_queries(points: search.Points, seed: int = 0) -> list[str]:
    """Return all track ids, or those of works drawn at random where there are very many."""
    works: dict[str, list[str]] = {}
    for track_id, payload in _labelled(points):
        works.setdefault(str(payload["work_id"]), []).append(track_id)
    if len(points) <= QUERIES:
        return list(points.track_ids)
    drawn: list[str] = []
    for work in np.random.default_rng(seed).permutation(sorted(works)):
        drawn += works[work]
        if len(drawn) >= QUERIES:
            break
    return drawn


def rankings(found: pl.DataFrame, points: search.Points) -> Iterator[tuple[int, Ints]]:
    """Complete the `matches` of each query by all other performances, nearest first.

    Yields
    ------
    tuple of (int, np.ndarray of shape=(performances - 1,))
        The query's place in the points, and those of all others, the best first.
    """
    place = {track_id: i for i, track_id in enumerate(points.track_ids)}
    vectors = points.vectors.astype(np.float64)
    for (query,), ranked in found.group_by("query", maintain_order=True):
        row = place[str(query)]
        first = np.array([place[match] for match in ranked["match"]], dtype=np.intp)
        # Points are sorted by track id, which breaks ties.
        order = np.argsort(((vectors - vectors[row]) ** 2).sum(axis=1), kind="stable")
        yield row, np.concatenate([first, order[~np.isin(order, [row, *first])]])


def certainty(found: pl.DataFrame, points: search.Points) -> dict[str, Any]:
    """Compare the probabilities of `matches` with the labels.

    Returns
    -------
    dict
        `calibration_error` over the `LOOKED_AT` likeliest matches of each query, with its `curve`;
        `thresholds` and `recall_at_precision_95` over all pairs of the queries.
    """
    sizes, work_of = _works(points)
    relevant = sum(sizes[work_of[query]] - 1 for query in found["query"].unique())
    likeliest = found.sort("probability", descending=True).group_by("query").head(LOOKED_AT)
    trusted = reliability(likeliest["probability"], likeliest["same_work"])
    every = found["probability"], found["same_work"], relevant
    return {
        "calibration_error": trusted.error,
        "curve": trusted.curve.to_dicts(),
        "thresholds": at_thresholds(*every).to_dicts(),
        "recall_at_precision_95": recall_at_precision(*every, 0.95),
    }


def identified(named: pl.DataFrame, points: search.Points) -> dict[str, float]:
    """Compare `names` with the labels.

    Returns
    -------
    dict
        `identified`, the share of queries whose work, or lack of one, was named rightly; and, where
        there are both, `none_auroc`: how well the probability of none tells noise works apart.
    """
    sizes, work_of = _works(points)
    works = [work_of[query] for query in named["query"]]
    noise = np.array([sizes[work] == 1 for work in works])
    expected = [None if alone else work for work, alone in zip(works, noise, strict=True)]
    right = [answer == truth for answer, truth in zip(named["named"], expected, strict=True)]
    result = {"identified": float(np.mean(right))}
    if noise.any() and not noise.all():
        result["none_auroc"] = float(roc_auc_score(noise, named["none"]))
    return result


def _works(points: search.Points) -> tuple[Counter[str], dict[str, str]]:
    """Sizes by work, and works by track id."""
    work_of = {track_id: str(each["work_id"]) for track_id, each in _labelled(points)}
    return Counter(work_of.values()), work_of
