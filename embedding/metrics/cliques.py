"""Who is a version of what: performances grouped by work, in one canonical order."""

from collections.abc import Iterable, Sized
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.intp]


@dataclass(frozen=True)
class Cliques:
    """Performances in canonical order: cliques first, noise works last.

    Works stand in the order of their ids, a work's performances in the order of theirs, so a
    clique is a run of neighbours, the queries are the first rows, and nothing computed in this
    order depends on the order in which the performances were given.

    Attributes
    ----------
    order : np.ndarray, shape=(performances,)
        The given row of each canonical row.
    track_ids : np.ndarray of str, shape=(performances,)
        In canonical order.
    works : np.ndarray of str, shape=(works,)
        The work ids, in canonical order.
    work : np.ndarray, shape=(performances,)
        The index in `works` of each canonical row.
    starts, sizes : np.ndarray, shape=(works,)
        The first canonical row of each work, and how many it has.
    track_rank : np.ndarray, shape=(performances,)
        The place of each canonical row's track id among all of them sorted: what breaks ties.
    """

    order: Ints
    track_ids: NDArray[np.str_]
    works: NDArray[np.str_]
    work: Ints
    starts: Ints
    sizes: Ints
    track_rank: Ints

    @property
    def count(self) -> int:
        """How many works have at least two performances."""
        return int((self.sizes > 1).sum())

    @property
    def queries(self) -> int:
        """How many performances have a match, which are the first rows in canonical order."""
        return int(self.sizes[self.sizes > 1].sum())

    def sample(self, among: int, size: int | None, seed: int) -> Ints:
        """Draw rows among the first so many, each as likely as any other, in canonical order.

        Parameters
        ----------
        among : int
            `queries`, or all performances.
        size : int or None
            How many to draw; all of them if there are no more, or if it is None.
        seed : int
            The same seed draws the same rows.

        Raises
        ------
        ValueError
            If none are to be drawn.
        """
        if size is None or size >= among:
            return np.arange(among)
        if size < 1:
            raise ValueError(f"A sample of {size} measures nothing: draw at least 1.")
        return np.sort(np.random.default_rng(seed).choice(among, size, replace=False))

    def check(self, distances: Sized) -> None:
        """Raise ValueError unless there is a distance row for every performance."""
        if len(distances) != len(self.order):
            raise ValueError(
                f"There are distances of {len(distances)} performances and ids of "
                f"{len(self.order)}: give an id for every row."
            )

    def counts(self) -> dict[str, int]:
        """Sizes by name, for a table of results."""
        return {
            "performances": len(self.order),
            "works": len(self.works),
            "cliques": self.count,
            "noise_works": len(self.works) - self.count,
            "queries": self.queries,
        }


def group(work_ids: Iterable[str], track_ids: Iterable[str]) -> Cliques:
    """Group performances by work.

    Parameters
    ----------
    work_ids : iterable of str
        One for each performance.
    track_ids : iterable of str
        One for each performance, all different.

    Raises
    ------
    ValueError
        If the two differ in length, hold anything but strings, a track id occurs twice, or no
        work has two performances, so that nothing could be measured.
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
        raise ValueError(
            f"No work has two performances among the {len(tracks)} given, so no query has a match: "
            "evaluate a data set with cliques in it."
        )
    order = np.lexsort((tracks, performed, sizes[work] == 1))
    works, starts, sizes = _runs(performed[order])
    return Cliques(
        order=order,
        track_ids=tracks[order],
        works=works,
        work=np.repeat(np.arange(len(works)), sizes),
        starts=starts,
        sizes=sizes,
        track_rank=np.argsort(np.argsort(tracks[order])),
    )


def _strings(what: str, values: Iterable[str]) -> NDArray[np.str_]:
    """Return an array of the values, which numpy would otherwise make of a None as well."""
    items = list(values)
    for row, item in enumerate(items):
        if not isinstance(item, str):
            raise ValueError(f"The {what} must be strings, and row {row} holds {item!r}.")
    return np.array(items, dtype=np.str_)


def _runs(values: NDArray[np.str_]) -> tuple[NDArray[np.str_], Ints, Ints]:
    """Return the value, the start and the length of each run of equal neighbours."""
    starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]])
    return values[starts], starts, np.diff(np.r_[starts, len(values)])
