"""The base of encoders of chroma sequences, and how sequences are trimmed and altered."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from embedding.data.chroma import CHANNELS, CHROMA_RATE, resample
from embedding.encoders.encoder import Encoder
from embedding.encoders.projection import Projection

#: A frame whose strongest HPCP bin is below this is silent. In the sample, music has about 0.6.
SILENCE_LEVEL = 0.05

#: Seconds of sound that are needed: the receptive field of the version encoder's network.
MIN_SECONDS = 14.0


@dataclass(frozen=True)
class ChromaEncoder(Encoder):
    """An encoder of chroma sequences that projects statistics of them."""

    input = "chroma"
    columns = CHANNELS

    config: Any
    projection: Projection

    @property
    def dimension(self) -> int:
        return self.projection.dimension

    def tensors(self) -> dict[str, np.ndarray]:
        return self.projection.tensors()

    @staticmethod
    def unusable(inputs: Sequence[np.ndarray]) -> dict[int, str]:
        """Return the rows with too little chroma, with the reason."""
        reasons = {row: _why_unusable(sequence) for row, sequence in enumerate(inputs)}
        return {row: reason for row, reason in reasons.items() if reason is not None}


def _why_unusable(sequence: np.ndarray) -> str | None:
    if len(sequence) == 0:
        return "it has no chroma"
    if not np.isfinite(sequence).all():
        return "its chroma has values that are not finite"
    seconds = len(without_silence(sequence)) / CHROMA_RATE
    if seconds == 0:
        return "its chroma is silent throughout"
    if seconds < MIN_SECONDS:
        return f"only {seconds:.1f} s of it sound, and at least {MIN_SECONDS:g} s are needed"
    return None


def without_silence(sequence: np.ndarray) -> np.ndarray:
    """Return a sequence, shape=(F, 2, 12), without the silence before and after it."""
    sounding = np.flatnonzero(sequence[:, 0].max(axis=1, initial=0) >= SILENCE_LEVEL)
    return sequence[sounding[0] : sounding[-1] + 1] if len(sounding) else sequence[:0]


def trimmed(sequences: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return usable sequences without the silence around them, in [0, 1]."""
    return [np.clip(without_silence(sequence), 0, 1) for sequence in sequences]


def with_altered_copies(
    sequences: Sequence[np.ndarray], tempos: Sequence[float], seed: int
) -> list[np.ndarray]:
    """Return the sequences, and an altered copy of each for each tempo."""
    rng = np.random.default_rng(seed)
    copies = [altered_copy(sequence, tempo, rng) for tempo in tempos for sequence in sequences]
    return [*sequences, *copies]


def altered_copy(sequence: np.ndarray, tempo: float, rng: np.random.Generator) -> np.ndarray:
    """Return three quarters of a sequence, from a random start, `tempo` times as fast."""
    faster = resample(sequence, tempo)
    frames = math.ceil(0.75 * len(faster))
    start = rng.integers(len(faster) - frames + 1)
    return faster[start : start + frames]
