"""Embed one performance: from its features to what a collection holds of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from embedding import bundle as bundles
from embedding.bundle import PRETRAINED_NAME, Bundle
from embedding.data import chroma, features
from embedding.data.frame_rate import parse_frame_rate
from embedding.data.frames import DATASETS, TEMPOS, chroma_from_arrays, from_arrays
from embedding.data.hdf5 import read_arrays


class Embedded(NamedTuple):
    """What a collection holds of a performance."""

    vector: np.ndarray  # shape=(dimension,), float32
    sequence: np.ndarray  # chroma to align, shape=(F, 2, 12), float16, at `chroma.CHROMA_RATE`


def embed(
    source: str | Path | Mapping[str, npt.ArrayLike],
    bundle: Bundle | str | Path = PRETRAINED_NAME,
    *,
    frame_rate: str | float,
) -> Embedded:
    """Embed one performance, which need not belong to a data set.

    Parameters
    ----------
    source : path or mapping of str to array_like
        An HDF5 file of one performance, or its arrays by name. The encoder of the package and all
        that read chroma need `hpcp` and `crema`, shape=(T, 12) or (12, T). Other encoders need all
        of `embedding.data.frames.DATASETS`, and `TEMPOS`.
    bundle : Bundle, str or path
        A bundle, its directory, or "pretrained". Load it once to embed many performances.
    frame_rate : float or str
        Frames per second of the features, as a number or a fraction such as "44100/512".

    Returns
    -------
    Embedded
        The same vector and sequence as `covers pipeline` makes of the same features.

    Raises
    ------
    ValueError
        If the features or the bundle cannot be used; the text says why.
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
    rate = parse_frame_rate(frame_rate)
    if loaded.encoder is None:
        raise ValueError(
            f"{loaded.id} cannot embed, because its vectors were made elsewhere: make the vector "
            "there, or use another bundle."
        )
    if isinstance(source, Mapping):
        subject, arrays = "The performance", {n: np.asarray(a) for n, a in source.items()}
    else:
        subject, names = str(source), (*DATASETS, TEMPOS)
        arrays = read_arrays(Path(source).expanduser(), names, {}).arrays
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
