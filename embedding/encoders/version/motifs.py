"""How well a performance matches motifs: a few seconds of chroma, cut out of training performances.

A performance answers a motif with the best match in any place and any key, so that two versions
answer all of them alike. Averages over time lose what happens only once; a maximum keeps it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from embedding.data.chroma import CHANNELS
from embedding.encoders.descriptors import describe, resample, unit_frames
from embedding.encoders.projection import Floats

#: Frames a second at which motifs are compared, and how many frames each has: 4.4 seconds.
FPS, FRAMES = 2.7, 12

#: Motifs kept of each channel at most, which bounds the time to embed and a bundle's size.
MOST = 700


@dataclass(frozen=True)
class Motifs:
    """Stretches of chroma of one length.

    Attributes
    ----------
    patterns : np.ndarray, shape=(2, K, 12 * FRAMES), float16
        Of each channel, each of unit length.
    """

    patterns: np.ndarray

    @property
    def count(self) -> int:
        """Answers of a performance."""
        return len(CHANNELS) * len(self.patterns[0])

    def answers(self, sequence: np.ndarray, rate: float) -> list[np.ndarray]:
        """Match one sounding sequence with all motifs.

        Parameters
        ----------
        sequence : np.ndarray, shape=(F, 2, 12), in [0, 1]
            Channels as in `chroma.CHANNELS`.
        rate : float
            Frames a second.

        Returns
        -------
        list of np.ndarray, a channel each, shape=(K,), float64
            The highest cosine with any stretch of the sequence in any of twelve keys, less its
            mean over the motifs: how clear the chroma is says nothing of the tune.
        """
        answers = []
        for channel, patterns in enumerate(self.patterns):
            stretches = _stretches(sequence[:, channel], rate)
            wanted = patterns.astype(np.float32).T
            # One key after the other, so that the cosines stay in the cache.
            cosines = (_flat(np.roll(stretches, key, axis=1)) @ wanted for key in range(12))
            best = np.max([cosine.max(axis=0) for cosine in cosines], axis=0).astype(np.float64)
            answers.append(best - best.mean())
        return answers


def statistics(sequence: np.ndarray, rate: float, motifs: Motifs) -> list[Floats]:
    """What is projected of a sounding sequence, in blocks that measure one thing each."""
    return [*describe(sequence, rate), *motifs.answers(sequence, rate)]


def cut_motifs(heard: Sequence[np.ndarray], rate: float, rng: np.random.Generator) -> Motifs:
    """Cut a motif out of each sequence, or of `MOST` of them, at a random place."""
    chosen = rng.permutation(len(heard))[:MOST]
    patterns = []
    for channel in range(len(CHANNELS)):
        cut = []
        for i in np.sort(chosen):
            stretches = _stretches(heard[i][:, channel], rate)
            cut.append(stretches[rng.integers(len(stretches))])
        patterns.append(_flat(np.stack(cut)))
    return Motifs(np.stack(patterns).astype(np.float16))


def _stretches(chroma: np.ndarray, rate: float) -> np.ndarray:  # (F, 12) -> (n, 12, FRAMES)
    x = unit_frames(resample(chroma.astype(np.float64), rate / FPS), 1.5)
    x -= x.mean(axis=1, keepdims=True)  # else every stretch matches every other
    return np.lib.stride_tricks.sliding_window_view(x.astype(np.float32), FRAMES, axis=0)


def _flat(stretches: np.ndarray) -> np.ndarray:  # (n, 12, FRAMES) -> (n, 12 * FRAMES)
    x = stretches.reshape(len(stretches), -1)
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-3))
