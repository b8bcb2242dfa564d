"""Distances between all performances, computed a block of rows at a time.

The n x n matrix is never held in memory. A metric takes a few rows, reduces them to what it needs
and drops them, so memory grows with n and time with n squared.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from typing import Self, TypeVar

import joblib
import numpy as np
from numpy.typing import ArrayLike, NDArray
from threadpoolctl import threadpool_limits

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
Result = TypeVar("Result")

#: Distances in one block: 16 MB as float64. Smaller blocks lose time in calls, larger ones in
#: waiting for memory. A matrix product of fewer than `MIN_BLOCK_ROWS` rows is slow.
BLOCK_SIZE = 2**21
MIN_BLOCK_ROWS = 64

#: The square of a larger number may overflow.
MAX_VALUE = 1e150


class Euclidean:
    """Euclidean distances between vectors, in float64.

    They are computed as sqrt(|a|^2 + |b|^2 - 2ab), which is many times faster than by differences.
    Rounding changes a squared distance by at most gamma_d (|a| + |b|)^2 (Higham, Accuracy and
    Stability of Numerical Algorithms, 2002, section 3.1). That is about d * 1e-15 times the square
    of the largest distance, and it is the tie tolerance: squared distances tie if they differ by
    no more than twice this bound, and a squared distance below it is 0. The vectors are centred
    first, because the bound grows with their distance from the origin.

    The vectors have shape=(performances, dimension). ValueError is raised if they are not a matrix,
    or a value or its square is not finite.

    Examples
    --------
    >>> Euclidean([[0, 0], [3, 4]]).block(slice(None))
    array([[0., 5.],
           [5., 0.]])
    """

    symmetric = True

    def __init__(self, vectors: ArrayLike) -> None:
        values = np.asarray(vectors)
        if values.ndim != 2 or 0 in values.shape:
            raise ValueError(
                f"Vectors have shape {values.shape}: give one row for each performance and at "
                "least one dimension."
            )
        bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if len(bad):
            raise ValueError(
                f"{len(bad)} vectors hold NaN or infinity, the first in row {bad[0]}: embed those "
                "performances again or leave them out."
            )
        largest = float(np.abs(values).max())
        if largest > MAX_VALUE:
            raise ValueError(
                f"The vectors reach {largest:.3g}, and its square overflows: scale them to below "
                f"{MAX_VALUE:.0e}."
            )
        self._vectors = values - values.mean(axis=0, dtype=np.float64)
        self._squares = (self._vectors**2).sum(axis=1)
        self.dimension = values.shape[1]
        #: A bound that no distance exceeds: twice the largest distance from the mean.
        self.upper = 2 * float(np.sqrt(self._squares.max()))
        # 16 more than the dimension, for centring and adding up.
        self._error = (self.dimension + 16) * np.finfo(np.float64).eps * self.upper**2

    def __len__(self) -> int:
        return len(self._vectors)

    def reordered(self, order: Ints) -> Self:
        """Return the same distances with performance `order[i]` in row and column i."""
        other = copy(self)
        other._vectors, other._squares = self._vectors[order], self._squares[order]
        return other

    def block(self, rows: slice | Ints, columns: slice | Ints = slice(None)) -> Floats:
        """Return a new array of the distances from `rows` to `columns` (default: all)."""
        squared: Floats = (-2 * self._vectors[rows]) @ self._vectors[columns].T
        squared += self._squares[columns]
        squared += self._squares[rows, None]
        squared *= squared > self._error
        return np.sqrt(squared, out=squared)

    def ties(self, distances: Floats) -> tuple[Floats, Floats]:
        """Return the smallest and the largest distance that ties with each given distance."""
        squared = distances**2
        tolerance = 2 * self._error
        return np.sqrt(np.maximum(squared - tolerance, 0)), np.sqrt(squared + tolerance)


class DistanceMatrix:
    """Distances computed elsewhere, for example by alignment. They tie if they are equal.

    The values have shape=(performances, performances) and may be memory-mapped. Row i holds the
    distances from performance i; the metrics ignore the diagonal. ValueError is raised if they are
    not square, or one is negative or not finite.
    """

    def __init__(self, values: ArrayLike) -> None:
        self._values = np.asarray(values)
        if self._values.ndim != 2 or len(set(self._values.shape)) != 1 or not self._values.size:
            raise ValueError(
                f"The distances have shape {self._values.shape}: give a square matrix, one row and "
                "one column for each performance."
            )
        self._order = np.arange(len(self._values))
        #: The largest distance.
        self.upper = float(self._values.max())
        smallest = float(self._values.min())
        if not (smallest >= 0 and self.upper <= MAX_VALUE):  # False for NaN
            raise ValueError(
                f"The distances range from {smallest:g} to {self.upper:g}: they must be finite and "
                "at least 0, so turn similarities into distances first."
            )

    def __len__(self) -> int:
        return len(self._order)

    @property
    def symmetric(self) -> bool:
        """Whether the distance from a to b always equals the distance from b to a."""

        def agree(rows: slice) -> bool:
            return np.array_equal(self._values[rows], self._values[:, rows].T)

        return all(over_blocks(len(self), len(self), agree))

    def reordered(self, order: Ints) -> Self:
        """Return the same distances with performance `order[i]` in row and column i."""
        other = copy(self)
        other._order = self._order[order]
        return other

    def block(self, rows: slice | Ints, columns: slice | Ints = slice(None)) -> Floats:
        """Return a new array of the distances from `rows` to `columns` (default: all)."""
        return self._values[self._order[rows]][:, self._order[columns]].astype(np.float64)

    def ties(self, distances: Floats) -> tuple[Floats, Floats]:
        """Return the distances themselves, twice."""
        return distances, distances


#: What the metrics measure.
Distances = Euclidean | DistanceMatrix


def over_blocks(rows: int, columns: int, reduce: Callable[[slice], Result]) -> list[Result]:
    """Apply `reduce` to consecutive runs of rows, and return the results in order.

    A run of rows and all columns make a block of about `BLOCK_SIZE` distances. Each core works on
    one block in one thread, as more threads in the matrix product would only compete with these.
    """
    height = max(MIN_BLOCK_ROWS, BLOCK_SIZE // columns)
    runs = [slice(start, min(start + height, rows)) for start in range(0, rows, height)]
    with (
        threadpool_limits(1, user_api="blas"),
        ThreadPoolExecutor(joblib.cpu_count()) as threads,
    ):
        return list(threads.map(reduce, runs))
