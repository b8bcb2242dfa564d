"""Catalogues that never were, of any size, with cliques like those of Da-TACOS.

Its two subsets together have 1,000 works of 13 performances, 5,000 of two and 2,000 of one: so
here one, five and two of every eight works do. A work lies at a normally distributed place whose
variance falls with the component as 1 / j, and its performances around it, equally in every
component: much as vectors do whose spread within cliques was whitened. Everything comes a chunk at
a time, the same for the same seed, and a larger catalogue begins with the smaller one.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

import search

#: Performances of eight works, 25 together.
SIZES = (13, 2, 2, 2, 2, 2, 1, 1)

#: Performances in a chunk, in which works lie in no order.
CHUNK = 10_000

#: Standard deviation of performances around their work in each component, where that of works
#: begins at 1. Among 25,000, a MAP of 0.4 is reached at 20 and at 256 dimensions alike: search is
#: neither trivial nor hopeless.
SPREAD = 0.25


class Chunk(NamedTuple):
    """Some performances: the number of the first, the work of each, and vectors (n, d) float32."""

    start: int
    works: npt.NDArray[np.intp]
    vectors: npt.NDArray[np.float32]


def chunks(points: int, dimension: int, seed: int = 0) -> Iterator[Chunk]:
    """Make a catalogue of so many performances, a multiple of 25."""
    if points % sum(SIZES):
        raise ValueError(f"{points} performances are no multiple of {sum(SIZES)}.")
    scale = (1 + np.arange(dimension, dtype=np.float32)) ** -0.5
    for start in range(0, points, CHUNK):
        rng = np.random.default_rng([seed, start])
        sets = CHUNK // sum(SIZES)
        work = np.repeat(np.arange(len(SIZES) * sets), np.tile(SIZES, sets))
        places = rng.standard_normal((len(SIZES) * sets, dimension), np.float32)
        around = rng.standard_normal((CHUNK, dimension), np.float32)
        vectors = places[work] * scale + np.float32(SPREAD) * around
        rows = rng.permutation(CHUNK)
        if points - start < CHUNK:  # whole works only
            rows = rows[rows < points - start]
        yield Chunk(start, work[rows] + start // sum(SIZES) * len(SIZES), vectors[rows])


def track_id(number: int) -> str:
    """Name a performance."""
    return f"P_{number:09d}"


def work_id(number: int) -> str:
    """Name a work."""
    return f"W_{number:09d}"


def payload(number: int, work: int) -> dict[str, object]:
    """Make up what is known of a performance, as long as what Da-TACOS knows."""
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
    """Return what a collection keeps of it: the same as `Points.payload` would."""
    return {
        **payload(number, work),
        "track_id": track_id(number),
        "clique_size": SIZES[work % len(SIZES)],
        "bundle": "version-0123456789ab",
        "usual_distance": [3.141593, 0.271828],
    }


def points(count: int, dimension: int) -> search.Points:
    """Make a catalogue that can be published, all of it in memory."""
    made = list(chunks(count, dimension))
    works = np.concatenate([chunk.works for chunk in made])
    return search.Points(
        map(
            search.Point,
            [track_id(number) for number in range(count)],
            np.concatenate([chunk.vectors for chunk in made]),
            [payload(number, work) for number, work in enumerate(works.tolist())],
        )
    )
