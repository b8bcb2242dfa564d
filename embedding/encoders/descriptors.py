"""Descriptors of a chroma sequence that no transposition changes.

They are moments of the sequence: Fourier magnitudes of its patches, and time averages of triple
products of its Fourier coefficients over pitch. Projected without any label they are the encoder
"descriptors"; `version` projects them with labels and adds more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, ClassVar

import joblib
import numpy as np
from threadpoolctl import threadpool_limits

from embedding.data.chroma import CHANNELS
from embedding.data.store import FeatureStore
from embedding.encoders.projection import Floats, Projection
from embedding.processes import TerminatedWorkerError, processes

#: A frame whose strongest HPCP bin is below this is silent; in music it is about 0.6.
SILENCE = 0.05

#: Seconds that have to sound: the network's receptive field, 75 frames. The longest lag of a
#: triple is 6 s.
SHORTEST = 14.0

#: Frames a second at which sequences are described: those of 44100 / 4096 frames a second, halved.
CHROMA_RATE = 44100 / 8192

#: Performances that make another process worth its start: each takes tens of milliseconds.
FEWEST = 100

#: So many at a time are sent to one.
PART = 25

#: Of each channel: frames a second, frames in a patch, what is looked at, statistic over patches.
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
    (5.4, 24, "rise", "median"),
    (2.2, 24, "rise", "median"),
    (2.7, 24, "rise", "spread"),
    (2.7, 24, "peak", "median"),
)

#: Of each channel: frames a second, lags in frames of the second and third factor.
TRIPLES = (
    (2.7, ((1, 2), (2, 4), (1, 3), (2, 3))),
    (2.7, ((3, 6), (4, 8), (2, 6), (4, 6))),
    (1.35, ((1, 2), (2, 4), (1, 3), (2, 3), (4, 8), (4, 6))),
)

#: Triples are noisier than magnitudes.
TRIPLE_WEIGHT = 0.7

#: Pitch frequencies a, b and a + b (mod 12); with a above 6 the conjugates would come again.
_PITCHES = np.array(
    [(a, b, (a + b) % 12) for a in range(1, 7) for b in range(1, 12) if (a + b) % 12]
)


def sounding(sequence: np.ndarray) -> np.ndarray:
    """Return a sequence, shape=(F, 2, 12), without the silence before and after it."""
    heard = np.flatnonzero(sequence[:, 0].max(axis=1, initial=0) >= SILENCE)
    return sequence[heard[0] : heard[-1] + 1] if len(heard) else sequence[:0]


def unusable(store: FeatureStore) -> dict[str, str]:
    """Which performances have no sequence that can be described, and why, by track id."""
    reasons = {}
    for i, track_id in enumerate(store.table["track_id"]):
        reason = _why_unusable(store.sequence(i), store.chroma_rate)
        if reason is not None:
            reasons[track_id] = reason
    return reasons


def _why_unusable(sequence: np.ndarray, rate: float | None) -> str | None:
    if rate is None or len(sequence) == 0:
        return "it has no chroma"
    if not np.isfinite(sequence).all():
        return "its chroma has values that are not finite"
    seconds = len(sounding(sequence)) / rate
    if seconds == 0:
        return "its chroma is silent throughout"
    if seconds < SHORTEST:
        return f"only {seconds:.1f} s of it sound, and at least {SHORTEST:g} s are needed"
    return None


def sequences(store: FeatureStore, rate: float) -> list[np.ndarray]:
    """What sounds of each performance, at one rate whatever the store's.

    Parameters
    ----------
    store : FeatureStore
        With chroma.
    rate : float
        Frames a second wanted.

    Returns
    -------
    list of np.ndarray, each shape=(F, 2, 12), float16 or float64, in [0, 1]

    Raises
    ------
    ValueError
        If a performance is unusable; it is named.
    """
    for track_id, reason in unusable(store).items():
        raise ValueError(f"{track_id} cannot be embedded: {reason}; leave it out")
    return [
        resample(np.clip(sounding(store.sequence(i)), 0, 1), (store.chroma_rate or rate) / rate)
        for i in range(len(store))
    ]


def described(
    heard: Sequence[np.ndarray], moments: Callable[[np.ndarray], list[Floats]]
) -> list[list[Floats]]:
    """Describe sequences, on all cores where there are many.

    Parameters
    ----------
    heard : sequence of np.ndarray
        What sounds of each performance.
    moments : callable
        `describe` or more of one sequence, in blocks; something that can be pickled.

    Raises
    ------
    RuntimeError
        If one of the processes is killed.
    """
    count = min(joblib.cpu_count(), len(heard) // FEWEST)
    if count < 2:
        return _one_by_one(moments, heard)
    parts = [heard[i : i + PART] for i in range(0, len(heard), PART)]
    try:
        with processes(count) as others:  # threads would wait for Python's part of it
            done = others.map(partial(_one_by_one, moments), parts)
            return [blocks for part in done for blocks in part]
    except TerminatedWorkerError as error:
        raise RuntimeError(
            "A process that describes performances was killed, perhaps for want of memory: run the "
            "same command again."
        ) from error


def _one_by_one(
    moments: Callable[[np.ndarray], list[Floats]], heard: Sequence[np.ndarray]
) -> list[list[Floats]]:
    # BLAS on one core, so that how many there are changes no rounding.
    with threadpool_limits(1, user_api="blas"):
        return [moments(each) for each in heard]


def resample(x: np.ndarray, factor: float) -> np.ndarray:
    """Average consecutive stretches of about `factor` frames, time first; below 1 they overlap."""
    count = max(round(len(x) / factor), 1)
    if count == len(x):
        return x
    x = x.astype(np.float64)
    total = np.concatenate([np.zeros_like(x[:1]), np.cumsum(x, axis=0)])
    at = np.linspace(0, len(x), count + 1)
    whole = np.minimum(at.astype(int), len(x) - 1)
    share = (at - whole).reshape(-1, *[1] * (x.ndim - 1))
    area = total[whole] + share * x[whole]
    return np.asarray(np.diff(area, axis=0) / (len(x) / count))


def describe(sequence: np.ndarray, rate: float) -> list[Floats]:
    """Return all moments of one sounding sequence.

    Parameters
    ----------
    sequence : np.ndarray, shape=(F, 2, 12), in [0, 1]
        Channels as in `chroma.CHANNELS`.
    rate : float
        Frames a second.

    Returns
    -------
    list of np.ndarray, each of one dimension, float64; `length()` moments in all
        The same, but for rounding, for the sequence rotated in pitch.
    """
    blocks = []
    for channel in range(len(CHANNELS)):
        chroma = sequence[:, channel].astype(np.float64)
        heard = {fps: resample(chroma, rate / fps) for fps, *_ in (*PATCHES, *TRIPLES)}
        for fps, width, kind, statistic in PATCHES:
            x = heard[fps]
            if kind == "rise":
                x = unit_frames(np.maximum(np.diff(x, axis=0), 0) + 1e-3, 1)
            else:
                x = unit_frames(x, 4 if kind == "peak" else 2)
            blocks.append(patch_magnitudes(x, width, statistic))
        for fps, lags in TRIPLES:
            x = unit_frames(heard[fps], 1.5)
            blocks.append(TRIPLE_WEIGHT * triple_products(x, lags))
    return blocks


@cache
def length() -> int:
    """How many moments there are."""
    return sum(map(len, describe(np.ones((75, len(CHANNELS), 12)), CHROMA_RATE)))


def patch_magnitudes(x: np.ndarray, width: int, statistic: str) -> Floats:
    """2-D Fourier magnitudes of overlapping patches, summarised over the patches.

    A magnitude forgets where in pitch and time its patch starts: Bertin-Mahieux and Ellis,
    "Large-scale cover song recognition using the 2D Fourier transform magnitude", ISMIR 2012.

    Parameters
    ----------
    x : np.ndarray, shape=(F, 12)
        Padded with zeros if it is shorter than a patch.
    width : int
        Frames in a patch.
    statistic : str
        "median", or "spread" for the standard deviation.

    Returns
    -------
    np.ndarray, of unit length
    """
    if len(x) < width:
        x = np.pad(x, ((0, width - len(x)), (0, 0)))
    # Over pitch, of each frame once, though it is part of eight patches; and then time is last.
    pitch = np.ascontiguousarray(np.fft.rfft(x, axis=1).T)
    patches = np.lib.stride_tricks.sliding_window_view(pitch, width, axis=1)
    spectrum = np.abs(np.fft.fft(patches[:, :: max(1, width // 8)], axis=2))
    once = np.ones((7, width), bool)  # each magnitude once, and without the mean
    once[0, 0] = False
    once[[0, 6], width // 2 + 1 :] = False
    spectrum = spectrum.transpose(0, 2, 1)[once]
    return _unit(np.median(spectrum, axis=1) if statistic == "median" else spectrum.std(axis=1))


def triple_products(x: np.ndarray, lags: Sequence[tuple[int, int]]) -> Floats:
    """Time averages of X_t(a) X_{t+s}(b) conj X_{t+u}(a+b), X the Fourier transform over pitch.

    A transposition turns the three phases by angles that cancel. What the magnitudes lose, the
    order of events and whether an interval rises or falls, third-order moments keep.

    Parameters
    ----------
    x : np.ndarray, shape=(F, 12)
        Longer than the longest lag.
    lags : sequence of (int, int)
        s and u, in frames.

    Returns
    -------
    np.ndarray, of unit length
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
    """Bring each frame to unit length, and its bins to a power: the higher, the fewer count."""
    return np.asarray((x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-3)) ** power)


