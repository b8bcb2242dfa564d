"""Distances between all performances, a block of rows at a time.

An n x n matrix is never held: whatever is measured asks for a few rows, reduces them to what it
needs and lets them go, so memory grows with n while time grows with its square.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, Self, TypeVar

import joblib
import numpy as np
from numpy.typing import ArrayLike, NDArray
from threadpoolctl import threadpool_limits

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
Result = TypeVar("Result")

# Distances in one block: 16 MB as float64. Smaller blocks spend their time in calls, larger ones
# in waiting for memory. At least 64 rows, below which a matrix product is slow.
BLOCK = 2**21
MIN_ROWS = 64
CELLS = 2**21
# Distances stay below LARGEST and cells above SMALLEST, so that no square, nor a quotient of the
# two, overflows.
LARGEST = 1e150
SMALLEST = 1e-130


class Distances(Protocol):
    """What the metrics ask of distances, however they come about."""

    def __len__(self) -> int:
        """Return the number of performances."""

    @property
    def upper(self) -> float:
        """A bound that no distance exceeds."""

    @property
    def symmetric(self) -> bool:
        """Whether the distance from a to b is the one from b to a, for all."""

    def reordered(self, order: Ints) -> Self:
        """Return the same distances with performance `order[i]` in place i."""

    def block(self, rows: slice | Ints) -> Floats:
        """Return a new array, shape=(rows, performances): distances, right within `bounds`."""

    def exact(self, row: int, candidates: slice | Ints) -> Floats:
        """Return the distances from one performance to some, by the definition."""

    def bounds(self, exact: Floats) -> tuple[Floats, Floats]:
        """Return the least and greatest value a block can hold for these exact distances."""


class Euclidean:
    """Euclidean distances between vectors.

    A distance is the square root of the sum of squared differences in float64, and two of them
    tie if those numbers are equal: identical vectors do. `exact` computes just that. A block
    comes from |a|^2 + |b|^2 - 2ab, many times faster, with a rounding error of a known bound, so
    that only what stands closer together than this needs `exact` to be told apart.

    The vectors are centred first, because the error grows with their distance from the origin.
    The blocks are float64 although float32 products take half the time: their error is so small
    that hardly anything but true ties is left to tell apart.

    Parameters
    ----------
    vectors : array_like, shape=(performances, dimension)
        Finite.

    Raises
    ------
    ValueError
        If they aren't a matrix, or hold a value that isn't finite or whose square isn't.
    """

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
        if largest > LARGEST:
            raise ValueError(
                f"The vectors reach {largest:.3g}, whose square overflows: scale them "
                f"to below {LARGEST:.0e}."
            )
        centred = values - values.mean(axis=0, dtype=np.float64)
        # Identical vectors are of one kind, which `exact` measures once: so an encoder that has
        # collapsed to a single vector, where all is tied with all, takes no longer than others.
        rows = np.ascontiguousarray(values + 0.0)  # which makes -0.0 into 0.0
        as_bytes = rows.view(f"V{rows[0].nbytes}").ravel()
        self._set(values, centred, np.unique(as_bytes, return_inverse=True)[1])

    def _set(self, values: NDArray[Any], centred: Floats, kinds: Ints) -> None:
        self._values, self._centred, self._kinds = values, centred, kinds
        self._alike = self.different < len(values)
        self._squares = (centred**2).sum(axis=1)
        self._upper = 2 * float(np.sqrt(self._squares.max()))  # by way of the mean
        # Bounds the error of a block's squared distances: gamma_d (|a| + |b|)^2 for products and
        # norms (Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.1), and
        # a little for centring and adding up.
        self._error = (values.shape[1] + 16) * np.finfo(np.float64).eps * self._upper**2

    def __len__(self) -> int:
        return len(self._values)

    @property
    def upper(self) -> float:
        """A bound that no distance exceeds."""
        return self._upper

    @property
    def dimension(self) -> int:
        """Components of a vector."""
        return int(self._values.shape[1])

    @property
    def different(self) -> int:
        """How many different vectors there are."""
        return len(np.unique(self._kinds))

    @property
    def symmetric(self) -> bool:
        """True."""
        return True

    def reordered(self, order: Ints) -> Self:
        """Return the same distances with performance `order[i]` in place i."""
        other = object.__new__(type(self))
        other._set(self._values[order], self._centred[order], self._kinds[order])
        return other

    def block(self, rows: slice | Ints) -> Floats:
        """Return the distances from some performances to all, shape=(rows, performances)."""
        squared: Floats = (-2 * self._centred[rows]) @ self._centred.T
        squared += self._squares
        squared += self._squares[rows, None]
        squared *= squared > self._error  # what can't be told from nothing is nothing
        return np.sqrt(squared, out=squared)

    def exact(self, row: int, candidates: slice | Ints) -> Floats:
        """Return the distances from one performance to some, by the definition."""
        others = self._values[candidates]
        place: slice | Ints = slice(None)
        if self._alike:
            _, first, place = np.unique(
                self._kinds[candidates], return_index=True, return_inverse=True
            )
            others = others[first]
        difference = others - self._values[row].astype(np.float64)
        distances: Floats = np.sqrt((difference**2).sum(axis=1))
        return distances[place]

    def bounds(self, exact: Floats) -> tuple[Floats, Floats]:
        """Return the least and greatest value a block can hold for these exact distances."""
        error = 2 * self._error  # twice, because a block sets to nothing what is within one
        return np.sqrt(np.maximum(exact**2 - error, 0)), np.sqrt(exact**2 + error)


class DistanceMatrix:
    """Distances computed elsewhere, by alignment or re-ranking: they tie if they are equal.

    Parameters
    ----------
    values : array_like, shape=(performances, performances)
        Row i holds the distances from performance i, finite and at least 0. The diagonal is never
        looked at by the metrics. May be memory-mapped.

    Raises
    ------
    ValueError
        If it isn't square, or holds a value that is negative or not finite.
    """

    def __init__(self, values: ArrayLike) -> None:
        self._values = np.asarray(values)
        if self._values.ndim != 2 or len(set(self._values.shape)) != 1 or not self._values.size:
            raise ValueError(
                f"The distances have shape {self._values.shape}: give a square matrix, one row and "
                "one column for each performance."
            )
        self._order = np.arange(len(self._values))
        least, self._upper = float(self._values.min()), float(self._values.max())
        if not (least >= 0 and self._upper <= LARGEST):  # which NaN fails
            raise ValueError(
                f"The distances range from {least:g} to {self._upper:g}: they must be finite and "
                "at least 0, so turn similarities into distances first."
            )

    def __len__(self) -> int:
        return len(self._order)

    @property
    def upper(self) -> float:
        """The largest distance."""
        return self._upper

    @property
    def symmetric(self) -> bool:
        """Whether the distance from a to b is the one from b to a, for all."""
        return all(
            over_blocks(
                len(self),
                len(self),
                lambda rows: np.array_equal(self._values[rows], self._values[:, rows].T),
            )
        )

    def reordered(self, order: Ints) -> Self:
        """Return the same distances with performance `order[i]` in place i."""
        other = object.__new__(type(self))
        other._values, other._order, other._upper = self._values, self._order[order], self._upper
        return other

    def block(self, rows: slice | Ints) -> Floats:
        """Return the distances from some performances to all, shape=(rows, performances)."""
        return self._values[self._order[rows]][:, self._order].astype(np.float64)

    def exact(self, row: int, candidates: slice | Ints) -> Floats:
        """Return the distances from one performance to some."""
        distances: Floats = self._values[self._order[row], self._order[candidates]].astype(
            np.float64
        )
        return distances

    def bounds(self, exact: Floats) -> tuple[Floats, Floats]:
        """Return the distances themselves, twice: a block holds just them."""
        return exact, exact


def over_blocks(rows: int, columns: int, reduce: Callable[[slice], Result]) -> list[Result]:
    """Return what `reduce` makes of each run of rows, in order.

    The runs are cut so that a block of all columns is about `BLOCK` distances, and taken by one
    thread a core: numpy works outside the interpreter's lock. The threads of the matrix product
    itself would only get in their way.
    """
    height = max(MIN_ROWS, BLOCK // columns)
    runs = [slice(start, min(start + height, rows)) for start in range(0, rows, height)]
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(joblib.cpu_count()) as pool:
        return list(pool.map(reduce, runs))


def count_below(values: Floats, edges: Floats) -> Ints:
    """Count the values below each edge, exactly but without sorting all of them.

    Equal to ``np.searchsorted(np.sort(values), edges)``. The range of the edges is cut into equal
    cells. A value in a cell without an edge is as good as counted: only the values that share a
    cell with an edge are sorted, a small part of them as a rule, all at worst.

    Parameters
    ----------
    values : np.ndarray, shape=(values,)
        Without NaN; infinity is above any edge.
    edges : np.ndarray, shape=(edges,)
        Sorted, finite, at least one.
    """
    # Enough cells to hold few values each, few enough for their counts to stay in the cache.
    cells = min(len(values) // 2 + 1, CELLS)
    scale = cells / max(edges[-1] - edges[0], SMALLEST)

    def cell(points: Floats) -> Ints:  # never decreases, so cells keep the order of the points
        place = points - edges[0]
        place *= scale
        np.clip(place, -1, cells + 1, out=place)
        place += 1
        cell_of_each: Ints = place.astype(np.intp)
        return cell_of_each

    of_edges, of_values = cell(edges), cell(values)
    shared = np.zeros(cells + 3, dtype=np.bool_)
    shared[of_edges] = True
    counts = np.bincount(of_values, minlength=cells + 3)
    counts[shared] = 0
    close = np.sort(values.compress(shared[of_values]))
    below: Ints = counts.cumsum()[of_edges] + np.searchsorted(close, edges)
    return below
