"""The HDF5 file of one recording's features, in the dialect of Da-TACOS' single files."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import h5py
import numpy as np

from embedding.audio.analysis import Analysis

#: Who made the two novelty functions, for whoever trained on those of madmom.
NOVELTY_BY = "librosa onset_strength (not madmom)"


def write(path: Path, analysis: Analysis, track_id: str, work_id: str) -> None:
    """Write the features of a recording, as a whole or not at all.

    The file has what `embedding.data.frames.read` and mirdata read: `hpcp`, `chroma_cens` and
    `crema` (T, 12), `mfcc_htk` (13, T'), `madmom_features` and `key_extractor`, and the attributes
    `label` and `track_id`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, scratch = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=path.parent)
    os.close(handle)
    try:
        with h5py.File(scratch, "w", track_order=False) as file:
            file.attrs["label"] = np.bytes_(work_id.encode())
            file.attrs["track_id"] = np.bytes_(track_id.encode())
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
        Path(scratch).chmod(0o644)  # mkstemp's 0600 would keep the operator's other users out
        Path(scratch).replace(path)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise


def _array(group: h5py.Group, name: str, values: np.ndarray) -> None:
    group.create_dataset(
        name,
        data=values,
        compression="gzip" if values.size else None,
        shuffle=bool(values.size),
        track_times=False,  # so that the same recording gives the same bytes
    )
