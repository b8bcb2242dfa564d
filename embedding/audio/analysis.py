"""All features of a recording, at 44100/4096 frames per second.

The parameters are those of acoss' `features.py`, which made Da-TACOS, except that Da-TACOS has eight
times as many frames. Two features are others: madmom, whose novelty functions Da-TACOS has, no
longer works, so librosa's onset strength and its variant for vibrato (SuperFlux, Böck and Widmer
2013) take their places; and CREMA is computed by `embedding.audio.crema`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import essentia
import essentia.standard
import librosa
import numpy as np
from scipy.ndimage import median_filter

from embedding.audio import crema
from embedding.audio.parts import in_parts
from embedding.audio.recording import SAMPLE_RATE, UnusableRecording, blocks

#: Samples between two frames.
HOP = 4096
FRAME_RATE = SAMPLE_RATE / HOP

#: A recording is analysed in blocks of half a minute. The lowest filter of the constant-Q transform has
#: 1.6 seconds, so two seconds on each side are enough.
BLOCK_FRAMES = 323
CONTEXT_FRAMES = 24

#: The constant-Q transform reaches from C1 to B7.
LOWEST_HZ = 440 * 2 ** (-45 / 12)
OCTAVES = crema.OCTAVES + 1

#: Windows in samples: of HPCP, and of MFCC, which is padded to a power of two.
HPCP_WINDOW = 4096
MFCC_WINDOW = 22050
MFCC_PADDED = 32768

#: CENS is smoothed over half a second, as the 41 frames of Da-TACOS are.
CENS_SMOOTHING_FRAMES = 5

#: Samples between two values of the onset strength, from which beats are found.
ONSET_HOP = 1024

#: Tempos that are looked for, in beats per minute, and how many are kept.
TEMPO_RANGE = (40, 240)
MAX_TEMPOS = 12

#: Fewer seconds than this above -60 dB of full scale are silence.
MIN_SOUNDING_SECONDS = 5.0
SILENT_LEVEL = 1e-3

#: Music has a higher tonal share than this (0.65 to 0.99 in the renderings that it was chosen on,
#: with drums as loud as everything else included); noise has 0.5, and speech 0.45.
MIN_TONAL_SHARE = 0.58

essentia.log.infoActive = False
essentia.log.warningActive = False


@dataclass(frozen=True)
class Analysis:
    """The features of a recording, in the shapes of Da-TACOS' benchmark subset."""

    hpcp: np.ndarray  # (T, 12), in [0, 1], from A
    crema: np.ndarray  # (T, 12), in [0, 1], from C
    chroma_cens: np.ndarray  # (T, 12), in [0, 1], from C
    mfcc_htk: np.ndarray  # (13, T - 5)
    novfn: np.ndarray  # (T,), onset strength
    snovfn: np.ndarray  # (T,), the same with a maximum filter over frequency
    beats: np.ndarray  # frames, int64
    tempos: np.ndarray  # (k, 2): beats per minute and relative strength, strongest first
    key: str  # A to G#
    scale: str  # major or minor
    strength: float  # of the key, in [0, 1]

    @property
    def seconds(self) -> float:
        """The length of the recording."""
        return len(self.hpcp) / FRAME_RATE


def analyse(path: Path) -> Analysis:
    """Compute the features of a recording. The memory needed hardly grows with its length.

    Raises
    ------
    UnusableRecording
        If the recording cannot be decoded, or is silent, speech or noise.
    """
    parts: dict[str, list[np.ndarray]] = {}
    sounding = 0
    tonal = other = 0.0
    for signal in blocks(path, HOP, BLOCK_FRAMES, CONTEXT_FRAMES):
        block = _block(signal - signal.mean(dtype=np.float64).astype(np.float32))
        for name, values in block.items():
            parts.setdefault(name, []).append(values)
        sounding += int((_levels(signal) > SILENT_LEVEL).sum())
        here = _energies(block["magnitudes"])
        tonal, other = tonal + here[0], other + here[1]
    if sounding < MIN_SOUNDING_SECONDS * FRAME_RATE:
        raise UnusableRecording(
            f"it has {sounding / FRAME_RATE:.1f} seconds of sound, and "
            f"{MIN_SOUNDING_SECONDS:.0f} are needed"
        )
    if (share := tonal / (tonal + other)) < MIN_TONAL_SHARE:
        raise UnusableRecording(
            f"it is speech or noise: its tonal share is {share:.2f}, and music has at least "
            f"{MIN_TONAL_SHARE}"
        )
    whole = {name: np.concatenate(values) for name, values in parts.items()}
    return _finished(whole)


