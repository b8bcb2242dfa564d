"""The time of the metrics over all pairs, and of the prototype's sampled comparison."""

from collections import Counter
from collections.abc import Generator
from functools import partial

import numpy as np
import polars as pl
from vectors import many

from benchmarks.harness import Row, in_turns, seconds
from embedding.metrics.distances import Euclidean
from embedding.metrics.retrieval import retrieval
from embedding.metrics.separation import separation

DIMENSION = 256

#: The size of Da-TACOS' benchmark subset, and the works that the prototype is timed on.
CLIQUES, SIZE, NOISE, TIMED = 1_000, 13, 2_000, 30

#: Queries that are ranked again by sorting, and those that ranx is timed on, which needs a
#: dictionary of 15,000 candidates for each.
CHECKED, RANKED = 300, 100

#: Spread of performances around their works, at which many results are wrong.
HARD = 2.0


def measure() -> list[Row]:
    """Measure at the size of Da-TACOS and at 100,000, and check against a plain ranking."""
    found = in_turns({"ours": ours, "prototype": prototype})
    large = in_turns({"ours": partial(ours, cliques=6_000, noise=22_000)}, rounds=1)["ours"]
    mine, theirs = found["ours"], found["prototype"]
    n, works = CLIQUES * SIZE + NOISE, CLIQUES + NOISE
    whole = works / TIMED * theirs.median
    checked = in_turns({"check": check}, rounds=1)["check"]
    error = checked.figure("error")
    field = in_turns({"ranx": by_ranx})["ranx"]
    all_queries = CLIQUES * SIZE / RANKED * field.median
    return [
        Row(
            f"retrieval and separation, {n} x {DIMENSION}, exact",
            seconds(mine.median),
            "the prototype's sampled comparison",
            seconds(whole),
            f"{whole / mine.median:.3g}",
            ">= 100x",
            whole / mine.median >= 100,
            note=f"theirs, timed on {TIMED} of {works} works and multiplied, sums "
            f"{works / TIMED * theirs.figure('pairs') / 1e6:.0f} million distances; ours ranks "
            f"{n * (n - 1) // 2 / 1e6:.0f} million",
        ),
        Row(
            "the same",
            seconds(mine.median),
            limit="<= 10 s, < 1500 MB",
            met=mine.median <= 10 and mine.peak_mb < 1500,
            peak_mb=mine.peak_mb,
        ),
        Row(
            "the same",
            seconds(mine.median),
            "numpy's distances, measured by ranx",
            seconds(all_queries),
            f"{all_queries / mine.median:.3g}",
            note=f"theirs, timed on {RANKED} of {CLIQUES * SIZE} queries and multiplied, is "
            "retrieval alone; its MAP of these differs by "
            f"{abs(field.figure('map') - checked.figure('map')):.1e}",
        ),
        Row(
            f"its largest difference from float64, {CHECKED} queries",
            f"{error:.1e}",
            limit="<= 1e-5",
            met=error <= 1e-5,
        ),
        Row(
            f"retrieval and separation, 100,000 x {DIMENSION}, exact",
            seconds(large.median),
            limit="<= 8 min",
            met=large.median <= 480,
            peak_mb=large.peak_mb,
            note=f"{large.peak_mb / mine.peak_mb:.1f} times the memory for "
            f"{100_000 / n:.1f} times the performances",
        ),
    ]


def _catalogue(
    cliques: int, noise: int, spread: float = 1.0
) -> tuple[np.ndarray, list[str], list[str]]:
    return many(cliques, SIZE, noise, DIMENSION, spread=spread)


def ours(cliques: int = CLIQUES, noise: int = NOISE) -> Generator[None, None, None]:
    """Compute both metrics as `covers evaluate` does."""
    rows, works, tracks = _catalogue(cliques, noise)
    yield
    distances = Euclidean(rows)
    retrieval(distances, works, tracks)
    separation(distances, works, tracks)


def check() -> Generator[None, None, dict[str, float]]:
    """Compare average precisions with those of a plain ranking."""
    rows, works, tracks = _catalogue(CLIQUES, NOISE, HARD)
    yield
    found = retrieval(Euclidean(rows), works, tracks).per_query
    precision = dict(found.select("track_id", "ap").iter_rows())
    exact, work = rows.astype(np.float64), np.array(works)
    names, errors = np.array(tracks), []
    queries = np.flatnonzero([each in precision for each in tracks])
    for query in queries[:CHECKED]:
        distance = np.sqrt(((exact - exact[query]) ** 2).sum(axis=1))
        order = np.lexsort((names, distance))
        relevant = work[order[order != query]] == work[query]
        ranks = np.flatnonzero(relevant) + 1
        plain = (np.arange(1, len(ranks) + 1) / ranks).mean()
        errors.append(abs(plain - precision[tracks[query]]))
    ranked = [precision[tracks[query]] for query in queries[:RANKED]]
    return {"error": float(max(errors)), "map": float(np.mean(ranked))}


def by_ranx() -> Generator[None, None, dict[str, float]]:
    """Rank all performances for some queries, and measure the rankings by ranx."""
    from ranx import Qrels, Run, evaluate

    rows, works, tracks = _catalogue(CLIQUES, NOISE, HARD)
    exact, work = rows.astype(np.float64), np.array(works)
    sizes = Counter(works)
    queries = [i for i, each in enumerate(works) if sizes[each] > 1][:RANKED]
    measures = ["map", "mrr", "precision@10", "hit_rate@10"]
    tiny = {"q": {"a": 1}}
    evaluate(Qrels(tiny), Run({"q": {"a": 1.0}}), measures)  # compiles
    yield
    relevant, ranking = {}, {}
    for query in queries:
        distance = np.sqrt(((exact - exact[query]) ** 2).sum(axis=1))
        others = [i for i in range(len(rows)) if i != query]
        ranking[tracks[query]] = {tracks[i]: -float(distance[i]) for i in others}
        of_work = np.flatnonzero(work == work[query])
        relevant[tracks[query]] = {tracks[i]: 1 for i in of_work if i != query}
    return {"map": float(evaluate(Qrels(relevant), Run(ranking), measures)["map"])}


def prototype() -> Generator[None, None, dict[str, float]]:
    """Filter a data frame for each performance and sum its distances.

    They are the in-clique distances, and those to the works of 100 random rows.
    """
    rows, works, tracks = _catalogue(CLIQUES, NOISE)
    names = [f"x{i}" for i in range(DIMENSION)]
    table = pl.DataFrame({"work": works, "performance": tracks}).hstack(
        pl.DataFrame(rows, schema=names)
    )
    chosen = table["work"].unique().sort().sample(TIMED, seed=0)
    yield
    pairs = 0
    for work in chosen:
        clique = table.filter(pl.col("work") == work).drop("work")
        sampled = table.filter(pl.col("work") != work)["work"].sample(100, seed=0)
        others = table.filter(pl.col("work").is_in(sampled.implode()))
        far = others.drop("work", "performance").to_numpy().astype(np.float32)
        for performance in clique["performance"].to_list():
            is_query = pl.col("performance") == performance
            query, rest = (
                clique.filter(mask).drop("performance").to_numpy().astype(np.float32)
                for mask in (is_query, ~is_query)
            )
            for candidates in (rest, far):
                float(((query - candidates) ** 2).sum())
                pairs += len(candidates)
    return {"pairs": pairs}
