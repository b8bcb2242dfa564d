"""Tiny data sets of the form of Da-TACOS, for every test that needs files."""

import json
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from embedding.data.dataset import open_dataset
from embedding.data.frames import UnreadablePerformance, read
from embedding.data.layout import Performance

SAMPLE = Path(__file__).resolve().parent.parent / "sample"

#: Frames per second, as a user would state them.
FRAME_RATE = "44100/4096"

FOLDER_OF = {
    "chroma_cens": "cens",
    "crema": "crema",
    "hpcp": "hpcp",
    "madmom_features": "madmom",
    "mfcc_htk": "mfcc",
}


def make_features(name: str, frames: int = 60) -> dict[str, np.ndarray]:
    """One performance's features as in Da-TACOS; the same name gives the same features.

    MFCC has coefficients first, is a little shorter, and holds a NaN and an infinity. CREMA has
    time first and is one frame shorter.
    """
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    mfcc = rng.normal(-3, 20, (13, frames - 5)).astype(np.float32)
    mfcc[2, 1], mfcc[4, 3] = np.nan, -np.inf
    return {
        "hpcp": rng.random((frames, 12), dtype=np.float32),
        "crema": rng.random((frames - 1, 12), dtype=np.float32),
        "chroma_cens": rng.random((frames, 12)),
        "mfcc_htk": mfcc,
        "madmom_features/novfn": rng.random(frames),
        "madmom_features/snovfn": rng.random(frames),
        "madmom_features/tempos": np.array([[rng.uniform(60, 180), 0.7], [90.0, 0.3]]),
        "madmom_features/onsets": np.arange(2, frames, 5),
    }


def write_h5(path: Path, members: dict[str, np.ndarray | None], **attributes: object) -> None:
    """Write arrays and root attributes as deepdish does through PyTables."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.attrs["CLASS"] = np.bytes_(b"GROUP")
        file.attrs["TITLE"] = h5py.Empty("S1")
        for name, value in attributes.items():
            if value is not None:
                file.attrs[name] = np.bytes_(value.encode()) if isinstance(value, str) else value
        for name, array in members.items():
            if array is not None:
                packed = {"compression": 9, "shuffle": True} if array.size > 12 else {}
                file.create_dataset(name, data=array, **packed)


def filtered(number: int) -> Callable[[h5py.File], None]:
    """Return what writes hpcp into a file, through a filter that this HDF5 lacks."""

    def make(file: h5py.File) -> None:
        made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        made.set_chunk((60, 12))
        made.set_filter(number, h5py.h5z.FLAG_OPTIONAL)
        space = h5py.h5s.create_simple((60, 12))
        data = h5py.h5d.create(file.id, b"hpcp", h5py.h5t.NATIVE_FLOAT, space, made)
        data.write_direct_chunk((0, 0), b"packed")

    return make


def copy_sample(root: Path, works: slice, *names: str) -> Path:
    """Copy some works of the sample, sorted by id, and those that are named."""
    singles = "da-tacos_benchmark_subset_single_files"
    every = sorted(path.name for path in (SAMPLE / singles).iterdir())
    for work in {*every[works], *names}:
        shutil.copytree(SAMPLE / singles / work, root / singles / work)
    for name in ("dataset.json", "da-tacos_benchmark_subset_metadata.json"):
        shutil.copy(SAMPLE / name, root)
    return root


class Tree:
    """A data set on disk to which performances can be added, in any of the three layouts."""

    def __init__(self, root: Path, layout: str = "single", subset: str = "benchmark") -> None:
        self.root = root
        self.layout = layout
        self.stem = f"da-tacos_{subset}_subset"
        self.listed: list[tuple[str, str]] = []
        self.metadata: dict[str, dict[str, dict[str, str]]] = {}
        root.mkdir(parents=True, exist_ok=True)
        (root / "dataset.json").write_text(json.dumps({"frame_rate": FRAME_RATE}))

    def path(self, work_id: str, track_id: str, feature: str = "hpcp") -> Path:
        """Where a performance's file is (or its file of one feature)."""
        if self.layout == "single":
            return self.root / f"{self.stem}_single_files" / work_id / f"{track_id}.h5"
        if self.layout == "acoss":
            return self.root / work_id / f"{track_id}.h5"
        end = FOLDER_OF[feature]
        return self.root / f"{self.stem}_{end}" / f"{work_id}_{end}" / f"{track_id}_{end}.h5"

    def add(self, work_id: str, track_id: str, /, frames: int = 60, **changes: object) -> Path:
        """Add a performance; changes replace a feature or attribute, or drop it by None."""
        named = {"label": work_id, "track_id": track_id}
        attributes = {name: changes.pop(name, value) for name, value in named.items()}
        features = make_features(track_id, frames)
        for name, value in changes.items():
            key = name if name in features else f"madmom_features/{name}"
            assert key in features, name
            features[key] = value
        if self.layout == "features":
            for group in FOLDER_OF:
                mine = {name: a for name, a in features.items() if name.split("/")[0] == group}
                write_h5(self.path(work_id, track_id, group), mine, **attributes)
        else:
            write_h5(self.path(work_id, track_id), features, **attributes)
        if self.layout == "acoss":
            self.listed.append((work_id, track_id))
            rows = "".join(f"{w},{t}\n" for w, t in self.listed)
            (self.root / "annotations.csv").write_text(f"work_id,track_id\n{rows}")
        return self.path(work_id, track_id)

    def title(self, work_id: str, track_id: str, **facts: str) -> None:
        """State a performance's metadata."""
        self.metadata.setdefault(work_id, {})[track_id] = facts
        path = self.root / f"{self.stem}_metadata.json"
        path.write_text(json.dumps(self.metadata), encoding="utf-8")


def only(tree: Tree) -> Performance:
    """The only performance of a tree."""
    (performance,) = open_dataset(tree.root).performances
    return performance


def reason_of(performance: Performance) -> str:
    """Why a performance cannot be read."""
    with pytest.raises(UnreadablePerformance) as caught:
        read(performance)
    text = str(caught.value)
    assert text == f"{performance.source} cannot be used: {caught.value.reason}"
    assert "\n" not in text
    return caught.value.reason
