"""Embed one performance: from a recording or its features to what a collection holds of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from embedding import bundle as bundles
from embedding.audio.libraries import check_installed
from embedding.audio.rate import FRAME_RATE
from embedding.bundle import PRETRAINED_NAME, Bundle
from embedding.data import chroma, features
from embedding.data.frame_rate import parse_frame_rate
from embedding.data.frames import DATASETS, TEMPOS, chroma_from_arrays, from_arrays
from embedding.data.hdf5 import read_arrays
from embedding.data.layout import SUFFIXES


class Embedded(NamedTuple):
    """What a collection holds of a performance."""

    vector: np.ndarray  # shape=(dimension,), float32
    sequence: np.ndarray  # chroma to align, shape=(F, 2, 12), float16, at `chroma.CHROMA_RATE`


def embed(
    source: str | Path | Mapping[str, npt.ArrayLike],
    bundle: Bundle | str | Path = PRETRAINED_NAME,
    *,
    frame_rate: str | float | None = None,
) -> Embedded:
    """Embed one performance, which need not belong to a data set.

    Parameters
    ----------
    source : path or mapping of str to array_like
        A recording, an HDF5 file of one performance, or its arrays by name. The encoder of the
        package and all that read chroma need `hpcp` and `crema`, shape=(T, 12) or (12, T). Other
        encoders need all of `embedding.data.frames.DATASETS`, and `TEMPOS`.
    bundle : Bundle, str or path
        A bundle, its directory, or "pretrained". Load it once to embed many performances.
    frame_rate : float or str, optional
        Frames per second of the features, as a number or a fraction such as "44100/512". A
        recording needs none.

    Returns
    -------
    Embedded
        The same vector and sequence as `covers pipeline` makes of the same recording or features.

    Raises
    ------
    ValueError
        If the recording, the features or the bundle cannot be used, or the extra `audio` is not
        installed; the text says why.
    OSError
        If a file cannot be read.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> arrays = {"hpcp": rng.random((900, 12)), "crema": rng.random((900, 12))}
    >>> made = embed(arrays, frame_rate="44100/2048")
    >>> made.vector.shape, made.sequence.shape
    ((256,), (225, 2, 12))
    """
    loaded = bundle if isinstance(bundle, Bundle) else bundles.load(bundle)
    if loaded.encoder is None:
        raise ValueError(
            f"{loaded.id} cannot embed, because its vectors were made elsewhere: make the vector "
            "there, or use another bundle."
        )
    subject = "The performance" if isinstance(source, Mapping) else str(source)
    arrays, rate = _arrays(source, frame_rate)
    try:
        if loaded.encoder.input == "chroma":
            sequence = chroma.reduce(chroma_from_arrays(arrays), rate)
            inputs: Any = [sequence]
        else:
            frames = from_arrays(arrays)
            sequence = chroma.reduce(frames, rate)
            inputs = features.average(frames).means[None]
    except ValueError as error:
        raise ValueError(f"{subject} cannot be embedded: {error}.") from error
    for reason in loaded.encoder.unusable(inputs).values():
        raise ValueError(f"{subject} cannot be embedded: {reason}.")
    vector = loaded.encoder.embed(inputs)[0]
    if not np.isfinite(vector).all():
        raise ValueError(f"{subject} cannot be embedded: its features are far out of range.")
    return Embedded(vector, sequence)


def _arrays(
    source: str | Path | Mapping[str, npt.ArrayLike], frame_rate: str | float | None
) -> tuple[Mapping[str, np.ndarray], float]:
    """Return the features by name, and their frames per second."""
    if not isinstance(source, Mapping):
        path = Path(source).expanduser()
        if path.suffix.lower() not in SUFFIXES:
            if frame_rate is not None:
                raise ValueError(f"{path} is a recording, which needs no frame_rate: leave it out.")
            return _analysed(path), FRAME_RATE
    if frame_rate is None:
        raise ValueError("Features need their frame_rate: give their number of frames per second.")
    rate = parse_frame_rate(frame_rate)
    if isinstance(source, Mapping):
        return {name: np.asarray(array) for name, array in source.items()}, rate
    return read_arrays(path, (*DATASETS, TEMPOS), {}).arrays, rate


def _analysed(path: Path) -> dict[str, np.ndarray]:
    """Return the features of a recording, under the names that a file of features has."""
    check_installed()
    from embedding.audio.analysis import analyse  # loads essentia, which takes seconds
    from embedding.audio.recording import UnusableRecording

    try:
        with threadpool_limits(1):  # as for extracting, because it decides the last digits
            analysis = analyse(path)
    except UnusableRecording as error:
        raise ValueError(f"{path} cannot be used: {error}.") from error
    arrays = {name: getattr(analysis, name.rpartition("/")[2]) for name in DATASETS}
    return arrays | {TEMPOS: analysis.tempos}
