"""Decoding a recording of any common format, in blocks, so that memory does not grow with length.

FFmpeg's libraries decode it, through PyAV: WAV, FLAC, MP3, OGG, Opus, M4A/AAC, AIFF and more.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

from embedding.audio.rate import SAMPLE_RATE

MAX_SECONDS = 4 * 3600

#: A file that ends before this share of the length it states is cut short.
MIN_SHARE = 0.95

#: Tags, and their names in Da-TACOS' metadata.
TAGS = {"title": "perf_title", "artist": "perf_artist", "date": "release_year"}

#: Two channels whose mean has less than this share of their energy cancel each other.
CANCELLED_SHARE = 0.1


class UnusableRecording(ValueError):  # noqa: N818 - named for what it is
    """A recording cannot be used; the text says why, without naming the file."""


def decode(path: Path) -> Iterator[np.ndarray]:
    """Yield the samples of a recording as pieces of shape=(2, n), float32, at 44,100 Hz.

    A mono recording has two equal channels, and one of more than two channels is mixed down.
    Packets that cannot be decoded are left out, as a player does.

    Raises
    ------
    UnusableRecording
        If it is not a recording, holds no sound, is cut short, or is longer than four hours.
    """
    samples = 0
    if _is_cut_wave(path):
        raise UnusableRecording("it is cut short: its header states more bytes than it has")
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            if not container.streams.audio:
                raise UnusableRecording("it has no audio track")
            stream = container.streams.audio[0]
            stated = _stated_seconds(container, stream)
            resampler = av.AudioResampler(format="fltp", layout="stereo", rate=SAMPLE_RATE)
            for frame in _frames(container, stream):
                for piece in resampler.resample(frame):
                    samples += piece.samples
                    if samples > MAX_SECONDS * SAMPLE_RATE:
                        raise UnusableRecording("it is longer than four hours")
                    yield piece.to_ndarray()
    except av.FFmpegError as error:
        reason = error.strerror or type(error).__name__
        raise UnusableRecording(f"it cannot be decoded ({reason})") from error
    seconds = samples / SAMPLE_RATE
    if not samples:
        raise UnusableRecording("it holds no sound")
    if stated and seconds < MIN_SHARE * stated:
        raise UnusableRecording(
            f"it is cut short: {seconds:.0f} of its {stated:.0f} seconds can be decoded"
        )


def read_tags(path: Path) -> dict[str, str]:
    """Return the title, artist and year in the tags of a recording, as far as it has them."""
    with av.open(str(path), metadata_errors="replace") as container:
        found = {**container.metadata, **container.streams.audio[0].metadata}
    given = {name.lower(): text.strip() for name, text in found.items()}
    tags = {name: given[tag] for tag, name in TAGS.items() if given.get(tag)}
    if "release_year" in tags:
        tags["release_year"] = year_of(tags["release_year"]) or ""
    return {name: text for name, text in tags.items() if text}


def year_of(date: str) -> str | None:
    """Return the year in a date of a tag.

    Examples
    --------
    >>> year_of("26 May 1967")
    '1967'
    """
    found = re.search(r"\b(1\d{3}|20\d{2})\b", date)
    return found.group() if found else None


def _is_cut_wave(path: Path) -> bool:
    """Whether a WAV file has fewer bytes than its header states, which FFmpeg accepts."""
    with path.open("rb") as stream:
        header = stream.read(8)
        size = stream.seek(0, os.SEEK_END)
    stated = int.from_bytes(header[4:], "little")
    # A program that writes to a pipe states the largest number, because it does not know better.
    return header[:4] == b"RIFF" and size < MIN_SHARE * stated < 0xF0000000


def _stated_seconds(container: av.container.InputContainer, stream: av.AudioStream) -> float | None:
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return container.duration / av.time_base if container.duration else None


def _frames(
    container: av.container.InputContainer, stream: av.AudioStream
) -> Iterator[av.AudioFrame | None]:
    """Yield the frames of all packets that can be decoded, and None at the end."""
    for packet in container.demux(stream):
        try:
            yield from packet.decode()
        except av.InvalidDataError:
            continue
    yield None  # the resampler gives what it still holds


def blocks(path: Path, hop: int, frames: int, context: int) -> Iterator[np.ndarray]:
    """Yield overlapping stretches of the mono signal, so that frames can be computed in each.

    Frame t is centred on sample t x hop, and there are 1 + samples // hop of them. Each stretch
    holds `frames` of them (the last one fewer), and `context` frames before and after, where the
    recording is continued with zeros.

    Parameters
    ----------
    path : Path
        The recording.
    hop : int
        Samples between two frames.
    frames, context : int
        Number of frames of a block, and of its surroundings on each side.

    Yields
    ------
    np.ndarray
        shape=((frames + 2 context) x hop,), float32, in about [-1, 1]. The last is shorter.
    """
    length, margin = (frames + 2 * context) * hop, context * hop
    waiting: list[np.ndarray] = [np.zeros((2, margin), np.float32)]
    count = margin
    for piece in decode(path):
        waiting.append(piece)
        count += piece.shape[1]
        if count >= length:
            signal = np.concatenate(waiting, axis=1)
            while signal.shape[1] >= length:
                yield mixed(signal[:, :length])
                signal = signal[:, frames * hop :]
            waiting, count = [signal], signal.shape[1]
    signal = np.concatenate(waiting, axis=1)
    left = 1 + (signal.shape[1] - margin) // hop
    while left > 0:
        here = min(left, frames)
        padded = np.zeros((2, (here + 2 * context) * hop), np.float32)
        part = signal[:, : padded.shape[1]]
        padded[:, : part.shape[1]] = part
        yield mixed(padded)
        signal = signal[:, here * hop :]
        left -= here


def mixed(channels: np.ndarray) -> np.ndarray:
    """Return the mean of two channels, or half their difference if the mean would cancel them.

    Examples
    --------
    >>> mixed(np.array([[1.0, 2.0], [-1.0, -2.0]]))
    array([1., 2.])
    """
    mean = channels.mean(axis=0)
    if (mean**2).mean() < CANCELLED_SHARE * (channels**2).mean():
        mean = (channels[0] - channels[1]) / 2
    return np.asarray(mean)