def _block(signal: np.ndarray) -> dict[str, np.ndarray]:
    """Compute what needs the signal, for the frames of a block without its surroundings."""
    count = len(signal) // HOP - 2 * CONTEXT_FRAMES
    frames = slice(CONTEXT_FRAMES, CONTEXT_FRAMES + count)
    transformed = librosa.cqt(
        signal,
        sr=SAMPLE_RATE,
        hop_length=HOP,
        fmin=LOWEST_HZ,
        n_bins=OCTAVES * crema.BINS_PER_OCTAVE,
        bins_per_octave=crema.BINS_PER_OCTAVE,
    )
    onsets = slice(frames.start * HOP // ONSET_HOP, frames.stop * HOP // ONSET_HOP)
    novelty, vibrato_free = _onset_strengths(signal)
    return {
        # Half precision is a hundredth of a decibel, and halves the memory of a long recording.
        "magnitudes": np.abs(transformed).T[frames].astype(np.float16),
        "hpcp": _hpcp(signal, frames),
        "mfcc": _mfcc(signal, frames),
        "novelty": novelty[onsets],
        "vibrato_free": vibrato_free[onsets],
    }


def _levels(signal: np.ndarray) -> np.ndarray:
    """Return the root mean square of each frame of a block."""
    frames = signal[: len(signal) // HOP * HOP].reshape(-1, HOP)[CONTEXT_FRAMES:-CONTEXT_FRAMES]
    return np.asarray(frames.std(axis=1))


def _energies(magnitudes: np.ndarray) -> tuple[float, float]:
    """Return the energy of what lasts, as tones do, and of what spreads over the spectrum.

    They are separated by medians over time and over frequency (FitzGerald, DAFx 2010).
    """
    magnitudes = magnitudes.astype(np.float32)
    lasting = median_filter(magnitudes, size=(7, 1))
    spread = median_filter(magnitudes, size=(1, 13))
    return float((lasting**2).sum()), float((spread**2).sum()) + 1e-12


def _windows(signal: np.ndarray, first: int, count: int, size: int, hop: int) -> Iterator:
    for i in range(count):
        start = first + i * hop
        yield signal[start : start + size]


def _hpcp(signal: np.ndarray, frames: slice) -> np.ndarray:
    """Harmonic pitch class profiles (Gómez 2006): the mean of two windows per frame."""
    band = {"minFrequency": 100, "maxFrequency": 3500}
    window = essentia.standard.Windowing(type="blackmanharris62")
    spectrum = essentia.standard.Spectrum()
    peaks = essentia.standard.SpectralPeaks(
        magnitudeThreshold=0, maxPeaks=100, orderBy="frequency", sampleRate=SAMPLE_RATE, **band
    )
    whitening = essentia.standard.SpectralWhitening(maxFrequency=3500, sampleRate=SAMPLE_RATE)
    profile = essentia.standard.HPCP(
        sampleRate=SAMPLE_RATE, referenceFrequency=440, nonLinear=False, harmonics=8, size=12, **band
    )
    first = frames.start * HOP - HPCP_WINDOW // 2
    count = 2 * (frames.stop - frames.start)
    values = []
    for samples in _windows(signal, first, count, HPCP_WINDOW, HOP // 2):
        magnitudes = spectrum(window(samples))
        frequencies, heights = peaks(magnitudes)
        heights = whitening(magnitudes, frequencies, heights)
        values.append(profile(frequencies, heights))
    return np.asarray(values, np.float32).reshape(-1, 2, 12).mean(axis=1)


def _mfcc(signal: np.ndarray, frames: slice) -> np.ndarray:
    """Mel-frequency cepstral coefficients as HTK has them; a window starts at its frame."""
    window = essentia.standard.Windowing(
        type="hamming", size=MFCC_WINDOW, zeroPadding=MFCC_PADDED - MFCC_WINDOW, normalized=False
    )
    spectrum = essentia.standard.Spectrum(size=MFCC_PADDED)
    coefficients = essentia.standard.MFCC(
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
    first, count = frames.start * HOP, frames.stop - frames.start
    windows = _windows(signal, first, count, MFCC_WINDOW, HOP)
    return np.asarray([coefficients(spectrum(window(each)))[1] for each in windows], np.float32)


def _onset_strengths(signal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mel = librosa.feature.melspectrogram(
        y=signal, sr=SAMPLE_RATE, n_fft=2048, hop_length=ONSET_HOP, n_mels=138, fmin=27.5, fmax=16000
    )
    decibels = librosa.power_to_db(mel, top_db=None)
    at = {"S": decibels, "sr": SAMPLE_RATE, "hop_length": ONSET_HOP}
    plain = librosa.onset.onset_strength(**at)
    return plain, librosa.onset.onset_strength(**at, lag=2, max_size=3)


def _finished(whole: dict[str, np.ndarray]) -> Analysis:
    """Compute what needs the whole recording."""
    magnitudes, hpcp = whole["magnitudes"], whole["hpcp"]
    tempos, beats = _rhythm(whole["novelty"])
    key, scale, strength, _ = essentia.standard.Key(pcpSize=12, profileType="bgate")(
        hpcp.mean(axis=0)
    )
    per_frame = (-1, HOP // ONSET_HOP)
    return Analysis(
        hpcp=hpcp,
        crema=crema.pitch_classes(magnitudes),
        chroma_cens=in_parts(_cens, magnitudes),
        # The last windows reach beyond the end, where Da-TACOS has none.
        mfcc_htk=whole["mfcc"][: max(len(hpcp) - MFCC_WINDOW // HOP, 1)].T,
        novfn=whole["novelty"].reshape(per_frame).mean(axis=1, dtype=np.float32),
        snovfn=whole["vibrato_free"].reshape(per_frame).mean(axis=1, dtype=np.float32),
        beats=beats,
        tempos=tempos,
        key=key,
        scale=scale,
        strength=float(strength),
    )


def _cens(magnitudes: np.ndarray) -> np.ndarray:
    """Chroma energy normalised statistics (Müller, Kurth and Clausen 2005)."""
    cens = librosa.feature.chroma_cens(
        C=magnitudes.T.astype(np.float32),
        fmin=LOWEST_HZ,
        bins_per_octave=crema.BINS_PER_OCTAVE,
        n_octaves=OCTAVES,
        win_len_smooth=CENS_SMOOTHING_FRAMES,
    )
    return np.nan_to_num(cens.T).astype(np.float32)


def _rhythm(novelty: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the tempos, and the frames of the beats at the strongest tempo.

    Tempos are the peaks of the autocorrelation of the onset strength. One of 0 beats per minute
    means that there is no beat.
    """
    rate = SAMPLE_RATE / ONSET_HOP
    longest = int(60 * rate / TEMPO_RANGE[0]) + 1
    likeness = librosa.autocorrelate(novelty - novelty.mean(), max_size=longest + 1)
    shortest = int(60 * rate / TEMPO_RANGE[1])
    middle = likeness[1:-1]
    peaks = 1 + np.flatnonzero((middle > likeness[:-2]) & (middle >= likeness[2:]) & (middle > 0))
    peaks = peaks[peaks >= shortest]
    if not len(peaks):
        return np.zeros((1, 2)), np.zeros(0, np.int64)
    peaks = peaks[np.argsort(-likeness[peaks], kind="stable")][:MAX_TEMPOS]
    strengths = likeness[peaks] / likeness[peaks].sum()
    tempos = np.stack([60 * rate / peaks, strengths], axis=1)
    _, beats = librosa.beat.beat_track(
        onset_envelope=novelty,
        sr=SAMPLE_RATE,
        hop_length=ONSET_HOP,
        bpm=tempos[0, 0],
        trim=False,
    )
    return tempos, np.rint(beats * ONSET_HOP / HOP).astype(np.int64)
