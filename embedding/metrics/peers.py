"""What encoders are compared with: baselines, and measures of the literature.

Each function takes a feature store and returns symmetric distances between all its performances.
No function is trained. The measures of chroma use HPCP and do not know the key. Where two
performances need a common key, the second is transposed by the optimal transposition index (Serrà,
Gómez and Herrera, "Transposing chroma representations to a common key", 2008).
"""

from collections.abc import Callable
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike
from sklearn.preprocessing import normalize

from embedding.data.chroma import CHROMA_RATE, resample
from embedding.data.store import FeatureStore
from embedding.encoders.chroma import ChromaEncoder, trimmed
from embedding.essentia import essentia
from embedding.metrics.clusters import cluster, count_distinct
from embedding.metrics.distances import DistanceMatrix, Euclidean, Floats, Ints

#: Aligning more performances than this pair by pair would take hours.
MAX_ALIGNED = 1_000

#: Frames per second of 2DFTM and SiMPle: as many as beats at 120 bpm.
BEAT_RATE = 2.0

#: Frames in a patch of 2DFTM, and the power that raises the peaks of chroma above its noise.
PATCH_FRAMES, POWER = 75, 1.96

#: Frames in a subsequence of SiMPle: 10 s.
SUBSEQUENCE_FRAMES = 20

#: Frames per second of Qmax and Dmax: consecutive windows of 464 ms.
ALIGNED_RATE = 44100 / 20480

#: Of Qmax and Dmax: frames stacked into a state, and the share of nearest neighbours that recur.
STACKED_FRAMES, NEIGHBOUR_SHARE = 9, 0.095

#: Numbers of clusters that K-Means is tried with.
CLUSTER_COUNTS = range(2, 13)


def chance(store: FeatureStore, seed: int = 0) -> DistanceMatrix:
    """Return random distances: the result of knowing nothing."""
    values = np.random.default_rng(seed).random((len(store), len(store)))
    return DistanceMatrix((values + values.T) / 2)


def track_length(store: FeatureStore) -> DistanceMatrix:
    """Return differences of duration in seconds, which say nothing of the music.

    A measure that does no better may be a "horse" that reads the data set instead of the music
    (Sturm, "A simple method to determine if a music information retrieval system is a 'horse'",
    IEEE Transactions on Multimedia, 2014). Raises ValueError if a duration is unknown.
    """
    seconds = store.table["seconds"]
    if seconds.null_count():
        raise ValueError(
            f"{store.name} does not say how long its performances are: use features with frames"
        )
    return DistanceMatrix(np.abs(np.subtract.outer(seconds.to_numpy(), seconds.to_numpy())))


def raw_means(store: FeatureStore) -> Euclidean:
    """Return distances between the 52 means in their own units, where the tempo dominates."""
    return Euclidean(store.means)


def same_cluster(vectors: ArrayLike) -> DistanceMatrix:
    """Return 0 within a cluster of K-Means and 1 between clusters.

    The number of clusters, from 2 to 12, has the largest silhouette.
    """
    values = np.asarray(vectors)
    ks = [k for k in CLUSTER_COUNTS if k <= min(len(values) - 1, count_distinct(values))]
    labels = cluster(values, map(str, range(len(values))), ks).labels
    return DistanceMatrix(np.not_equal.outer(labels, labels).astype(np.float32))


def mean_chroma(store: FeatureStore) -> DistanceMatrix:
    """Return 1 - cosine of the mean chroma, in the transposition with the largest cosine.

    Gómez and Herrera, "The song remains the same: identifying versions of the same piece using
    tonal descriptors", ISMIR 2006, with the transposition of Serrà, Gómez and Herrera, 2008.
    """
    mean = normalize(np.stack([x.mean(axis=0) for x in _hpcp(store, BEAT_RATE)]))
    best = np.max([mean @ np.roll(mean, key, axis=1).T for key in range(12)], axis=0)
    return DistanceMatrix(np.maximum(1 - np.maximum(best, best.T), 0))  # symmetric but for rounding


def fourier_magnitudes(store: FeatureStore) -> Euclidean:
    """Return distances between medians of 2-D Fourier magnitudes (2DFTM) of chroma patches.

    Bertin-Mahieux and Ellis, "Large-scale cover song recognition using the 2D Fourier transform
    magnitude", ISMIR 2012, without its principal components, which only save space. Frames of
    half a second stand for beats.
    """
    return Euclidean(np.stack([_fourier_magnitudes(x) for x in _hpcp(store, BEAT_RATE)]))


