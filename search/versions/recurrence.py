"""The compiled loops of `search.versions.alignment`: cross recurrence of two stacked sequences.

Importing this module imports numba. The first call after an installation compiles for some seconds;
later calls read the machine code from a cache on disk.
"""

from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]

DEVIATIONS = 1.28  # a cell matches above its row's and column's mean + 1.28 deviations
STEEPNESS = 15.0  # a cosine similarity 1/15 above the limit counts as one whole frame
GAP = 0.5  # the largest penalty of a frame that does not match


class Resampled(NamedTuple):
    """A query and its candidates, all averaged to one frame rate.

    `query` has the shape (12, frames, 12): the query rotated down by 0 to 11 semitones, its
    versions at each tempo ratio laid end to end. `candidates`, (frames, 12), are laid end to end
    too. The bounds are the row where each part starts, and the end. `width` is a stack's frames.
    """

    query: Floats
    query_bounds: Indices
    candidates: Floats
    candidate_bounds: Indices
    width: int


@numba.njit(cache=True, nogil=True)
def blocks(frames: Floats, step: float) -> Floats:
    """Average (n, 12) frames over blocks of `step` frames, and scale each block to maximum 1."""
    n = len(frames)
    out = np.zeros((max(1, int(n / step)), 12), np.float32)
    for k in range(len(out)):
        start, stop = k * step, min((k + 1) * step, float(n))
        block = out[k]
        for i in range(int(start), n):
            share = np.float32(min(i + 1.0, stop) - max(float(i), start))
            if share <= 0:
                break
            for c in range(12):
                block[c] += share * frames[i, c]
        highest = np.float32(1e-3 * step)
        for c in range(12):
            highest = max(highest, block[c])
        for c in range(12):
            block[c] /= highest
    return out


@numba.njit(cache=True, nogil=True, fastmath=True)
def _dots(a: Floats, b: Floats, out: Floats) -> None:
    """Compute the dot products of the frames of a (n, 12) and b (12, m), summed along diagonals.

    The dot product of two stacks of any width is then the difference of two cells.
    """
    b0, b1, b2, b3, b4, b5 = b[0], b[1], b[2], b[3], b[4], b[5]
    b6, b7, b8, b9, b10, b11 = b[6], b[7], b[8], b[9], b[10], b[11]
    for i in range(a.shape[0]):
        row = out[i]
        a0, a1, a2, a3, a4, a5 = a[i, 0], a[i, 1], a[i, 2], a[i, 3], a[i, 4], a[i, 5]
        a6, a7, a8, a9, a10, a11 = a[i, 6], a[i, 7], a[i, 8], a[i, 9], a[i, 10], a[i, 11]
        for j in range(b.shape[1]):
            row[j] = (
                (a0 * b0[j] + a1 * b1[j] + a2 * b2[j])
                + (a3 * b3[j] + a4 * b4[j] + a5 * b5[j])
                + (a6 * b6[j] + a7 * b7[j] + a8 * b8[j])
                + (a9 * b9[j] + a10 * b10[j] + a11 * b11[j])
            )
        if i:
            here, above = row[1:], out[i - 1]
            for j in range(b.shape[1] - 1):
                here[j] += above[j]


@numba.njit(cache=True, nogil=True, fastmath=True)
def _inverse_norms(frames: Floats, width: int) -> Floats:
    """Return one over the Euclidean norm of each stack of `width` frames."""
    energy = np.zeros(frames.shape[0] + 1)
    for i in range(frames.shape[0]):
        square = 0.0
        for k in range(12):
            square += frames[i, k] * frames[i, k]
        energy[i + 1] = energy[i] + square
    out = np.empty(frames.shape[0] - width + 1, np.float32)
    for i in range(len(out)):
        out[i] = 1 / np.sqrt(max(energy[i + width] - energy[i], 1e-9))
    return out


