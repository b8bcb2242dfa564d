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
    """Assign every work, with all of its performances, to one side at random.

    The side of a work depends on its id, the seed and the purpose alone, so a work keeps its side
    when the catalogue grows. The exception is a set so small that a side would be empty: the works
    nearest to that side then move to it.

    Parameters
    ----------
    work_ids : iterable of str
        One per performance.
    shares : sequence of float, each in (0, 1)
        Approximate share of the works on each side; they sum to 1.
    seed : int
        Another seed gives another split.
    purpose : str
        Splits for different purposes are independent. Give another purpose to split one side
        again, which the same purpose would put on one side as a whole.

    Returns
    -------
    np.ndarray, shape=(performances,)
        The side of each performance, an index into `shares`.

    Raises
    ------
    ValueError
        If the shares do not sum to 1, or there are fewer works than sides.

    Examples
    --------
    >>> split_works(["W_1", "W_2", "W_1", "W_3"], (0.5, 0.5), seed=1).tolist()
    [1, 0, 1, 1]
    """
    if not all(0 < share < 1 for share in shares) or not math.isclose(sum(shares), 1):
        raise ValueError(f"shares are {list(shares)}, expected numbers above 0 that sum to 1")
    ids = list(work_ids)
    position = {work: _position(work, seed, purpose) for work in set(ids)}
    if len(position) < len(shares):
        raise ValueError(
            f"there are performances of {len(position)} work(s), too few for {len(shares)} sides: "
            "add performances of other works"
        )
    works = sorted(position, key=lambda work: (position[work], work))
    cuts = np.searchsorted([position[work] for work in works], np.cumsum(shares)[:-1])
    for side, cut in enumerate(cuts, start=1):
        previous, sides_left = cuts[side - 2] if side > 1 else 0, len(shares) - side
        cuts[side - 1] = min(max(cut, previous + 1), len(works) - sides_left)
    side_of = dict(zip(works, np.searchsorted(cuts, np.arange(len(works)), "right"), strict=True))
    return np.array([side_of[work] for work in ids], dtype=np.intp)


def _position(work: str, seed: int, purpose: str) -> float:
    """A number in [0, 1) from a hash that is the same in every process, unlike Python's."""
    digest = hashlib.blake2b(f"{seed}\0{purpose}\0{work}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
