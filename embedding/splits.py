"""Split performances by work, so that no work is on two sides."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray


def split_works(
    work_ids: Iterable[str], shares: Sequence[float], seed: int, purpose: str = ""
) -> NDArray[np.intp]:
    """Give every work a side at random, and with it all of its performances.

    A work's side follows from its id, the seed and the purpose alone, so it keeps it when the
    catalogue grows. The one exception is a set so small that a side would stay empty: that side
    is then lent the works nearest to it.

    Parameters
    ----------
    work_ids : iterable of str
        A work id a performance, in any order.
    shares : sequence of float, each in (0, 1)
        What share of the works each side gets, about; they sum to 1.
    seed : int
        Another seed gives another split.
    purpose : str
        Splits for different purposes are independent of each other, so that one side can be split
        again: with the same purpose, all of it would come to lie on one side.

    Returns
    -------
    np.ndarray, shape=(performances,)
        The side of each performance, an index into `shares`.

    Raises
    ------
    ValueError
        If the shares are no shares, or there are fewer works than sides.
    """
    if not all(0 < share < 1 for share in shares) or not math.isclose(sum(shares), 1):
        raise ValueError(f"shares are {list(shares)}, expected numbers above 0 that sum to 1")
    ids = list(work_ids)
    place = {work: _place(work, seed, purpose) for work in set(ids)}
    if len(place) < len(shares):
        raise ValueError(
            f"there are performances of {len(place)} work(s), too few for {len(shares)} sides: "
            "add performances of other works"
        )
    works = sorted(place, key=lambda work: (place[work], work))
    cuts = np.searchsorted([place[work] for work in works], np.cumsum(shares)[:-1])
    for side, cut in enumerate(cuts, start=1):
        left, still_to_fill = cuts[side - 2] if side > 1 else 0, len(shares) - side
        cuts[side - 1] = min(max(cut, left + 1), len(works) - still_to_fill)
    side_of = dict(zip(works, np.searchsorted(cuts, np.arange(len(works)), "right"), strict=True))
    return np.array([side_of[work] for work in ids], dtype=np.intp)


def _place(work: str, seed: int, purpose: str) -> float:
    """Where the work stands in [0, 1]; Python's own hash differs from process to process."""
    digest = hashlib.blake2b(f"{seed}\0{purpose}\0{work}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
