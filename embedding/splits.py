"""Split performances by work, so that no work is on two sides."""

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

    There is one work id for each performance, and one share for each side; the shares sum to 1.
    Splits for different purposes are independent. Give another purpose to split one side again,
    because the same purpose would put all of it on one side.

    The result, shape=(performances,), is the side of each performance, an index into `shares`.
    Raises ValueError if the shares do not sum to 1, or there are fewer works than sides.

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
    smallest, largest = 1, len(works) - len(cuts)  # of a cut that leaves a work to every side
    for i, cut in enumerate(cuts):
        cuts[i] = min(max(cut, smallest), largest + i)
        smallest = cuts[i] + 1
    side_of = dict(zip(works, np.searchsorted(cuts, np.arange(len(works)), "right"), strict=True))
    return np.array([side_of[work] for work in ids], dtype=np.intp)


def _position(work: str, seed: int, purpose: str) -> float:
    """A number in [0, 1) from a hash that is the same in every process, unlike Python's."""
    digest = hashlib.blake2b(f"{seed}\0{purpose}\0{work}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
