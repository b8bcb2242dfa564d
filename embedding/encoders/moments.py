"""Moments of a chroma sequence that do not change with transposition.

They are Fourier magnitudes of its patches, and time averages of triple products of its Fourier
coefficients over pitch. The encoder `descriptors` projects them without labels. The encoder
`version` projects them with labels, together with responses to motifs.

The tables below were chosen on training data that shares no tune with the sample.
"""

from collections.abc import Callable, Sequence
from functools import cache, partial
from itertools import chain

import joblib
import numpy as np
from threadpoolctl import threadpool_limits

from embedding.data.chroma import CHANNELS, CHROMA_RATE, resample
from embedding.encoders.projection import Floats
from embedding.processes import TerminatedWorkerError, processes

#: Sequences per process, at least: a sequence takes tens of milliseconds, as does a new process.
MIN_PER_PROCESS = 100

#: Sequences that are sent to a process at a time.
PART_SEQUENCES = 25

#: For each channel: frames per second, frames in a patch, a function of the chroma, and the
#: statistic over patches. "flux" is the half-wave rectified difference of consecutive frames.
PATCHES = (
    (5.4, 24, "level", "median"),
    (5.4, 12, "level", "median"),
    (3.3, 24, "level", "median"),
    (2.2, 24, "level", "median"),
    (2.2, 48, "level", "median"),
    (1.0, 16, "level", "median"),
    (1.0, 32, "level", "median"),
    (5.4, 24, "level", "spread"),
    (2.2, 24, "level", "spread"),
    (5.4, 24, "flux", "median"),
    (2.2, 24, "flux", "median"),
    (2.7, 24, "flux", "spread"),
    (2.7, 24, "peak", "median"),
)

#: For each channel: frames per second, and the lags (in frames) of the second and third factor.
TRIPLES = (
    (2.7, ((1, 2), (2, 4), (1, 3), (2, 3))),
    (2.7, ((3, 6), (4, 8), (2, 6), (4, 6))),
    (1.35, ((1, 2), (2, 4), (1, 3), (2, 3), (4, 8), (4, 6))),
)

#: Weight of the triple products, which are noisier than the magnitudes.
TRIPLE_WEIGHT = 0.7

#: Pitch frequencies a, b and a + b (mod 12). With a above 6, conjugates would repeat.
_PITCHES = np.array(
    [(a, b, (a + b) % 12) for a in range(1, 7) for b in range(1, 12) if (a + b) % 12]
)


