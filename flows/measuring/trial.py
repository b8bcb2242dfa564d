"""Measure what `search` responds with, on a trial collection that is published for that alone.

The responses come from the functions that respond to users, so the measures cannot differ from
what users see.
"""

import logging
import tempfile
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
from embedding.metrics.retrieval import (
    CANDIDATES_PER_LISTED,
    Retrieval,
    retrieval_of,
    shortlist,
)
from search import identification
from search.engines.embedded import Embedded
from search.matches import Identification, Match
from search.versions import judging
from search.versions.reranking import CANDIDATES

logger = logging.getLogger(__name__)

#: Queries that a trial asks at most. An alignment takes milliseconds, and each query has 100.
MAX_QUERIES = 1000

#: Matches per query whose probabilities are compared with the labels: those that a user sees.
MATCHES_SEEN = 10

MATCH_COLUMNS = {
    "query": pl.String,
    "rank": pl.Int64,  # from 1
    "match": pl.String,
    "same_work": pl.Boolean,
    "distance": pl.Float64,
    "probability": pl.Float64,  # null without calibration
}
NAME_COLUMNS = {"query": pl.String, "named": pl.String, "probability_of_none": pl.Float64}


@dataclass(frozen=True)
class Responses:
    """What `search` responds with.

    Attributes
    ----------
    distance : pl.DataFrame
        The `CANDIDATES` nearest performances of each query (`MATCH_COLUMNS`), nearest first.
    reranked : pl.DataFrame
        The nearest of them, which are aligned: the likeliest version first, or the nearest first if
        the query cannot be aligned.
    names : pl.DataFrame or None
        The work that each query is identified with, or null (`NAME_COLUMNS`). None without
        calibration.
    """

    distance: pl.DataFrame
    reranked: pl.DataFrame
    names: pl.DataFrame | None


def measure_search(points: search.Points, bundle: str, directory: Path) -> dict[str, Any]:
    """Measure reranking, probabilities and identification, as far as the points allow.

    `bundle` is the id of the bundle that made the vectors. The matches are written into
    `directory`, as matches_distance.parquet and matches_reranked.parquet.

    Returns
    -------
    dict
        `reranked`: metrics, with `intervals` and the `depth`, the number of nearest performances
        that are aligned. `certainty`: by kind of evidence, how far probabilities can be trusted.
    """
    result: dict[str, Any] = {}
    depth = 0 if points.sequences is None else rerank_depth(len(points))
    with published(points, bundle, directory) as searcher:
        responses = ask(searcher, choose_queries(points), depth)
    kinds = {"distance": responses.distance}
    if depth:
        kinds["reranked"] = responses.reranked
        found = _measured(responses.reranked, points)
        result["reranked"] = {"depth": depth, **found.summary(), "intervals": found.intervals()}
    for kind, matches in kinds.items():
        matches.write_parquet(directory / f"matches_{kind}.parquet")
    if responses.names is not None:
        certainties = {kind: certainty(matches, points) for kind, matches in kinds.items()}
        # `identify` uses the best evidence that there is, which is the last kind.
        certainties[list(kinds)[-1]] |= identified(responses.names, points)
        result["certainty"] = certainties
    return result


def rerank_depth(performances: int) -> int:
    """Return how many of the nearest performances are aligned to measure reranking.

    It is `CANDIDATES`, as in a search, or fewer in a small collection. If all candidates were
    aligned, the same would be found with any vectors. It is 0 if it would be 1, because then
    nothing is reranked.
    """
    depth = shortlist(performances, CANDIDATES)
    return depth if depth > 1 else 0


def rerank(points: search.Points, bundle: str) -> tuple[Retrieval, int]:
    """Measure reranking alone, with up to `MAX_QUERIES` queries; return the depth too.

    Raises
    ------
    ValueError
        If there are too few performances.
    """
    depth = rerank_depth(len(points))
    if not depth:
        raise ValueError(
            f"{len(points)} performances are too few to measure reranking, which needs at least "
            f"{2 * CANDIDATES_PER_LISTED + 2}"
        )
    with (
        tempfile.TemporaryDirectory() as directory,
        published(points, bundle, Path(directory)) as searcher,
    ):
        responses = ask(searcher, choose_queries(points), depth)
    return _measured(responses.reranked, points), depth


def _measured(matches: pl.DataFrame, points: search.Points) -> Retrieval:
    works = [str(payload["work_id"]) for payload in points.payloads]
    return retrieval_of(rankings(matches, points), works, points.track_ids)


@contextmanager
def published(points: search.Points, bundle: str, directory: Path) -> Iterator[search.Searcher]:
    """Publish at least two points in a temporary directory within `directory`."""
    logger.info("publishing a trial collection, to measure what searches answer")
    with tempfile.TemporaryDirectory(dir=directory) as home:
        engine = Embedded(Path(home))
        engine.publish(points, bundle)
        yield search.Searcher(engine)


