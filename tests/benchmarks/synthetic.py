"""Synthetic catalogues of any size, with cliques like those of Da-TACOS.

The two subsets of Da-TACOS have 1,000 works of 13 performances, 5,000 of two and 2,000 of one. So
every eight works here have the sizes `CLIQUE_SIZES`. Works are normally distributed with variance
1 / j in component j. Performances are distributed around their work, equally in every component, as
vectors are after whitening within cliques. A catalogue is made in chunks, depends on the seed only,
and begins with every smaller catalogue.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

import search

#: Performances of eight works; the sum is 25.
CLIQUE_SIZES = (13, 2, 2, 2, 2, 2, 1, 1)

#: Performances in a chunk, which are shuffled.
CHUNK_ROWS = 10_000

#: Standard deviation of performances around their work in each component. It gives a MAP of 0.4
#: among 25,000 performances, at 20 and at 256 dimensions: search is neither trivial nor hopeless.
SPREAD = 0.25


class Chunk(NamedTuple):
    """Number of the first performance, work of each, and vectors (n, d) float32."""

    start: int
    works: npt.NDArray[np.intp]
    vectors: npt.NDArray[np.float32]


def chunks(points: int, dimension: int, seed: int = 0) -> Iterator[Chunk]:
    """Yield a catalogue of `points` performances, a multiple of 25."""
    if points % sum(CLIQUE_SIZES):
        raise ValueError(f"{points} performances are not a multiple of {sum(CLIQUE_SIZES)}.")
    scale = (1 + np.arange(dimension, dtype=np.float32)) ** -0.5
    for start in range(0, points, CHUNK_ROWS):
        rng = np.random.default_rng([seed, start])
        sets = CHUNK_ROWS // sum(CLIQUE_SIZES)
        work = np.repeat(np.arange(len(CLIQUE_SIZES) * sets), np.tile(CLIQUE_SIZES, sets))
        places = rng.standard_normal((len(CLIQUE_SIZES) * sets, dimension), np.float32)
        around = rng.standard_normal((CHUNK_ROWS, dimension), np.float32)
        vectors = places[work] * scale + np.float32(SPREAD) * around
        rows = rng.permutation(CHUNK_ROWS)
        if points - start < CHUNK_ROWS:  # whole works only
            rows = rows[rows < points - start]
        yield Chunk(
            start, work[rows] + start // sum(CLIQUE_SIZES) * len(CLIQUE_SIZES), vectors[rows]
        )


def track_id(number: int) -> str:
    """Id of a performance."""
    return f"P_{number:09d}"


def work_id(number: int) -> str:
    """Id of a work."""
    return f"W_{number:09d}"


def payload(number: int, work: int) -> dict[str, object]:
    """Metadata of a performance, about as long as those of Da-TACOS."""
    return {
        "work_id": work_id(work),
        "work_title": f"The Ballad of Number {work}",
        "work_artist": f"Songwriter {work % 5_003}",
        "title": f"The Ballad of Number {work} (live)",
        "artist": f"The Performers {number % 20_011}",
        "year": 1930 + number % 90,
        "instrumental": number % 4 == 0,
        "subset": "benchmark" if number % 5 < 3 else "coveranalysis",
    }


def stored(number: int, work: int) -> dict[str, object]:
    """Payload of a performance in a collection, as `Points.payload` makes it."""
    return {
        **payload(number, work),
        "track_id": track_id(number),
        "clique_size": CLIQUE_SIZES[work % len(CLIQUE_SIZES)],
        "bundle": "version-0123456789ab",
        "usual_distance": [3.141593, 0.271828],
    }


def points(count: int, dimension: int) -> search.Points:
    """Return a catalogue that can be published, all of it in memory."""
    made = list(chunks(count, dimension))
    works = np.concatenate([chunk.works for chunk in made])
    vectors = np.concatenate([chunk.vectors for chunk in made])
    payloads = [payload(number, work) for number, work in enumerate(works.tolist())]
    return search.Points(map(search.Point, map(track_id, range(count)), vectors, payloads))
