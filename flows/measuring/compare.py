"""Every encoder and its peers, side by side: one table, measured on the same performances."""

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from prefect import flow, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from embedding import bundle as bundles
from embedding.data import store
from embedding.data.store import FeatureStore
from embedding.encoders.registry import ENCODERS, encoder_class
from embedding.metrics import peers
from embedding.metrics.cliques import group
from embedding.metrics.distances import DistanceMatrix, Distances, Euclidean
from embedding.metrics.retrieval import bootstrap_interval, retrieval
from embedding.metrics.separation import separation
from embedding.splits import split_works
from flows import alert, plots
from flows.aggregate import aggregate
from flows.collection.points import points_of
from flows.collection.vectors import read
from flows.embed import embed_features
from flows.measuring.calibrate import calibrate, read_calibration
from flows.measuring.trial import QUERIES, ask, published, rankings
from flows.pipeline import HELD_OUT
from flows.show import show_figures
from flows.train import train_encoder
from flows.workspace import Workspace

#: Counted up when a row, a metric's definition or the plot changes, so that it is computed anew.
VERSION = 2


@dataclass(frozen=True)
class Peer:
    """A measure that nothing is trained for."""

    name: str
    distances: Callable[[FeatureStore], Distances]


@dataclass(frozen=True)
class Trained:
    """An encoder's vectors, and what ranks by them."""

    name: str
    encoder: str
    distances: Callable[[FeatureStore, np.ndarray, Path], Distances] = (
        lambda _store, vectors, _bundle: Euclidean(vectors)
    )


def reranked(store: FeatureStore, vectors: np.ndarray, bundle: Path) -> DistanceMatrix:
    """Return the ranks that `search` answers with, as distances from each query."""
    if len(store) > QUERIES:
        raise ValueError(
            f"re-ranking {len(store)} performances for each other takes hours: compare at most "
            f"{QUERIES}, or see what `covers evaluate` says of a sample of them"
        )
    rows = store.table.select("track_id", "work_id").with_columns(
        vector=pl.Series(vectors, dtype=pl.Array(pl.Float32, vectors.shape[1]))
    )
    points = points_of(rows, store, read_calibration(bundle))
    ranks = np.zeros((len(store), len(store)))
    with (
        tempfile.TemporaryDirectory() as scratch,
        published(points, bundle.name, Path(scratch)) as searcher,
    ):
        answers = ask(searcher, points.track_ids)
    for row, ranking in rankings(answers.reranked, points):
        ranks[row, ranking] = np.arange(1, len(ranking) + 1)
    # Points are in the order of their track ids.
    place = {track_id: i for i, track_id in enumerate(points.track_ids)}
    order = [place[track_id] for track_id in store.table["track_id"]]
    return DistanceMatrix(ranks[np.ix_(order, order)])


#: The table, from knowing nothing to knowing all.
ROWS: tuple[Peer | Trained, ...] = (
    Peer("chance", peers.chance),
    Peer("track length", peers.track_length),
    Peer("raw means", peers.raw_means),
    Trained("K-Means", "means", lambda _store, vectors, _bundle: peers.same_cluster(vectors)),
    Peer("OTI mean chroma", peers.mean_chroma),
    Peer("2DFTM", peers.fourier_magnitudes),
    Peer("SiMPle", peers.simple),
    Peer("Qmax", peers.qmax),
    Peer("Dmax", peers.dmax),
    *(Trained(name, name) for name in ENCODERS),
    Trained("version, re-ranked", "version", reranked),
)

#: The columns of comparison.parquet. Of several seeds, `seed` is the one with the median MAP and
#: all figures but `map_min` and `map_max` are its own; `why_not` says why there are none.
COLUMNS: dict[str, Any] = {
    "row": pl.String,
    "map": pl.Float64,
    "map_low": pl.Float64,  # 95 %, by resampling cliques
    "map_high": pl.Float64,
    "map_min": pl.Float64,  # over the seeds
    "map_max": pl.Float64,
    "mr1": pl.Float64,
    "hits@1": pl.Float64,
    "auc": pl.Float64,
    "dimension": pl.Int64,
    "seconds": pl.Float64,  # to train the encoder, or to compute the distances
    "seeds": pl.Int64,
    "seed": pl.Int64,
    "why_not": pl.String,
}


