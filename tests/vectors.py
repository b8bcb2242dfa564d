"""Random collections of vectors, for tests that measure distances."""

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st


@st.composite
def collections(draw):
    """Draw small collections, half of them on a grid, where many distances are equal."""
    n, dimension = draw(st.integers(2, 25)), draw(st.integers(1, 4))
    on_grid = draw(st.booleans())
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows = rng.integers(0, 4, (n, dimension)) if on_grid else rng.normal(size=(n, dimension))
    works = [f"W_{work}" for work in rng.integers(0, max(1, n // draw(st.integers(1, 4))), n)]
    tracks = [f"P_{track}" for track in rng.permutation(n)]
    assume(len(set(works)) < n)
    return rows.astype(np.float32), works, tracks


def many(n_cliques=60, size=7, noise_works=100, dimension=24, spread=1.5, seed=0):
    """Make a collection, in random order, that takes several blocks."""
    rng = np.random.default_rng(seed)
    work = np.r_[np.repeat(np.arange(n_cliques), size), n_cliques + np.arange(noise_works)]
    rng.shuffle(work)
    centres = rng.normal(size=(n_cliques + noise_works, dimension))
    rows = (centres[work] + spread * rng.normal(size=(len(work), dimension))).astype(np.float32)
    tracks = [f"P_{track:04d}" for track in rng.permutation(len(work))]
    return rows, [f"W_{number:03d}" for number in work], tracks


def plain_distances(rows):
    """Distances of all pairs by their definition."""
    rows = np.asarray(rows, dtype=np.float64)
    return np.sqrt(((rows[:, None] - rows[None]) ** 2).sum(axis=2))


def moved(rows, works, tracks):
    """The same collection in another order, then also turned and shifted."""
    rng = np.random.default_rng(1)
    order = rng.permutation(len(rows))
    turn = np.linalg.qr(rng.normal(size=(rows.shape[1], rows.shape[1])))[0]
    ids = [works[row] for row in order], [tracks[row] for row in order]
    return [(rows[order], *ids), (rows[order] @ turn + 1000, *ids)]
