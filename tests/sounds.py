"""Recordings that tests make: notes with harmonics, in files of any format."""

from pathlib import Path

import av
import numpy as np
import soundfile

RATE = 44100

#: A tune as scale degrees in semitones, two notes a second.
TUNE = (0, 4, 7, 4, 5, 9, 12, 9, 7, 11, 14, 11, 12, 7, 4, 0)
OTHER = (0, 1, 6, 1, 3, 8, 10, 8, 2, 5, 9, 6, 11, 10, 3, 1)


def notes(
    tune=TUNE,
    seconds: float = 24,
    transposed: float = 0,
    note: float = 0.5,
    vibrato: float = 0,
) -> np.ndarray:
    """Play a tune again and again, shape=(n,), float32; a vibrato is up to `vibrato` semitones."""
    count = round(seconds * RATE)
    time = np.arange(count) / RATE
    number = (time // note).astype(int)
    pitch = np.array(tune)[number % len(tune)] + transposed
    frequency = 220 * 2 ** ((pitch + vibrato * np.sin(2 * np.pi * 5.5 * time)) / 12)
    within = time % note
    envelope = np.exp(-3 * within) * np.minimum(within / 0.01, 1)
    phase = 2 * np.pi * np.cumsum(frequency) / RATE
    harmonics = sum(0.5**k * np.sin((k + 1) * phase) for k in range(5))
    return (0.3 * envelope * harmonics).astype(np.float32)


#: Codec, sample format and rate by the ending of a file; soundfile writes the other formats.
CODECS = {
    ".mp3": ("libmp3lame", "fltp", 44100),
    ".opus": ("libopus", "flt", 48000),
    ".m4a": ("aac", "fltp", 44100),
}


def write(
    path: Path,
    samples: np.ndarray,
    rate: int = RATE,
    bits_per_second: int = 128_000,
    tags: dict[str, str] | None = None,
) -> Path:
    """Encode samples, shape=(n,) or (channels, n), as the ending of the path says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = np.atleast_2d(samples).astype(np.float32)
    layout = "mono" if len(channels) == 1 else "stereo"
    if path.suffix not in CODECS:
        soundfile.write(path, channels.T, rate)
        return path
    codec, form, encoded_rate = CODECS[path.suffix]
    with av.open(str(path), "w") as container:
        container.metadata.update(tags or {})
        stream = container.add_stream(codec, rate=encoded_rate, layout=layout)
        stream.format = form
        stream.bit_rate = bits_per_second
        resampler = av.AudioResampler(format=form, layout=layout, rate=encoded_rate)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(channels), "fltp", layout)
        frame.sample_rate = rate
        fifo = av.AudioFifo()
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            fifo.write(piece)
        size = stream.codec_context.frame_size or 1024
        while (piece := fifo.read(size, partial=False)) or (piece := fifo.read(0, partial=True)):
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return path
