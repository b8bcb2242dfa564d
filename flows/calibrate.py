"""A bundle's validation works -> its calibration: how far to trust its distances."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from embedding import bundle as bundles
from embedding.bundle import Bundle
from embedding.store import FeatureStore
from flows.workspace import claimed
from search.alignment import STACK_SECONDS, similarities
from search.calibration import (
    Calibration,
    Logistic,
    alignment_columns,
    relative,
    usual_distances,
)
from search.reranking import backgrounds, log_similarity

#: Pairs of one work that a fit needs, each way round.
NEEDED = 40

#: All pairs of so many validation performances are compared: 90,000 alignments, some minutes.
AT_MOST = 300

#: Counted up when the columns or the fit change, so that bundles are calibrated anew.
FORMAT = 1

FILE = "calibration.json"


def read_calibration(bundle: Path) -> Calibration | None:
    """Return a bundle's calibration; None if it has none.

    Raises
    ------
    ValueError
        If its file is damaged.
    """
    content = _content(bundle)
    try:
        found = None if content is None else content["calibration"]
        return None if found is None else Calibration.from_json(found)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{bundle / FILE} is damaged: delete it, and train again.") from error


def _content(bundle: Path) -> dict[str, Any] | None:
    """What the file holds, if there is one that this version made."""
    try:
        content: dict[str, Any] = json.loads((bundle / FILE).read_text(encoding="utf-8"))
        return content if content["format"] == FORMAT else None
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{bundle / FILE} is damaged: delete it, and train again.") from error


@task(cache_policy=NO_CACHE)
def calibrate(bundle: Path, features: Path) -> None:
    """Fit the calibration of a bundle on the works that chose it, unless it stands.

    They took no part in fitting the encoder, so its distances between them are as they will be
    between performances it has never met. With too few versions among them, there is none.

    Parameters
    ----------
    bundle : Path
        What `train` made.
    features : Path
        What it was trained on.
    """
    logger = get_run_logger()
    with claimed(bundle):
        if _content(bundle) is not None:
            return
        made = bundles.load(bundle)
        found = fit(made, FeatureStore.open(features))
        content = {"format": FORMAT, "calibration": None if found is None else asdict(found)}
        scratch = bundle / f".{FILE}.new"
        scratch.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        scratch.replace(bundle / FILE)
    if found is None:
        logger.warning(
            "%s tells no probabilities: too few versions among its validation works", made.id
        )
    else:
        logger.info("calibrated %s", made.id)


def fit(bundle: Bundle, store: FeatureStore) -> Calibration | None:
    """Fit the calibration of a bundle on its validation works in a store; None with too few."""
    store, vectors = _validation(bundle, store)
    works = store.table["work_id"].to_numpy()
    pairs = ~np.eye(len(store), dtype=bool)
    one_work = (works[:, None] == works)[pairs]
    if one_work.sum() < NEEDED or one_work.all():
        return None
    usual = usual_distances(vectors)
    first, second = np.nonzero(pairs)
    distance = np.linalg.norm(vectors[first].astype(np.float64) - vectors[second], axis=1)
    near = relative(distance, usual[first], usual[second])
    by_distance = _logistic(near[:, None], one_work)
    rate = store.chroma_rate
    sequences = [store.sequence(i) for i in range(len(store))]
    if rate is None or min(map(len, sequences)) < STACK_SECONDS * rate:
        return Calibration(by_distance)
    background = backgrounds(sequences, rate).astype(np.float64)
    with ThreadPoolExecutor(os.cpu_count()) as threads:  # what is compiled lets others run
        rows = threads.map(lambda each: similarities(each, sequences, rate)[0], sequences)
        similarity = np.stack(list(rows))
    columns = alignment_columns(
        near,
        log_similarity(similarity[pairs]),
        background[first],
        background[second],
        float(background[:, 0].mean()),
    )
    return Calibration(by_distance, _logistic(columns, one_work))


def _validation(bundle: Bundle, store: FeatureStore) -> tuple[FeatureStore, np.ndarray]:
    """The validation performances and their vectors, of some works where there are very many."""
    rng = np.random.default_rng(bundle.training.seed)
    known = bundle.training.validation.join(
        store.table.select("track_id").with_row_index("row"), on="track_id"
    )
    chosen: list[pl.DataFrame] = []
    count = 0
    for work in rng.permutation(known["work_id"].unique().sort().to_numpy()):
        performances = known.filter(work_id=str(work))
        count += len(performances)
        if count > AT_MOST:
            break
        chosen.append(performances)
    # In no order, so that the first of them are references as good as any.
    table = pl.concat([known.clear(), *chosen])
    table = table[rng.permutation(len(table)).tolist()]
    return store.select(table["row"].to_list()), table["vector"].to_numpy()


def _logistic(columns: np.ndarray, one_work: np.ndarray) -> Logistic:
    """Fit with both kinds of pairs weighing the same: then the log odds are the log ratio."""
    scale = StandardScaler().fit(columns)
    model = LogisticRegression(C=100, class_weight="balanced", max_iter=1000)
    model.fit(scale.transform(columns), one_work)
    weights = model.coef_[0] / scale.scale_
    return Logistic(tuple(weights.tolist()), float(model.intercept_[0] - weights @ scale.mean_))