@numba.njit(cache=True, nogil=True, fastmath=True)
def _stack(
    dots: Floats, width: int, inverse_a: Floats, inverse_b: Floats, stacked: Floats
) -> tuple[Floats, Floats]:
    """Write the cosine similarity of all pairs of stacks; return each row's and column's limit."""
    rows, columns = len(inverse_a), len(inverse_b)
    row_limit, column_limit = np.empty(rows, np.float32), np.empty(columns, np.float32)
    deviations = np.float32(DEVIATIONS)
    zero = np.float32(0)
    first, second = np.zeros(columns, np.float32), np.zeros(columns, np.float32)
    nothing = np.zeros(columns, np.float32)
    for i in range(rows):
        out, end, scale = stacked[i], dots[i + width - 1, width - 1 :], inverse_a[i]
        before = dots[i - 1] if i else nothing
        out[0] = end[0] * scale * inverse_b[0]
        rest, end, inverse = out[1:], end[1:], inverse_b[1:]
        for j in range(columns - 1):
            rest[j] = (end[j] - before[j]) * scale * inverse[j]
        total, squares = zero, zero
        for j in range(columns):
            value = out[j]
            square = value * value
            total += value
            squares += square
            first[j] += value
            second[j] += square
        mean = total / np.float32(columns)
        spread = np.sqrt(max(squares / np.float32(columns) - mean * mean, zero))
        row_limit[i] = mean + deviations * spread
    for j in range(columns):
        mean = first[j] / np.float32(rows)
        spread = np.sqrt(max(second[j] / np.float32(rows) - mean * mean, zero))
        column_limit[j] = mean + deviations * spread
    return row_limit, column_limit


@numba.njit(cache=True, nogil=True)
def _compare(
    sequences: Resampled, c: int, ratio: int, rotation: int, dots: Floats, stacked: Floats
) -> tuple[Floats, Floats]:
    """Compare candidate `c` with the query under one hypothesis, as `_stack` does.

    The limits are empty where either sequence is shorter than a stack.
    """
    start, stop = sequences.query_bounds[ratio], sequences.query_bounds[ratio + 1]
    bounds = sequences.candidate_bounds
    candidate, width = sequences.candidates[bounds[c] : bounds[c + 1]], sequences.width
    if stop - start < width or len(candidate) < width:
        return np.empty(0, np.float32), np.empty(0, np.float32)
    _dots(sequences.query[rotation, start:stop], np.ascontiguousarray(candidate.T), dots)
    inverse_a = _inverse_norms(sequences.query[0, start:stop], width)
    return _stack(dots, width, inverse_a, _inverse_norms(candidate, width), stacked)


@numba.njit(cache=True, nogil=True, fastmath=True)
def _promise(stacked: Floats, row_limit: Floats, column_limit: Floats) -> float:
    """Return the mean over columns of the greatest excess: high where a hypothesis is right.

    Maxima are kept by column, here and below: the compiler does not vectorise a maximum along the
    row, which is a reduction.
    """
    columns = len(column_limit)
    peak = np.full(columns, np.float32(-9))
    for i in range(len(row_limit)):
        row, limit = stacked[i], row_limit[i]
        for j in range(columns):
            peak[j] = max(peak[j], row[j] - max(limit, column_limit[j]))
    return float(np.mean(peak))


@numba.njit(cache=True, nogil=True, fastmath=True)
def _heaviest_weight(stacked: Floats, row_limit: Floats, column_limit: Floats) -> float:
    """Return the weight of the heaviest stretch, by the recursion of Qmax.

    With the steps (1, 1), (1, 2) and (2, 1), every cell depends on earlier rows only, so the inner
    loop runs in vector registers. The table holds the last three rows, with a margin of two
    columns.
    """
    columns = len(column_limit)
    zero, one = np.float32(0), np.float32(1)
    steepness, gap = np.float32(STEEPNESS), np.float32(GAP)
    table = np.zeros((3, columns + 2), np.float32)
    peak = np.zeros(columns, np.float32)
    for i in range(len(row_limit)):
        last = table[(i + 1) % 3]
        # These views start where they are read, because only plain indices are vectorised.
        straight, across, down = last[1:], last, table[i % 3, 1:]
        now, row, limit = table[(i + 2) % 3, 2:], stacked[i], row_limit[i]
        for j in range(columns):
            excess = (row[j] - max(limit, column_limit[j])) * steepness
            gain = min(max(excess, -gap), one)
            now[j] = max(max(straight[j], max(across[j], down[j])) + gain, zero)
        for j in range(columns):
            peak[j] = max(peak[j], now[j])
    return float(np.max(peak))


