"""A bundle: a directory with a trained encoder and everything that its use needs.

```
bundle.json           encoder, configuration, columns, dimension, content hash, training, versions
weights.safetensors   every array of the encoder, including the scaling
works.parquet         the works that it was trained on and chosen by: work_id, side
validation.parquet    track_id, work_id, vector of the validation works, before it learnt from them
loss_curve.csv        epoch, train, validation; no rows for an encoder without epochs
calibration.json      how far its distances can be trusted; `flows.measuring.calibrate` adds it
```

A bundle can stand for a model whose vectors were made elsewhere. It then has no encoder, and its
works are those that it was calibrated on.
"""

import dataclasses
import hashlib
import json
import logging
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from safetensors.numpy import load_file, save_file

from embedding.data.atomic import whole_directory
from embedding.data.store import FeatureStore
from embedding.encoders.encoder import LOSS_CURVE_SCHEMA, Encoder
from embedding.encoders.imported import IMPORTED, ImportedConfig
from embedding.encoders.registry import ENCODERS, check_name, encoder_class
from embedding.errors import first_line

logger = logging.getLogger(__name__)

#: A version encoder that comes with the package; its README says what it was trained on.
PRETRAINED = Path(__file__).resolve().parent / "pretrained"

#: The name of that bundle wherever a bundle is asked for.
PRETRAINED_NAME = "pretrained"

#: Increased when a bundle's files change their meaning.
FORMAT = 3

#: Increased when `embedding.training` makes other weights from the same features and configuration,
#: so that encoders are trained again. It is here because this module does not import Lightning.
TRAINING_VERSION = 2

#: Performances that are embedded at once; three minutes of music take about 300 KB of memory.
BATCH_PERFORMANCES = 1000

#: Packages whose versions decide what an encoder computes.
PACKAGES = ("covers", "torch", "lightning", "pytorch-metric-learning", "numpy", "safetensors")

WORKS_SCHEMA: dict[str, Any] = {"work_id": pl.String, "side": pl.String}

#: What to do with a bundle that cannot be used.
ADVICE = "Delete it, and train again."


class BadBundle(ValueError):  # noqa: N818 - named for what it is, as `store.BadStore`
    """The directory is not a bundle, is damaged, or is for another version or other columns."""


@dataclass(frozen=True)
class Training:
    """Where an encoder comes from."""

    data: str  # the name of the feature store
    fingerprint: str  # of the feature store
    seed: int  # of the split, the initial weights and the batches
    works: pl.DataFrame  # work_id and side ("train" or "validation"), sorted by work id
    #: Columns track_id, work_id and vector of the validation performances, made before the encoder
    #: learnt from them. Their distances are like those between performances it has never seen.
    validation: pl.DataFrame
    loss_curve: pl.DataFrame  # columns `LOSS_CURVE_SCHEMA`; empty for an encoder without epochs
    figures: dict[str, Any]  # results of the training; each encoder chooses their names


@dataclass(frozen=True)
class Bundle:
    """A trained encoder as it was saved.

    Examples
    --------
    >>> from embedding import bundle
    >>> pretrained = bundle.load("pretrained")
    >>> pretrained.name, pretrained.dimension
    ('version', 256)
    """

    #: The name of the encoder (or of the model, if the vectors were made elsewhere) and eight hex
    #: digits of its content. Equal weights have equal ids.
    id: str
    name: str  # a key of `ENCODERS`, or `IMPORTED`
    dimension: int  # components of a vector
    encoder: Encoder | None  # None if the vectors were made elsewhere
    training: Training

    @property
    def is_imported(self) -> bool:
        """Whether the vectors were made elsewhere, so that the bundle cannot embed."""
        return self.encoder is None

    @property
    def inputs(self) -> str | None:
        """What its encoder takes, "means" or "chroma"; None if the vectors were made elsewhere."""
        return None if self.encoder is None else self.encoder.input

    @property
    def seen_works(self) -> pl.Series:
        """Ids of the works it was trained or calibrated on; measures on them would be too good."""
        return self.training.works["work_id"]

    def unusable(self, store: FeatureStore) -> dict[str, str]:
        """Return the performances that `embed` would refuse, with the reason, by track id."""
        encoder = self._encoder(store)
        store.check_inputs(encoder.input)
        reasons = encoder.unusable(store.inputs(encoder.input))
        return {store.table["track_id"][row]: reason for row, reason in reasons.items()}

    def embed(self, store: FeatureStore) -> np.ndarray:
        """Embed every performance of a store, in its order; shape=(len(store), dimension), float32.

        Other rows change a vector by 1e-5 at most. Raises ValueError if the vectors were made
        elsewhere, or a performance is unusable or far out of range.
        """
        encoder = self._encoder(store)
        for track_id, reason in self.unusable(store).items():
            raise ValueError(f"{track_id} cannot be embedded: {reason}; leave it out.")
        inputs = store.inputs(encoder.input)
        vectors = np.empty((len(store), self.dimension), np.float32)
        for start in range(0, len(store), BATCH_PERFORMANCES):
            end = min(start + BATCH_PERFORMANCES, len(store))
            vectors[start:end] = encoder.embed(inputs[start:end])
            if len(store) > BATCH_PERFORMANCES:
                logger.info("embedded %d of %d", end, len(store))
        finite = np.isfinite(vectors).all(axis=1)
        if not finite.all():
            track_id = store.table["track_id"][int(np.argmin(finite))]
            raise ValueError(
                f"{self.id} gives no finite vector for {track_id}, so its features must be far out "
                "of range: leave it out, or aggregate it again."
            )
        return vectors

    def _encoder(self, store: FeatureStore) -> Encoder:
        if self.encoder is None:
            raise ValueError(
                f"{store.name} cannot be embedded with this bundle, whose vectors were made "
                "elsewhere: make them there, and publish the file with `covers publish`."
            )
        return self.encoder