@flow(name="compare", flow_run_name="compare {data}", **alert.WATCHED)
def compare(
    data: Path,
    training_data: Path | None = None,
    seeds: int = 3,
    config: dict[str, dict[str, Any]] | None = None,
    frame_rate: float | None = None,
    home: Path | None = None,
) -> dict[str, Any]:
    """Measure every row of the table on the same performances, of works no encoder has seen.

    A row that fails says why and doesn't stop the others. Finished rows stand: a run that is
    killed goes on after them, and a second one measures nothing again.

    Parameters
    ----------
    data : Path
        What to measure on: a directory as `embedding.data.dataset.open_dataset` reads it, or the
        prototype's CSV.
    training_data : Path, optional
        What to train on. Without it a share of `data`'s works, and only the others are measured.
    seeds : int
        How many times each encoder is trained, with the seeds 0, 1, …
    config : dict, optional
        Settings that differ from the defaults, by encoder.
    frame_rate : float, optional
        Frames a second, where `data` (and `training_data`) doesn't say it.
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
            learned = set_apart(features, workspace.root)
        else:
            learned = aggregate(training_data, frame_rate=frame_rate, home=home, role=None)
        tracks, measured_on = choose_performances(features, learned, training_data is None)
        get_run_logger().info(measured_on["summary"])
        rows = [
            measure_row(row, features, learned, tracks, seeds, config or {}, workspace.root)
            for row in ROWS
        ]
        place = show(rows, measured_on, workspace.root)
        result: dict[str, Any] = json.loads((place / "comparison.json").read_text(encoding="utf-8"))
        show_figures([place / "comparison.png"])
    create_table_artifact(rows, key="comparison", description=measured_on["summary"])
    result["paths"] = {
        "comparison": str(place / "comparison.json"),
        "table": str(place / "comparison.parquet"),
        "plots": [str(place / "comparison.png")],
    }
    return result


def measure_row(
    row: Peer | Trained,
    features: Path,
    learned: Path,
    tracks: list[str],
    seeds: int,
    config: dict[str, dict[str, Any]],
    home: Path,
) -> dict[str, Any]:
    """Train a row's encoder with each seed and measure it; where that fails, say why."""
    logger = get_run_logger()

    def run(seed: int) -> dict[str, Any]:
        if isinstance(row, Peer):
            return measure(row, features, tracks, None, None, home)
        standing, start = set(home.glob("bundles/*")), time.monotonic()
        bundle = train_encoder(learned, row.encoder, config.get(row.encoder), 0.0, seed, home)
        # How long it took is known only to whoever trained it.
        seconds = None if bundle in standing else round(time.monotonic() - start, 2)
        calibrate(bundle, learned)
        return measure(row, features, tracks, bundle, seconds, home)

    try:
        measured = _of_seeds(
            row.name, [run(seed) for seed in range(seeds if isinstance(row, Trained) else 1)]
        )
        logger.info("%s: %s", row.name, _sentence(measured))
    except Exception as error:  # whatever it is, the other rows are worth having
        measured = dict.fromkeys(COLUMNS) | {"row": row.name, "why_not": _why(error)}
        logger.warning("%s: not measured, as %s", row.name, measured["why_not"])
    return measured


@task(cache_policy=NO_CACHE)
def set_apart(features: Path, home: Path) -> Path:
    """Make a feature store of the works to train on; those held out are `pipeline`'s, seed 0.

    One split for all seeds, so that each is measured on the same works.
    """
    everything = FeatureStore.open(features)

    def make(directory: Path) -> None:
        works = everything.table["work_id"]
        learned = everything.select(
            split_works(works, (1 - HELD_OUT, HELD_OUT), 0, "hold-out") == 0
        )
        store.write(
            directory,
            name=learned.name,
            table=learned.table,
            sequences=(learned.sequence(i) for i in range(len(learned))),
            frame_rate=learned.frame_rate,
        )

    made_of = (everything.fingerprint, HELD_OUT)
    return Workspace(home).result("splits", everything.name, made_of, make)


@task(cache_policy=NO_CACHE)
def choose_performances(
    features: Path, learned: Path, held_out: bool
) -> tuple[list[str], dict[str, Any]]:
    """Which performances every row measures, and what to say of it.

    Those of works that no encoder is trained on, and that each can use; an encoder that can use
    none at all says so in its own row.
    """
    known, seen = FeatureStore.open(features), FeatureStore.open(learned)
    unseen = known.select(~known.table["work_id"].is_in(seen.table["work_id"].unique().implode()))
    unusable: dict[str, str] = {}
    for name in {row.encoder: row for row in ROWS if isinstance(row, Trained)}:
        encoder = encoder_class(name)
        reasons = encoder.unusable(unseen.inputs(encoder.input))
        if len(reasons) < len(unseen):
            unusable |= {unseen.table["track_id"][row]: why for row, why in reasons.items()}
    for track_id, reason in unusable.items():
        get_run_logger().warning("left out %s: %s", track_id, reason)
    table = unseen.table.filter(~pl.col("track_id").is_in(list(unusable)))
    counts = group(table["work_id"], table["track_id"]).counts()
    works = "were held out" if held_out else "are not in the training data"
    summary = (
        f"Measured on {len(table)} of {len(known)} performances of {known.name}: those whose works "
        f"{works}{f', without {len(unusable)} that cannot be used' if unusable else ''}."
        if len(table) < len(known)
        else f"Measured on all {len(known)} performances of {known.name}; none was trained on."
    )
    return table["track_id"].to_list(), {
        "data": known.name,
        "trained_on": seen.name,
        **counts,
        "seen": len(known) - len(unseen),
        "unusable": len(unusable),
        "summary": summary,
    }


