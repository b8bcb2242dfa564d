"""All features of a recording, at 44100/4096 frames per second.

The parameters are those of acoss' `features.py`, which made Da-TACOS, but Da-TACOS has eight times
as many frames. Two features come from elsewhere. Da-TACOS has the novelty functions of madmom,
which no longer works: the onset strengths of `embedding.audio.rhythm` take their places.
`embedding.audio.crema` computes CREMA. Chroma is tuned to the recording, see
`embedding.audio.tuning`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.ndimage import median_filter

from embedding.audio import cens, constant_q, crema, profiles, rhythm, tuning
from embedding.audio.rate import FRAME_RATE, HOP
from embedding.audio.recording import UnusableRecording, blocks

#: A recording is analysed in blocks of half a minute. The longest filter of the constant-Q
#: transform has 1.6 seconds, so two seconds on each side are enough.
BLOCK_FRAMES = 336
CONTEXT_FRAMES = 24

#: A recording needs this number of seconds above -60 dB of full scale; less is silence.
MIN_SOUNDING_SECONDS = 5.0
SILENT_LEVEL = 1e-3

#: Noise fills all pitch classes alike, so its HPCP has a mean of 0.58, and drums alone 0.56. Tones
#: in louder noise or drums have 0.42, a dense pop recording 0.38, and voices 0.2 to 0.38.
MAX_MEAN_HPCP = 0.5

#: The least tonal share of music. Two recordings of speech have 0.44 and 0.46, and fast singing
#: with a wide vibrato 0.48. Renderings of music have 0.65 to 0.99. In doubt, a recording is music.
MIN_TONAL_SHARE = 0.47


@dataclass(frozen=True)
class Analysis:
    """The features of a recording, in the shapes of Da-TACOS' benchmark subset."""

    hpcp: np.ndarray  # (T, 12), in [0, 1], from A
    crema: np.ndarray  # (T, 12), in [0, 1], from C
    chroma_cens: np.ndarray  # (T, 12), in [0, 1], from C
    mfcc_htk: np.ndarray  # (13, T - 5)
    novfn: np.ndarray  # (T,), onset strength
    snovfn: np.ndarray  # (T,), the same without vibrato
    beats: np.ndarray  # frames, int64
    tempos: np.ndarray  # (k, 2): beats per minute and strength, strongest first
    key: str  # A to G#
    scale: str  # major or minor
    strength: float  # of the key


def analyse(path: Path) -> Analysis:
    """Compute the features of a recording. The memory needed hardly grows with its length.

    Raises
    ------
    UnusableRecording
        If the recording cannot be decoded, or is silent, speech or noise.
    """
    parts: dict[str, list[np.ndarray]] = {}
    for signal in blocks(path, HOP, BLOCK_FRAMES, CONTEXT_FRAMES):
        for name, values in _block(signal).items():
            parts.setdefault(name, []).append(values)
    # Each list is freed as soon as it is joined.
    whole = {name: np.concatenate(parts.pop(name)) for name in list(parts)}
    _check(whole)
    return _finished(whole)


def _block(signal: np.ndarray) -> dict[str, np.ndarray]:
    """Compute what needs the signal, for the frames of a block without its surroundings."""
    count = len(signal) // HOP - 2 * CONTEXT_FRAMES
    start, stop = CONTEXT_FRAMES * HOP, (CONTEXT_FRAMES + count) * HOP
    # Filters are computed for one length, so the last block is filled up.
    filled = np.pad(signal, (0, (BLOCK_FRAMES + 2 * CONTEXT_FRAMES) * HOP - len(signal)))
    magnitudes = constant_q.magnitudes(filled, HOP)[CONTEXT_FRAMES : CONTEXT_FRAMES + count]
    onsets = slice(start // rhythm.ONSET_HOP, stop // rhythm.ONSET_HOP)
    plain, filtered = rhythm.onset_strengths(signal)
    return {
        # Half precision is a hundredth of a decibel, and halves the memory of a long recording.
        "magnitudes": magnitudes.astype(np.float16),
        "levels": signal[start:stop].reshape(-1, HOP).std(axis=1),
        "energies": np.array([_energies(magnitudes)]),
        "octave": cens.octave(magnitudes),
        "hpcp": profiles.hpcp(signal, start, count, HOP),
        "mfcc": profiles.mfcc(signal, start, count, HOP),
        "novfn": plain[onsets],
        "snovfn": filtered[onsets],
    }


def _energies(magnitudes: np.ndarray) -> tuple[float, float]:
    """Return the energy of what lasts, as tones do, and of what spreads over the spectrum.

    Medians over time and over frequency separate them (FitzGerald, DAFx 2010).
    """
    lasting, spread = (median_filter(magnitudes, size) for size in ((7, 1), (1, 13)))
    return float((lasting**2).sum()), float((spread**2).sum())


def _check(whole: dict[str, np.ndarray]) -> None:
    """Raise UnusableRecording if a recording is silent, speech or noise."""
    sounding = np.count_nonzero(whole["levels"] > SILENT_LEVEL) / FRAME_RATE
    if sounding < MIN_SOUNDING_SECONDS:
        raise UnusableRecording(
            f"it has {sounding:.1f} seconds of sound, and {MIN_SOUNDING_SECONDS:.0f} are needed"
        )
    if (mean := float(whole["hpcp"].mean())) > MAX_MEAN_HPCP:
        raise UnusableRecording(
            f"it is noise: the mean of its HPCP is {mean:.2f}, and that of music at most "
            f"{MAX_MEAN_HPCP}"
        )
    lasting, spread = whole["energies"].sum(axis=0)
    if (share := lasting / (lasting + spread)) < MIN_TONAL_SHARE:
        raise UnusableRecording(
            f"it is speech: its tonal share is {share:.2f}, and that of music at least "
            f"{MIN_TONAL_SHARE}"
        )


def _finished(whole: dict[str, np.ndarray]) -> Analysis:
    """Compute what needs the whole recording."""
    offset, novelty = tuning.offset_of(whole["octave"]), whole["novfn"]
    hpcp = whole["hpcp"][:, tuning.OFFSETS.index(offset)]
    magnitudes = whole.pop("magnitudes")
    if offset:
        magnitudes = np.roll(magnitudes, -offset, axis=1)
    tempos = rhythm.tempos(novelty)
    beats = rhythm.beats(novelty, tempos[0, 0]) * FRAME_RATE
    key, scale, strength = profiles.key(hpcp.mean(axis=0))
    per_frame = (-1, HOP // rhythm.ONSET_HOP)
    return Analysis(
        hpcp=hpcp,
        crema=crema.pitch_classes(magnitudes),
        chroma_cens=cens.smoothed(cens.pitch_classes(whole["octave"], offset)),
        # The last windows reach beyond the end, where Da-TACOS has none.
        mfcc_htk=whole["mfcc"][: max(len(hpcp) - profiles.MFCC_WINDOW // HOP, 1)].T,
        novfn=novelty.reshape(per_frame).mean(axis=1, dtype=np.float32),
        snovfn=whole["snovfn"].reshape(per_frame).mean(axis=1, dtype=np.float32),
        beats=np.rint(beats).astype(np.int64),
        tempos=tempos,
        key=key,
        scale=scale,
        strength=strength,
    )
