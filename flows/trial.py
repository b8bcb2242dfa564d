"""What a user would be answered: a trial collection, published for nobody and asked about itself.

Re-ranking and probabilities are measured on what `search` says, so that no second way of computing
them can differ from the first.
"""

import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from sklearn.metrics import roc_auc_score

import search
from embedding.distances import Ints
from embedding.reliability import at_thresholds, recall_at_precision, reliability
from embedding.retrieval import Retrieval, bootstrap_interval, retrieval_of
from search.embedded import Embedded
from search.reranking import CANDIDATES

#: Past so many performances, whole works are drawn at random to be asked about; everything stays
#: a candidate. An alignment takes milliseconds, and each query has a hundred.
QUERIES = 1000

#: The matches of a query whose probabilities are compared with the truth: what a user looks at.
LOOKED_AT = 10


@dataclass(frozen=True)
class Trial:
    """The answers to some queries.

    Attributes
    ----------
    matches : pl.DataFrame
        query, rank (from 1), match, same_work, distance, probability (null without calibration).
    named : pl.DataFrame
        A row a query: query, work_id, named (the work that was identified, or null), none (the
        probability of that); empty without calibration.
    """

    matches: pl.DataFrame
    named: pl.DataFrame


def ask(points: search.Points, bundle: str, *, rerank: bool, scratch: Path, seed: int = 0) -> Trial:
    """Publish points in a directory of their own and ask about them.

    Parameters
    ----------
    points : Points
        At least two.
    bundle : str
        Its id.
    rerank : bool
        Whether to align; needs sequences.
    scratch : Path
        Where to publish; what is written there is removed again.
    seed : int
        Of the works that are drawn.
    """
    queries = _queries(points, seed)
    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        searcher = search.Searcher(Embedded(Path(directory)))
        description = search.publish(points, bundle, searcher.engine)

        def answers(track_id: str) -> list[search.Match]:
            return searcher.similar(track_id, CANDIDATES, rerank=rerank)

        def name(track_id: str) -> search.Identification:
            return searcher.identify(track_id)

        with ThreadPoolExecutor(os.cpu_count()) as threads:
            found = list(threads.map(answers, queries))
            calibrated = description.calibration is not None
            named = list(threads.map(name, queries)) if calibrated and rerank else []
    work_of = {track_id: str(each["work_id"]) for track_id, each in _labelled(points)}
    return Trial(
        pl.DataFrame(
            [
                (query, rank, one.track_id, one.same_work, one.distance, one.probability)
                for query, matches in zip(queries, found, strict=True)
                for rank, one in enumerate(matches, 1)
            ],
            schema={
                "query": pl.String,
                "rank": pl.Int64,
                "match": pl.String,
                "same_work": pl.Boolean,
                "distance": pl.Float64,
                "probability": pl.Float64,
            },
            orient="row",
        ),
        pl.DataFrame(
            [
                (one.track_id, work_of[one.track_id], one.work and one.work.work_id, one.none)
                for one in named
            ],
            schema={
                "query": pl.String,
                "work_id": pl.String,
                "named": pl.String,
                "none": pl.Float64,
            },
            orient="row",
        ),
    )


def _labelled(points: search.Points) -> Iterator[tuple[str, Any]]:
    return zip(points.track_ids, points.payloads, strict=True)


def _queries(points: search.Points, seed: int) -> list[str]:
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


def retrieved(trial: Trial, points: search.Points) -> dict[str, Any]:
    """Return the retrieval metrics of the answers' order, then of the distance.

    Only the first `CANDIDATES` are asked for; the others follow by distance.
    """
    place = {track_id: i for i, track_id in enumerate(points.track_ids)}
    vectors = points.vectors.astype(np.float64)

    def rankings() -> Iterator[tuple[int, Ints]]:
        for (query,), matches in trial.matches.group_by("query", maintain_order=True):
            row = place[str(query)]
            first = np.array([place[match] for match in matches["match"]], dtype=np.intp)
            # Points are sorted by track id, which breaks ties.
            order = np.argsort(((vectors - vectors[row]) ** 2).sum(axis=1), kind="stable")
            yield row, np.concatenate([first, order[~np.isin(order, [row, *first])]])

    works = [str(payload["work_id"]) for _, payload in _labelled(points)]
    found: Retrieval = retrieval_of(rankings(), works, points.track_ids)
    queries = found.per_query
    return found.summary() | {
        "intervals": {
            name: bootstrap_interval(values, queries["work_id"], seed=0)
            for name, values in {"map": queries["ap"], "mr1": queries["first"]}.items()
        }
        if queries["work_id"].n_unique() > 1
        else {},
    }


def certainty(trial: Trial, points: search.Points) -> dict[str, Any] | None:
    """Compare stated probabilities with the labels; None where none were stated.

    Returns
    -------
    dict
        `calibration_error` over the `LOOKED_AT` likeliest matches of each query, with its `curve`;
        `thresholds`, and `recall_at_precision_95`, over all pairs of the queries. Where works were
        named: `identified`, the share of queries whose work, or lack of one, was named rightly,
        and `none_auroc`, how well the probability of none tells noise works from others.
    """
    stated = trial.matches.filter(pl.col("probability").is_not_null())
    if stated.is_empty():
        return None
    sizes = dict(
        pl.DataFrame({"work_id": [str(each["work_id"]) for _, each in _labelled(points)]})
        .group_by("work_id")
        .len()
        .iter_rows()
    )
    work_of = {track_id: str(each["work_id"]) for track_id, each in _labelled(points)}
    relevant = sum(sizes[work_of[query]] - 1 for query in stated["query"].unique())
    likeliest = stated.sort("probability", descending=True).group_by("query").head(LOOKED_AT)
    trusted = reliability(likeliest["probability"], likeliest["same_work"])
    every = stated["probability"], stated["same_work"], relevant
    result: dict[str, Any] = {
        "calibration_error": trusted.error,
        "curve": trusted.curve.to_dicts(),
        "thresholds": at_thresholds(*every).to_dicts(),
        "recall_at_precision_95": recall_at_precision(*every, 0.95),
    }
    if len(trial.named):
        named = trial.named.with_columns(
            noise=pl.col("work_id").replace_strict(sizes, return_dtype=pl.Int64) == 1
        )
        right = named.select(
            pl.when("noise")
            .then(pl.col("named").is_null())
            .otherwise(pl.col("named").eq_missing(pl.col("work_id")))
        )
        result["identified"] = float(right.to_series().mean())  # type: ignore[arg-type]
        if 0 < named["noise"].sum() < len(named):
            result["none_auroc"] = float(roc_auc_score(named["noise"], named["none"]))
    return result
