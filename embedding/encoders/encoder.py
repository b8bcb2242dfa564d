"""What an encoder is: the base of all encoders, and what it is fitted to."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
import polars as pl

from embedding.data.features import FEATURE_NAMES

#: Loss per epoch, from 1: the mean over the epoch in training, and after it in validation.
LOSS_CURVE_SCHEMA: dict[str, Any] = {
    "epoch": pl.Int64,
    "train": pl.Float64,
    "validation": pl.Float64,
}


@dataclass(frozen=True)
class Samples:
    """Performances to fit an encoder to."""

    inputs: Any  # as `Encoder.embed` takes them
    works: np.ndarray  # of work ids

    def of_several(self) -> Samples:
        """Return the performances whose work has another performance."""
        _, work, size = np.unique(self.works, return_inverse=True, return_counts=True)
        rows = np.flatnonzero(size[work] > 1)
        return Samples([self.inputs[row] for row in rows], self.works[rows])

    def __add__(self, other: Samples) -> Samples:
        return Samples([*self.inputs, *other.inputs], np.concatenate([self.works, other.works]))


class Fitted(NamedTuple):
    """A fitted encoder; with epochs, also its loss curve, and figures about the training."""

    encoder: Encoder
    loss_curve: pl.DataFrame = pl.DataFrame(schema=LOSS_CURVE_SCHEMA)
    figures: Mapping[str, Any] = MappingProxyType({})


class Encoder(ABC):
    """Turns the features of performances into vectors that are compared by Euclidean distance."""

    #: The name in bundles and on the command line.
    name: ClassVar[str]

    #: "means" for an array of shape (n, 52), in the order of `FEATURE_NAMES`; "chroma" for a list
    #: of n arrays of shape (F, 2, 12), at `CHROMA_RATE` frames per second.
    input: ClassVar[Literal["means", "chroma"]]

    #: Names of the columns or channels of the input.
    columns: ClassVar[tuple[str, ...]]

    #: What the loss curve shows, for an encoder with epochs.
    loss: ClassVar[str] = "loss"

    #: The class of the configuration: a frozen dataclass with JSON-able fields.
    Config: ClassVar[type]
    config: Any

    @property
    @abstractmethod
    def dimension(self) -> int:
        """Components of a vector."""

    @property
    def parts(self) -> Mapping[str, slice]:
        """The components of each part of a vector, by name, if every part can be used alone."""
        return MappingProxyType({})

    @staticmethod
    def unusable(inputs: Any) -> dict[int, str]:
        """Return the rows that the encoder cannot learn from or embed, with the reason."""
        return {}

    @abstractmethod
    def embed(self, inputs: Any) -> np.ndarray:
        """Return a vector for each row, shape=(n, dimension), float32.

        All rows must be usable. Rounding lets other rows change a vector by 1e-5 at most.
        """

    @abstractmethod
    def tensors(self) -> dict[str, np.ndarray]:
        """Return every array that the encoder consists of, by name."""

    @classmethod
    @abstractmethod
    def from_tensors(cls, config: Any, tensors: dict[str, np.ndarray]) -> Self:
        """Make the encoder again from what `tensors` returned; raises KeyError if one is missing.

        Tensors whose shapes are not as `config` says raise ValueError or RuntimeError.
        """

    @classmethod
    @abstractmethod
    def fit(cls, train: Samples, validation: Samples, config: Any, *, seed: int) -> Fitted:
        """Fit an encoder to usable performances, and choose its epoch by those of other works."""

    def refit(self, samples: Samples, *, seed: int) -> Self:
        """Refit the parts that were not tuned on validation data, to the works of both sides."""
        return self


class MeansEncoder(Encoder):
    """An encoder of the 52 feature means."""

    input = "means"
    columns = FEATURE_NAMES

    @staticmethod
    def unusable(inputs: np.ndarray) -> dict[int, str]:
        """Return the rows with values that are not finite."""
        rows = np.flatnonzero(~np.isfinite(inputs).all(axis=1))
        return dict.fromkeys(rows.tolist(), "it has features that are not finite")


def check_numbers(config: Any, **bounds: tuple[float, float]) -> None:
    """Raise ValueError if a number in a configuration is outside its bounds, which are inclusive.

    A field with an integer default takes integers only. Without bounds, a number is positive.
    """
    for field in dataclasses.fields(config):
        name, is_whole = field.name, isinstance(field.default, int)
        if not is_whole and not isinstance(field.default, float):
            continue
        low, high = bounds.get(name, (1 if is_whole else 1e-9, math.inf))
        value, kind = getattr(config, name), int if is_whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high:
            number = "a whole number" if is_whole else "a number"
            limit = f"of at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
            raise ValueError(f"{name} is {value!r}, expected {number} {limit}")


def check_tempos(tempos: Sequence[float]) -> tuple[float, ...]:
    """Return tempos as a tuple (JSON has lists only); raise ValueError if one is out of range.

    At a tempo above 1.5, an altered copy of the shortest usable performance would be shorter than
    the longest lag of the moments.
    """
    values = np.asarray(tempos, dtype=np.float64)
    if values.ndim != 1 or not ((values >= 0.5) & (values <= 1.5)).all():
        raise ValueError(f"tempos are {tempos!r}, expected a list of numbers from 0.5 to 1.5")
    return tuple(values.tolist())
