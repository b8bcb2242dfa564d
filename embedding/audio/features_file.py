"""The HDF5 file of one recording's features, in the dialect of Da-TACOS' single files."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np

from embedding.data.atomic import whole_file

if TYPE_CHECKING:  # loads essentia, which takes seconds
    from embedding.audio.analysis import Analysis

#: The attribute that says what recording the features are of.
DIGEST = "recording"

#: Who made the two novelty functions, for whoever trained on those of madmom.
NOVELTY_BY = "rise of mel bands (not madmom)"


def write(path: Path, analysis: Analysis, track_id: str, work_id: str, digest: str) -> None:
    """Write the features of a recording, as a whole or not at all.

    The file has what `embedding.data.frames.read` and mirdata read: `hpcp`, `chroma_cens` and
    `crema` (T, 12), `mfcc_htk` (13, T'), `madmom_features` and `key_extractor`, and the attributes
    `label` and `track_id`. `digest` says what recording they are of.
    """
    with whole_file(path) as scratch, h5py.File(scratch, "w") as file:
        file.attrs[DIGEST] = np.bytes_(digest.encode())
        _name(file, track_id, work_id)
        for name in ("hpcp", "chroma_cens", "crema", "mfcc_htk"):
            _array(file, name, getattr(analysis, name))
        rhythm = file.create_group("madmom_features")
        rhythm.attrs["novelty_by"] = NOVELTY_BY
        _array(rhythm, "novfn", analysis.novfn)
        _array(rhythm, "snovfn", analysis.snovfn)
        _array(rhythm, "onsets", analysis.beats)
        _array(rhythm, "tempos", analysis.tempos)
        key = file.create_group("key_extractor")
        key.attrs["key"] = np.bytes_(analysis.key.encode())
        key.attrs["scale"] = np.bytes_(analysis.scale.encode())
        key.attrs["strength"] = analysis.strength


def copy(source: Path, target: Path, track_id: str, work_id: str) -> None:
    """Copy a file of features under other ids."""
    with whole_file(target) as scratch:
        shutil.copyfile(source, scratch)
        with h5py.File(scratch, "r+") as file:
            _name(file, track_id, work_id)


def digest_of(path: Path) -> str | None:
    """Return the digest in a file of features; None if the file is missing or damaged."""
    try:
        with h5py.File(path, "r") as file:
            return bytes(file.attrs[DIGEST]).decode()
    except (OSError, KeyError):
        return None


def _name(file: h5py.File, track_id: str, work_id: str) -> None:
    file.attrs["label"] = np.bytes_(work_id.encode())
    file.attrs["track_id"] = np.bytes_(track_id.encode())


def _array(group: h5py.Group, name: str, values: np.ndarray) -> None:
    group.create_dataset(
        name,
        data=values,
        compression="gzip" if values.size else None,
        shuffle=bool(values.size),
        track_times=False,  # so that the same recording gives the same bytes
    )
