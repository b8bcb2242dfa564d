"""Compose works and versions of them, as chroma sequences."""

from __future__ import annotations

from functools import partial

import joblib
import numpy as np
from threadpoolctl import threadpool_limits

from embedding.composing.chroma import chroma
from embedding.composing.config import ComposingConfig
from embedding.composing.spectrum import render
from embedding.composing.styles import draw_style
from embedding.composing.textures import orchestrate
from embedding.composing.versions import arrange
from embedding.composing.works import Work, compose_tune
from embedding.processes import processes

#: What a seed is for, so that no two generators of random numbers are the same.
STYLE, TUNE, VERSION = range(3)


def compose(
    config: ComposingConfig, *, works: int, versions: int, seed: int
) -> tuple[list[np.ndarray], np.ndarray]:
    """Compose works and versions of each, on all cores.

    Returns
    -------
    sequences : list of np.ndarray, each shape=(F, 2, 12), float32
        HPCP and CREMA at `CHROMA_RATE`, in [0, 1], as encoders take them.
    labels : np.ndarray, shape=(works * versions,)
        The work of each: "C_0", "C_0", ..., "C_1", ...
    """
    one = partial(compose_work, config, seed, versions=versions)
    with processes(min(joblib.cpu_count(), max(works, 1))) as pool:
        composed = list(pool.map(one, range(works), chunksize=8))
    labels = np.repeat([f"C_{index}" for index in range(works)], versions)
    return [sequence for work in composed for sequence in work], labels


def compose_work(config: ComposingConfig, seed: int, index: int, versions: int) -> list[np.ndarray]:
    """Compose one work, and versions of it, as in `compose`.

    A work is the same for any number of works, and its versions up to rounding for any number of
    versions.
    """
    with threadpool_limits(1, user_api="blas"):  # so that rounding is equal on any machine
        work = tune(config, seed, index)
        return chroma([_spectrum(work, config, seed, index, n) for n in range(versions)])


def tune(config: ComposingConfig, seed: int, index: int) -> Work:
    """Return the tune and the chords of a work."""
    style = draw_style(np.random.default_rng([seed, STYLE, index // config.works_per_style]))
    return compose_tune(style, np.random.default_rng([seed, TUNE, index]))


def _spectrum(
    work: Work, config: ComposingConfig, seed: int, index: int, number: int
) -> np.ndarray:
    rng = np.random.default_rng([seed, VERSION, index, number])
    score = arrange(work, config, rng)
    parts = orchestrate(score, config, rng)
    tail = rng.uniform(0, 3)
    return render(parts, float(score.times[-1]) + tail, score.times, config, rng)
