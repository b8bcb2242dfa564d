"""What a collection answers, on every engine."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from search.fields import Condition
from search.point import Frames, Payload, Vectors
from search.points import Description


@dataclass(frozen=True)
class Stored:
    """A performance as the collection holds it: a vector of shape (d,), and a payload."""

    vector: Vectors
    payload: Payload

    @property
    def track_id(self) -> str | None:
        """The id of the performance; None for a query from outside of the collection."""
        return self.payload.get("track_id")

    @property
    def work_id(self) -> str | None:
        """The work of the performance, or None."""
        return self.payload.get("work_id")


@dataclass(frozen=True)
class Candidate:
    """A performance at this Euclidean distance from a query."""

    distance: float
    payload: Payload


class Sequences(Protocol):
    """The sequences of a collection, and the background of each."""

    @property
    def rate(self) -> float:
        """Frames per second."""

    @property
    def mean_background(self) -> float:
        """The mean of the first column over all performances of the collection."""

    def count(self) -> int:
        """Count the sequences, including empty ones."""

    def of(self, track_ids: Sequence[str]) -> list[Frames]:
        """Return the sequences of performances of the collection, each shape=(F, 2, 12)."""

    def backgrounds(self, track_ids: Sequence[str]) -> Vectors:
        """Return the backgrounds of performances of the collection, shape=(n, 2)."""


class Collection(Protocol):
    """A published collection, open for searching.

    If the engine changes it meanwhile, each performance is as it was before or after. Every method
    may raise `CollectionGone` if the collection is dropped or changed while it is open.
    """

    @property
    def description(self) -> Description:
        """What the collection says about itself."""

    @property
    def sequences(self) -> Sequences | None:
        """The chroma to align; None if the collection has none."""

    def count(self) -> int:
        """Count the performances, exactly."""

    def performances(self, track_ids: Sequence[str]) -> list[Stored | None]:
        """Look performances up; None for an id that is not here."""

    def digests(self, track_ids: Sequence[str]) -> list[str | None]:
        """Look up the digests of performances; None for an id that is not here."""

    def around(
        self, track_ids: Sequence[str], limit: int, conditions: Sequence[Condition]
    ) -> list[tuple[Stored, list[Candidate]] | None]:
        """Look performances up, and find the `limit` nearest to each, without itself.

        The result is None for an id that is not here, and otherwise as of `performances` and
        `nearest`.
        """

    def nearest(
        self, vectors: Vectors, limit: int, conditions: Sequence[Condition]
    ) -> list[list[Candidate]]:
        """Find, for each row of `vectors`, the `limit` nearest that meet all conditions.

        The nearest comes first. Of several that are equally near, any may be cut off.
        """

    def values(self, field: str, limit: int, conditions: Sequence[Condition] = ()) -> list[Any]:
        """Return a field of up to `limit` performances that meet all conditions, always the same.

        Performances without the field are left out.
        """

    def everything(self) -> Iterator[Stored]:
        """Yield all performances, sorted by point id, which is effectively random."""
