"""Alignment of two chroma sequences: how much of one performance runs through the other.

A cover keeps the tune's order in time and changes its key, its tempo and which parts are played. So
two sequences are compared under a few transpositions and tempo ratios, and their similarity is the
weight of the heaviest stretch, gaps allowed, along which one follows the other: a cross recurrence
measure in the manner of Qmax (J. Serrà, X. Serrà, R. G. Andrzejak, "Cross recurrence quantification
for cover song identification", New Journal of Physics 11, 2009), with two changes. A match counts
by how far it exceeds its row's and column's usual similarity, and those limits are mean + z
deviations instead of nearest-neighbour ranks: one pass instead of a selection. And the tempo ratio
is a hypothesis like the transposition, because stacks of several seconds match only when both run
at one speed.

Only HPCP is aligned: it carries the melody, which versions share more than the chords. CREMA helps
to choose the transposition.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt

Chroma: TypeAlias = npt.NDArray[np.floating[Any]]
Floats: TypeAlias = npt.NDArray[np.float32]
Indices: TypeAlias = npt.NDArray[np.int64]

# Chosen by mean average precision on held-out works of a training set.
TEMPO_RATIOS = (1 / 1.32, 1 / 1.15, 1.0, 1.15, 1.32)
TRANSPOSITIONS = 2  # most likely ones, by mean chroma
REFINED = 2  # hypotheses aligned in full, of all tempo ratios x transpositions
STACK_SECONDS = 4.46  # 24 frames at 5.38 a second
CELLS = 450_000  # longer pairs are aligned at a coarser rate, to bound the time
COARSE = 2  # the hypotheses are compared at this fraction of the rate

#: Stretches that an alignment tells, at most; and none of less than this share of the first one's
#: weight.
STRETCHES, LIGHTEST = 3, 0.25

_TINY = 1e-9


@dataclass(frozen=True)
class Stretch:
    """A stretch of the query, and the stretch of the match that runs along with it.

    Attributes
    ----------
    query_start, query_end, match_start, match_end : float
        Seconds from the start of the performance.
    """

    query_start: float
    query_end: float
    match_start: float
    match_end: float


@dataclass(frozen=True)
class Alignment:
    """How a performance runs along with the query.

    Attributes
    ----------
    similarity : float, at least 0
        As `similarities` gives it.
    transposition : int in [-5, 6]
        Semitones by which the match lies above the query.
    tempo : float
        The match's speed over the query's: the best of the ratios tried, 0.76 to 1.32.
    stretches : tuple of Stretch
        What runs along with what, heaviest first; empty where nothing does.
    """

    similarity: float
    transposition: int
    tempo: float
    stretches: tuple[Stretch, ...]


def similarities(
    query: Chroma, candidates: Sequence[Chroma], rate: float
) -> tuple[Floats, Indices]:
    """Align a query with each candidate.

    Parameters
    ----------
    query : np.ndarray, shape=(F, 2, 12)
        HPCP and CREMA, finite, 0 to 1, time first.
    candidates : sequence of np.ndarray
        The same for each candidate, at the same rate; any may be empty.
    rate : float
        Frames a second.

    Returns
    -------
    similarity : np.ndarray, shape=(n,), float32
        The weight of the heaviest stretch in frames over the square root of the pair's mean length
        in frames: 0 (nothing in common, or shorter than one stack) upwards; an identical pair of
        length F has about sqrt(F). Hardly another with query and candidate exchanged.
    hypothesis : np.ndarray, shape=(n, 2), int64
        Index of the tempo ratio and rotation of the query that it was found with, for `explain`.

    Raises
    ------
    ValueError
        If a sequence has another shape, or the rate is not positive.
    """
    if not rate > 0:
        raise ValueError(f"the chroma's rate is {rate} frames a second: give a positive one")
    for sequence in (query, *candidates):
        if sequence.ndim != 3 or sequence.shape[1:] != (2, 12):
            raise ValueError(f"a chroma sequence is (frames, 2, 12), and not {sequence.shape}")
    from search.versions.recurrence import align_all  # imports numba

    similarity = np.zeros(len(candidates), np.float32)
    hypothesis = np.zeros((len(candidates), 2), np.int64)
    steps = np.array([_step(len(query), len(candidate)) for candidate in candidates])
    there = np.array([len(query) > 0 and len(candidate) > 0 for candidate in candidates], bool)
    for step in np.unique(steps[there]).tolist():
        group = np.flatnonzero(there & (steps == step))
        members = [candidates[k] for k in group.tolist()]
        weight, chosen = align_all(
            *_resampled(query, members, step * COARSE),
            _width(rate, step * COARSE),
            *_resampled(query, members, step),
            _width(rate, step),
            likely_rotations(query, members),
            REFINED,
        )
        # In frames of the full rate, so that pairs aligned at different rates compare.
        similarity[group] = weight * np.sqrt(np.float32(step))
        hypothesis[group] = chosen
    return similarity, hypothesis


def explain(
    query: Chroma, candidate: Chroma, rate: float, similarity: float, hypothesis: Indices
) -> Alignment:
    """Trace back what matches what, for a pair that `similarities` has aligned.

    Parameters
    ----------
    query, candidate, rate
        As for `similarities`.
    similarity, hypothesis
        Its answer for this pair: a number, and shape=(2,).
    """
    ratio, rotation = TEMPO_RATIOS[hypothesis[0]], int(hypothesis[1])
    transposition = (5 - rotation) % 12 - 5
    if similarity <= 0:
        return Alignment(0.0, transposition, 1 / ratio, ())
    from search.versions.recurrence import excess_of, heaviest  # imports numba

    step = _step(len(query), len(candidate))
    width = _width(rate, step)
    turned = np.roll(_frames(query, step / ratio), -rotation, axis=1)
    excess = excess_of(turned, _frames(candidate, step), width)
    in_query, in_match = step / ratio / rate, step / rate
    stretches: list[Stretch] = []
    first = 0.0
    for _ in range(STRETCHES):
        weight, i0, i1, j0, j1 = heaviest(excess)
        first = first or weight
        if weight <= first * LIGHTEST:
            break
        stretches.append(
            Stretch(
                i0 * in_query,
                min((i1 + width) * in_query, len(query) / rate),
                j0 * in_match,
                min((j1 + width) * in_match, len(candidate) / rate),
            )
        )
        excess[i0 : i1 + 1, j0 : j1 + 1] = -1.0
    return Alignment(float(similarity), transposition, 1 / ratio, tuple(stretches))


def likely_rotations(query: Chroma, candidates: Sequence[Chroma]) -> Indices:
    """Find how far each candidate must be rotated up to be in the query's key.

    The optimal transposition index (J. Serrà, E. Gómez, P. Herrera, "Transposing chroma
    representations to a common key", 2008): correlation of the mean chroma under each of 12
    rotations, here summed over HPCP and CREMA.

    Returns
    -------
    np.ndarray, shape=(n, TRANSPOSITIONS), int64
        Semitones, 0 to 11, the most likely first.
    """
    profile = _profile(query)
    profiles = np.array([_profile(candidate) for candidate in candidates])
    turned = np.stack([np.roll(profiles, up, axis=2) for up in range(12)])
    fit = np.einsum("rnck,ck->nr", turned, profile)
    order = np.argsort(-fit, axis=1, kind="stable")
    return np.ascontiguousarray(order[:, :TRANSPOSITIONS], dtype=np.int64)


def _profile(sequence: Chroma) -> npt.NDArray[np.float64]:
    mean = sequence.mean(axis=0, dtype=np.float64)
    norm = np.linalg.norm(mean, axis=1, keepdims=True)
    return cast("npt.NDArray[np.float64]", mean / np.maximum(norm, _TINY))


def _step(query_frames: int, candidate_frames: int) -> int:
    """Frames to average so that the pair's cells stay within CELLS."""
    return max(1, int(np.ceil(np.sqrt(query_frames * candidate_frames / CELLS))))


def _width(rate: float, step: int) -> int:
    """Frames in a stack."""
    return max(2, round(STACK_SECONDS * rate / step))


def _resampled(
    query: Chroma, candidates: Sequence[Chroma], step: int
) -> tuple[Floats, Indices, Floats, Indices]:
    """The query (12, total, 12) turned down by each rotation, and the candidates (total, 12).

    The query at each tempo ratio, and the candidates, are laid end to end; bounds tell them apart.
    """
    played = [_frames(query, step / ratio) for ratio in TEMPO_RATIOS]
    others = [_frames(candidate, step) for candidate in candidates]
    whole = np.concatenate(played)
    turned = np.stack([np.roll(whole, -down, axis=1) for down in range(12)])
    return turned, _bounds(played), np.concatenate(others), _bounds(others)


def _bounds(parts: Sequence[Floats]) -> Indices:
    return np.cumsum([0, *map(len, parts)], dtype=np.int64)


def _frames(sequence: Chroma, step: float) -> Floats:
    from search.versions.recurrence import blocks  # imports numba

    return blocks(sequence[:, 0].astype(np.float32), float(step))
