"""Closed-form projections: principal components, and what tells works apart.

Closed form, because with a few hundred cliques gradient descent on the same statistics overfits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Directions kept of a block: what varies less is noise.
BLOCK_DIMENSION = 120


@dataclass(frozen=True)
class Projection:
    """An affine map onto the unit sphere.

    Attributes
    ----------
    mean : np.ndarray, shape=(D,), float32
    matrix : np.ndarray, shape=(D, d), float16
        Its largest entry is 1, as its scale has no effect. Half precision, as it is nearly all
        of a bundle.
    """

    mean: np.ndarray
    matrix: np.ndarray

    @property
    def dimension(self) -> int:
        """Components of a vector."""
        return int(self.matrix.shape[1])

    def __call__(self, x: np.ndarray) -> Floats:
        """Map rows, shape=(n, D), to vectors, shape=(n, d), of unit length."""
        # One by one and in float64: how a matrix product is summed depends on its size.
        matrix = self.matrix.astype(np.float64)
        y = np.empty((len(x), self.dimension))
        for row, vector in zip(x, y, strict=True):
            vector[:] = (row - self.mean) @ matrix
        return np.asarray(y / np.maximum(np.linalg.norm(y, axis=1, keepdims=True), 1e-9))

    def tensors(self) -> dict[str, np.ndarray]:
        """What is kept of it in a bundle."""
        return {"projection.mean": self.mean, "projection.matrix": self.matrix}

    @classmethod
    def from_tensors(cls, tensors: dict[str, np.ndarray], length: int) -> Projection:
        """The inverse of `tensors`; raises ValueError if they aren't for rows of this length."""
        made = cls(tensors["projection.mean"], tensors["projection.matrix"])
        if made.mean.shape != (length,) or made.matrix.shape[:-1] != (length,):
            raise ValueError(
                f"the projection has shapes {made.mean.shape} and {made.matrix.shape}, expected "
                f"{length} descriptors"
            )
        return made


def fit_principal(x: np.ndarray, *, dimension: int, tempering: float) -> Projection:
    """Fit tempered principal components.

    Parameters
    ----------
    x : np.ndarray, shape=(n, D)
        Training rows.
    dimension : int
        Components kept, or as many as vary.
    tempering : float
        Components are divided by their standard deviation to the power of twice this: 0 is plain
        PCA, 0.5 whitening.

    Raises
    ------
    ValueError
        If all rows are the same.
    """
    mean = x.mean(axis=0)
    axes, variances = _principal(x - mean, dimension)
    return _made(mean, axes / variances**tempering)


def fit_discriminant(
    blocks: Sequence[np.ndarray], works: Iterable[str], *, dimension: int, shrinkage: float
) -> Projection:
    """Fit a projection in which versions of a work lie near each other, in two stages.

    Within-class covariance normalisation (Hatch, Kajarekar and Stolcke, "Within-class covariance
    normalization for SVM-based speaker recognition", Interspeech 2006), of each block and then of
    all: what varies within works weighs less. A block's directions also weigh by the share of
    their variance that lies between works; so noisy blocks do no harm.

    Parameters
    ----------
    blocks : sequence of np.ndarray, shape=(n, D_i)
        Training rows, in blocks that measure one thing each.
    works : iterable of str
        A work id a row; a work of one row says nothing of what varies within works.
    dimension : int
        Components kept, or as many as vary.
    shrinkage : float in (0, 1]
        Share of the identity in the covariance within works; twice as much within a block.

    Returns
    -------
    Projection
        Of the blocks side by side.

    Raises
    ------
    ValueError
        If all rows are the same.
    """
    labels = np.array(list(works), dtype=str)
    matrices, seen = [], []
    for block in blocks:
        x = block - block.mean(axis=0)
        axes, _ = _principal(x, BLOCK_DIMENSION)
        axes = axes @ _whitening(x @ axes, labels, min(2 * shrinkage, 1))
        turn, variances = _principal(x @ axes, BLOCK_DIMENSION)
        # Within works every direction varies by 1 now, and what is more lies between them.
        matrices.append(axes @ (turn * np.sqrt(np.maximum(1 - 1 / variances, 0))))
        seen.append(x @ matrices[-1])
    y = np.concatenate(seen, axis=1)
    axes, _ = _principal(y, dimension)
    axes = axes @ _whitening(y @ axes, labels, shrinkage)
    parts = np.split(axes, np.cumsum([each.shape[1] for each in matrices])[:-1])
    matrix = np.concatenate([each @ part for each, part in zip(matrices, parts, strict=True)])
    return _made(np.concatenate([block.mean(axis=0) for block in blocks]), matrix)


def _made(mean: Floats, matrix: Floats) -> Projection:
    return Projection(mean.astype(np.float32), (matrix / np.abs(matrix).max()).astype(np.float16))


def _principal(x: Floats, dimension: int) -> tuple[Floats, Floats]:
    """Principal axes of centred rows, shape=(D, d), and the variances along them."""
    # The same components come from the products of rows and from those of columns: the fewer.
    wide = len(x) < x.shape[1]
    values, vectors = np.linalg.eigh(x @ x.T if wide else x.T @ x)
    kept = np.argsort(values)[::-1][:dimension]
    kept = kept[values[kept] > 1e-9 * max(values.max(), 1e-9)]
    if len(kept) == 0:
        raise ValueError(
            "all training performances have the same chroma, so there is nothing to learn from them"
        )
    axes = x.T @ (vectors[:, kept] / np.sqrt(values[kept])) if wide else vectors[:, kept]
    return axes, values[kept] / len(x)


def _whitening(y: Floats, labels: np.ndarray, shrinkage: float) -> Floats:
    """A map under which centred rows vary by 1 in every direction within their work."""
    _, work, size = np.unique(labels, return_inverse=True, return_counts=True)
    centres = np.zeros((len(size), y.shape[1]))
    np.add.at(centres, work, y)
    within = y - (centres / size[:, None])[work]
    # A mean takes one degree of freedom of each work.
    covariance = within.T @ within / max(len(y) - len(size), 1)
    identity = np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    covariance = (1 - shrinkage) * covariance + shrinkage * identity
    return np.asarray(np.linalg.cholesky(np.linalg.inv(covariance)))
