"""vectors.parquet -> metrics.json and plots, on works the encoder has not seen.

What it finds out about each performance also goes into the published collection, to filter by.
"""

import json
from pathlib import Path
from typing import Any

import polars as pl
from prefect import flow, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

import search
from embedding import bundle as bundles
from embedding.bundle import Bundle
from embedding.data.store import FeatureStore
from embedding.metrics.distances import Euclidean
from embedding.metrics.quality import quality
from embedding.metrics.retrieval import Retrieval, bootstrap_interval, retrieval, retrieval_of
from embedding.metrics.separation import separation
from flows import alert, plots
from flows.collection.points import points_of
from flows.collection.vectors import origin, read
from flows.measuring.calibrate import read_calibration
from flows.measuring.trial import ask, certainty, choose_queries, identified, published, rankings
from flows.publish import RETRIES
from flows.show import show_figures
from flows.workspace import Workspace
from search.fields import RESULTS

#: Counted up when a metric's definition or a plot changes, so that it is computed anew.
VERSION = 4

#: Of quality.csv, in which the most suspicious performance comes first.
QUALITY = {
    "track_id": pl.String,
    "work_id": pl.String,
    "title": pl.String,
    "artist": pl.String,
    "nearest_cover": pl.Int64,
    "clique_distance": pl.Float64,
    "outlier": pl.Boolean,
}

#: Those of its columns that are known of a performance without measuring anything.
KNOWN = ("track_id", "work_id", "title", "artist")

#: Up to so many performances all pairs are compared; past them the time, which grows with their
#: square, is hours, and whoever starts it chooses how many queries are enough.
EXACT = 100_000


@flow(name="evaluate", flow_run_name="evaluate", **alert.WATCHED)
def evaluate(
    vectors: Path | None = None, home: Path | None = None, sample: int | None = None
) -> dict[str, Any]:
    """Measure how well distances between vectors find versions and separate cliques.

    Works that the bundle was trained or chosen on take no part, neither as queries nor as
    candidates: what remains is as unknown to the encoder as a user's next performance. How near
    each performance of these lies to its versions is written beside it in the published collection,
    if the same bundle made that (`Engine.annotate`); the others get no such fields.

    Parameters
    ----------
    vectors : Path, optional
        What `embed` made; by default the latest.
    home : Path, optional
        The workspace; by default `$COVERS_HOME`.
    sample : int, optional
        How many queries, drawn at random, to measure retrieval by, and how many performances
        separation; everything stays a candidate. All by default, or where there are no more.

    Returns
    -------
    dict
        `metrics` by name, `intervals` (95 %, by resampling cliques), `measured_on`, `outliers` (how
        many performances are too far from their versions; not told by a sample) and `paths`.

    Raises
    ------
    ValueError
        If there are more than `EXACT` performances to measure on, and no sample is chosen.
    """
    workspace = Workspace.at(home)
    with workspace.used():
        vectors = vectors or workspace.latest("vectors")
        place = measure(vectors, workspace.root, sample)
        result: dict[str, Any] = json.loads((place / "metrics.json").read_text(encoding="utf-8"))
        suspicious = place / "quality.csv"
        if suspicious.exists():
            write_back(suspicious, result["measured_on"]["bundle"], workspace.root)
        figures = sorted(place.glob("*.png"))
        show_figures(figures)
    rows = [{"measure": name, "value": value} for name, value in result["metrics"].items()]
    create_table_artifact(rows, key="metrics", description=result["measured_on"]["summary"])
    result["paths"] = {
        "metrics": str(place / "metrics.json"),
        **({"quality": str(suspicious)} if suspicious.exists() else {}),
        "plots": [str(figure) for figure in figures],
    }
    return result


@task(cache_policy=NO_CACHE)
def measure(vectors: Path, home: Path, sample: int | None) -> Path:
    """Compute the metrics and draw the plots, unless they stand for the same vectors."""
    workspace = Workspace(home)
    made_with = origin(vectors)
    bundle_path = workspace.resolve(made_with["bundle"])
    bundle = bundles.load(bundle_path)

    def make(directory: Path) -> None:
        everything = read(vectors)
        seen = everything["work_id"].is_in(bundle.seen_works.implode())
        if seen.all():
            raise ValueError(
                f"Every work of {vectors} was used to train {bundle.id}, so nothing can be "
                "measured honestly: train on other works, or keep some back with --hold-out."
            )
        table = everything.filter(~seen)
        check_sample(len(table), sample)
        works, tracks = table["work_id"].to_list(), table["track_id"].to_list()
        distances = Euclidean(table["vector"].to_numpy())
        found = retrieval(distances, works, tracks, sample)
        apart = separation(distances, works, tracks, sample)
        found.per_query.write_parquet(directory / "queries.parquet")
        apart.per_clique.write_parquet(directory / "cliques.parquet")
        result: dict[str, Any] = {
            "metrics": found.summary() | apart.summary(),
            "intervals": _intervals(found) | apart.intervals,
            "measured_on": {
                "data": made_with["data"],
                "bundle": bundle.id,
                "performances": len(table),
                "left_out": int(seen.sum()),
                "sample": sample,
                "summary": _summary(bundle, made_with["data"], len(table), int(seen.sum()), sample),
            },
        }
        features = made_with.get("features")
        store = None if features is None else FeatureStore.open(workspace.resolve(features))
        calibration = read_calibration(bundle_path)
        points = points_of(table, store, calibration, complete=not bundle.is_imported)
        if sample is None or sample >= len(table):  # of some queries, nothing is known of others
            judged = quality(found, apart)
            result["outliers"] = int(judged["outlier"].sum())
            _suspicious_first(points, judged).write_csv(directory / "quality.csv")
        result |= try_out(points, bundle.id, directory)
        if "certainty" in result:
            sure = plots.reliability(result["certainty"])
            plots.save(sure, directory / "reliability.png")
        text = json.dumps(result, indent=1, ensure_ascii=False) + "\n"
        (directory / "metrics.json").write_text(text, encoding="utf-8")
        plots.save(plots.separation(apart), directory / "separation.png")
        plots.save(plots.collection_map(table["vector"].to_numpy(), works), directory / "map.png")
        if len(bundle.loss_curve):
            plots.save(plots.loss_curve(bundle.loss_curve), directory / "loss.png")

    about = {"vectors": workspace.relative(vectors)}
    made_of = (VERSION, bundle.id, about["vectors"], sample)
    return workspace.result("evaluations", vectors.parent.name, made_of, make, about)


