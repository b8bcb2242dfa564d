"""Alignment of two chroma sequences: how much of one performance runs through the other.

A cover keeps the order of the tune in time, but may change its key, tempo and instruments. So two
sequences are compared under a few transpositions and tempo ratios. Their similarity is the weight
of the heaviest stretch, gaps allowed, along which one follows the other. This is a cross recurrence
measure like Qmax (J. Serrà, X. Serrà, R. G. Andrzejak, "Cross recurrence quantification for cover
song identification", New Journal of Physics 11, 2009) with two changes:

- A cell counts by how far it exceeds a limit, which is the mean + z deviations of its row and its
  column. Qmax takes nearest-neighbour ranks, which need a selection instead of one pass.
- The tempo ratio is a hypothesis, like the transposition, because stacks of several seconds match
  only when both performances run at one speed.

Only HPCP is aligned: it carries the melody, which versions share more than the chords. CREMA helps
to choose the transposition.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from search.versions.recurrence import Resampled

Chroma: TypeAlias = npt.NDArray[np.floating[Any]]
Floats: TypeAlias = npt.NDArray[np.float32]
Indices: TypeAlias = npt.NDArray[np.int64]

# Chosen by mean average precision on held-out works of a training set.
TEMPO_RATIOS = (1 / 1.32, 1 / 1.15, 1.0, 1.15, 1.32)
MAX_TRANSPOSITIONS = 2  # the most likely ones by mean chroma are compared
MAX_REFINED = 2  # hypotheses (tempo ratio x transposition) that are aligned at the full rate
STACK_SECONDS = 4.46  # 24 frames at 5.38 frames per second
MAX_CELLS = 450_000  # longer pairs are aligned at a coarser rate, to bound the time
COARSE_STEP = 2  # the hypotheses are compared at 1/2 of the rate

#: An alignment lists at most 3 stretches, each with at least 1/4 of the weight of the heaviest.
MAX_STRETCHES, MIN_WEIGHT_SHARE = 3, 0.25

TINY = 1e-9


@dataclass(frozen=True)
class Stretch:
    """A stretch of the query, and the stretch of the match that corresponds to it.

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
    """How a match corresponds to the query.

    Attributes
    ----------
    similarity : float, at least 0
        From `similarities`; 0 means that the two have nothing in common.
    transposition : int in [-5, 6]
        Semitones from the key of the query up to the key of the match.
    tempo : float
        Speed of the match divided by the speed of the query, one of five ratios from 0.76 to 1.32.
    stretches : tuple of Stretch
        The heaviest first; empty where nothing corresponds.
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
    candidates : sequence of np.ndarray, each shape=(F, 2, 12)
        At the same rate; any may be empty.
    rate : float
        Frames per second.

    Returns
    -------
    similarity : np.ndarray, shape=(n,), float32
        Weight of the heaviest stretch in frames, divided by the square root of the pair's mean
        length in frames. It is 0 if the two have nothing in common or one is shorter than a stack,
        and about sqrt(F) for two identical sequences of F frames. It is nearly symmetric.
    hypothesis : np.ndarray, shape=(n, 2), int64
        Index of the tempo ratio, and rotation of the query, that gave the similarity; `explain`
        takes them.

    Raises
    ------
    ValueError
        If a sequence has another shape, or the rate is not positive.
    """
    if not rate > 0:
        raise ValueError(f"The chroma's rate is {rate} frames per second: give a positive number.")
    for sequence in (query, *candidates):
        if sequence.ndim != 3 or sequence.shape[1:] != (2, 12):
            raise ValueError(
                f"A chroma sequence has the shape {sequence.shape}: it must be (frames, 2, 12)."
            )
    from search.versions.recurrence import align_all  # imports numba

    similarity = np.zeros(len(candidates), np.float32)
    hypothesis = np.zeros((len(candidates), 2), np.int64)
    steps = np.array([_step(len(query), len(candidate)) for candidate in candidates])
    present = np.array([len(query) > 0 and len(candidate) > 0 for candidate in candidates], bool)
    for step in np.unique(steps[present]).tolist():
        group = np.flatnonzero(present & (steps == step))
        members = [candidates[k] for k in group.tolist()]
        weight, hypothesis[group] = align_all(
            _resampled(query, members, step * COARSE_STEP, rate),
            _resampled(query, members, step, rate),
            likely_rotations(query, members),
            MAX_REFINED,
        )
        # Converted to frames of the full rate, so that pairs aligned at different rates compare.
        similarity[group] = weight * np.sqrt(np.float32(step))
    return similarity, hypothesis


