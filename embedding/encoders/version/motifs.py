"""Motifs: a few seconds of chroma each, cut out of training performances.

The response of a performance to a motif is its best match anywhere and in any key, so versions of a
work have similar responses. Averages over time lose what happens only once; a maximum keeps it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from embedding.data.chroma import CHANNELS, CHROMA_RATE, resample
from embedding.encoders.moments import describe, unit_frames
from embedding.encoders.projection import Floats

#: Frames per second at which motifs are compared.
MOTIF_RATE = 2.7

#: Frames of a motif, which are 4.4 seconds.
MOTIF_FRAMES = 12

#: Motifs of each channel, at most. This bounds the time to embed and the size of a bundle.
MAX_MOTIFS = 700


@dataclass(frozen=True)
class Motifs:
    """For each channel K motifs of unit length, shape=(2, K, 12 * MOTIF_FRAMES), float16."""

    patterns: np.ndarray

    @property
    def count(self) -> int:
        """Number of responses of a performance."""
        return len(CHANNELS) * len(self.patterns[0])

    def responses(self, sequence: np.ndarray, *, without_own: bool = False) -> list[np.ndarray]:
        """Match a sequence with all motifs; returns an array, shape=(K,), for each channel.

        A response is the highest cosine with any stretch of the sequence in any of the twelve keys.
        The mean over the motifs is subtracted, as it depends on the clarity of the chroma only.

        With `without_own`, responses to motifs that were cut out of this sequence are replaced by
        its mean response. They are perfect, and would tell a projection nothing about versions.
        """
        responses = []
        for channel, patterns in enumerate(self.patterns):
            stretches = _stretches(sequence[:, channel])
            motifs = patterns.astype(np.float32).T
            # One key after the other, so that the cosines stay in the cache.
            cosines = (_flat(np.roll(stretches, key, axis=1)) @ motifs for key in range(12))
            best = np.max([cosine.max(axis=0) for cosine in cosines], axis=0).astype(np.float64)
            if without_own:
                cut = {stretch.tobytes() for stretch in _flat(stretches).astype(np.float16)}
                own = np.array([pattern.tobytes() in cut for pattern in patterns])
                best[own] = best[~own].mean() if not own.all() else 0
            responses.append(best - best.mean())
        return responses


def statistics(sequence: np.ndarray, motifs: Motifs, *, without_own: bool = False) -> list[Floats]:
    """Return what is projected: moments and responses, in blocks that measure one thing each."""
    return [*describe(sequence), *motifs.responses(sequence, without_own=without_own)]


def cut_motifs(sequences: Sequence[np.ndarray], rng: np.random.Generator) -> Motifs:
    """Cut a motif out of each sequence, or of `MAX_MOTIFS` of them, at a random place."""
    chosen = np.sort(rng.permutation(len(sequences))[:MAX_MOTIFS])
    patterns = []
    for channel in range(len(CHANNELS)):
        cut = []
        for i in chosen:
            stretches = _stretches(sequences[i][:, channel])
            cut.append(stretches[rng.integers(len(stretches))])
        patterns.append(_flat(np.stack(cut)))
    return Motifs(np.stack(patterns).astype(np.float16))


def _stretches(chroma: np.ndarray) -> np.ndarray:  # (F, 12) -> (n, 12, MOTIF_FRAMES)
    x = unit_frames(resample(chroma.astype(np.float64), CHROMA_RATE / MOTIF_RATE), 1.5)
    x -= x.mean(axis=1, keepdims=True)  # otherwise every stretch resembles every other
    return np.lib.stride_tricks.sliding_window_view(x.astype(np.float32), MOTIF_FRAMES, axis=0)


def _flat(stretches: np.ndarray) -> np.ndarray:  # (n, 12, frames) -> (n, 12 * frames)
    x = stretches.reshape(len(stretches), -1)
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-3))