def _suspicious_first(points: search.Points, judged: pl.DataFrame) -> pl.DataFrame:
    """Make quality.csv: all that were measured, those without versions last and not judged."""
    known = pl.DataFrame(
        [{name: payload.get(name) for name in KNOWN} for payload in points.payloads],
        schema={name: QUALITY[name] for name in KNOWN},
    )
    return (
        known.join(judged.drop("work_id"), on="track_id", how="left")
        # A server's JSON may round the last digit of a number.
        .with_columns(pl.col("clique_distance").round(6))
        .sort(
            ["outlier", "clique_distance", "track_id"],
            descending=[True, True, False],
            nulls_last=True,
        )
        .select(*QUALITY)
    )


@task(cache_policy=NO_CACHE, **RETRIES)
def write_back(table: Path, bundle: str, home: Path) -> int:
    """Write a quality.csv into what is published, where `bundle` made it, and say of how many."""
    rows = pl.read_csv(table, schema=QUALITY).select("track_id", *RESULTS)
    results = {row.pop("track_id"): row for row in rows.to_dicts()}
    written = search.connect(home=home).annotate(results, bundle)
    if written:
        get_run_logger().info("wrote the quality of %d performances beside them", written)
    return written


def try_out(points: search.Points, bundle: str, directory: Path) -> dict[str, Any]:
    """Measure what `search` answers: re-ranked, and how sure it is; what there is to measure.

    Parameters
    ----------
    points : Points
        The performances to measure on.
    bundle : str
        Id of the bundle that made them.
    directory : Path
        Gets the matches, in matches_distance.parquet and matches_reranked.parquet.

    Returns
    -------
    dict
        `reranked`, as metrics, with `intervals`; `certainty`, by the evidence it rests on.
    """
    result: dict[str, Any] = {}
    works = [str(payload["work_id"]) for payload in points.payloads]
    with published(points, bundle, directory) as searcher:
        answers = ask(searcher, choose_queries(points))
    kinds = {"distance": answers.distance}
    if points.sequences is not None:
        kinds["reranked"] = answers.reranked
        found = retrieval_of(rankings(answers.reranked, points), works, points.track_ids)
        result["reranked"] = found.summary() | {"intervals": _intervals(found)}
    for kind, matches in kinds.items():
        matches.write_parquet(directory / f"matches_{kind}.parquet")
    if answers.names is not None:
        sure = {kind: certainty(matches, points) for kind, matches in kinds.items()}
        best = list(sure)[-1]  # which `identify` goes by
        sure[best] |= identified(answers.names, points)
        result["certainty"] = sure
    return result


def _intervals(found: Retrieval) -> dict[str, tuple[float, float]]:
    queries = found.per_query
    if queries["work_id"].n_unique() < 2:
        return {}
    return {
        name: bootstrap_interval(values, queries["work_id"], seed=0)
        for name, values in {"map": queries["ap"], "mr1": queries["first"]}.items()
    }


def check_sample(performances: int, sample: int | None) -> None:
    """Raise ValueError if so many can't be measured without choosing how many queries to take."""
    if sample is None and performances > EXACT:
        raise ValueError(
            f"Comparing all pairs of {performances} performances takes hours: choose how many "
            f"queries to measure by, like --sample 10000, or --sample {performances} for all."
        )


def _summary(bundle: Bundle, data: str, measured: int, left_out: int, sample: int | None) -> str:
    by = ""
    if sample is not None and sample < measured:
        by = f" by a random sample of {sample} queries"
    if bundle.is_imported:
        on = f"all {measured} performances of {data}"
        if left_out:
            on = f"{measured} performances of {data}, without the {left_out} that calibrated it"
        return (
            f"Measured{by} on {on}; it is not known here which works the model learnt from, and "
            "those flatter it."
        )
    if not left_out:
        return f"Measured{by} on all {measured} performances of {data}; none was trained on."
    return (
        f"Measured{by} on the {measured} performances of {data} whose works were held out; "
        f"the {left_out} of works that training has seen took no part."
    )
