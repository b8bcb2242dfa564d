"""Onset strength, tempos and beats."""

from __future__ import annotations

from functools import cache

import numpy as np
import scipy.fft
from scipy.ndimage import maximum_filter1d

from embedding.audio.rate import SAMPLE_RATE

#: Samples between two values of the onset strength.
ONSET_HOP = 1024
ONSET_RATE = SAMPLE_RATE / ONSET_HOP

#: Onsets are rises of the energy in mel bands, measured in windows of this number of samples.
WINDOW = 2048
MEL_BANDS = 100
BAND_HZ = (27.5, 16000)

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
    padded = np.pad(signal, WINDOW // 2)
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[:-1:ONSET_HOP]
    power = np.abs(scipy.fft.rfft(windows * np.hanning(WINDOW).astype(np.float32))) ** 2
    decibels = 10 * np.log10(np.maximum(power @ _mel_filters(), 1e-10))
    return _rises(decibels, decibels, 1), _rises(decibels, maximum_filter1d(decibels, 3, axis=1), 2)


def _rises(decibels: np.ndarray, earlier: np.ndarray, lag: int) -> np.ndarray:
    """Return the mean rise over `lag` windows."""
    rises = np.maximum(decibels[lag:] - earlier[:-lag], 0).mean(axis=1)
    return np.pad(rises, (lag, 0))


@cache
def _mel_filters() -> np.ndarray:
    """Return triangles that overlap by half and are evenly spaced in mel."""
    lowest, highest = 2595 * np.log10(1 + np.array(BAND_HZ) / 700)
    mels = np.linspace(lowest, highest, MEL_BANDS + 2)
    corners = 700 * (10 ** (mels / 2595) - 1)
    bins = scipy.fft.rfftfreq(WINDOW, 1 / SAMPLE_RATE)
    up = (bins[:, None] - corners[:-2]) / np.diff(corners)[:-1]
    down = (corners[2:] - bins[:, None]) / np.diff(corners)[1:]
    return np.asarray(np.maximum(np.minimum(up, down), 0), np.float32)


def tempos(strength: np.ndarray) -> np.ndarray:
    """Return the tempos and how strong they are, shape=(k, 2), strongest first.

    Tempos, in beats per minute, are the peaks of the autocorrelation of the onset strength. The
    strengths add up to 1. Without a peak, the only row is (0, 0).
    """
    shortest, longest = (round(60 * ONSET_RATE / tempo) for tempo in reversed(TEMPO_RANGE))
    power = np.abs(np.fft.rfft(strength - strength.mean(), 2 * len(strength))) ** 2
    likeness = np.fft.irfft(power)[: longest + 2]
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
