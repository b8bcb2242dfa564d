"""What an encoder is compared with: baselines, and the measures of the literature.

Each takes a feature store and returns distances between all of its performances, the same in both
directions. None is trained. Those of chroma read HPCP, and are told nothing of the key; where two
performances have to be brought to one, the second is transposed by the optimal transposition index
(Serrà, Gómez and Herrera, "Transposing chroma representations to a common key", 2008).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from embedding.data.chroma import CHROMA_RATE, resample
from embedding.data.store import FeatureStore
from embedding.encoders.chroma import ChromaEncoder, trimmed
from embedding.metrics.clusters import cluster
from embedding.metrics.distances import DistanceMatrix, Euclidean, Floats, Ints

#: Above this many performances what is aligned pair by pair would take hours.
MOST_ALIGNED = 1_000

#: Frames a second of 2DFTM and SiMPle: as many as beats at 120 a minute.
BEAT_RATE = 2.0

#: Frames in a patch of 2DFTM, and the power that raises its peaks above its noise.
PATCH, POWER = 75, 1.96

#: Frames in a subsequence of SiMPle: 10 s.
SUBSEQUENCE = 20

#: Frames a second of Qmax and Dmax: windows of 464 ms, one after the other.
ALIGNED_RATE = 44100 / 20480

#: Frames stacked into a state, and the share of nearest neighbours, of Qmax and Dmax.
STACKED, NEAREST = 9, 0.095

#: K-Means is tried with these numbers of clusters.
CLUSTERS = range(2, 13)


def chance(store: FeatureStore, seed: int = 0) -> DistanceMatrix:
    """Distances drawn at random: what is found by knowing nothing."""
    values = np.random.default_rng(seed).random((len(store), len(store)))
    return DistanceMatrix((values + values.T) / 2)


def track_length(store: FeatureStore) -> DistanceMatrix:
    """How much longer one performance is than another, in seconds: no music at all.

    Whatever does no better may be a "horse" that reads the data set instead of the music: Sturm,
    "A simple method to determine if a music information retrieval system is a 'horse'", IEEE
    Transactions on Multimedia, 2014.

    Raises
    ------
    ValueError
        If a performance has no length.
    """
    seconds = store.table["seconds"]
    if seconds.null_count():
        raise ValueError(
            f"{store.name} doesn't say how long its performances are: give features with frames"
        )
    return DistanceMatrix(np.abs(np.subtract.outer(seconds.to_numpy(), seconds.to_numpy())))


def raw_means(store: FeatureStore) -> Euclidean:
    """Between the 52 means in their own units, where the tempo, the largest, decides nearly all."""
    return Euclidean(store.means)


def same_cluster(vectors: ArrayLike) -> DistanceMatrix:
    """0 within a cluster of K-Means and 1 between two, as the prototype looks up neighbours.

    The number of clusters, from 2 to 12, is that of the largest silhouette (Rousseeuw,
    "Silhouettes", 1987).

    Parameters
    ----------
    vectors : array_like, shape=(performances, dimension)
        Finite.
    """
    values = np.asarray(vectors)
    ks = [k for k in CLUSTERS if k <= min(len(values) - 1, Euclidean(values).different)]
    labels = cluster(values, map(str, range(len(values))), ks).labels
    return DistanceMatrix(np.not_equal.outer(labels, labels).astype(np.float32))


def mean_chroma(store: FeatureStore) -> DistanceMatrix:
    """1 - cosine of the mean chroma, in the key that brings them nearest.

    Gómez and Herrera, "The song remains the same: identifying versions of the same piece using
    tonal descriptors", ISMIR 2006, with the transposition of Serrà, Gómez and Herrera, 2008.
    """
    mean = _unit(np.stack([x.mean(axis=0) for x in _hpcp(store, BEAT_RATE)]))
    best = np.max([mean @ np.roll(mean, key, axis=1).T for key in range(12)], axis=0)
    return DistanceMatrix(np.maximum(1 - np.maximum(best, best.T), 0))  # equal but for rounding


def fourier_magnitudes(store: FeatureStore) -> Euclidean:
    """Between medians of 2-D Fourier magnitudes (2DFTM) of chroma patches.

    Bertin-Mahieux and Ellis, "Large-scale cover song recognition using the 2D Fourier transform
    magnitude", ISMIR 2012, before its principal components, which only save room; Humphrey, Nieto
    and Bello, "Data driven and discriminative projections for large-scale cover song
    identification", ISMIR 2013, is trained. Frames of half a second stand for beats.
    """
    return Euclidean(np.stack([_fourier_magnitudes(x) for x in _hpcp(store, BEAT_RATE)]))


def simple(store: FeatureStore) -> DistanceMatrix:
    """Median distance from a stretch of 10 s to the nearest stretch of the other performance.

    SiMPle: Silva, Yeh, Batista and Keogh, "SiMPle: assessing music similarity using subsequences
    joins", ISMIR 2016. The two directions are averaged.

    Raises
    ------
    ValueError
        If there are more than `MOST_ALIGNED` performances, or one is unusable.
    """
    chroma = [_unit(x) for x in _hpcp(store, BEAT_RATE)]
    shifts = transpositions(chroma)
    stretches = [
        np.lib.stride_tricks.sliding_window_view(x, SUBSEQUENCE, axis=0) for x in chroma
    ]  # (stretches, 12, SUBSEQUENCE) each
    squares = [(each**2).sum(axis=(1, 2)) for each in stretches]

    def distance(a: int, b: int) -> float:
        ours = stretches[a].reshape(len(stretches[a]), -1)
        theirs = np.roll(stretches[b], shifts[a, b], axis=1).reshape(len(stretches[b]), -1)
        apart = squares[a][:, None] + squares[b] - 2 * ours @ theirs.T
        profiles = (np.sqrt(np.maximum(apart.min(axis=axis), 0)) for axis in (1, 0))
        return float(np.mean([np.median(profile) for profile in profiles]))

    return _pair_by_pair(len(store), distance)


def qmax(store: FeatureStore) -> DistanceMatrix:
    """Longest alignment that may be curved and broken, in a cross recurrence plot.

    Serrà, Serra and Andrzejak, "Cross recurrence quantification for cover song identification",
    New Journal of Physics, 2009: the square root of a performance's frames over Qmax, averaged
    over both. Neighbourhoods and gap penalties are essentia's defaults. Needs essentia.

    Raises
    ------
    ModuleNotFoundError
        If essentia isn't installed.
    ValueError
        If there are more than `MOST_ALIGNED` performances, or one is unusable.
    """
    return _aligned(store, "serra09")


def dmax(store: FeatureStore) -> DistanceMatrix:
    """As `qmax`, with other constraints on the path of the alignment (Dmax).

    Chen, Li and Xiao, "Fusing similarity functions for cover song identification", Multimedia
    Tools and Applications, 2017. Needs essentia.

    Raises
    ------
    ModuleNotFoundError
        If essentia isn't installed.
    ValueError
        If there are more than `MOST_ALIGNED` performances, or one is unusable.
    """
    return _aligned(store, "chen17")


def transpositions(chroma: list[Floats]) -> Ints:
    """Return by how many semitones the second of each pair goes up to come nearest to the first.

    Parameters
    ----------
    chroma : list of np.ndarray, each shape=(F, 12)
        One a performance.

    Returns
    -------
    np.ndarray, shape=(n, n), in [0, 12)
        The one for (b, a) is 12 less the one for (a, b), or 0.
    """
    mean = np.stack([x.mean(axis=0) for x in chroma])
    alike = np.array([mean @ np.roll(mean, key, axis=1).T for key in range(12)])
    up = np.triu(np.argmax(alike, axis=0), 1)
    return np.asarray(up + (-up.T) % 12)


def _aligned(store: FeatureStore, alignment: str) -> DistanceMatrix:
    essentia = _essentia()
    plot = essentia.ChromaCrossSimilarity(
        frameStackSize=STACKED, binarizePercentile=NEAREST, oti=False
    )
    align = essentia.CoverSongSimilarity(alignmentType=alignment, distanceType="symmetric")
    chroma = _hpcp(store, ALIGNED_RATE)
    shifts = transpositions(chroma)
    frames = [x.astype(np.float32) for x in chroma]

    def distance(a: int, b: int) -> float:
        _, longest = align(plot(frames[a], np.roll(frames[b], shifts[a, b], axis=1)))
        lengths = np.sqrt([len(frames[a]), len(frames[b])])
        # Where nothing is aligned, it is half a frame: further away than whatever is.
        return float(lengths.mean() / max(longest, 0.5))

    return _pair_by_pair(len(store), distance)


def _essentia() -> Any:
    try:
        import essentia
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "needs essentia: pip install --pre essentia, and compare again"
        ) from error
    essentia.log.infoActive = False  # it would tell of models that nothing here uses
    import essentia.standard

    return essentia.standard


def _pair_by_pair(count: int, distance: Callable[[int, int], float]) -> DistanceMatrix:
    if count > MOST_ALIGNED:
        raise ValueError(
            f"aligning {count} performances pair by pair would take hours: compare at most "
            f"{MOST_ALIGNED}"
        )
    values = np.zeros((count, count))
    for a in range(count):
        for b in range(a + 1, count):
            values[a, b] = values[b, a] = distance(a, b)
    return DistanceMatrix(values)


def _hpcp(store: FeatureStore, rate: float) -> list[Floats]:
    sequences = store.inputs("chroma")
    for row, reason in ChromaEncoder.unusable(sequences).items():
        raise ValueError(f"{store.table['track_id'][row]} cannot be compared: {reason}.")
    hpcp = [sequence[:, 0].astype(np.float64) for sequence in trimmed(sequences)]
    return [resample(chroma, CHROMA_RATE / rate) for chroma in hpcp]


def _fourier_magnitudes(x: Floats) -> Floats:  # (F, 12) -> (12 * PATCH,)
    x = _unit(_unit(x) ** POWER)
    x = np.pad(x, ((0, max(PATCH - len(x), 0)), (0, 0)))
    patches = np.lib.stride_tricks.sliding_window_view(x, PATCH, axis=0)  # (patches, 12, PATCH)
    return np.asarray(np.median(np.abs(np.fft.fft2(patches)), axis=0).ravel())


def _unit(x: Floats) -> Floats:
    """Rows of length 1; silence stays silent."""
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9))