def _unit(v: np.ndarray) -> Floats:
    # A sequence that repeats a frame has spreads and imaginary parts of rounding error only.
    return np.asarray(v / max(float(np.linalg.norm(v)), 1e-6))


def with_altered_copies(
    heard: Sequence[np.ndarray], tempos: Sequence[float], seed: int
) -> list[np.ndarray]:
    """Return the sequences, and then an altered copy of each at the first tempo, and so on."""
    rng = np.random.default_rng(seed)
    return [*heard, *(altered_copy(each, tempo, rng) for tempo in tempos for each in heard)]


def altered_copy(sequence: np.ndarray, tempo: float, rng: np.random.Generator) -> np.ndarray:
    """Three quarters of a sequence, from anywhere in it, `tempo` times as fast."""
    faster = resample(sequence, tempo)
    kept = math.ceil(0.75 * len(faster))
    start = rng.integers(len(faster) - kept + 1)
    return faster[start : start + kept]


def check_numbers(config: Any, bounds: dict[str, tuple[float, float]]) -> None:
    """Raise ValueError for a setting outside its bounds; an integer default wants an integer."""
    for name, (low, high) in bounds.items():
        value, whole = getattr(config, name), isinstance(getattr(type(config), name), int)
        kind = int if whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high:
            number = "a whole number" if whole else "a number"
            limit = f"of at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
            raise ValueError(f"{name} is {value!r}, expected {number} {limit}")