@numba.njit(cache=True, nogil=True)
def _promises(
    sequences: Resampled, c: int, rotations: Indices, dots: Floats, stacked: Floats
) -> npt.NDArray[np.float64]:
    """Return how promising each tempo ratio and rotation is; -inf where nothing can be compared."""
    ratios, turns = len(sequences.query_bounds) - 1, len(rotations)
    promises = np.full(ratios * turns, -np.inf)
    for h in range(len(promises)):
        rotation = rotations[h % turns]
        row_limit, column_limit = _compare(sequences, c, h // turns, rotation, dots, stacked)
        if len(row_limit):
            promises[h] = _promise(stacked, row_limit, column_limit)
    return promises


@numba.njit(cache=True, nogil=True)
def align_all(
    coarse: Resampled, fine: Resampled, rotations: Indices, refined: int
) -> tuple[Floats, Indices]:
    """Compare all hypotheses at the coarse rate, and align the most promising at the fine rate.

    `rotations`, shape=(candidates, turns), are tried for each candidate, and `refined` hypotheses
    are aligned. Returns what `search.versions.alignment.similarities` returns, at the fine rate.
    """
    count, turns = rotations.shape
    longest = np.diff(fine.query_bounds).max(), np.diff(fine.candidate_bounds).max()
    dots, stacked = np.empty(longest, np.float32), np.empty(longest, np.float32)
    similarity = np.zeros(count, np.float32)
    hypothesis = np.zeros((count, 2), np.int64)
    for c in range(count):
        promises = _promises(coarse, c, rotations[c], dots, stacked)
        for _ in range(min(refined, len(promises))):
            h = np.argmax(promises)
            if promises[h] == -np.inf:
                break
            promises[h] = -np.inf
            ratio, rotation = h // turns, rotations[c, h % turns]
            row_limit, column_limit = _compare(fine, c, ratio, rotation, dots, stacked)
            if len(row_limit) == 0:
                continue
            weight = _heaviest_weight(stacked, row_limit, column_limit)
            frames = len(row_limit) + len(column_limit) + 2 * (fine.width - 1)
            scaled = np.float32(weight / np.sqrt(frames / 2))
            if scaled > similarity[c]:
                similarity[c] = scaled
                hypothesis[c, 0] = ratio
                hypothesis[c, 1] = rotation
    return similarity, hypothesis


@numba.njit(cache=True, nogil=True, fastmath=True)
def excess_of(a: Floats, b: Floats, width: int) -> Floats:
    """Return what each pair of stacks adds to a stretch, from -GAP to 1."""
    dots = np.empty((len(a), len(b)), np.float32)
    stacked = np.empty((len(a) - width + 1, len(b) - width + 1), np.float32)
    _dots(a, np.ascontiguousarray(b.T), dots)
    inverse_a, inverse_b = _inverse_norms(a, width), _inverse_norms(b, width)
    row_limit, column_limit = _stack(dots, width, inverse_a, inverse_b, stacked)
    for i in range(stacked.shape[0]):
        row, limit = stacked[i], row_limit[i]
        for j in range(stacked.shape[1]):
            value = (row[j] - max(limit, column_limit[j])) * np.float32(STEEPNESS)
            row[j] = min(max(value, np.float32(-GAP)), np.float32(1))
    return stacked


@numba.njit(cache=True, nogil=True)
def heaviest(excess: Floats) -> tuple[float, int, int, int, int]:
    """Return the weight of the heaviest stretch, its first and last row, first and last column."""
    rows, columns = excess.shape
    table = np.zeros((rows + 2, columns + 2), np.float32)
    best, i, j = np.float32(0), 0, 0
    for r in range(rows):
        for c in range(columns):
            before = max(table[r + 1, c + 1], table[r + 1, c], table[r, c + 1])
            weight = max(before + excess[r, c], np.float32(0))
            table[r + 2, c + 2] = weight
            if weight > best:
                best, i, j = weight, r, c
    last_i, last_j = i, j
    while True:
        straight, across, down = table[i + 1, j + 1], table[i + 1, j], table[i, j + 1]
        if max(straight, across, down) <= 0:
            break
        if straight >= across and straight >= down:
            i, j = i - 1, j - 1
        elif across >= down:
            i, j = i - 1, j - 2
        else:
            i, j = i - 2, j - 1
    return float(best), i, last_i, j, last_j
