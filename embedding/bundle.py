"""A bundle: a directory with a trained encoder and everything needed to use it.

```
bundle.json           encoder, configuration, columns, dimension, content hash; how it was trained
weights.safetensors   every array of the encoder, scaling included
works.parquet         the works it was trained on and chosen by: work_id, side
validation.parquet    track_id, work_id, vector: of the latter, made before it learnt from any
loss_curve.csv        epoch, train, validation; no rows where nothing was iterated
calibration.json      how far to trust its distances; added by `flows.measuring.calibrate`
```

A new kind of encoder joins by a line in `ENCODERS`, and one in `training.FITS`. Where vectors were
made elsewhere, the encoder is an `Imported`, and the works in it are those that calibrated it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import platform
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import polars as pl
from safetensors.numpy import load_file, save_file

from embedding.data.store import FeatureStore
from embedding.encoders.autoencoder import Autoencoder
from embedding.encoders.conv_autoencoder import ConvAutoencoder
from embedding.encoders.descriptors import Descriptors
from embedding.encoders.imported import Imported
from embedding.encoders.means import Means
from embedding.encoders.version.encoder import VersionEncoder

logger = logging.getLogger(__name__)

#: A version encoder that comes with the package; its README says what it was trained on.
PRETRAINED = Path(__file__).resolve().parent / "pretrained"

#: Counted up when a bundle's files change their meaning.
FORMAT = 2

#: Counted up when `embedding.training` makes other weights of the same features and settings, so
#: that encoders are trained again. It is here, where Lightning is not imported.
TRAINING_VERSION = 1

#: Performances embedded at once; what is held of three minutes of music is some 300 KB.
BATCH = 1000

#: Whose versions decide what an encoder computes.
PACKAGES = (
    "covers",
    "torch",
    "lightning",
    "pytorch-metric-learning",
    "numpy",
    "polars",
    "safetensors",
)

WORKS: dict[str, Any] = {"work_id": pl.String, "side": pl.String}
LOSS_CURVE: dict[str, Any] = {"epoch": pl.Int64, "train": pl.Float64, "validation": pl.Float64}


class Encoder(Protocol):
    """What turns a store's performances into vectors; Euclidean distances compare them.

    Attributes
    ----------
    columns : tuple of str
        What it reads of a store, in its order.
    settings : type
        The dataclass of its configuration, of JSON-able fields.
    config : Any
        One of those.
    dimension : int
        Components of a vector.
    """

    columns: ClassVar[tuple[str, ...]]
    settings: ClassVar[type]

    @property
    def config(self) -> Any: ...  # noqa: D102

    @property
    def dimension(self) -> int: ...  # noqa: D102

    @staticmethod
    def unusable(store: FeatureStore) -> dict[str, str]:
        """Which performances it can neither learn from nor embed, and why, by track id."""

    def embed(self, store: FeatureStore) -> np.ndarray:
        """Return a vector a performance, shape=(n, dimension), float32.

        A performance's vector depends on its own row and sequence only.
        """

    def tensors(self) -> dict[str, np.ndarray]:
        """Every array it is made of."""

    @classmethod
    def from_tensors(cls, config: Any, tensors: dict[str, np.ndarray]) -> Self:
        """The inverse of `tensors`; raises KeyError or ValueError if they don't fit `config`."""


#: What can be trained.
ENCODERS: dict[str, type[Encoder]] = {
    "autoencoder": Autoencoder,
    "conv-autoencoder": ConvAutoencoder,
    "descriptors": Descriptors,
    "means": Means,
    "version": VersionEncoder,
}

#: The encoder's name in a bundle whose vectors were made elsewhere.
IMPORTED = "imported"

KINDS = ENCODERS | {IMPORTED: Imported}


class BadBundle(ValueError):  # noqa: N818 - named for what it is, as `store.BadStore`
    """The directory is no bundle, is damaged, or is not for this version or these columns."""


@dataclass(frozen=True)
class Training:
    """Where an encoder comes from.

    Attributes
    ----------
    data, fingerprint : str
        Name and fingerprint of the feature store.
    seed : int
        Of the split, the initial weights and the batches.
    works : pl.DataFrame
        work_id, side ("train" or "validation"), sorted by work id.
    validation : pl.DataFrame
        track_id, work_id, vector: of the performances of the validation works, by the encoder as it
        was before it learnt from them. Distances between them are as those between strangers.
    loss_curve : pl.DataFrame
        epoch (from 1), train (mean over the epoch's batches, as they were met), validation
        (at the epoch's end).
    figures : dict of str to float, int or str
        What it came to; an encoder's own choice of names.
    """

    data: str
    fingerprint: str
    seed: int
    works: pl.DataFrame
    validation: pl.DataFrame
    loss_curve: pl.DataFrame
    figures: dict[str, Any]


