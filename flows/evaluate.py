"""vectors.parquet -> metrics.json and plots, on works that the encoder has not seen.

What is found out about each performance is also written into the published collection, where
searches can filter by it.
"""

import json
from pathlib import Path
from typing import Any

import polars as pl
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

import search
from embedding import bundle as bundles
from embedding.bundle import Bundle
from embedding.data.store import FeatureStore
from embedding.metrics.cliques import NothingToMeasure, group
from embedding.metrics.distances import Euclidean
from embedding.metrics.hubness import hubness
from embedding.metrics.quality import quality
from embedding.metrics.retrieval import retrieval
from embedding.metrics.separation import separation
from flows import alert, plots
from flows.collection.points import points_of
from flows.collection.vectors import origin, read, told
from flows.measuring.calibrate import read_calibration
from flows.measuring.report import evaluation_tables
from flows.measuring.trial import measure_search
from flows.publish import RETRIES
from flows.show import show_page
from flows.workspace import Workspace, write_json
from search.fields import RESULTS

#: Increase it when a metric or a plot changes, so that evaluations are made again.
VERSION = 6

#: Columns of quality.csv that are known without measuring anything.
KNOWN_COLUMNS = {
    "track_id": pl.String,
    "work_id": pl.String,
    "title": pl.String,
    "artist": pl.String,
}

#: Columns of quality.csv, in which the most suspicious performance comes first.
QUALITY_COLUMNS = KNOWN_COLUMNS | {
    "nearest_cover": pl.Int64,
    "clique_distance": pl.Float64,
    "outlier": pl.Boolean,
}

#: Beyond this number of performances, comparing all pairs takes hours, so the caller has to choose
#: a number of queries.
MAX_EXACT = 100_000


def _run_name() -> str:
    vectors = flow_run.parameters.get("vectors")
    return f"evaluate {told(Path(vectors)) if vectors else 'the latest vectors'}"


@alert.flow("evaluate", _run_name)
def evaluate(
    vectors: Path | None = None, home: Path | None = None, sample: int | None = None
) -> dict[str, Any]:
    """Measure how well the distances between vectors find versions and separate cliques.

    Works that the bundle was trained or validated on are left out, both as queries and as
    candidates. So the encoder knows the others as little as a user's next performance. The quality
    of each performance is written into the published collection, if that was made with the same
    bundle.

    Parameters
    ----------
    vectors : Path, optional
        A result of `embed`; by default the latest.
    home : Path, optional
        The workspace; by default `$COVERS_HOME`.
    sample : int, optional
        Number of random queries to measure retrieval with, and of random performances to measure
        separation with. All performances stay candidates. By default all are queries.

    Returns
    -------
    dict
        `metrics` by name, `intervals` (95 %, by resampling cliques), `measured_on`, `outliers`
        (number of performances that are too far from their versions; only without a sample) and
        `paths`.

    Raises
    ------
    ValueError
        If there are more than `MAX_EXACT` performances and no sample is chosen.
    """
    workspace = Workspace.at(home)
    with workspace.used():
        vectors = vectors or workspace.latest("vectors")
        directory = measure(vectors, workspace.root, sample)
        metrics, table = directory / "metrics.json", directory / "quality.csv"
        result: dict[str, Any] = json.loads(metrics.read_text(encoding="utf-8"))
        if table.exists():
            write_back(table, result["measured_on"]["bundle"], workspace.root)
        figures = sorted(directory.glob("*.png"))
        measured_on = result["measured_on"]
        name = "metrics", measured_on["data"], measured_on["bundle"].rpartition("-")[0]
        show_page(name, measured_on["summary"], evaluation_tables(result), figures)
    quality_path = {"quality": str(table)} if table.exists() else {}
    plot_paths = [str(figure) for figure in figures]
    result["paths"] = {"metrics": str(metrics)} | quality_path | {"plots": plot_paths}
    return result


@task(cache_policy=NO_CACHE)
def measure(vectors: Path, home: Path, sample: int | None) -> Path:
    """Compute the metrics and draw the plots, unless this has been done for the same vectors."""
    workspace = Workspace(home)
    made_with = origin(vectors)
    bundle_path = workspace.resolve(made_with["bundle"])
    bundle = bundles.load(bundle_path)

    def make(directory: Path) -> None:
        table, left_out = select_performances(read(vectors), bundle, vectors)
        check_sample(len(table), sample)
        features = made_with.get("features")
        store = None if features is None else FeatureStore.open(workspace.resolve(features))
        calibration = read_calibration(bundle_path)
        points = points_of(table, store, calibration, complete=not bundle.is_imported)
        measured_on = {
            "data": made_with["data"],
            "bundle": bundle.id,
            "performances": len(table),
            "left_out": left_out,
            "sample": sample,
            "summary": _summary(bundle, made_with["data"], len(table), left_out, sample),
        }
        about = f"{made_with['data']}, {len(table)} performances", bundle.id
        result = _measure_vectors(table, points, sample, directory, about)
        result |= {"measured_on": measured_on} | measure_search(points, bundle.id, directory)
        write_json(directory / "metrics.json", result)
        if "certainty" in result:
            drawn = plots.reliability(result["certainty"])
            plots.save(drawn, directory / "reliability.png", *about)
        curve = bundle.training.loss_curve
        # What was trained elsewhere was not trained on anything that is known here.
        if bundle.encoder and len(curve) and bundle_path.is_relative_to(workspace.root):
            drawn, trained_on = plots.loss_curve(curve, bundle.encoder.loss), bundle.training.data
            plots.save(drawn, directory / "loss.png", f"trained on {trained_on}", bundle.id)

    about = {"vectors": workspace.relative(vectors)}
    made_of = (VERSION, bundle.id, about["vectors"], sample)
    return workspace.result("evaluations", vectors.parent.name, made_of, make, about)