@task(cache_policy=NO_CACHE, task_run_name="measure {row.name}")
def measure(
    row: Peer | Trained,
    features: Path,
    tracks: list[str],
    bundle: Path | None,
    seconds: float | None,
    home: Path,
) -> dict[str, Any]:
    """Measure one row with one bundle, unless that stands.

    Parameters
    ----------
    row : Peer or Trained
        What to measure.
    features : Path
        Where the performances are.
    tracks : list of str
        Which of them to measure.
    bundle : Path, optional
        The trained encoder of a `Trained`.
    seconds : float, optional
        How long it was trained, if that is known. A `Peer`'s computing is timed here.
    home : Path
        The workspace.
    """
    everything = FeatureStore.open(features)
    chosen = everything.select(everything.table["track_id"].is_in(tracks))  # in their order
    works = chosen.table["work_id"].to_list()
    made_with = bundles.load(bundle) if bundle else None
    workspace = Workspace(home)

    def make(directory: Path) -> None:
        start, took = time.perf_counter(), seconds
        if isinstance(row, Peer):
            distances = row.distances(chosen)
            took = round(time.perf_counter() - start, 2)
        elif bundle is None:
            raise ValueError(f"{row.name} needs a bundle of {row.encoder}")
        else:
            vectors = _vectors(row, features, bundle, tracks, works, home)
            distances = row.distances(chosen, vectors, bundle)
        found = retrieval(distances, works, tracks)
        queries = found.per_query
        several = queries["work_id"].n_unique() > 1
        low, high = (
            bootstrap_interval(queries["ap"], queries["work_id"], seed=0)
            if several
            else (None, None)
        )
        # A pair whose distance depends on the direction has no place among the others.
        apart = separation(distances, works, tracks) if distances.symmetric else None
        figures = {
            "map": found.map,
            "map_low": low,
            "map_high": high,
            "mr1": found.mr1,
            "hits@1": found.hits_at_1,
            "auc": apart and apart.auc,
            "dimension": distances.dimension if isinstance(distances, Euclidean) else None,
            "seconds": took,
            "seed": made_with and made_with.training.seed,
        }
        queries.write_parquet(directory / "queries.parquet")
        (directory / "row.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")

    name = row.name.lower().replace(",", "").replace(" ", "-")
    made_of = (VERSION, row.name, chosen.fingerprint, made_with and made_with.id)
    about = {} if bundle is None else {"bundle": workspace.relative(bundle)}
    place = workspace.result("comparisons/rows", name, made_of, make, about)
    figures: dict[str, Any] = json.loads((place / "row.json").read_text(encoding="utf-8"))
    return figures


def _vectors(
    row: Trained,
    features: Path,
    bundle: Path,
    tracks: list[str],
    works: list[str],
    home: Path,
) -> np.ndarray:
    """The vectors of these performances, in their order."""
    if seen := set(works) & set(bundles.load(bundle).seen_works):
        raise ValueError(f"{row.encoder} has seen {len(seen)} of the works, such as {min(seen)}")
    table = read(embed_features(features, bundle, home))
    found = pl.DataFrame({"track_id": tracks}).join(
        table, on="track_id", how="left", maintain_order="left"
    )
    if missing := found["vector"].null_count():
        raise ValueError(f"{row.encoder} cannot use {missing} of the {len(tracks)} performances")
    return found["vector"].to_numpy()


@task(cache_policy=NO_CACHE)
def show(rows: list[dict[str, Any]], measured_on: dict[str, Any], home: Path) -> Path:
    """Write the table and draw it, unless the same one stands."""

    def make(directory: Path) -> None:
        table = pl.DataFrame(rows, schema=COLUMNS)
        table.write_parquet(directory / "comparison.parquet")
        text = json.dumps({"rows": rows, "measured_on": measured_on}, indent=1, ensure_ascii=False)
        (directory / "comparison.json").write_text(text + "\n", encoding="utf-8")
        plots.save(plots.comparison(table), directory / "comparison.png")

    return Workspace(home).result("comparisons", "", (VERSION, rows, measured_on), make)


def _of_seeds(name: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The run of median MAP, the lower of two, and the spread over all."""
    ordered = sorted(runs, key=lambda each: each["map"])
    least, most = (ordered[0]["map"], ordered[-1]["map"]) if len(runs) > 1 else (None, None)
    row = {
        "row": name,
        **ordered[(len(runs) - 1) // 2],
        "map_min": least,
        "map_max": most,
        "seeds": len(runs),
        "why_not": None,
    }
    return {column: row[column] for column in COLUMNS}


def _sentence(row: dict[str, Any]) -> str:
    interval = "" if row["map_low"] is None else f" ({row['map_low']:.3f}-{row['map_high']:.3f})"
    return f"MAP {row['map']:.3f}{interval}, MR1 {row['mr1']:.1f}"


def _why(error: Exception) -> str:
    """Its first line, or its name where it says nothing."""
    return str(error).strip().split("\n")[0] or type(error).__name__
