"""HPCP, MFCC and key, which essentia computes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from embedding.audio import tuning
from embedding.audio.rate import SAMPLE_RATE
from embedding.essentia import essentia

#: Windows in samples: of HPCP, and of MFCC, which is padded to a power of two.
HPCP_WINDOW = 4096
MFCC_WINDOW = 22050
MFCC_PADDED = 32768


def hpcp(signal: np.ndarray, first: int, count: int, hop: int) -> np.ndarray:
    """Compute harmonic pitch class profiles (Gómez 2006), from A.

    A frame is the mean of two windows: one centred on sample `first` + t x hop, and one half a hop
    later. The result has shape=(count, 3, 12), float32, in [0, 1], for each of `tuning.OFFSETS`.
    """
    es, band = essentia(), {"minFrequency": 100, "maxFrequency": 3500}
    window, spectrum = es.Windowing(type="blackmanharris62"), es.Spectrum()
    peaks = es.SpectralPeaks(
        magnitudeThreshold=0, maxPeaks=100, orderBy="frequency", sampleRate=SAMPLE_RATE, **band
    )
    whitening = es.SpectralWhitening(maxFrequency=3500, sampleRate=SAMPLE_RATE)
    profiles = [
        es.HPCP(
            sampleRate=SAMPLE_RATE,
            referenceFrequency=tuning.reference(offset),
            nonLinear=False,
            harmonics=8,
            size=12,
            **band,
        )
        for offset in tuning.OFFSETS
    ]
    values = []
    for samples in _windows(signal, first - HPCP_WINDOW // 2, 2 * count, HPCP_WINDOW, hop // 2):
        magnitudes = spectrum(window(samples))
        frequencies, heights = peaks(magnitudes)
        white = whitening(magnitudes, frequencies, heights)
        values.append([profile(frequencies, white) for profile in profiles])
    return np.asarray(np.array(values, np.float32).reshape(-1, 2, 3, 12).mean(axis=1))


def mfcc(signal: np.ndarray, first: int, count: int, hop: int) -> np.ndarray:
    """Compute mel-frequency cepstral coefficients as HTK has them, shape=(count, 13), float32.

    The window of frame t starts at sample `first` + t x hop.
    """
    es = essentia()
    window = es.Windowing(
        type="hamming", size=MFCC_WINDOW, zeroPadding=MFCC_PADDED - MFCC_WINDOW, normalized=False
    )
    spectrum = es.Spectrum(size=MFCC_PADDED)
    coefficients = es.MFCC(
        inputSize=MFCC_PADDED // 2 + 1,
        type="magnitude",
        warpingFormula="htkMel",
        weighting="linear",
        lowFrequencyBound=0,
        highFrequencyBound=8000,
        numberBands=26,
        numberCoefficients=13,
        normalize="unit_max",
        dctType=3,
        logType="log",
        liftering=22,
    )
    windows = _windows(signal, first, count, MFCC_WINDOW, hop)
    return np.asarray([coefficients(spectrum(window(each)))[1] for each in windows], np.float32)


def key(profile: np.ndarray) -> tuple[str, str, float]:
    """Return the key (A to G#), major or minor, and how strong it is, of a mean HPCP, shape=(12,).

    The strength is the correlation with the profile of the key, at most 1.
    """
    name, scale, strength, _ = essentia().Key(pcpSize=12, profileType="bgate")(profile)
    return name, scale, float(strength)


def _windows(
    signal: np.ndarray, first: int, count: int, size: int, hop: int
) -> Iterator[np.ndarray]:
    for start in range(first, first + count * hop, hop):
        yield signal[start : start + size]
