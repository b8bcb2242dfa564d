"""Onset strength, tempos and beats, which librosa computes."""

from __future__ import annotations

from functools import partial

import librosa
import numpy as np

from embedding.audio.rate import SAMPLE_RATE

#: Samples between two values of the onset strength.
ONSET_HOP = 1024
ONSET_RATE = SAMPLE_RATE / ONSET_HOP

#: Tempos that are looked for, in beats per minute, and how many are kept.
TEMPO_RANGE = (40, 240)
MAX_TEMPOS = 12

#: How much evenly spaced beats are preferred to strong onsets.
BEAT_EVENNESS = 100.0


def onset_strengths(signal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the onset strength every `ONSET_HOP` samples, without and with a maximum filter.

    The filter (SuperFlux, Böck and Widmer 2013) suppresses vibrato. Each has shape=(n,), is at
    least 0, and is a mean difference in decibels.
    """
    mel = librosa.feature.melspectrogram(
        y=signal,
        sr=SAMPLE_RATE,
        n_fft=2048,
        hop_length=ONSET_HOP,
        n_mels=138,
        fmin=27.5,
        fmax=16000,
    )
    decibels = librosa.power_to_db(mel, top_db=None)
    onset_strength = partial(
        librosa.onset.onset_strength, S=decibels, sr=SAMPLE_RATE, hop_length=ONSET_HOP
    )
    return onset_strength(), onset_strength(lag=2, max_size=3)


def tempos(strength: np.ndarray) -> np.ndarray:
    """Return the tempos and how strong they are, shape=(k, 2), strongest first.

    Tempos, in beats per minute, are the peaks of the autocorrelation of the onset strength. The
    strengths add up to 1. Without a peak, the only row is (0, 0).
    """
    shortest, longest = (round(60 * ONSET_RATE / tempo) for tempo in reversed(TEMPO_RANGE))
    likeness = librosa.autocorrelate(strength - strength.mean(), max_size=longest + 2)
    before, here, after = likeness[:-2], likeness[1:-1], likeness[2:]
    peaks = 1 + np.flatnonzero((here > before) & (here >= after) & (here > 0))
    peaks = peaks[peaks >= shortest]
    peaks = peaks[np.argsort(-likeness[peaks], kind="stable")][:MAX_TEMPOS]
    if not len(peaks):
        return np.zeros((1, 2))
    return np.stack([60 * ONSET_RATE / peaks, likeness[peaks] / likeness[peaks].sum()], axis=1)


def beats(strength: np.ndarray, tempo: float) -> np.ndarray:
    """Return the times of the beats in seconds, shape=(n,), at a tempo in beats per minute.

    Beats are on onsets and about evenly apart: Ellis, "Beat tracking by dynamic programming", 2007.
    librosa has the same, but compiles it in a way that can crash where several processes start
    (numba issue 10128).
    """
    if tempo <= 0:
        return np.zeros(0)
    period = 60 * ONSET_RATE / tempo
    gaps = np.arange(round(period / 2), round(2 * period) + 1)
    costs = BEAT_EVENNESS * np.log(gaps / period) ** 2
    # A score for every place, even before the beginning, of a series of beats that ends there.
    scores = np.concatenate([np.zeros(gaps[-1]), strength / (strength.std() + 1e-9)])
    previous = np.zeros(len(scores), int)
    for here in range(gaps[-1], len(scores)):
        options = scores[here - gaps] - costs
        best = int(options.argmax())
        scores[here] += options[best]
        previous[here] = here - gaps[best]
    here = gaps[-1] + int(scores[gaps[-1] :][-gaps[-1] :].argmax())
    here += max(len(strength) - gaps[-1], 0)
    found = []
    while here >= gaps[-1]:
        found.append(here - gaps[-1])
        here = previous[here]
    return np.array(found[::-1]) / ONSET_RATE