def check_tempos(tempos: Sequence[float]) -> tuple[float, ...]:
    """Return tempos as a tuple, for JSON has lists only; raises ValueError if one is no tempo."""
    values = np.asarray(tempos, dtype=np.float64)
    if values.ndim != 1 or not ((values >= 0.5) & (values <= 2)).all():
        raise ValueError(f"tempos are {tempos!r}, expected a list of numbers from 0.5 to 2")
    return tuple(values.tolist())


@dataclass(frozen=True)
class DescriptorsConfig:
    """How sequences are described and projected.

    Attributes
    ----------
    chroma_rate : float
        Frames a second that sequences are brought to.
    dimension : int
        Components of a vector, or as many as the training performances have.
    tempering : float
        As in `projection.fit_principal`.
    tempos : tuple of float
        How many times as fast the altered copies are that performances join in training.
    """

    chroma_rate: float = CHROMA_RATE
    dimension: int = 256
    tempering: float = 0.35
    tempos: tuple[float, ...] = (0.82, 1.22)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tempos", check_tempos(self.tempos))
        check_numbers(
            self, {"chroma_rate": (4, 50), "dimension": (1, math.inf), "tempering": (0, 0.5)}
        )


@dataclass(frozen=True)
class Descriptors:
    """The descriptors' tempered principal components, learnt without labels."""

    columns: ClassVar[tuple[str, ...]] = CHANNELS
    settings: ClassVar[type[DescriptorsConfig]] = DescriptorsConfig

    config: DescriptorsConfig
    projection: Projection

    @property
    def dimension(self) -> int:
        """Components of a vector."""
        return self.projection.dimension

    @staticmethod
    def unusable(store: FeatureStore) -> dict[str, str]:
        """Performances with too little chroma, and why."""
        return unusable(store)

    def embed(self, store: FeatureStore) -> np.ndarray:
        """Return vectors of unit length, shape=(n, dimension), float32.

        Raises
        ------
        ValueError
            If a performance is unusable.
        """
        rate = self.config.chroma_rate
        blocks = described(sequences(store, rate), partial(describe, rate=rate))
        x = np.reshape([np.concatenate(each) for each in blocks], (-1, length()))
        return self.projection(x).astype(np.float32)

    def tensors(self) -> dict[str, np.ndarray]:
        """The projection."""
        return self.projection.tensors()

    @classmethod
    def from_tensors(cls, config: DescriptorsConfig, tensors: dict[str, np.ndarray]) -> Descriptors:
        """The inverse of `tensors`; raises KeyError or ValueError as `Projection`."""
        return cls(config, Projection.from_tensors(tensors, length()))
