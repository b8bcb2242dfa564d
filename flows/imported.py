"""Import vectors of another model: make a vectors.parquet, and a bundle that stands for the model.

`flows.collection.foreign` says what the file holds.
"""

import hashlib
import logging
from pathlib import Path

import polars as pl

from embedding import bundle as bundles
from embedding.bundle import Training
from embedding.data.store import FeatureStore
from embedding.encoders.encoder import LOSS_CURVE_SCHEMA
from embedding.encoders.imported import ImportedConfig
from embedding.splits import split_works
from flows.collection import foreign
from flows.collection.vectors import IDS, VECTORS
from flows.measuring.calibrate import (
    calibrate,
    draw_performances,
    has_enough_versions,
    with_sequence,
)
from flows.workspace import Workspace

logger = logging.getLogger(__name__)

#: Increased when the same file makes other vectors or another bundle.
VERSION = 2

#: The share of the works that calibrate, and the seed of their choice.
CALIBRATION_SHARE, CALIBRATION_SEED = 0.2, 0


def is_ours(path: Path) -> bool:
    """Whether `embed` or `bring_in` made a file of vectors."""
    try:
        return "bundle_id" in pl.read_parquet_metadata(path)
    except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException):
        return False  # reading the file will say what is wrong


def bring_in(path: Path, features: Path | None, model: str | None, home: Path) -> Path:
    """Import vectors of another model, unless the same were imported before.

    Returns a vectors.parquet, whose metadata name the file and a bundle that cannot embed.
    Performances that the features lack are not re-ranked. The model's name is by default in the
    file's metadata. Vectors of one model can share a collection; those of an unnamed model cannot.

    About a fifth of the works calibrate the distances if they have enough versions, and alignments
    if there are features. `evaluate` leaves these works out.

    Raises
    ------
    FileNotFoundError, ValueError
        As `foreign.read`, or if the features are of other performances.
    """
    workspace = Workspace(home)
    path = path.absolute()
    table = foreign.read(path)
    model = model or pl.read_parquet_metadata(path).get("model")
    file = None if model else str(path)
    config = ImportedConfig(model or path.stem, table["vector"].to_numpy().shape[1], file)
    store = None
    if features is not None:
        features = features.expanduser().resolve()
        store = FeatureStore.open(features)
        _check_features(table, store, path)
    bundle = _bundle(config, table, store, path.stem, workspace)
    calibrate(bundle, features)

    made_with = {
        "bundle": workspace.relative(bundle),
        "bundle_id": bundles.head(bundle).id,
        "data": path.stem,
        "source": str(path),
    }
    if features is not None:
        made_with["features"] = workspace.relative(features)
    if model:
        made_with["model"] = model

    def make(directory: Path) -> None:
        table.write_parquet(directory / VECTORS, metadata=made_with)

    made_of = (VERSION, made_with, _digest(table))
    return workspace.result("vectors", made_with["bundle_id"], made_of, make) / VECTORS


def calibrating(table: pl.DataFrame, store: FeatureStore | None) -> pl.DataFrame:
    """Choose the rows of a table that calibrate; none if they have too few versions.

    Performances with sequences in the store are preferred, because they can calibrate alignments.
    """
    if table["work_id"].n_unique() < 2:
        return table.clear()
    # A work stays on its side when others are added, so that it is always or never measured.
    shares = (1 - CALIBRATION_SHARE, CALIBRATION_SHARE)
    side = split_works(table["work_id"], shares, CALIBRATION_SEED, "calibration")
    chosen = table.filter(side == 1)
    candidates = [chosen] if store is None else [with_sequence(chosen, store).drop("row"), chosen]
    for performances in candidates:
        # Only as many as a fit takes, because the others can be measured.
        found = draw_performances(performances, CALIBRATION_SEED)
        if has_enough_versions(found["work_id"]):
            return found.sort("track_id")
    return table.clear()


def _check_features(table: pl.DataFrame, store: FeatureStore, path: Path) -> None:
    missing = table["track_id"].filter(~table["track_id"].is_in(store.table["track_id"].implode()))
    if len(missing) == len(table):
        raise ValueError(
            f"{store.path} has features of none of the performances in {path}: name what "
            "`covers aggregate` made of them."
        )
    if len(missing):
        logger.warning(
            "%d of the %d performances in %s have no features in %s, such as %s, and will not be "
            "aligned",
            len(missing),
            len(table),
            path,
            store.path,
            missing[0],
        )


def _bundle(
    model: ImportedConfig,
    table: pl.DataFrame,
    store: FeatureStore | None,
    data: str,
    workspace: Workspace,
) -> Path:
    validation = calibrating(table.select(*IDS, "vector"), store)  # titles may change
    content = _digest(validation)

    def make(directory: Path) -> None:
        works = validation.select("work_id", side=pl.lit("validation")).unique()
        training = Training(
            data=data,
            fingerprint=content,
            seed=CALIBRATION_SEED,
            works=works.sort("work_id"),
            validation=validation.select(*foreign.LABELS, "vector"),
            loss_curve=pl.DataFrame(schema=LOSS_CURVE_SCHEMA),
            figures={},
        )
        bundles.save(directory, model, training)

    made_of = (VERSION, vars(model), content, store and store.fingerprint)
    return workspace.result("bundles", model.name, made_of, make)


def _digest(table: pl.DataFrame) -> str:
    """Hash the rows; the fingerprints stand for the vectors."""
    rows = table.drop("vector").write_ndjson()
    return hashlib.blake2b(rows.encode(), digest_size=16).hexdigest()