@dataclass(frozen=True)
class Bundle:
    """A trained encoder as it was saved.

    Attributes
    ----------
    id : str
        The encoder's name, or the model's where it is elsewhere, and eight hex digits of the
        encoder's content: equal weights, equal id.
    name : str
        A key of `ENCODERS`, or `IMPORTED`.
    encoder : Encoder
        Ready to embed.
    training : Training
        Where it comes from.
    versions : dict of str to str
        Of the packages it was made with.
    """

    id: str
    name: str
    encoder: Encoder
    training: Training
    versions: dict[str, str]

    @property
    def dimension(self) -> int:
        """Components of a vector."""
        return self.encoder.dimension

    @property
    def is_imported(self) -> bool:
        """Whether its vectors were made elsewhere, so that it cannot embed."""
        return self.name == IMPORTED

    @property
    def loss_curve(self) -> pl.DataFrame:
        """Columns epoch, train, validation; empty if nothing was iterated."""
        return self.training.loss_curve

    @property
    def seen_works(self) -> pl.Series:
        """Ids of the works it was trained on or chosen by: measured on them, it would flatter.

        Those that calibrated it, if its vectors were made elsewhere.
        """
        return self.training.works["work_id"]

    def unusable(self, store: FeatureStore) -> dict[str, str]:
        """Which performances `embed` would refuse, and why, by track id: leave them out."""
        return self.encoder.unusable(store)

    def embed(self, store: FeatureStore) -> np.ndarray:
        """Embed every performance of a store.

        Returns
        -------
        np.ndarray, shape=(len(store), dimension), float32
            Row i is the store's row i; all finite, and the same whatever the other rows are.

        Raises
        ------
        ValueError
            If the store lacks columns that the encoder reads, or a performance is unusable or has
            values from which no finite vector comes; it is named.
        """
        parts = [np.empty((0, self.dimension), np.float32)]
        for start in range(0, len(store), BATCH):
            end = min(start + BATCH, len(store))
            parts.append(self.encoder.embed(store.select(np.arange(start, end))))
            if len(store) > BATCH:
                logger.info("embedded %d of %d", end, len(store))
        vectors = np.concatenate(parts)
        if vectors.shape != (len(store), self.dimension):
            raise ValueError(
                f"{self.id} made vectors of shape {vectors.shape}, "
                f"expected {(len(store), self.dimension)}"
            )
        finite = np.isfinite(vectors).all(axis=1)
        if not finite.all():
            track_id = store.table["track_id"][int(np.argmin(finite))]
            raise ValueError(
                f"{self.id} makes no finite vector of {track_id}, whose features must be far out "
                "of range: leave it out or aggregate it again"
            )
        return vectors


def configure(encoder_name: str, settings: Mapping[str, Any]) -> Any:
    """Make an encoder's configuration from the settings that differ from its defaults.

    Raises
    ------
    ValueError
        If there is no such encoder or setting, or a value is out of range.
    """
    if encoder_name not in ENCODERS:
        raise ValueError(f"there is no encoder {encoder_name!r}: choose from {', '.join(ENCODERS)}")
    return _configure(encoder_name, settings)


def _configure(encoder_name: str, settings: Mapping[str, Any]) -> Any:
    kind = KINDS[encoder_name].settings
    known = [field.name for field in dataclasses.fields(kind)]
    if unknown := sorted(set(settings) - set(known)):
        choice = f"choose from {', '.join(known)}" if known else "it has none"
        raise ValueError(f"{encoder_name} has no setting {unknown[0]!r}: {choice}")
    try:
        return kind(**settings)
    except TypeError as error:
        raise ValueError(f"{dict(settings)} are no settings of {encoder_name}: {error}") from error


