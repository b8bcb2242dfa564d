"""A bundle's validation works -> its calibration: how far to trust its distances."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

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
from flows.workspace import claimed
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
def calibrate(bundle: Path, features: Path | None) -> None:
    """Fit the calibration of a bundle on its validation works, unless it has one.

    They took no part in fitting the encoder, so its distances between them are as they will be
    between performances it has never met. With too few versions among them, there is none.

    Parameters
    ----------
    bundle : Path
        What `train` made, or `imported.bring_in`.
    features : Path or None
        Of its validation works, for a calibration of alignments too.
    """
    logger = get_run_logger()
    with claimed(bundle):
        if _content(bundle) is not None:
            return
        made = bundles.load(bundle)
        found = fit(made, None if features is None else FeatureStore.open(features))
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


def fit(bundle: Bundle, store: FeatureStore | None) -> Calibration | None:
    """Fit the calibration of a bundle on its validation performances; None with too few.

    Parameters
    ----------
    bundle : Bundle
        Its validation performances come with their vectors.
    store : FeatureStore or None
        Those that have a sequence in it calibrate alignments, if they are enough.
    """
    seed = bundle.training.seed
    known = sample(bundle.training.validation, seed)
    if not are_enough(known["work_id"]):
        return None
    pairs = _Pairs.of(known)
    by_distance = _logistic(pairs.near[:, None], pairs.one_work)
    if store is None or (rate := store.chroma_rate) is None:
        return Calibration(by_distance)
    known = sample(heard(bundle.training.validation, store), seed)
    if not are_enough(known["work_id"]):
        return Calibration(by_distance)
    pairs = _Pairs.of(known)
    sequences = [store.sequence(row) for row in known["row"]]
    background = backgrounds(sequences, rate).astype(np.float64)
    with ThreadPoolExecutor(joblib.cpu_count()) as threads:  # what is compiled lets others run
        rows = threads.map(lambda each: similarities(each, sequences, rate)[0], sequences)
        similarity = np.stack(list(rows))
    columns = alignment_columns(
        pairs.near,
        log_similarity(similarity[pairs.first, pairs.second]),
        background[pairs.first],
        background[pairs.second],
        float(background[:, 0].mean()),
    )
    return Calibration(by_distance, _logistic(columns, pairs.one_work))


def sample(validation: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Choose the performances of some works where there are very many; in a random order.

    Parameters
    ----------
    validation : pl.DataFrame
        Of each performance, at least work_id. A work of more than `AT_MOST` is left out.
    seed : int
        Of the choice and the order.
    """
    rng = np.random.default_rng(seed)
    chosen = [validation.clear()]
    count = 0
    for work in rng.permutation(validation["work_id"].unique().sort().to_numpy()):
        performances = validation.filter(work_id=str(work))
        if len(performances) > AT_MOST:
            continue
        count += len(performances)
        if count > AT_MOST:
            break
        chosen.append(performances)
    # In no order, so that the first of them are references as good as any.
    table: pl.DataFrame = pl.concat(chosen)
    return table.select(pl.all().gather(rng.permutation(len(table))))


def are_enough(works: pl.Series) -> bool:
    """Whether performances of these works, one id each, have versions enough for a fit."""
    sizes = works.value_counts()["count"]
    return len(sizes) > 1 and (sizes * (sizes - 1)).sum() >= NEEDED


def heard(validation: pl.DataFrame, store: FeatureStore) -> pl.DataFrame:
    """Return those with a sequence that can be aligned, and the `row` of the store that has it."""
    if store.chroma_rate is None:
        return validation.clear().with_columns(row=pl.lit(None, dtype=pl.UInt32))
    rows = store.table.with_row_index("row")
    rows = rows.filter(pl.col("chroma_frames") >= STACK_SECONDS * store.chroma_rate)
    return validation.join(rows.select("track_id", "row"), on="track_id", maintain_order="left")


@dataclass(frozen=True)
class _Pairs:
    """All pairs of some performances, each way round.

    Attributes
    ----------
    first, second : np.ndarray, shape=(pairs,)
        Rows of the two.
    one_work : np.ndarray of bool, shape=(pairs,)
        Whether they are versions.
    near : np.ndarray, shape=(pairs,)
        Their relative distance.
    """

    first: Ints
    second: Ints
    one_work: npt.NDArray[np.bool_]
    near: Numbers

    @classmethod
    def of(cls, performances: pl.DataFrame) -> Self:
        works, vectors = performances["work_id"].to_numpy(), performances["vector"].to_numpy()
        first, second = np.nonzero(~np.eye(len(works), dtype=bool))
        usual = usual_distances(vectors)
        distance = np.linalg.norm(vectors[first].astype(np.float64) - vectors[second], axis=1)
        near = relative(distance, usual[first], usual[second])
        return cls(first, second, works[first] == works[second], near)


def _logistic(columns: np.ndarray, one_work: np.ndarray) -> Logistic:
    """Fit with both kinds of pairs weighing the same: then the log odds are the log ratio."""
    scale = StandardScaler().fit(columns)
    model = LogisticRegression(C=100, class_weight="balanced", max_iter=1000)
    model.fit(scale.transform(columns), one_work)
    weights = model.coef_[0] / scale.scale_
    return Logistic(tuple(weights.tolist()), float(model.intercept_[0] - weights @ scale.mean_))
