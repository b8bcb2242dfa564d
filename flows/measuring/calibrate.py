"""Calibrate a bundle on its validation works: how probable versions are at its distances."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import numpy as np
import numpy.typing as npt
import polars as pl
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from embedding import bundle as bundles
from embedding.bundle import Bundle
from embedding.data.store import FeatureStore
from embedding.metrics.distances import Ints
from flows.workspace import claimed, write_json
from search.versions.alignment import STACK_SECONDS, similarities
from search.versions.calibration import (
    Calibration,
    Logistic,
    Numbers,
    alignment_columns,
    relative,
    usual_distances,
)
from search.versions.reranking import backgrounds, log_similarity

#: Pairs of versions that a fit needs; a pair counts once in each direction.
MIN_VERSION_PAIRS = 40

#: All pairs of this many performances are aligned: 90,000 alignments, which take minutes.
MAX_PERFORMANCES = 300

#: Increase it when the columns or the fit change, so that bundles are calibrated again.
FORMAT = 2

FILE = "calibration.json"


def read_calibration(bundle: Path) -> Calibration | None:
    """Return the calibration of a bundle, or None if it has none.

    Raises
    ------
    ValueError
        If its file is damaged.
    """
    content = _read(bundle)
    return None if content is None else content["calibration"]


def _read(bundle: Path) -> dict[str, Any] | None:
    """Read the file, if there is one of this format; its calibration may be None."""
    try:
        content: dict[str, Any] = json.loads((bundle / FILE).read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            return None
        if content["calibration"] is not None:
            content["calibration"] = Calibration.from_json(content["calibration"])
        return content
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{bundle / FILE} is damaged: delete it and train again.") from error


@task(cache_policy=NO_CACHE)
def calibrate(bundle: Path, features: Path | None) -> None:
    """Fit the calibration of a bundle on its validation works, unless it is already calibrated.

    The encoder was not fitted on these works, so the distances between them are like those between
    new performances. If they have too few versions, the bundle gets no calibration. `features` are
    those of the validation works; with them, alignments are calibrated too.
    """
    logger = get_run_logger()
    with claimed(bundle):
        if _read(bundle) is not None:
            return
        loaded = bundles.load(bundle)
        calibration = fit(loaded, None if features is None else FeatureStore.open(features))
        content = None if calibration is None else asdict(calibration)
        write_json(bundle / FILE, {"format": FORMAT, "calibration": content})
    if calibration is None:
        logger.warning(
            "%s gives no probabilities, because its validation works have too few versions",
            loaded.id,
        )
    else:
        logger.info("calibrated %s", loaded.id)


def fit(bundle: Bundle, store: FeatureStore | None) -> Calibration | None:
    """Fit a calibration on the validation performances of a bundle; None if they are too few.

    Alignments are calibrated on the validation performances that have a sequence in `store`.
    """
    validation, seed = bundle.training.validation, bundle.training.seed
    performances = draw_performances(validation, seed)
    if not has_enough_versions(performances["work_id"]):
        return None
    pairs = _pairs(performances)
    by_distance = _fit_logistic(pairs.distance[:, None], pairs.same_work)
    if store is None or (rate := store.chroma_rate) is None:
        return Calibration(by_distance)
    performances = draw_performances(with_sequence(validation, store), seed)
    if not has_enough_versions(performances["work_id"]):
        return Calibration(by_distance)
    pairs = _pairs(performances)
    sequences = [store.sequence(row) for row in performances["row"]]
    background = backgrounds(sequences, rate).astype(np.float64)
    with ThreadPoolExecutor(joblib.cpu_count()) as threads:  # compiled code releases the GIL
        rows = threads.map(lambda query: similarities(query, sequences, rate)[0], sequences)
        similarity = np.stack(list(rows))
    columns = alignment_columns(
        pairs.distance,
        log_similarity(similarity[pairs.query, pairs.match]),
        background[pairs.query],
        background[pairs.match],
        float(background[:, 0].mean()),
    )
    return Calibration(by_distance, _fit_logistic(columns, pairs.same_work))


def draw_performances(performances: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Draw whole works at random, up to `MAX_PERFORMANCES`, and return them in random order.

    A work with more performances than that is left out. The table needs a column work_id.
    """
    rng = np.random.default_rng(seed)
    drawn = [performances.clear()]
    count = 0
    for work in rng.permutation(performances["work_id"].unique().sort().to_numpy()):
        versions = performances.filter(work_id=str(work))
        if len(versions) > MAX_PERFORMANCES:
            continue
        count += len(versions)
        if count > MAX_PERFORMANCES:
            break
        drawn.append(versions)
    # The order is random because the first performances become the references of the backgrounds.
    table: pl.DataFrame = pl.concat(drawn)
    return table.select(pl.all().gather(rng.permutation(len(table))))


def has_enough_versions(work_ids: pl.Series) -> bool:
    """Whether performances of these works, one id per performance, suffice for a fit."""
    sizes = work_ids.value_counts()["count"]
    return len(sizes) > 1 and (sizes * (sizes - 1)).sum() >= MIN_VERSION_PAIRS


def with_sequence(performances: pl.DataFrame, store: FeatureStore) -> pl.DataFrame:
    """Return the performances that can be aligned, with their `row` in the store."""
    if store.chroma_rate is None:
        return performances.clear().with_columns(row=pl.lit(None, dtype=pl.UInt32))
    rows = store.table.with_row_index("row")
    rows = rows.filter(pl.col("chroma_frames") >= STACK_SECONDS * store.chroma_rate)
    return performances.join(rows.select("track_id", "row"), on="track_id", maintain_order="left")


class _Pairs(NamedTuple):
    """All pairs of performances, in both directions; every array has shape=(pairs,)."""

    query: Ints  # row of the one performance
    match: Ints  # row of the other
    same_work: npt.NDArray[np.bool_]
    distance: Numbers  # relative


def _pairs(performances: pl.DataFrame) -> _Pairs:
    works, vectors = performances["work_id"].to_numpy(), performances["vector"].to_numpy()
    query, match = np.nonzero(~np.eye(len(works), dtype=bool))
    usual = usual_distances(vectors)
    distance = np.linalg.norm(vectors[query].astype(np.float64) - vectors[match], axis=1)
    distance = relative(distance, usual[query], usual[match])
    return _Pairs(query, match, works[query] == works[match], distance)


def _fit_logistic(columns: np.ndarray, same_work: np.ndarray) -> Logistic:
    """Fit with the same weight for both kinds of pairs, so that log odds are log ratios."""
    scaler = StandardScaler().fit(columns)
    model = LogisticRegression(C=100, class_weight="balanced", max_iter=1000)
    model.fit(scaler.transform(columns), same_work)
    weights = model.coef_[0] / scaler.scale_
    return Logistic(tuple(weights.tolist()), float(model.intercept_[0] - weights @ scaler.mean_))