def explain(
    query: Chroma, candidate: Chroma, rate: float, similarity: float, hypothesis: Indices
) -> Alignment:
    """Trace back which stretches correspond, for a pair that `similarities` has aligned.

    `similarity`, and `hypothesis` of shape (2,), are what it returned for this pair.
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
    query_seconds, match_seconds = step / ratio / rate, step / rate  # of a frame
    stretches: list[Stretch] = []
    first = 0.0
    for _ in range(MAX_STRETCHES):
        weight, i0, i1, j0, j1 = heaviest(excess)
        first = first or weight
        if weight <= first * MIN_WEIGHT_SHARE:
            break
        stretches.append(
            Stretch(
                i0 * query_seconds,
                min((i1 + width) * query_seconds, len(query) / rate),
                j0 * match_seconds,
                min((j1 + width) * match_seconds, len(candidate) / rate),
            )
        )
        excess[i0 : i1 + 1, j0 : j1 + 1] = -1.0
    return Alignment(float(similarity), transposition, 1 / ratio, tuple(stretches))


def likely_rotations(query: Chroma, candidates: Sequence[Chroma]) -> Indices:
    """Find by how many semitones each candidate is rotated up to reach the key of the query.

    This is the optimal transposition index (J. Serrà, E. Gómez, P. Herrera, "Transposing chroma
    representations to a common key", 2008): the correlation of the mean chroma under each of 12
    rotations, here summed over HPCP and CREMA. Returns semitones from 0 to 11, the most likely
    first, shape=(n, MAX_TRANSPOSITIONS).
    """
    profile = _profile(query)
    profiles = np.array([_profile(candidate) for candidate in candidates])
    turned = np.stack([np.roll(profiles, up, axis=2) for up in range(12)])
    fit = np.einsum("rnck,ck->nr", turned, profile)
    order = np.argsort(-fit, axis=1, kind="stable")
    return np.ascontiguousarray(order[:, :MAX_TRANSPOSITIONS], dtype=np.int64)


def _profile(sequence: Chroma) -> npt.NDArray[np.float64]:
    mean = sequence.mean(axis=0, dtype=np.float64)
    norm = np.linalg.norm(mean, axis=1, keepdims=True)
    return cast("npt.NDArray[np.float64]", mean / np.maximum(norm, TINY))


def _step(query_frames: int, candidate_frames: int) -> int:
    """Return the number of frames to average, which keeps a pair within `MAX_CELLS`."""
    return max(1, int(np.ceil(np.sqrt(query_frames * candidate_frames / MAX_CELLS))))


def _width(rate: float, step: int) -> int:
    """Return the number of frames in a stack."""
    return max(2, round(STACK_SECONDS * rate / step))


def _resampled(query: Chroma, candidates: Sequence[Chroma], step: int, rate: float) -> "Resampled":
    """Average `step` frames at a time, and lay the sequences end to end."""
    from search.versions.recurrence import Resampled  # imports numba

    played = [_frames(query, step / ratio) for ratio in TEMPO_RATIOS]
    others = [_frames(candidate, step) for candidate in candidates]
    joined = np.concatenate(played)
    turned = np.stack([np.roll(joined, -down, axis=1) for down in range(12)])
    return Resampled(
        turned, _bounds(played), np.concatenate(others), _bounds(others), _width(rate, step)
    )


def _bounds(parts: Sequence[Floats]) -> Indices:
    return np.cumsum([0, *map(len, parts)], dtype=np.int64)


def _frames(sequence: Chroma, step: float) -> Floats:
    from search.versions.recurrence import blocks  # imports numba

    return blocks(sequence[:, 0].astype(np.float32), float(step))