def save(directory: Path, encoder_name: str, encoder: Encoder, training: Training) -> Bundle:
    """Write a bundle as a whole or not at all, and load it.

    It is built in a sibling directory and renamed; a bundle that is already there is replaced.

    Raises
    ------
    ValueError
        If the encoder is not what its name says, a weight is not finite, or `directory` holds
        something else than a bundle.
    """
    directory = Path(directory)
    kind = KINDS.get(encoder_name)
    if kind is None or not isinstance(encoder, kind):
        raise ValueError(f"{type(encoder).__name__} is not the encoder {encoder_name!r}")
    tensors = {name: np.ascontiguousarray(each) for name, each in encoder.tensors().items()}
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise ValueError(f"{name} of the {encoder_name} is not finite: train it again")
    foreign = directory.exists() and not (directory / "bundle.json").exists()
    if foreign and (not directory.is_dir() or any(directory.iterdir())):
        raise ValueError(f"{directory} holds something else than a bundle: save elsewhere")

    config = dataclasses.asdict(encoder.config)
    content = _digest(encoder_name, config, encoder.columns, tensors)
    facts = {
        "format": FORMAT,
        "id": _id(encoder_name, encoder, content),
        "encoder": encoder_name,
        "config": config,
        "columns": encoder.columns,
        "dimension": encoder.dimension,
        "content": content,
        "training": {
            "data": training.data,
            "fingerprint": training.fingerprint,
            "seed": training.seed,
            "figures": training.figures,
        },
        "versions": _versions(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    directory.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{directory.name}."
    scratch = Path(tempfile.mkdtemp(prefix=prefix, suffix=".tmp", dir=directory.parent))
    try:
        scratch.chmod(0o755)  # mkdtemp's 0700 would keep the operator's other users out
        save_file(tensors, scratch / "weights.safetensors")
        (scratch / "weights.safetensors").chmod(0o644)
        training.works.write_parquet(scratch / "works.parquet")
        training.validation.write_parquet(scratch / "validation.parquet")
        training.loss_curve.write_csv(scratch / "loss_curve.csv")
        text = json.dumps(facts, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        (scratch / "bundle.json").write_text(text, encoding="utf-8")
        if directory.exists():
            # A directory cannot be renamed onto a full one: the old one steps aside first.
            aside = Path(tempfile.mkdtemp(prefix=prefix, suffix=".old", dir=directory.parent))
            directory.rename(aside / directory.name)
            scratch.rename(directory)
            shutil.rmtree(aside, ignore_errors=True)
        else:
            scratch.rename(directory)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    return load(directory)


def load(directory: Path) -> Bundle:
    """Load a bundle; needs only the directory, and runs nothing that lies in it.

    Raises
    ------
    BadBundle
        If it is no bundle, lacks or contradicts something, or is for another version or other
        columns.
    """
    directory = Path(directory)
    if not (directory / "bundle.json").is_file():
        raise BadBundle(f"{directory} is no bundle: it has no bundle.json; train an encoder first")
    try:
        facts = json.loads((directory / "bundle.json").read_text(encoding="utf-8"))
        if facts["format"] != FORMAT:
            raise BadBundle(
                f"{directory} has format {facts['format']}, this version reads {FORMAT}: "
                "delete it and train again"
            )
        name, content = facts["encoder"], facts["content"]
        if name not in KINDS:
            raise BadBundle(
                f"{directory} holds an encoder {name!r} that this version doesn't know: "
                f"it knows {', '.join(KINDS)}"
            )
        kind = KINDS[name]
        _check_columns(directory, facts["columns"], kind.columns)
        tensors = load_file(directory / "weights.safetensors")
        if _digest(name, facts["config"], facts["columns"], tensors) != content:
            raise BadBundle(
                f"{directory} is damaged: its weights and configuration are not those it was "
                "saved with; delete it, and copy it again or train again"
            )
        encoder = kind.from_tensors(_configure(name, facts["config"]), tensors)
        if encoder.dimension != facts["dimension"]:
            raise BadBundle(
                f"{directory} is damaged: its encoder makes vectors of dimension "
                f"{encoder.dimension}, bundle.json says {facts['dimension']}; delete it and "
                "train again"
            )
        training = Training(
            **facts["training"],
            works=pl.read_parquet(directory / "works.parquet", schema=WORKS),
            validation=pl.read_parquet(directory / "validation.parquet"),
            loss_curve=pl.read_csv(directory / "loss_curve.csv", schema=LOSS_CURVE),
        )
        _check_finite(training, encoder.dimension)
        return Bundle(_id(name, encoder, content), name, encoder, training, facts["versions"])
    except BadBundle:
        raise
    except KeyError as error:
        raise BadBundle(
            f"{directory} is damaged: it lacks {error}; delete it and train again"
        ) from error
    # What reads the files answers damage with any kind of error, polars even with a panic.
    except (Exception, pl.exceptions.PanicException) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise BadBundle(f"{directory} is damaged: {reason}; delete it and train again") from error


def _check_finite(training: Training, dimension: int) -> None:
    vectors = training.validation.select("track_id", "work_id", "vector")["vector"].to_numpy()
    if vectors.shape != (len(training.validation), dimension) or not np.isfinite(vectors).all():
        raise ValueError(f"its validation vectors are not {dimension} finite numbers each")
    if not np.isfinite(training.loss_curve.cast(pl.Float64).to_numpy()).all():
        raise ValueError("its loss curve is not finite")


def _check_columns(directory: Path, stored: list[str], known: tuple[str, ...]) -> None:
    if list(stored) == list(known):
        return
    differing = [(a, b) for a, b in zip(stored, known, strict=False) if a != b][:3]
    where = "; ".join(f"{a} where a table has {b}" for a, b in differing)
    raise BadBundle(
        f"{directory} was trained on other columns: {len(stored)} of them where a table has "
        f"{len(known)}{', ' if where else ''}{where}; delete it and train again"
    )


def _digest(
    encoder_name: str,
    config: Mapping[str, Any],
    columns: list[str] | tuple[str, ...],
    tensors: Mapping[str, np.ndarray],
) -> str:
    """Content hash of what decides the vectors, as hex; not of how, where or when it was made."""
    digest = hashlib.sha256(json.dumps([encoder_name, config, columns], sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, str(tensor.dtype), tensor.shape]).encode())
        digest.update(tensor.tobytes())
    return digest.hexdigest()


def _id(encoder_name: str, encoder: Encoder, content: str) -> str:
    name = encoder.name if isinstance(encoder, Imported) else encoder_name
    return f"{name}-{content[:8]}"


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # covers itself, run from an uninstalled checkout
            continue
    return found
