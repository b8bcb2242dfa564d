"""A bundle's validation works -> its calibration: how far to trust its distances."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
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
    found = None if content is None else content["calibration"]
    try:
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
    store = _validation(bundle, store)
    works = store.table["work_id"].to_numpy()
    pairs = ~np.eye(len(store), dtype=bool)
    one_work = (works[:, None] == works)[pairs]
    if one_work.sum() < NEEDED or one_work.all():
        return None
    vectors = bundle.embed(store)
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


def _validation(bundle: Bundle, store: FeatureStore) -> FeatureStore:
    """The validation works, or some at random where there are very many, in no order."""
    works = bundle.training.works.filter(side="validation")["work_id"].to_numpy()
    rng = np.random.default_rng(bundle.training.seed)
    unusable = store.table["track_id"].is_in(list(bundle.unusable(store)))
    rows: list[int] = []
    for work in rng.permutation(works):
        of_work = np.flatnonzero(((store.table["work_id"] == work) & ~unusable).to_numpy())
        if len(rows) + len(of_work) > AT_MOST:
            break
        rows.extend(of_work.tolist())
    return store.select(rng.permutation(rows).astype(int).tolist())


def _logistic(columns: np.ndarray, one_work: np.ndarray) -> Logistic:
    """Fit with both kinds of pairs weighing the same: then the log odds are the log ratio."""
    scale = StandardScaler().fit(columns)
    model = LogisticRegression(C=100, class_weight="balanced", max_iter=1000)
    model.fit(scale.transform(columns), one_work)
    weights = model.coef_[0] / scale.scale_
    return Logistic(tuple(weights.tolist()), float(model.intercept_[0] - weights @ scale.mean_))