def map_sequences(
    function: Callable[[np.ndarray], list[Floats]], sequences: Sequence[np.ndarray]
) -> list[Floats]:
    """Describe sequences, on all cores if there are many of them.

    The function returns blocks of numbers for a sequence, and can be pickled. The result has the
    same blocks, each with a row for each sequence. Raises RuntimeError if a process is killed.
    """
    count = min(joblib.cpu_count(), len(sequences) // MIN_PER_PROCESS)
    if count < 2:
        rows = _map_part(function, sequences)
    else:
        starts = range(0, len(sequences), PART_SEQUENCES)
        parts = [sequences[start : start + PART_SEQUENCES] for start in starts]
        try:
            with processes(count) as pool:  # much of it is Python, where threads would wait
                rows = list(chain.from_iterable(pool.map(partial(_map_part, function), parts)))
        except TerminatedWorkerError as error:
            raise RuntimeError(
                "A process that describes performances was killed, perhaps because memory ran out: "
                "run the same command again."
            ) from error
    return [np.stack(block) for block in zip(*rows, strict=True)]


def _map_part(
    function: Callable[[np.ndarray], list[Floats]], sequences: Sequence[np.ndarray]
) -> list[list[Floats]]:
    with threadpool_limits(1, user_api="blas"):  # so that rounding is equal on any machine
        return [function(sequence) for sequence in sequences]


def describe(sequence: np.ndarray) -> list[Floats]:
    """Return all moments of a sequence, in blocks; `moment_count()` numbers in all.

    The sequence, shape=(F, 2, 12), is in [0, 1], at `CHROMA_RATE`, without silence at its ends.
    """
    blocks = []
    for channel in range(len(CHANNELS)):
        chroma = sequence[:, channel].astype(np.float64)
        rates = {rate for rate, *_ in (*PATCHES, *TRIPLES)}
        at_rate = {rate: resample(chroma, CHROMA_RATE / rate) for rate in rates}
        for rate, width, kind, statistic in PATCHES:
            x = at_rate[rate]
            if kind == "flux":
                x = unit_frames(np.maximum(np.diff(x, axis=0), 0) + 1e-3, 1)
            else:
                x = unit_frames(x, 4 if kind == "peak" else 2)
            blocks.append(patch_magnitudes(x, width, statistic))
        for rate, lags in TRIPLES:
            x = unit_frames(at_rate[rate], 1.5)
            blocks.append(TRIPLE_WEIGHT * triple_products(x, lags))
    return blocks


@cache
def moment_count() -> int:
    """Return the number of moments of a sequence."""
    return sum(map(len, describe(np.ones((75, len(CHANNELS), 12)))))


def patch_magnitudes(x: np.ndarray, width: int, statistic: str) -> Floats:
    """Return 2-D Fourier magnitudes of overlapping patches, summarised over the patches.

    A magnitude does not depend on where in pitch and time its patch starts. Bertin-Mahieux and
    Ellis, "Large-scale cover song recognition using the 2D Fourier transform magnitude", ISMIR
    2012.

    The chroma, shape=(F, 12), is padded with zeros if it is shorter than a patch of `width` frames.
    The statistic is "median", or "spread" for the standard deviation. The result has unit length.
    """
    if len(x) < width:
        x = np.pad(x, ((0, width - len(x)), (0, 0)))
    # Over pitch once per frame, though each frame is in eight patches; then over time.
    pitch = np.ascontiguousarray(np.fft.rfft(x, axis=1).T)
    patches = np.lib.stride_tricks.sliding_window_view(pitch, width, axis=1)
    spectrum = np.abs(np.fft.fft(patches[:, :: max(1, width // 8)], axis=2))
    once = np.ones((7, width), bool)  # each magnitude once; the mean is left out
    once[0, 0] = False
    once[[0, 6], width // 2 + 1 :] = False
    spectrum = spectrum.transpose(0, 2, 1)[once]
    return _unit(np.median(spectrum, axis=1) if statistic == "median" else spectrum.std(axis=1))


def triple_products(x: np.ndarray, lags: Sequence[tuple[int, int]]) -> Floats:
    """Return time averages of X_t(a) X_{t+s}(b) conj X_{t+u}(a+b), scaled to unit length.

    X_t is the Fourier transform over pitch of frame t, and each lag is (s, u) in frames. This is a
    bispectrum over pitch with lags in time: a transposition turns the three phases by angles that
    cancel (Nikias and Raghuveer, "Bispectrum estimation", Proc. IEEE 1987). These moments keep what
    magnitudes lose: the order of events, and the direction of intervals.

    The chroma, shape=(F, 12), must be longer than the longest lag.
    """
    half = np.fft.rfft(x, axis=1)[:, 1:]
    spectrum = np.concatenate([half, half[:, 4::-1].conj()], axis=1)  # frequencies 1 to 11
    a, b, both = _PITCHES.T - 1
    means = []
    for second, third in lags:
        n = len(x) - third
        product = spectrum[:n][:, a] * spectrum[second : second + n][:, b]
        means.append((product * spectrum[third : third + n][:, both].conj()).mean(axis=0))
    mean = np.concatenate(means)
    parts = np.concatenate([mean.real, mean.imag])
    return _unit(np.sign(parts) * np.sqrt(np.abs(parts)))  # the root tames a few large products


def unit_frames(x: np.ndarray, power: float) -> np.ndarray:
    """Scale frames to unit length, and raise bins to a power; a high power favours strong bins."""
    return np.asarray((x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-3)) ** power)


def _unit(v: np.ndarray) -> Floats:
    # Spreads and imaginary parts of a constant sequence are rounding errors, which must stay small.
    return np.asarray(v / max(float(np.linalg.norm(v)), 1e-6))