@dataclass(frozen=True)
class Head:
    """What bundle.json says of a bundle. Reading it takes no torch and no weights."""

    id: str  # as of `Bundle`
    name: str  # as of `Bundle`
    inputs: str | None  # as of `Bundle`


def configure(encoder_name: str, fields: Mapping[str, Any]) -> Any:
    """Make an encoder's configuration from the fields that differ from its defaults.

    Raises ValueError if the encoder or a field does not exist, or a value is out of range.
    """
    check_name(encoder_name)
    config_type = encoder_class(encoder_name).Config
    known = [field.name for field in dataclasses.fields(config_type)]
    if unknown := sorted(set(fields) - set(known)):
        choice = f"choose from {', '.join(known)}" if known else "it has none"
        raise ValueError(
            f"The configuration of {encoder_name} has no field {unknown[0]!r}: {choice}."
        )
    try:
        return config_type(**fields)
    except TypeError as error:
        raise ValueError(f"{dict(fields)} does not configure {encoder_name}: {error}") from error


def save(directory: Path, encoder: Encoder | ImportedConfig, training: Training) -> Bundle:
    """Write a bundle as a whole or not at all, replacing an earlier bundle, and load it.

    Instead of an encoder, it can hold the configuration of the model that made vectors elsewhere.
    Raises ValueError if a weight is not finite, or `directory` holds something else.
    """
    directory = Path(directory)
    name: str = IMPORTED
    config: Any = encoder
    columns: tuple[str, ...] = ()
    tensors: dict[str, np.ndarray] = {}
    if isinstance(encoder, Encoder):
        name, config, columns = encoder.name, encoder.config, encoder.columns
        tensors = {key: np.ascontiguousarray(array) for key, array in encoder.tensors().items()}
    for key, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise ValueError(f"{key} of the {name} is not finite: train it again.")
    foreign = directory.exists() and not (directory / "bundle.json").exists()
    if foreign and (not directory.is_dir() or any(directory.iterdir())):
        raise ValueError(f"{directory} holds something that is not a bundle: save elsewhere.")

    facts = {
        "format": FORMAT,
        "encoder": name,
        "config": dataclasses.asdict(config),
        "columns": columns,
        "dimension": encoder.dimension,
        "content": content_digest(name, dataclasses.asdict(config), columns, tensors),
        "training": {
            field: getattr(training, field) for field in ("data", "fingerprint", "seed", "figures")
        },
        "versions": _versions(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    with whole_directory(directory) as scratch:
        save_file(tensors, scratch / "weights.safetensors")
        (scratch / "weights.safetensors").chmod(0o644)
        training.works.write_parquet(scratch / "works.parquet")
        training.validation.write_parquet(scratch / "validation.parquet")
        training.loss_curve.write_csv(scratch / "loss_curve.csv")
        text = json.dumps(facts, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        (scratch / "bundle.json").write_text(text, encoding="utf-8")
    return load(directory)


def directory_of(bundle: str | Path) -> Path:
    """Return the directory of a bundle that a user names: "pretrained", or a path."""
    return PRETRAINED if str(bundle) == PRETRAINED_NAME else Path(bundle).expanduser()


def check(bundle: str | Path) -> Path:
    """Return the directory of a bundle; raise BadBundle if it is not one."""
    directory = directory_of(bundle)
    if not (directory / "bundle.json").is_file():
        raise BadBundle(
            f"{directory} is not a bundle (bundle.json is missing). Train an encoder first, or use "
            f"{PRETRAINED_NAME!r}, the bundle that comes with covers."
        )
    return directory


def load(bundle: str | Path) -> Bundle:
    """Load a bundle, "pretrained" or a directory, without running code from it.

    Raises BadBundle if it is not a bundle, is damaged, or is for another version or other columns.
    """
    with _reading(check(bundle)) as directory:
        return _load(directory)


def head(bundle: str | Path) -> Head:
    """Read which bundle a directory holds; raise BadBundle if bundle.json does not say it."""
    with _reading(check(bundle)) as directory:
        return _head(_facts(directory))


@contextmanager
def _reading(directory: Path) -> Iterator[Path]:
    try:
        yield directory
    except BadBundle:
        raise
    # Damaged files make their readers raise any kind of error, and polars even a panic.
    except (Exception, pl.exceptions.PanicException) as error:
        missing = isinstance(error, KeyError)
        reason = f"{error} is missing" if missing else first_line(error).rstrip(".")
        raise BadBundle(f"{directory} is damaged: {reason}. {ADVICE}") from error


def _facts(directory: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((directory / "bundle.json").read_text(encoding="utf-8"))
    if facts["format"] != FORMAT:
        raise BadBundle(
            f"{directory} has format {facts['format']}, and this version reads {FORMAT}. {ADVICE}"
        )
    name = facts["encoder"]
    if name not in (*ENCODERS, IMPORTED):
        raise BadBundle(
            f"{directory} holds an encoder {name!r} that this version does not know. It knows "
            f"{', '.join(ENCODERS)}."
        )
    return facts


def _head(facts: dict[str, Any]) -> Head:
    name, shown = facts["encoder"], facts["encoder"]
    if name == IMPORTED:
        shown = ImportedConfig(**facts["config"]).name
    inputs = None if name == IMPORTED else encoder_class(name).input
    return Head(f"{shown}-{facts['content'][:8]}", name, inputs)


def _load(directory: Path) -> Bundle:
    facts = _facts(directory)
    name, content = facts["encoder"], facts["content"]
    tensors = load_file(directory / "weights.safetensors")
    if content_digest(name, facts["config"], facts["columns"], tensors) != content:
        raise BadBundle(
            f"{directory} is damaged: its weights and configuration are not those that were saved. "
            "Delete it, and copy it again or train again."
        )
    encoder: Encoder | None = None
    if name == IMPORTED:
        dimension = ImportedConfig(**facts["config"]).dimension
    else:
        kind = encoder_class(name)
        if facts["columns"] != list(kind.columns):
            raise BadBundle(f"{directory} was trained on other columns than are read now. {ADVICE}")
        encoder = kind.from_tensors(configure(name, facts["config"]), tensors)
        dimension = encoder.dimension
    training = Training(
        **facts["training"],
        works=pl.read_parquet(directory / "works.parquet", schema=WORKS_SCHEMA),
        validation=pl.read_parquet(directory / "validation.parquet"),
        loss_curve=pl.read_csv(directory / "loss_curve.csv", schema=LOSS_CURVE_SCHEMA),
    )
    _check_numbers(training, dimension)
    return Bundle(_head(facts).id, name, dimension, encoder, training)


def _check_numbers(training: Training, dimension: int) -> None:
    vectors = training.validation.select("track_id", "work_id", "vector")["vector"].to_numpy()
    if vectors.shape != (len(training.validation), dimension) or not np.isfinite(vectors).all():
        raise ValueError(f"its validation vectors are not {dimension} finite numbers each")
    if not np.isfinite(training.loss_curve.cast(pl.Float64).to_numpy()).all():
        raise ValueError("its loss curve is not finite")


def content_digest(
    encoder: str, config: Mapping[str, Any], columns: Sequence[str], tensors: dict[str, np.ndarray]
) -> str:
    """Hash what decides the vectors; how, where and when they were made is not included."""
    digest = hashlib.sha256(json.dumps([encoder, config, columns], sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, str(tensor.dtype), tensor.shape]).encode())
        digest.update(tensor.tobytes())
    return digest.hexdigest()


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):  # covers in a checkout that is not installed
            found[name] = metadata.version(name)
    return found
