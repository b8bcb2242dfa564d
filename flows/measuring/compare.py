"""Measure every encoder, and measures from the literature, on the same performances."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from embedding import bundle as bundles
from embedding.bundle import PRETRAINED, PRETRAINED_NAME
from embedding.data import store
from embedding.data.store import FeatureStore
from embedding.encoders.registry import ENCODERS, encoder_class
from embedding.errors import first_line
from embedding.metrics.cliques import group
from embedding.metrics.distances import Euclidean
from embedding.metrics.hubness import hubness
from embedding.metrics.retrieval import Retrieval, retrieval
from embedding.metrics.separation import separation
from embedding.splits import split_works
from flows import alert, plots
from flows.aggregate import aggregate
from flows.collection.points import points_of
from flows.collection.vectors import read
from flows.embed import embed_features
from flows.measuring.calibrate import calibrate, read_calibration
from flows.measuring.rows import ROWS, Row
from flows.measuring.trial import rerank
from flows.pipeline import HELD_OUT
from flows.show import show_page
from flows.train import train_encoder
from flows.workspace import Workspace, write_json

#: Increase it when a row, a metric or the plot changes, so that rows are measured again.
VERSION = 5

#: The columns of comparison.parquet. With several seeds, all figures but `map_min` and `map_max`
#: are those of the seed with the median MAP. A row without figures says `why_not`.
COLUMNS: dict[str, Any] = {
    "row": pl.String,
    "map": pl.Float64,
    "map_low": pl.Float64,  # 95 %, by resampling cliques
    "map_high": pl.Float64,
    "map_min": pl.Float64,  # over the seeds
    "map_max": pl.Float64,
    "mr1": pl.Float64,
    "hits@1": pl.Float64,
    "recall@k": pl.Float64,
    "k": pl.Int64,  # 100, or fewer candidates in a small collection
    "hubness": pl.Float64,
    "auc": pl.Float64,
    "queries": pl.Int64,
    "depth": pl.Int64,  # number of nearest performances that were aligned, in a reranked row
    "dimension": pl.Int64,
    "seconds": pl.Float64,  # to train the encoder, or to compute the distances
    "seeds": pl.Int64,
    "seed": pl.Int64,
    "why_not": pl.String,
}


@dataclass(frozen=True)
class Setup:
    """What all rows share."""

    features: Path  # to measure on
    training: Path  # to train on
    tracks: list[str]  # the performances of `features` to measure
    seeds: int  # number of times to train each encoder
    config: dict[str, dict[str, Any]]  # by encoder, where it differs from the defaults
    home: Path
    #: `Points.backgrounds` of `tracks`, once they are measured; they do not depend on vectors.
    backgrounds: list[np.ndarray] = field(default_factory=list)


@alert.flow("compare", "compare {data}")
def compare(
    data: Path,
    training_data: Path | None = None,
    seeds: int = 3,
    config: dict[str, dict[str, Any]] | None = None,
    frame_rate: float | None = None,
    home: Path | None = None,
) -> dict[str, Any]:
    """Measure every row on the same performances, whose works no encoder was trained on.

    A row that fails says why, and the others go on. Finished rows are kept, so a second run
    measures only what is missing.

    Parameters
    ----------
    data : Path
        The data to measure on: a directory or a CSV table.
    training_data : Path, optional
        The data to train on. By default a share of the works in `data` is used for training, and
        only the other works are measured.
    seeds : int
        Number of times to train each encoder, with the seeds 0, 1, …
    config : dict, optional
        For each encoder, the config that differs from the defaults.
    frame_rate : float, optional
        Frames per second, where the data does not give it.
    home : Path, optional
        The workspace; by default `$COVERS_HOME`.

    Returns
    -------
    dict
        `rows` with the keys of `COLUMNS`, `measured_on` and `paths`.
    """
    if seeds < 1:
        raise ValueError(f"seeds is {seeds}: train each encoder at least once.")
    workspace = Workspace.at(home)
    with workspace.used():
        features = aggregate(data, frame_rate=frame_rate, home=home, role=None)
        if training_data is None:
            training = split_training(features, workspace.root)
        else:
            training = aggregate(training_data, frame_rate=frame_rate, home=home, role=None)
        tracks, measured_on = choose_performances(features, training, training_data is None)
        get_run_logger().info(measured_on["summary"])
        setup = Setup(features, training, tracks, seeds, config or {}, workspace.root)
        rows = [result for row in ROWS for result in measure_with_parts(row, setup)]
        directory = write_table(rows, measured_on, workspace.root)
        figure = directory / "comparison.png"
        table = list(COLUMNS), [[row[column] for column in COLUMNS] for row in rows]
        show_page(("comparison", measured_on["data"]), measured_on["summary"], [table], [figure])
    paths = {
        "comparison": str(directory / "comparison.json"),
        "table": str(directory / "comparison.parquet"),
        "plots": [str(figure)],
    }
    return {"rows": rows, "measured_on": measured_on, "paths": paths}


@task(cache_policy=NO_CACHE)
def split_training(features: Path, home: Path) -> Path:
    """Make a feature store of the training works; `pipeline` holds out the same works for seed 0.

    There is a single split, so that all seeds are measured on the same works.
    """
    everything = FeatureStore.open(features)

    def make(directory: Path) -> None:
        shares = (1 - HELD_OUT, HELD_OUT)
        side = split_works(everything.table["work_id"], shares, 0, "hold-out")
        training = everything.select(side == 0)
        store.write(
            directory,
            name=training.name,
            table=training.table,
            sequences=(training.sequence(i) for i in range(len(training))),
            frame_rate=training.frame_rate,
        )

    made_of = (everything.fingerprint, HELD_OUT)
    return Workspace(home).result("splits", everything.name, made_of, make)


@task(cache_policy=NO_CACHE)
def choose_performances(
    features: Path, training: Path, held_out: bool
) -> tuple[list[str], dict[str, Any]]:
    """Choose the performances that every row measures, and describe them.

    Their works are not trained on, and every encoder can use them. An encoder that can use no
    performance at all is ignored here, and fails in its own row.
    """
    everything, trained_on = FeatureStore.open(features), FeatureStore.open(training)
    seen = everything.table["work_id"].is_in(trained_on.table["work_id"].unique().implode())
    candidates = everything.select(~seen)
    unusable: dict[str, str] = {}
    for name in sorted({row.encoder for row in ROWS if row.encoder in ENCODERS}):
        encoder = encoder_class(name)
        reasons = encoder.unusable(candidates.inputs(encoder.input))
        if len(reasons) < len(candidates):
            unusable |= {candidates.table["track_id"][i]: why for i, why in reasons.items()}
    for track_id, reason in unusable.items():
        get_run_logger().warning("left out %s: %s", track_id, reason)
    table = candidates.table.filter(~pl.col("track_id").is_in(list(unusable)))
    total, name = len(everything), everything.name
    if len(table) == total:
        summary = f"Measured on all {total} performances of {name}; none was used for training."
    else:
        works = "were held out" if held_out else "are not in the training data"
        without = f", without {len(unusable)} that cannot be used" if unusable else ""
        summary = (
            f"Measured on {len(table)} of {total} performances of {name}: those whose works "
            f"{works}{without}."
        )
    return table["track_id"].to_list(), {
        "data": name,
        "trained_on": trained_on.name,
        **group(table["work_id"], table["track_id"]).counts(),
        "seen": int(seen.sum()),
        "unusable": len(unusable),
        "summary": summary,
    }


def measure_with_parts(row: Row, setup: Setup) -> Iterator[dict[str, Any]]:
    """Measure a row and then, with the same encoder, each part of its vectors alone."""
    result = measure_row(row, setup)
    yield result
    if row.encoder is None or row.reranked or result["why_not"] is not None:
        return
    path, _ = bundle_of(row.encoder, setup, 0)
    encoder = bundles.load(path).encoder
    for part in encoder.parts if encoder else ():
        yield measure_row(replace(row, name=f"{row.name}, {part} alone", part=part), setup)


def measure_row(row: Row, setup: Setup) -> dict[str, Any]:
    """Measure a row, with each seed if an encoder has to be trained. If that fails, say why."""
    logger = get_run_logger()
    try:
        if row.encoder is None:
            runs = [measure(row, setup, None, None)]
        else:
            seeds = 1 if row.encoder == PRETRAINED_NAME else setup.seeds
            runs = [
                measure(row, setup, *bundle_of(row.encoder, setup, seed)) for seed in range(seeds)
            ]
        result = summarise_seeds(row.name, runs)
        logger.info("%s: MAP %.3f, MR1 %.1f", row.name, result["map"], result["mr1"])
    except Exception as error:  # whatever the error is, the other rows are useful
        reason = first_line(error)
        result = dict.fromkeys(COLUMNS) | {"row": row.name, "why_not": reason}
        logger.warning("%s is not measured: %s", row.name, reason)
    return result


def bundle_of(encoder: str, setup: Setup, seed: int) -> tuple[Path, float | None]:
    """Train an encoder with a seed; return the bundle, and the seconds if it was trained now."""
    if encoder == PRETRAINED_NAME:
        return PRETRAINED, None
    existing, start = set(setup.home.glob("bundles/*")), time.monotonic()
    config = setup.config.get(encoder)
    bundle = train_encoder(setup.training, encoder, config, 0.0, seed, setup.home)
    seconds = None if bundle in existing else round(time.monotonic() - start, 2)
    calibrate(bundle, setup.training)
    return bundle, seconds


@task(cache_policy=NO_CACHE, task_run_name="measure {row.name}")
def measure(row: Row, setup: Setup, bundle: Path | None, seconds: float | None) -> dict[str, Any]:
    """Measure a row with its trained encoder, if it has one, unless this has been done.

    `seconds` is how long the encoder was trained, if that is known.
    """
    everything = FeatureStore.open(setup.features)
    chosen = everything.select(everything.table["track_id"].is_in(setup.tracks))
    trained = None if bundle is None else bundles.load(bundle)
    workspace = Workspace(setup.home)

    def make(directory: Path) -> None:
        if bundle is None or trained is None:
            figures = measure_distances(row, chosen, chosen, directory)
        else:
            vectors = vectors_of(row, setup, chosen, bundle)
            if row.part and trained.encoder:
                vectors = vectors[:, trained.encoder.parts[row.part]]
            if row.reranked:
                figures = measure_reranking(setup, chosen, vectors, bundle, directory)
            else:
                figures = measure_distances(row, vectors, chosen, directory)
            figures["seconds"] = seconds
            figures["seed"] = None if bundle == PRETRAINED else trained.training.seed
        write_json(directory / "row.json", figures)

    name = row.name.lower().replace(",", "").replace(" ", "-")
    made_of = (VERSION, row.name, chosen.fingerprint, trained and trained.id)
    about = {} if bundle is None else {"bundle": workspace.relative(bundle)}
    directory = workspace.result("comparisons/rows", name, made_of, make, about)
    figures: dict[str, Any] = json.loads((directory / "row.json").read_text(encoding="utf-8"))
    return figures


def vectors_of(row: Row, setup: Setup, chosen: FeatureStore, bundle: Path) -> np.ndarray:
    """Return the vectors of the chosen performances, in their order."""
    seen_works = bundles.load(bundle).seen_works
    if seen := set(chosen.table["work_id"]) & set(seen_works):
        raise ValueError(f"{row.encoder} was trained on {len(seen)} works, such as {min(seen)}")
    table = read(embed_features(setup.features, bundle, setup.home))
    vectors = chosen.table.select("track_id").join(
        table, on="track_id", how="left", maintain_order="left"
    )["vector"]
    if missing := vectors.null_count():
        raise ValueError(f"{row.encoder} cannot use {missing} of {len(chosen)} performances")
    return vectors.to_numpy()


def measure_distances(
    row: Row, source: FeatureStore | np.ndarray, chosen: FeatureStore, directory: Path
) -> dict[str, Any]:
    """Measure the distances that a row computes from a source; write queries.parquet."""
    start = time.perf_counter()
    distances = row.distances(source)
    seconds = round(time.perf_counter() - start, 2)
    works, tracks = chosen.table["work_id"].to_list(), chosen.table["track_id"].to_list()
    dimension = distances.dimension if isinstance(distances, Euclidean) else None
    return {
        **figures_of(retrieval(distances, works, tracks), directory),
        "hubness": hubness(distances, tracks),
        "auc": separation(distances, works, tracks).auc,
        "dimension": dimension,
        "seconds": seconds,
    }


def measure_reranking(
    setup: Setup, chosen: FeatureStore, vectors: np.ndarray, bundle: Path, directory: Path
) -> dict[str, Any]:
    """Measure what `search` answers when it reranks; write queries.parquet."""
    rows = chosen.table.select("track_id", "work_id").with_columns(
        vector=pl.Series(vectors, dtype=pl.Array(pl.Float32, vectors.shape[1]))
    )
    points = points_of(rows, chosen, read_calibration(bundle))
    if points.sequences is None:
        raise ValueError(f"{chosen.name} has no chroma to align")
    setup.backgrounds[:] = [points.backgrounds(*setup.backgrounds)]
    found, depth = rerank(points, bundle.name)
    return {**figures_of(found, directory), "depth": depth}


def figures_of(found: Retrieval, directory: Path) -> dict[str, Any]:
    """Return the columns that are about retrieval; write queries.parquet."""
    found.per_query.write_parquet(directory / "queries.parquet")
    low, high = found.intervals().get("map", (None, None))
    return {
        "map": found.map,
        "map_low": low,
        "map_high": high,
        "mr1": found.mr1,
        "hits@1": found.hits_at_1,
        "recall@k": found.recall_at_k,
        "k": found.k,
        "queries": len(found.per_query),
    }


def summarise_seeds(name: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the run with the median MAP (the lower of two), and the range over all seeds."""
    ordered = sorted(runs, key=lambda run: float(run["map"]))
    result = dict.fromkeys(COLUMNS) | ordered[(len(runs) - 1) // 2]
    if len(runs) > 1:
        result |= {"map_min": ordered[0]["map"], "map_max": ordered[-1]["map"]}
    return result | {"row": name, "seeds": len(runs)}


@task(cache_policy=NO_CACHE)
def write_table(rows: list[dict[str, Any]], measured_on: dict[str, Any], home: Path) -> Path:
    """Write the table and draw it, unless this has been done."""

    def make(directory: Path) -> None:
        table = pl.DataFrame(rows, schema=COLUMNS)
        table.write_parquet(directory / "comparison.parquet")
        write_json(directory / "comparison.json", {"rows": rows, "measured_on": measured_on})
        data, training = measured_on["data"], measured_on["trained_on"]
        about = [
            f"{data}, {measured_on['performances']} performances",
            f"trained on {'other works of ' * (training == data)}{training}",
        ]
        if aligned := [row["depth"] for row in rows if row["depth"]]:
            about.append(f"re-ranked: the nearest {aligned[0]} are aligned")
        plots.save(plots.comparison(table), directory / "comparison.png", *about)

    return Workspace(home).result("comparisons", "", (VERSION, rows, measured_on), make)
