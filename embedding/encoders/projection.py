"""Projections in closed form: principal components, and a discriminant of works.

With a few hundred cliques, gradient descent on the same statistics overfits.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Principal components of a block, at most. Components that vary less are noise.
BLOCK_DIMENSION = 120


@dataclass(frozen=True)
class Projection:
    """An affine map onto the unit sphere.

    The scale of the matrix has no effect; its largest entry is 1. It has half precision, as it
    takes most of the space in a bundle.
    """

    mean: np.ndarray  # shape=(D,), float32
    matrix: np.ndarray  # shape=(D, d), float16

    @property
    def dimension(self) -> int:
        """Components of a vector."""
        return int(self.matrix.shape[1])

    def __call__(self, x: np.ndarray) -> Floats:
        """Map rows, shape=(n, D), to vectors, shape=(n, d), of unit length."""
        # Row by row and in float64, as the rounding of a matrix product depends on its size.
        matrix = self.matrix.astype(np.float64)
        y = np.reshape([(row - self.mean) @ matrix for row in x], (len(x), self.dimension))
        return np.asarray(y / np.maximum(np.linalg.norm(y, axis=1, keepdims=True), 1e-9))

    def tensors(self) -> dict[str, np.ndarray]:
        """Return what a bundle keeps."""
        return {"projection.mean": self.mean, "projection.matrix": self.matrix}

    @classmethod
    def from_tensors(cls, tensors: dict[str, np.ndarray], length: int) -> Self:
        """Make it again; raises ValueError if the tensors are not for rows of this length."""
        mean, matrix = tensors["projection.mean"], tensors["projection.matrix"]
        if mean.shape != (length,) or matrix.shape[:-1] != (length,):
            raise ValueError(
                f"the projection has shapes {mean.shape} and {matrix.shape}, expected {length} rows"
            )
        return cls(mean, matrix)


#: The projection of an encoder before it is fitted.
UNFITTED = Projection(np.empty(0), np.empty((0, 0)))


def fit_principal(x: np.ndarray, dimension: int, tempering: float) -> Projection:
    """Fit tempered principal components to rows, shape=(n, D), that are not all the same.

    There are `dimension` components, or fewer if the rows vary in fewer directions. They are
    divided by their variance to the power `tempering`: 0 is plain PCA, and 0.5 is whitening.
    """
    mean = x.mean(axis=0)
    axes, variances = _principal(x - mean, dimension)
    return _projection(mean, axes / variances**tempering)


def fit_discriminant(
    blocks: Sequence[np.ndarray], works: Iterable[str], dimension: int, shrinkage: float
) -> Projection:
    """Fit a projection in which versions of a work lie near each other, in two stages.

    Within-class covariance normalisation gives less weight to directions that vary within works
    (Hatch, Kajarekar and Stolcke, "Within-class covariance normalization for SVM-based speaker
    recognition", Interspeech 2006). It is applied to each block, and then to all blocks together.
    In between, each direction of a block is weighted by the share of its variance that lies between
    works, so that noisy blocks do little harm. This share is Fisher's criterion ("The use of
    multiple measurements in taxonomic problems", Annals of Eugenics 1936) divided by 1 plus itself.

    Each block, shape=(n, D_i), measures one thing, and the projection is of the blocks side by
    side. It has `dimension` components, or fewer if the rows vary in fewer directions. `shrinkage`,
    in (0, 1], is the share of the identity in the covariance within works; within a block, it is
    doubled. Raises ValueError if all rows are the same.
    """
    labels = np.array(list(works), dtype=str)
    matrices, projected = [], []
    for block in blocks:
        x = block - block.mean(axis=0)
        axes, _ = _principal(x, BLOCK_DIMENSION)
        axes = axes @ _whitening(x @ axes, labels, min(2 * shrinkage, 1))
        rotation, variances = _principal(x @ axes, BLOCK_DIMENSION)
        # The variance within works is now 1 in every direction; the rest lies between works.
        matrices.append(axes @ (rotation * np.sqrt(np.maximum(1 - 1 / variances, 0))))
        projected.append(x @ matrices[-1])
    y = np.concatenate(projected, axis=1)
    axes, _ = _principal(y, dimension)
    axes = axes @ _whitening(y @ axes, labels, shrinkage)
    parts = np.split(axes, np.cumsum([matrix.shape[1] for matrix in matrices])[:-1])
    matrix = np.concatenate([first @ then for first, then in zip(matrices, parts, strict=True)])
    return _projection(np.concatenate([block.mean(axis=0) for block in blocks]), matrix)


def _projection(mean: Floats, matrix: Floats) -> Projection:
    return Projection(mean.astype(np.float32), (matrix / np.abs(matrix).max()).astype(np.float16))


def _principal(x: Floats, dimension: int) -> tuple[Floats, Floats]:
    """Return the principal axes of centred rows, shape=(D, d), and the variances along them."""
    # Products of rows and products of columns give the same components; the smaller matrix is used.
    wide = len(x) < x.shape[1]
    values, vectors = np.linalg.eigh(x @ x.T if wide else x.T @ x)
    largest = np.argsort(values)[::-1][:dimension]
    largest = largest[values[largest] > 1e-9 * max(values.max(), 1e-9)]
    if len(largest) == 0:
        raise ValueError(
            "All training performances have the same chroma, so there is nothing to learn from "
            "them: aggregate others."
        )
    values, axes = values[largest], vectors[:, largest]
    return (x.T @ (axes / np.sqrt(values)) if wide else axes), values / len(x)


def _whitening(y: Floats, labels: np.ndarray, shrinkage: float) -> Floats:
    """Return a map of centred rows under which their variance within works is 1 everywhere."""
    _, work, size = np.unique(labels, return_inverse=True, return_counts=True)
    sums = np.zeros((len(size), y.shape[1]))
    np.add.at(sums, work, y)
    within = y - (sums / size[:, None])[work]
    # The mean of each work takes one degree of freedom.
    covariance = within.T @ within / max(len(y) - len(size), 1)
    identity = np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    covariance = (1 - shrinkage) * covariance + shrinkage * identity
    return np.asarray(np.linalg.cholesky(np.linalg.inv(covariance)))
