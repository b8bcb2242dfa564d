"""Performances grouped by work, in one canonical order."""

from collections.abc import Iterable, Sized
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.intp]


class NothingToMeasure(ValueError):  # noqa: N818 - named for what it is
    """The performances have no labels that distances could be compared with."""


@dataclass(frozen=True)
class Cliques:
    """Performances in canonical order: cliques first, noise works last.

    Works are sorted by their ids, and the performances of a work by theirs. So a clique is a run
    of rows, the queries are the first rows, and results do not depend on the order of the input.
    """

    order: Ints  # the input row of each row
    track_ids: NDArray[np.str_]  # of each row
    works: NDArray[np.str_]  # the work ids
    work: Ints  # the index in `works` of each row
    starts: Ints  # the first row of each work
    sizes: Ints  # the number of rows of each work
    track_rank: Ints  # the position of each row's track id among all sorted track ids

    @property
    def count(self) -> int:
        """Number of works with at least two performances."""
        return int((self.sizes > 1).sum())

    @property
    def queries(self) -> int:
        """Number of performances that have a match; they are the first canonical rows."""
        return int(self.sizes[self.sizes > 1].sum())

    def sample(self, among: int, size: int | None, seed: int) -> Ints:
        """Draw `size` of the first `among` canonical rows, all equally likely, sorted.

        If `size` is None or at least `among`, these are all of them.
        """
        if size is None or size >= among:
            return np.arange(among)
        if size < 1:
            raise ValueError(f"A sample of {size} measures nothing: draw at least 1.")
        return np.sort(np.random.default_rng(seed).choice(among, size, replace=False))

    def check(self, distances: Sized) -> None:
        """Raise ValueError unless there is a row of distances for every performance."""
        if len(distances) != len(self.order):
            raise ValueError(
                f"There are distances of {len(distances)} performances and ids of "
                f"{len(self.order)}: give an id for every row."
            )

    def counts(self) -> dict[str, int]:
        """Return the sizes by name."""
        return {
            "performances": len(self.order),
            "works": len(self.works),
            "cliques": self.count,
            "noise_works": len(self.works) - self.count,
            "queries": self.queries,
        }


def group(work_ids: Iterable[str], track_ids: Iterable[str]) -> Cliques:
    """Group performances by work, from the work id and the track id of each performance.

    Raises NothingToMeasure if no work has two performances, and ValueError if the lengths differ,
    an id is not a string, or a track id occurs twice.

    Examples
    --------
    >>> group(["W_2", "W_1", "W_1"], ["P_5", "P_4", "P_3"]).track_ids.tolist()
    ['P_3', 'P_4', 'P_5']
    """
    tracks = _strings("track ids", track_ids)
    performed = _strings("work ids", work_ids)
    if len(tracks) != len(performed):
        raise ValueError(
            f"There are {len(tracks)} track ids and {len(performed)} work ids: give one of each "
            "for every performance."
        )
    unique, counts = np.unique(tracks, return_counts=True)
    if len(unique) < len(tracks):
        raise ValueError(
            f"Track id {str(unique[counts.argmax()])!r} occurs {counts.max()} times: "
            "keep one row of each performance."
        )
    _, work, sizes = np.unique(performed, return_inverse=True, return_counts=True)
    if len(tracks) == 0 or sizes.max() < 2:
        raise NothingToMeasure(
            f"No work has two performances among the {len(tracks)} given, so no query has a match: "
            "evaluate a data set with cliques in it."
        )
    order = np.lexsort((tracks, performed, sizes[work] == 1))
    ordered = performed[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    sizes = np.diff(np.r_[starts, len(ordered)])
    return Cliques(
        order=order,
        track_ids=tracks[order],
        works=ordered[starts],
        work=np.repeat(np.arange(len(starts)), sizes),
        starts=starts,
        sizes=sizes,
        track_rank=np.argsort(np.argsort(tracks[order])),
    )


def _strings(what: str, values: Iterable[str]) -> NDArray[np.str_]:
    items = list(values)
    for row, item in enumerate(items):
        if not isinstance(item, str):  # numpy would turn None into a string
            raise ValueError(f"The {what} must be strings, and row {row} holds {item!r}.")
    return np.array(items, dtype=np.str_)
