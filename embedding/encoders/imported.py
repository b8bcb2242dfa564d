"""The place of an encoder in a bundle whose vectors were made elsewhere, by a model of others."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, NoReturn

import numpy as np

from embedding.data.store import FeatureStore

#: Characters of a model's name that an id shows.
LONGEST = 40


@dataclass(frozen=True)
class ImportedConfig:
    """Which model it was.

    Attributes
    ----------
    model : str
        Its name.
    dimension : int
        Components of a vector.
    file : str or None
        Where the model is not named, the file of vectors: two files that say nothing can be of two
        models.
    """

    model: str
    dimension: int
    file: str | None = None

    def __post_init__(self) -> None:
        """Check the values; raises ValueError."""
        if not self.model or self.dimension < 1:
            raise ValueError(f"{self.model!r} with {self.dimension} components is not a model")


@dataclass(frozen=True)
class Imported:
    """Knows the name of the model and what its vectors look like, and can make none."""

    columns: ClassVar[tuple[str, ...]] = ()
    settings: ClassVar[type[ImportedConfig]] = ImportedConfig

    config: ImportedConfig

    @property
    def name(self) -> str:
        """The model's name, in letters, digits, - and _."""
        return re.sub(r"[^A-Za-z0-9_]+", "-", self.config.model).strip("-")[:LONGEST] or "model"

    @property
    def dimension(self) -> int:
        """Components of a vector."""
        return self.config.dimension

    @staticmethod
    def unusable(store: FeatureStore) -> NoReturn:
        """Raise ValueError: it can use no performance of any store."""
        raise ValueError(
            f"{store.name} cannot be embedded with this bundle, whose vectors were made elsewhere: "
            "make them there, and publish the file with `covers publish`."
        )

    def embed(self, store: FeatureStore) -> NoReturn:
        """Raise ValueError, as `unusable`."""
        self.unusable(store)

    def tensors(self) -> dict[str, np.ndarray]:
        """None: they are elsewhere."""
        return {}

    @classmethod
    def from_tensors(cls, config: ImportedConfig, tensors: dict[str, np.ndarray]) -> Imported:
        """The inverse of `tensors`."""
        return cls(config)
