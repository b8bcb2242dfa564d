"""Compiled loops of `search.versions.alignment`: cross recurrence of two stacked sequences.

Importing this module imports numba, and the first call of a new installation compiles for some
seconds; after that the machine code comes from a cache on disk.
"""

import numba
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]

DEVIATIONS = 1.28  # a cell matches above mean + this many deviations
STEEPNESS = 15.0  # excess cosine similarity that counts as a whole frame: 1/15
GAP = 0.5  # most a frame that does not match takes away


@numba.njit(cache=True, nogil=True)
def blocks(frames: Floats, step: float) -> Floats:
    """Average (n, 12) frames over blocks of `step` frames (not whole), each with maximum 1."""
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
    """Dot products of the frames of a (n, 12) and b (12, m), summed along each diagonal.

    A stack's product is then the difference of two cells, whatever its width.
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
def _stack(
    dots: Floats,
    n: int,
    m: int,
    width: int,
    inverse_a: Floats,
    inverse_b: Floats,
    stacked: Floats,
    row_limit: Floats,
    column_limit: Floats,
    moments: Floats,
) -> None:
    """Cosine similarity of stacks of `width` frames, and each row's and column's limit."""
    rows, columns = n - width + 1, m - width + 1
    deviations = np.float32(DEVIATIONS)
    zero = np.float32(0)
    first, second = moments[0], moments[1]
    nothing = np.zeros(columns, np.float32)
    for j in range(columns):
        first[j] = zero
        second[j] = zero
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


@numba.njit(cache=True, nogil=True, fastmath=True)
def _promise(
    stacked: Floats,
    rows: int,
    columns: int,
    row_limit: Floats,
    column_limit: Floats,
    peak: Floats,
) -> float:
    """Mean over columns of the greatest excess: high where a hypothesis is right.

    Maxima are kept by column, here and below: a maximum along the row is a
    reduction that the compiler leaves scalar.
    """
    for j in range(columns):
        peak[j] = np.float32(-9)
    for i in range(rows):
        row, limit = stacked[i], row_limit[i]
        for j in range(columns):
            peak[j] = max(peak[j], row[j] - max(limit, column_limit[j]))
    return float(np.mean(peak[:columns]))


@numba.njit(cache=True, nogil=True, fastmath=True)
def _heaviest_weight(
    stacked: Floats,
    rows: int,
    columns: int,
    row_limit: Floats,
    column_limit: Floats,
    table: Floats,
    peak: Floats,
) -> float:
    """Weight of the heaviest stretch.

    Steps (1, 1), (1, 2), (2, 1): every cell depends on earlier rows alone, so that the
    inner loop runs in vector registers. The table keeps three rows in turn, with two
    columns of margin.
    """
    zero, one = np.float32(0), np.float32(1)
    steepness, gap = np.float32(STEEPNESS), np.float32(GAP)
    table[:, : columns + 2] = zero
    peak[:columns] = zero
    for i in range(rows):
        last = table[(i + 1) % 3]
        # Views that start where they are read: a plain index is what vectorises.
        straight, across, down = last[1:], last, table[i % 3, 1:]
        now, row, limit = table[(i + 2) % 3, 2:], stacked[i], row_limit[i]
        for j in range(columns):
            excess = (row[j] - max(limit, column_limit[j])) * steepness
            gain = min(max(excess, -gap), one)
            now[j] = max(max(straight[j], max(across[j], down[j])) + gain, zero)
        for j in range(columns):
            peak[j] = max(peak[j], now[j])
    return float(np.max(peak[:columns]))


@numba.njit(cache=True, nogil=True, fastmath=True)
def _inverse_norms(frames: Floats, width: int, out: Floats) -> None:
    """One over the Euclidean norm of each stack of `width` frames."""
    energy = np.zeros(frames.shape[0] + 1)
    for i in range(frames.shape[0]):
        square = 0.0
        for k in range(12):
            square += frames[i, k] * frames[i, k]
        energy[i + 1] = energy[i] + square
    for i in range(frames.shape[0] - width + 1):
        out[i] = 1 / np.sqrt(max(energy[i + width] - energy[i], 1e-9))


@numba.njit(cache=True, nogil=True)
def _longest(bounds: Indices) -> int:
    longest = 0
    for k in range(len(bounds) - 1):
        longest = max(longest, bounds[k + 1] - bounds[k])
    return longest


@numba.njit(cache=True, nogil=True)
def align_all(
    coarse_query: Floats,
    coarse_query_bounds: Indices,
    coarse: Floats,
    coarse_bounds: Indices,
    coarse_width: int,
    fine_query: Floats,
    fine_query_bounds: Indices,
    fine: Floats,
    fine_bounds: Indices,
    fine_width: int,
    rotations: Indices,
    refined: int,
) -> tuple[Floats, Indices]:
    """Compare every hypothesis at the coarse rate, align the most promising at the fine one."""
    count, ratios, turns = len(fine_bounds) - 1, len(fine_query_bounds) - 1, rotations.shape[1]
    height, breadth = _longest(fine_query_bounds), _longest(fine_bounds)
    dots = np.empty((height, breadth), np.float32)
    stacked = np.empty((height, breadth), np.float32)
    table, peak = np.empty((3, breadth + 2), np.float32), np.empty(breadth, np.float32)
    row_limit, column_limit = np.empty(height, np.float32), np.empty(breadth, np.float32)
    moments = np.empty((2, breadth), np.float32)
    inverse_a, inverse_b = np.empty(height, np.float32), np.empty(breadth, np.float32)
    similarity = np.zeros(count, np.float32)
    chosen = np.zeros((count, 2), np.int64)
    promise = np.empty(ratios * turns)
    for c in range(count):
        b = np.ascontiguousarray(coarse[coarse_bounds[c] : coarse_bounds[c + 1]].T)
        m = b.shape[1]
        if m < coarse_width:
            continue
        _inverse_norms(coarse[coarse_bounds[c] : coarse_bounds[c + 1]], coarse_width, inverse_b)
        for r in range(ratios):
            start, stop = coarse_query_bounds[r], coarse_query_bounds[r + 1]
            n = stop - start
            if n < coarse_width:
                promise[r * turns : (r + 1) * turns] = -np.inf
                continue
            _inverse_norms(coarse_query[0, start:stop], coarse_width, inverse_a)
            for t in range(turns):
                _dots(coarse_query[rotations[c, t], start:stop], b, dots)
                _stack(
                    dots, n, m, coarse_width, inverse_a, inverse_b,
                    stacked, row_limit, column_limit, moments,
                )  # fmt: skip
                promise[r * turns + t] = _promise(
                    stacked, n - coarse_width + 1, m - coarse_width + 1,
                    row_limit, column_limit, peak,
                )  # fmt: skip
        whole = fine[fine_bounds[c] : fine_bounds[c + 1]]
        m = len(whole)
        if m < fine_width:
            continue
        b = np.ascontiguousarray(whole.T)
        _inverse_norms(whole, fine_width, inverse_b)
        for _ in range(min(refined, ratios * turns)):
            h = np.argmax(promise)
            if promise[h] == -np.inf:
                break
            promise[h] = -np.inf
            r, rotation = h // turns, rotations[c, h % turns]
            start, stop = fine_query_bounds[r], fine_query_bounds[r + 1]
            n = stop - start
            if n < fine_width:
                continue
            _inverse_norms(fine_query[0, start:stop], fine_width, inverse_a)
            _dots(fine_query[rotation, start:stop], b, dots)
            _stack(
                dots, n, m, fine_width, inverse_a, inverse_b,
                stacked, row_limit, column_limit, moments,
            )  # fmt: skip
            weight = _heaviest_weight(
                stacked, n - fine_width + 1, m - fine_width + 1,
                row_limit, column_limit, table, peak,
            )  # fmt: skip
            scaled = np.float32(weight / np.sqrt((n + m) / 2))
            if scaled > similarity[c]:
                similarity[c] = scaled
                chosen[c, 0] = r
                chosen[c, 1] = rotation
    return similarity, chosen


@numba.njit(cache=True, nogil=True, fastmath=True)
def excess_of(a: Floats, b: Floats, width: int) -> Floats:
    """What each cell adds to a stretch, -GAP to 1."""
    n, m = len(a), len(b)
    dots, stacked = np.empty((n, m), np.float32), np.empty((n, m), np.float32)
    row_limit, column_limit = np.empty(n, np.float32), np.empty(m, np.float32)
    inverse_a, inverse_b = np.empty(n, np.float32), np.empty(m, np.float32)
    _inverse_norms(a, width, inverse_a)
    _inverse_norms(b, width, inverse_b)
    _dots(a, np.ascontiguousarray(b.T), dots)
    _stack(
        dots, n, m, width, inverse_a, inverse_b,
        stacked, row_limit, column_limit, np.empty((2, m), np.float32),
    )  # fmt: skip
    excess = stacked[: n - width + 1, : m - width + 1].copy()
    for i in range(excess.shape[0]):
        row, limit = excess[i], row_limit[i]
        for j in range(excess.shape[1]):
            value = (row[j] - max(limit, column_limit[j])) * np.float32(STEEPNESS)
            row[j] = min(max(value, np.float32(-GAP)), np.float32(1))
    return excess


@numba.njit(cache=True, nogil=True)
def heaviest(excess: Floats) -> tuple[float, int, int, int, int]:
    """Weight, first and last row, first and last column of the heaviest stretch."""
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
