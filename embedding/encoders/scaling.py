"""Standardise the 52 feature means with the statistics of the training data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from embedding.data.features import FEATURE_NAMES

Floats = NDArray[np.float64]

#: A column that spreads less than this share of its largest value is constant but for rounding.
ROUNDING = 1e-9


@dataclass(frozen=True)
class Standardizer:
    """Shift and scale each column to mean 0 and deviation 1 over the training performances.

    Columns, not rows: normalising each performance over its own values would let the tempo, which
    is a hundred times larger than chroma, decide all of it.

    Attributes
    ----------
    mean : np.ndarray, shape=(52,), float64
        In the order of `FEATURE_NAMES`.
    scale : np.ndarray, shape=(52,), float64
        The standard deviation; 0 for a column that was constant, which becomes 0 everywhere: what
        scale its differences have is unknown.
    """

    mean: Floats
    scale: Floats

    @classmethod
    def fit(cls, table: pl.DataFrame) -> Standardizer:
        """Take the statistics of a feature table.

        Parameters
        ----------
        table : pl.DataFrame
            `track_id` and the 52 columns, a row a performance.

        Raises
        ------
        ValueError
            If there are fewer than two performances, a column is missing, a value is not finite,
            or no column varies.
        """
        values = _values(table)
        if len(values) < 2:
            raise ValueError(
                "training needs at least 2 performances to learn from, and there is "
                f"{len(values)}: aggregate more"
            )
        mean, scale = values.mean(axis=0), values.std(axis=0)
        scale[scale <= ROUNDING * np.abs(values).max(axis=0)] = 0
        if not scale.any():
            raise ValueError(
                f"all {len(values)} training performances have the same features, so there is "
                "nothing to learn from them"
            )
        return cls(mean, scale)

    def transform(self, table: pl.DataFrame) -> Floats:
        """Standardise a feature table, whatever the order of its columns.

        Returns
        -------
        np.ndarray, shape=(n, 52), float64
            In the order of `FEATURE_NAMES`.

        Raises
        ------
        ValueError
            If a column is missing or a value is not finite.
        """
        centred = _values(table) - self.mean
        varies = self.scale > 0
        return np.divide(centred, self.scale, out=np.zeros_like(centred), where=varies)

    @classmethod
    def neutral(cls) -> Standardizer:
        """The one that changes nothing."""
        return cls(np.zeros(len(FEATURE_NAMES)), np.ones(len(FEATURE_NAMES)))

    def tensors(self) -> dict[str, np.ndarray]:
        """What is kept of it in a bundle."""
        return {"scaling.mean": self.mean, "scaling.scale": self.scale}

    @classmethod
    def from_tensors(cls, tensors: dict[str, np.ndarray]) -> Standardizer:
        """The inverse of `tensors`; raises ValueError if they are not 52 numbers each."""
        made = cls(tensors["scaling.mean"], tensors["scaling.scale"])
        for name, tensor in made.tensors().items():
            if tensor.shape != (len(FEATURE_NAMES),):
                raise ValueError(
                    f"tensor {name} has shape {tensor.shape}, expected {(len(FEATURE_NAMES),)}"
                )
        return made


def _values(table: pl.DataFrame) -> Floats:
    if missing := [name for name in FEATURE_NAMES if name not in table.columns]:
        names = ", ".join(missing[:3]) + (" …" if len(missing) > 3 else "")
        raise ValueError(
            f"the table lacks {len(missing)} of the 52 feature columns ({names}): "
            "aggregate it again"
        )
    values = np.asarray(table.select(FEATURE_NAMES).to_numpy(), dtype=np.float64)
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        raise ValueError(
            f"{table['track_id'][int(row)]} has {values[row, column]} as {FEATURE_NAMES[column]}, "
            "where a finite number is expected: leave it out or aggregate it again"
        )
    return values