def ask(searcher: search.Searcher, queries: Sequence[str], depth: int) -> Responses:
    """Ask `similar`, with and without reranking, and `identify`; each query is aligned once.

    The `depth` nearest performances are aligned. If it is 0, `identify` judges by distance.
    """
    collection = searcher.engine.open()
    nearest = searcher.similar_many(queries, CANDIDATES)

    def judge(query: str, matches: list[Match]) -> tuple[list[Match], Identification | None]:
        nearest = matches[:depth]
        aligned = judging.align(collection, query, nearest) if depth else None
        name = None
        if collection.description.calibration is not None:
            name = identification.identify(collection, query, nearest or matches, aligned, 1)
        return nearest if aligned is None else aligned.judged, name

    with ThreadPoolExecutor(joblib.cpu_count()) as threads:  # compiled code releases the GIL
        reranked, names = zip(*threads.map(judge, queries, nearest), strict=True)
    return Responses(
        _match_table(queries, nearest),
        _match_table(queries, reranked),
        None if None in names else _name_table(names),
    )


def _match_table(queries: Sequence[str], ranked: Sequence[Sequence[Match]]) -> pl.DataFrame:
    rows = [
        (query, rank, match.track_id, match.same_work, match.distance, match.probability)
        for query, matches in zip(queries, ranked, strict=True)
        for rank, match in enumerate(matches, 1)
    ]
    return pl.DataFrame(rows, schema=MATCH_COLUMNS, orient="row")


def _name_table(names: Sequence[Identification]) -> pl.DataFrame:
    rows = [(one.track_id, one.work and one.work.work_id, one.probability_of_none) for one in names]
    return pl.DataFrame(rows, schema=NAME_COLUMNS, orient="row")


def _works(points: search.Points) -> pl.DataFrame:
    """Return track_id, work_id and size, the number of performances of the work."""
    works = [str(payload["work_id"]) for payload in points.payloads]
    table = pl.DataFrame({"track_id": list(points.track_ids), "work_id": works})
    return table.with_columns(size=pl.len().over("work_id"))


def choose_queries(points: search.Points, seed: int = 0) -> list[str]:
    """Return all track ids; beyond `MAX_QUERIES`, those of works that are drawn at random."""
    if len(points) <= MAX_QUERIES:
        return list(points.track_ids)
    works = dict(_works(points).group_by("work_id").agg("track_id").iter_rows())
    queries: list[str] = []
    for work in np.random.default_rng(seed).permutation(sorted(works)):
        queries += works[work]
        if len(queries) >= MAX_QUERIES:
            break
    return queries


def rankings(matches: pl.DataFrame, points: search.Points) -> Iterator[tuple[int, Ints]]:
    """Complete the matches of each query with all other performances, nearest first.

    Yields
    ------
    tuple of (int, np.ndarray, shape=(performances - 1,))
        Index of the query in the points, and the indices of all others, best first.
    """
    index = {track_id: i for i, track_id in enumerate(points.track_ids)}
    vectors = points.vectors.astype(np.float64)
    for (query,), ranked in matches.group_by("query", maintain_order=True):
        row = index[str(query)]
        first = np.array([index[match] for match in ranked["match"]], dtype=np.intp)
        # Points are sorted by track id, which breaks ties.
        order = np.argsort(((vectors - vectors[row]) ** 2).sum(axis=1), kind="stable")
        yield row, np.concatenate([first, order[~np.isin(order, [row, *first])]])


def certainty(matches: pl.DataFrame, points: search.Points) -> dict[str, Any]:
    """Compare the probabilities of matches with their labels.

    Returns
    -------
    dict
        `calibration_error` and its `curve`, over the `MATCHES_SEEN` likeliest matches of each
        query; `thresholds` and `recall_at_precision_95`, over all matches.
    """
    queries = _works(points).filter(pl.col("track_id").is_in(matches["query"].unique().implode()))
    relevant = int((queries["size"] - 1).sum())
    likeliest = matches.sort("probability", descending=True).group_by("query").head(MATCHES_SEEN)
    measured = reliability(likeliest["probability"], likeliest["same_work"])
    judged = matches["probability"], matches["same_work"], relevant
    return {
        "calibration_error": measured.error,
        "curve": measured.curve.to_dicts(),
        "thresholds": at_thresholds(*judged).to_dicts(),
        "recall_at_precision_95": recall_at_precision(*judged, 0.95),
    }


def identified(names: pl.DataFrame, points: search.Points) -> dict[str, float]:
    """Compare the works that queries are identified with (`NAME_COLUMNS`) with their labels.

    Returns
    -------
    dict
        `identified`: the share of queries with the right work, or rightly with none. `none_auroc`:
        how well the probability of none separates noise works from others, if there are both.
        `none_calibration_error`: how far that probability is from their share, as of `reliability`.
    """
    table = names.join(_works(points), left_on="query", right_on="track_id")
    noise = table["size"] == 1
    right = pl.select(pl.when(noise).then(None).otherwise(table["work_id"])).to_series()
    result = {"identified": float(right.eq_missing(table["named"]).mean())}  # type: ignore[arg-type]
    stated = table["probability_of_none"]
    result["none_calibration_error"] = reliability(stated, noise).error
    if noise.any() and not noise.all():
        result["none_auroc"] = float(roc_auc_score(noise, table["probability_of_none"]))
    return result
