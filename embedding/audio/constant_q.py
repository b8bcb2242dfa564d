"""The constant-Q transform (Brown 1991): a spectrum whose bins are evenly spaced in pitch.

A filter is a tone under a Hann window. Its spectrum is narrow and known in closed form, so the
filters multiply the spectrum of a whole block, and only the frames that are kept are computed:
sampling a signal in time folds its spectrum.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import scipy.fft

from embedding.audio.rate import SAMPLE_RATE

#: From C1 to B7, three bins per semitone.
LOWEST_HZ = 440 * 2 ** (-45 / 12)
BINS_PER_OCTAVE = 36
OCTAVES = 7

#: The spectrum of a filter is cut off this far from its centre, in units of 1 / its length. librosa
#: cuts off as much, so this is nearest to the spectra that CREMA's model was trained on.
REACH = 4


def magnitudes(signal: np.ndarray, hop: int) -> np.ndarray:
    """Return the magnitudes of the constant-Q transform of a signal, which is taken for periodic.

    Filters have unit sums, and the magnitudes are scaled by the root of a filter's length in
    samples, so that noise of equal energy per hertz is equally strong in each bin.

    Parameters
    ----------
    signal : np.ndarray, shape=(n,)
        Float32, at `SAMPLE_RATE`; n is a multiple of `hop`.
    hop : int
        Samples between two frames; the first frame is centred on the first sample.

    Returns
    -------
    np.ndarray, shape=(n / hop, BINS_PER_OCTAVE x OCTAVES)
        Float32, at least 0.
    """
    frames = len(signal) // hop
    spectrum = scipy.fft.rfft(signal)
    folded = np.empty((BINS_PER_OCTAVE * OCTAVES, frames), np.complex64)
    for row, (first, response) in zip(folded, _responses(len(signal)), strict=True):
        product = np.zeros((-(-len(response) // frames), frames), np.complex64)
        covered = spectrum[first : first + len(response)]
        np.multiply(covered, response, out=product.reshape(-1)[: len(response)])
        product.sum(axis=0, out=row)
    sampled = scipy.fft.ifft(folded, norm="forward", overwrite_x=True)
    return np.asarray(np.abs(sampled).T / np.float32(len(signal)))


@lru_cache(maxsize=1)  # all blocks have the same length
def _responses(length: int) -> list[tuple[int, np.ndarray]]:
    """Return the first bin of each filter in a spectrum of `length` samples, and its values."""
    quality = 1 / (2 ** (1 / BINS_PER_OCTAVE) - 1)
    found = []
    for number in range(BINS_PER_OCTAVE * OCTAVES):
        frequency = LOWEST_HZ * 2 ** (number / BINS_PER_OCTAVE)
        samples = quality * SAMPLE_RATE / frequency
        centre, reach = frequency / SAMPLE_RATE * length, REACH / samples * length
        bins = np.arange(max(int(centre - reach), 0), int(centre + reach) + 1)
        away = (bins - centre) / length * samples
        hann = np.sinc(away) / (1 - away**2)
        found.append((int(bins[0]), (samples**0.5 * hann).astype(np.float32)))
    return found