def select_performances(
    table: pl.DataFrame, bundle: Bundle, vectors: Path
) -> tuple[pl.DataFrame, int]:
    """Return the performances of works that the bundle has not seen, and the number of others."""
    seen = table["work_id"].is_in(bundle.seen_works.implode())
    if seen.all():
        raise NothingToMeasure(
            f"{bundle.id} was trained on every work of {vectors}, so nothing can be measured "
            "fairly: train on other works, or keep some out of training with --hold-out."
        )
    return table.filter(~seen), int(seen.sum())


def why_nothing(vectors: Path, home: Path) -> str | None:
    """Say why nothing can be measured of these vectors; None if something can."""
    bundle = bundles.load(Workspace(home).resolve(origin(vectors)["bundle"]))
    try:
        table, _ = select_performances(read(vectors), bundle, vectors)
        if len(group(table["work_id"], table["track_id"]).works) > 1:
            return None
        why = "All performances that could be measured are of one work."
    except NothingToMeasure as error:
        why = str(error)
    return (
        f"Nothing is measured. {why} With labels (two performances of a work, and of two works), "
        "the pipeline says how often versions are found first, how far distances separate works, "
        "and how far probabilities can be trusted."
    )


def _measure_vectors(
    table: pl.DataFrame,
    points: search.Points,
    sample: int | None,
    directory: Path,
    about: tuple[str, ...],
) -> dict[str, Any]:
    """Measure retrieval and separation, and write the tables and plots about them."""
    works, tracks = table["work_id"].to_list(), table["track_id"].to_list()
    vectors = table["vector"].to_numpy()
    distances = Euclidean(vectors)
    ranked = retrieval(distances, works, tracks, sample)
    separated = separation(distances, works, tracks, sample)
    ranked.per_query.write_parquet(directory / "queries.parquet")
    separated.per_clique.write_parquet(directory / "cliques.parquet")
    plots.save(plots.separation(separated), directory / "separation.png", *about)
    plots.save(plots.collection_map(vectors, works), directory / "performances.png", *about)
    result: dict[str, Any] = {
        "metrics": ranked.summary()
        | separated.summary()
        | {"hubness": hubness(distances, tracks, sample)},
        "intervals": ranked.intervals() | separated.intervals,
    }
    if sample is None or sample >= len(table):
        judged = quality(ranked, separated)
        result["outliers"] = int(judged["outlier"].sum())
        _quality_table(points, judged).write_csv(directory / "quality.csv")
    return result


def _quality_table(points: search.Points, judged: pl.DataFrame) -> pl.DataFrame:
    """Make quality.csv. Performances without versions come last, because they are not judged."""
    known = pl.DataFrame(
        [{name: payload.get(name) for name in KNOWN_COLUMNS} for payload in points.payloads],
        schema=KNOWN_COLUMNS,
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
        .select(*QUALITY_COLUMNS)
    )


@task(cache_policy=NO_CACHE, **RETRIES)
def write_back(table: Path, bundle: str, home: Path) -> int:
    """Write quality.csv into the published collection if `bundle` made it; return the count."""
    rows = pl.read_csv(table, schema=QUALITY_COLUMNS).select("track_id", *RESULTS)
    results = {row.pop("track_id"): row for row in rows.to_dicts()}
    count = search.connect(home=home).annotate(results, bundle)
    if count:
        get_run_logger().info("wrote the quality of %d performances into the collection", count)
    return count


def check_sample(performances: int, sample: int | None) -> None:
    """Raise ValueError if there are too many performances to compare all pairs unasked."""
    if sample is None and performances > MAX_EXACT:
        raise ValueError(
            f"Comparing all pairs of {performances} performances takes hours: choose a number of "
            f"queries, such as --sample 10000, or --sample {performances} for all."
        )


def _summary(bundle: Bundle, data: str, measured: int, left_out: int, sample: int | None) -> str:
    """Say in a sentence what was measured, and on what."""
    sampled = sample is not None and sample < measured
    how = f"Measured with a random sample of {sample} queries" if sampled else "Measured"
    if bundle.is_imported:
        where = f"all {measured} performances of {data}"
        if left_out:
            where = f"{measured} performances of {data}, without the {left_out} that calibrated it"
        return (
            f"{how} on {where}. It is not known which works the model was trained on; for those, "
            "the figures are too good."
        )
    if not left_out:
        return f"{how} on all {measured} performances of {data}; none was used for training."
    return (
        f"{how} on the {measured} performances of {data} whose works were held out; the "
        f"{left_out} performances of the training works were left out."
    )