def simple(store: FeatureStore) -> DistanceMatrix:
    """Return the median distance from 10 s of music to the nearest 10 s of the other performance.

    SiMPle: Silva, Yeh, Batista and Keogh, "SiMPle: assessing music similarity using subsequences
    joins", ISMIR 2016. The two directions are averaged. Raises ValueError for more than
    `MAX_ALIGNED` performances, or an unusable one.
    """
    chroma = [normalize(x) for x in _hpcp(store, BEAT_RATE)]
    shifts = transpositions(chroma)
    stretches = [
        np.lib.stride_tricks.sliding_window_view(x, SUBSEQUENCE_FRAMES, axis=0) for x in chroma
    ]  # (stretches, 12, SUBSEQUENCE_FRAMES) each
    squares = [(each**2).sum(axis=(1, 2)) for each in stretches]

    def distance(a: int, b: int) -> float:
        first = stretches[a].reshape(len(stretches[a]), -1)
        second = np.roll(stretches[b], shifts[a, b], axis=1).reshape(len(stretches[b]), -1)
        squared = squares[a][:, None] + squares[b] - 2 * first @ second.T
        profiles = (np.sqrt(np.maximum(squared.min(axis=axis), 0)) for axis in (1, 0))
        return float(np.mean([np.median(profile) for profile in profiles]))

    return _pair_by_pair(len(store), distance)


def qmax(store: FeatureStore) -> DistanceMatrix:
    """Return the mean root length of two performances over Qmax. Needs essentia.

    Qmax is the longest alignment, possibly curved and interrupted, in a cross recurrence plot:
    Serrà, Serra and Andrzejak, "Cross recurrence quantification for cover song identification",
    New Journal of Physics, 2009. Neighbourhoods and gap penalties are essentia's defaults. Raises
    ValueError for more than `MAX_ALIGNED` performances, or an unusable one.
    """
    return _aligned(store, "serra09")


def dmax(store: FeatureStore) -> DistanceMatrix:
    """As `qmax`, with other constraints on the path of the alignment (Dmax).

    Chen, Li and Xiao, "Fusing similarity functions for cover song identification", Multimedia
    Tools and Applications, 2017.
    """
    return _aligned(store, "chen17")


def transpositions(chroma: list[Floats]) -> Ints:
    """Return by how many semitones the second of each pair is transposed up to fit the first.

    Each performance has an array of shape=(F, 12). The result has shape=(n, n), values in [0, 12),
    and the value of (b, a) is the inverse of that of (a, b).
    """
    mean = np.stack([x.mean(axis=0) for x in chroma])
    likeness = np.array([mean @ np.roll(mean, key, axis=1).T for key in range(12)])
    up = np.triu(np.argmax(likeness, axis=0), 1)
    return np.asarray(up + (-up.T) % 12)


def _aligned(store: FeatureStore, alignment: str) -> DistanceMatrix:
    es = essentia()
    plot = es.ChromaCrossSimilarity(
        frameStackSize=STACKED_FRAMES, binarizePercentile=NEIGHBOUR_SHARE, oti=False
    )
    align = es.CoverSongSimilarity(alignmentType=alignment, distanceType="symmetric")
    chroma = _hpcp(store, ALIGNED_RATE)
    shifts = transpositions(chroma)
    frames = [x.astype(np.float32) for x in chroma]

    def distance(a: int, b: int) -> float:
        _, longest = align(plot(frames[a], np.roll(frames[b], shifts[a, b], axis=1)))
        lengths = np.sqrt([len(frames[a]), len(frames[b])])
        # An alignment of 0 counts as half a frame, which is further than any other.
        return float(lengths.mean() / max(longest, 0.5))

    return _pair_by_pair(len(store), distance)


def _pair_by_pair(count: int, distance: Callable[[int, int], float]) -> DistanceMatrix:
    if count > MAX_ALIGNED:
        raise ValueError(
            f"aligning {count} performances pair by pair would take hours: compare at most "
            f"{MAX_ALIGNED}"
        )
    values = np.zeros((count, count))
    for a, b in combinations(range(count), 2):
        values[a, b] = values[b, a] = distance(a, b)
    return DistanceMatrix(values)


def _hpcp(store: FeatureStore, rate: float) -> list[Floats]:
    sequences = store.inputs("chroma")
    for row, reason in ChromaEncoder.unusable(sequences).items():
        raise ValueError(f"{store.table['track_id'][row]} cannot be compared: {reason}.")
    hpcp = [sequence[:, 0].astype(np.float64) for sequence in trimmed(sequences)]
    return [resample(chroma, CHROMA_RATE / rate) for chroma in hpcp]


def _fourier_magnitudes(x: Floats) -> Floats:  # (F, 12) -> (12 * PATCH_FRAMES,)
    x = normalize(normalize(x) ** POWER)
    x = np.pad(x, ((0, max(PATCH_FRAMES - len(x), 0)), (0, 0)))
    patches = np.lib.stride_tricks.sliding_window_view(x, PATCH_FRAMES, axis=0)  # (n, 12, frames)
    return np.asarray(np.median(np.abs(np.fft.fft2(patches)), axis=0).ravel())
