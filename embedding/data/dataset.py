"""A data set of performances: what a directory says of it, and one performance's frames.

The one module that knows HDF5. Beside the performances (see `layout`) may lie

```
*metadata.json      {W: {P: {work_title, work_artist, perf_title, perf_artist, release_year, …}}}
dataset.json        {"name": …, "frame_rate": "44100/512", "subset": …}, each optional
provenance.json     {P: {"T": frames, "sec": seconds}}
```

The files come from elsewhere, so nothing in one is believed before it is checked.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import polars as pl
from isal import isal_zlib

from embedding.data.features import Frames
from embedding.data.frame_rate import from_provenance, measure, parse_frame_rate
from embedding.data.layout import SINGLE_FILES, Layout, Performance, Reject, find
from embedding.data.store import METADATA

__all__ = [
    "Dataset",
    "Frames",
    "Performance",
    "Reject",
    "UnreadablePerformance",
    "open_dataset",
    "parse_frame_rate",
    "read",
    "subset_of",
]

#: What is read from a performance, and its number of coefficients (None: one number a frame).
DATASETS = {
    "hpcp": 12,
    "crema": 12,
    "chroma_cens": 12,
    "mfcc_htk": 13,
    "madmom_features/novfn": None,
    "madmom_features/snovfn": None,
}
TEMPOS = "madmom_features/tempos"
BEATS = "madmom_features/onsets"

#: About four hours at 44100/512: nothing of that length is one performance.
MAX_FILE_BYTES = 2**28
MAX_ELEMENTS = 2**24
MAX_NAME_BYTES = 4096

#: Of a compressed chunk in the file. Those of real performances have some 40 kB.
MAX_CHUNK_BYTES = 2**20

#: Features differ by a few frames (MFCC's window is 43 hops long). Beyond both of these they are
#: not of the same recording.
MAX_FRAMES_APART = 50
MAX_SHARE_APART = 0.1

#: H5LT_FILE_IMAGE_DONT_COPY and _DONT_RELEASE: HDF5 reads our bytes where they are, and leaves
#: them to us. They outlive the file, which is opened for reading only.
BORROW_IMAGE = 0x2 | 0x4

#: By how much a correlation must be higher to settle an orientation: 12 frames of real music are
#: that much likelier the right way round in 98 of 100 cases, chance numbers in none of 500.
TURN_MARGIN = 0.2

#: Performances asked for their beats when the frame rate has to be measured.
MEASURED = 50


class UnreadablePerformance(ValueError):  # noqa: N818 - named for what it is
    """A performance that cannot be used; its text is one sentence.

    Attributes
    ----------
    track_id, source, reason : str
    lasting : bool
        False if the file system failed rather than the contents: worth another try.
    """

    def __init__(self, track_id: str, source: str, reason: str, *, lasting: bool = True) -> None:
        super().__init__(track_id, source, reason)
        self.track_id = track_id
        self.source = source
        self.reason = reason
        self.lasting = lasting

    def __str__(self) -> str:
        return f"{self.source} cannot be used: {self.reason}"


@dataclass(frozen=True)
class Dataset:
    """What a directory holds.

    Attributes
    ----------
    subset : str or None
        "benchmark", "coveranalysis", or None if nothing says.
    frame_rate : float
        Frames a second of every feature.
    performances : tuple of Performance
        Sorted by track id, each id once.
    rejects : tuple of Reject
        What was found wrong without reading: sorted by track id and source.
    metadata : pl.DataFrame
        `track_id`, `work_id` and the columns of `store.METADATA`: a row for every performance in
        the metadata JSON.
    """

    name: str
    root: Path
    subset: str | None
    frame_rate: float
    performances: tuple[Performance, ...]
    rejects: tuple[Reject, ...]
    metadata: pl.DataFrame


def open_dataset(root: Path, frame_rate: float | None = None) -> Dataset:
    """List a data set's performances without reading them.

    Parameters
    ----------
    root : Path
        As for `layout.find`.
    frame_rate : float, optional
        Frames a second. By default what `dataset.json` says, then what `provenance.json` implies,
        then what the beats of some performances show, with a warning.

    Raises
    ------
    ValueError
        If the layout is not recognised or ambiguous, a file beside the performances is malformed,
        or the frame rate stays open.
    """
    layout = find(Path(root))
    # Facts lie in the root, or beside it if the root is the very folder with the files.
    homes = [layout.root]
    if layout.root.name.endswith(SINGLE_FILES):
        homes.append(layout.root.parent)
    description: dict[str, Any] = next(
        (_json(path) for home in homes if (path := home / "dataset.json").is_file()), {}
    )

    subset = subset_of(description.get("subset") or layout.name)
    files = [
        path
        for home in homes
        for folder in (home, home / "da-tacos_metadata")  # where mirdata puts it
        for path in sorted(folder.glob("*metadata.json"))
        if subset is None or subset_of(path.name) in (None, subset)
    ]
    if subset is None and len(said := {subset_of(path.name) for path in files}) == 1:
        subset = said.pop()
    metadata = _read_metadata(files)

    performances, rejects = _settle(layout, metadata)
    if not performances and not rejects:
        raise ValueError(
            f"{layout.root} holds no performances: there is no .h5 file in its folders"
        )
    if frame_rate is None:
        frame_rate = _frame_rate(homes, description, performances)
    return Dataset(
        name=_name(description["name"]) if description.get("name") else layout.name,
        root=layout.root,
        subset=subset,
        frame_rate=parse_frame_rate(frame_rate),
        performances=performances,
        rejects=rejects,
        metadata=metadata,
    )


def _name(name: Any) -> str:
    """What a data set is called, which the directories of its results are called too."""
    plain = isinstance(name, str) and Path(name).name == name and name.isprintable()
    if not plain or name.startswith(".") or len(name) > 100:
        raise ValueError(
            f"dataset.json says the data set's name were {str(name)[:100]!r}, which can't be a "
            'directory\'s name: write another one, as in {"name": "my songs"}'
        )
    return str(name)


def _settle(
    layout: Layout, metadata: pl.DataFrame
) -> tuple[tuple[Performance, ...], tuple[Reject, ...]]:
    """Keep one performance a track id.

    Where one lies under several works, the copies that cannot be read, or that their own label or
    the metadata contradict, are misfiled. If one is left it is kept; otherwise all are rejected,
    since a wrong work would quietly spoil every answer and every figure about it.
    """
    copies: dict[str, list[Performance]] = defaultdict(list)
    rejects = []
    for item in layout.found:
        if isinstance(item, Reject):
            rejects.append(item)
        else:
            copies[item.track_id].append(item)

    kept = [same[0] for same in copies.values() if len(same) == 1]
    known = set(metadata.select("track_id", "work_id").iter_rows())
    for track_id, same in copies.items():
        if len(same) == 1:
            continue
        right = [copy for copy in same if (track_id, copy.work_id) in known] or same
        right = [copy for copy in right if _readable(copy)]
        reason = f"{track_id} lies under {' and '.join(sorted(copy.work_id for copy in same))}"
        reason = f"duplicate track id: {reason}"
        if len(right) == 1:
            kept += right
            reason += f", and belongs to {right[0].work_id}"
        rejects += [
            Reject(track_id, copy.work_id, copy.source, reason) for copy in same if right != [copy]
        ]
    return (
        tuple(sorted(kept, key=lambda performance: performance.track_id)),
        tuple(sorted(rejects, key=lambda reject: (reject.track_id, reject.source))),
    )


def _readable(performance: Performance) -> bool:
    try:
        read(performance)
    except UnreadablePerformance:
        return False
    return True


def subset_of(text: Any) -> str | None:
    """Which subset of Da-TACOS a name speaks of: "benchmark", "coveranalysis" or None."""
    found = re.search("benchmark|coveranalysis", str(text))
    return found.group() if found else None


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} could not be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, where an object is expected")
    return content


def _frame_rate(
    homes: list[Path], description: dict[str, Any], performances: tuple[Performance, ...]
) -> float:
    if "frame_rate" in description:
        try:
            return parse_frame_rate(description["frame_rate"])
        except ValueError as error:
            raise ValueError(f"dataset.json beside {homes[0]}: {error}") from error
    for home in homes:
        path = home / "provenance.json"
        if path.is_file() and (rate := from_provenance(_json(path))) is not None:
            return rate
    sample = performances[:: max(1, len(performances) // MEASURED)]
    try:
        return measure(filter(None, map(_beats, sample)))
    except ValueError as error:
        raise ValueError(
            f"the frame rate of {homes[0]} is not stated, and {error}: give it, or write it to a "
            'dataset.json there, as in {"frame_rate": "44100/512"}'
        ) from error


def _read_metadata(paths: Iterable[Path]) -> pl.DataFrame:
    rows = []
    for path in paths:
        for work_id, performances in _json(path).items():
            if not isinstance(performances, dict):
                raise ValueError(f"{path}: {work_id} should hold its performances by track id")
            for track_id, facts in performances.items():
                if not isinstance(facts, dict):
                    raise ValueError(f"{path}: {track_id} should hold its titles by name")
                year = re.match(r"\s*(\d{4})\b", str(facts.get("release_year") or ""))
                rows.append(
                    {
                        "track_id": track_id,
                        "work_id": work_id,
                        "work_title": _text(facts.get("work_title")),
                        "work_artist": _text(facts.get("work_artist")),
                        "title": _text(facts.get("perf_title")),
                        "artist": _text(facts.get("perf_artist")),
                        "year": int(year.group(1)) if year else None,
                        "instrumental": {"Yes": True, "No": False}.get(
                            str(facts.get("instrumental"))
                        ),
                    }
                )
    schema = {"track_id": pl.String, "work_id": pl.String, **METADATA}
    frame = pl.DataFrame(rows, schema=schema)
    return frame.unique(["track_id", "work_id"], keep="first").sort("track_id", "work_id")


def _text(value: Any) -> str | None:
    text = "" if value is None else str(value).strip()
    return text or None


def read(performance: Performance) -> Frames:
    """Read one performance's features, each file once.

    Orientation comes from the arrays: the side with 12 (or 13) is not time. A CREMA of 12 x 12 is
    turned the way in which it follows the performance's other chroma; the other features have one
    orientation in every subset, which a square one is taken to have too.

    Raises
    ------
    UnreadablePerformance
        If a file is no HDF5 or leads outside itself, lacks a feature, names another work or
        track, or if a feature has an unexpected type, shape or length.
    """
    try:
        return _frames(_load(performance, (*DATASETS, TEMPOS)))
    except _WrongContentsError as error:
        reason, lasting = str(error), True
    except OSError as error:
        reason, lasting = f"a file cannot be read ({error.strerror or error})", False
    raise UnreadablePerformance(performance.track_id, performance.source, reason, lasting=lasting)


def _beats(performance: Performance) -> tuple[float, np.ndarray] | None:
    """The tempo in bpm and the beats in frames; None if they cannot be read."""
    try:
        arrays = _load(performance, (TEMPOS, BEATS)).arrays
        return float(arrays[TEMPOS][0, 0]), arrays[BEATS].ravel()
    except (_WrongContentsError, OSError, LookupError):
        return None


class _WrongContentsError(ValueError):
    """Something about the contents; the text becomes the reason."""


@dataclass
class _Contents:
    arrays: dict[str, np.ndarray]
    fingerprint: str
    size: int
    mtime_ns: int


def _load(performance: Performance, names: Iterable[str]) -> _Contents:
    digest = hashlib.sha256()
    contents = _Contents({}, "", 0, 0)
    for path in performance.files:
        with path.open("rb") as stream:
            facts = os.fstat(stream.fileno())
            if facts.st_size > MAX_FILE_BYTES:
                raise _WrongContentsError(
                    f"{path.name} has {facts.st_size} bytes, more than {MAX_FILE_BYTES}"
                )
            image = stream.read(facts.st_size)
        digest.update(image)
        contents.size += len(image)
        contents.mtime_ns = max(contents.mtime_ns, facts.st_mtime_ns)
        try:
            opened = h5py.h5f.open_file_image(image, flags=BORROW_IMAGE)
        except ValueError as error:  # it gives no reason of its own
            raise _WrongContentsError(
                f"{path.name} ({len(image)} bytes) is no HDF5 file, or is cut short"
            ) from error
        try:
            with h5py.File(opened) as file:
                _check_names(file, performance)
                for name in names:
                    if name not in contents.arrays and (member := _member(file, name)) is not None:
                        contents.arrays[name] = _array(member, name, memoryview(image))
        except _WrongContentsError:
            raise
        except Exception as error:  # h5py answers a damaged file with any kind of error
            cause = (str(error).strip().splitlines() or [type(error).__name__])[0].strip("'\"")
            raise _WrongContentsError(f"{path.name} is damaged: {cause}") from error
    contents.fingerprint = digest.hexdigest()
    return contents


def _check_names(file: h5py.File, performance: Performance) -> None:
    for attribute, expected in (("label", performance.work_id), ("track_id", performance.track_id)):
        if attribute not in file.attrs:
            continue
        if file.attrs.get_id(attribute).get_storage_size() > MAX_NAME_BYTES:
            raise _WrongContentsError(f"its {attribute} is longer than any name")
        value = file.attrs[attribute]  # fixed or variable length, bytes or unicode
        said = value.decode() if isinstance(value, bytes) else str(value)
        if len(said) > MAX_NAME_BYTES:  # of variable length, which is stored elsewhere in the file
            raise _WrongContentsError(f"its {attribute} is longer than any name")
        if said != expected:
            raise _WrongContentsError(
                f"its {attribute} is {said}, which contradicts its place under {expected}"
            )


def _member(group: h5py.Group, name: str, hops: int = 8) -> h5py.Group | h5py.Dataset | None:
    """What a path leads to, following links by hand so that none leads out of the file."""
    here: Any = group.file["/"] if name.startswith("/") else group
    for part in name.strip("/").split("/"):
        if not isinstance(here, h5py.Group) or not here.id.links.exists(part.encode()):
            return None
        kind = here.id.links.get_info(part.encode()).type
        if kind == h5py.h5l.TYPE_SOFT and hops > 0:
            here = _member(here, here.id.links.get_val(part.encode()).decode(), hops - 1)
        elif kind == h5py.h5l.TYPE_HARD:
            here = here[part]
        else:
            raise _WrongContentsError(f"{name} is a link that leads out of the file or in circles")
    return here


def _array(dataset: Any, name: str, image: memoryview) -> np.ndarray:
    if not isinstance(dataset, h5py.Dataset):
        raise _WrongContentsError(f"{name} is no array")
    if dataset.dtype.kind not in "fiu":
        raise _WrongContentsError(f"{name} holds {dataset.dtype}, not numbers")
    # Both are what HDF5 would allocate, whatever little the file really holds.
    for shape in (dataset.shape, dataset.chunks or ()):
        if shape is None or math.prod(shape) > MAX_ELEMENTS:
            raise _WrongContentsError(f"{name} claims {shape} values, more than a performance has")
    if dataset.is_virtual or dataset.external:
        raise _WrongContentsError(f"{name} is stored outside its file")
    array = _inflated(dataset, image)
    if array is None:
        _check_compression(dataset, name)
        array = np.asarray(dataset[()])
    return array


def _filters(dataset: h5py.Dataset) -> list[int]:
    """What each chunk goes through on its way into the file, by HDF5's numbers, in this order."""
    made = dataset.id.get_create_plist()
    return [made.get_filter(i)[0] for i in range(made.get_nfilters())]


def _inflated(dataset: h5py.Dataset, image: memoryview) -> np.ndarray | None:
    """The array of a dataset that is shuffled and deflated by rows, as Da-TACOS' are; else None.

    Inflating is most of what reading takes, and ISA-L does it in two thirds of the time of the
    zlib inside HDF5. It is HDF5 that says where in the file's image the chunks are, so nothing of
    its format is known here but its two commonest filters.
    """
    shape, dtype, chunks = dataset.shape, dataset.dtype, dataset.chunks
    if (
        _filters(dataset) != [h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE]
        or chunks[1:] != shape[1:]
        or dtype.itemsize not in (4, 8)
        # HDF5 would convert it, or counts from elsewhere than the beginning of the image.
        or dataset.id.get_type() != h5py.h5t.py_create(dtype)
        or dataset.file.userblock_size
    ):
        return None
    found: list[Any] = []
    dataset.id.chunk_iter(found.append)
    starts = [chunk.chunk_offset[0] for chunk in found]
    if sorted(starts) != list(range(0, shape[0], chunks[0])) or not found:
        return None  # some chunks were never written
    if any(chunk.filter_mask for chunk in found):
        return None  # some are stored as they are
    from embedding.data.shuffle import interleave  # imports numba, which takes longer than a file

    array = np.empty(shape, dtype)
    numbers = array.reshape(-1).view(np.uint8).reshape(-1, dtype.itemsize)
    row = math.prod(shape[1:])
    expected = math.prod(chunks) * dtype.itemsize
    for start, chunk in zip(starts, found, strict=True):
        inflate = isal_zlib.decompressobj()
        packed = image[chunk.byte_offset : chunk.byte_offset + chunk.size]
        shuffled = inflate.decompress(packed, expected)
        if len(shuffled) != expected or not inflate.eof:
            raise _WrongContentsError(f"a chunk of {dataset.name} doesn't inflate to its size")
        rows = numbers[start * row : (start + chunks[0]) * row]  # the last is cut off
        interleave(np.frombuffer(shuffled, np.uint8).reshape(dtype.itemsize, -1), rows)
    return array


def _check_compression(dataset: h5py.Dataset, name: str) -> None:
    """Bound what HDF5 inflates, whatever size a chunk should have: by deflate, 1032 times it."""
    compressors = [
        each
        for each in _filters(dataset)
        if each not in (h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32)
    ]
    if len(compressors) > 1:
        raise _WrongContentsError(f"{name} is compressed {len(compressors)} times over")
    if not compressors:
        return

    def too_large(chunk: Any) -> int | None:
        return chunk.size if chunk.size > MAX_CHUNK_BYTES else None

    if (size := dataset.id.chunk_iter(too_large)) is not None:
        raise _WrongContentsError(f"{name} holds {size} compressed bytes in one chunk")


def _frames(contents: _Contents) -> Frames:
    arrays = contents.arrays
    if missing := [name for name in (*DATASETS, TEMPOS) if name not in arrays]:
        raise _WrongContentsError(f"it has no {', '.join(missing)}")
    features = {name: _time_first(name, arrays[name]) for name in DATASETS}
    if arrays["crema"].shape == (12, 12):
        features["crema"] = _turn(arrays["crema"], [features["hpcp"], features["chroma_cens"]])

    length = len(features["hpcp"])
    for name, array in features.items():
        if len(array) == 0:
            raise _WrongContentsError(f"{name} has no frames")
        if abs(len(array) - length) > max(MAX_FRAMES_APART, MAX_SHARE_APART * length):
            raise _WrongContentsError(f"{name} has {len(array)} frames where hpcp has {length}")
    tempos = arrays[TEMPOS]
    if tempos.ndim != 2 or tempos.shape[0] == 0 or tempos.shape[1] != 2:
        raise _WrongContentsError(f"{TEMPOS} has shape {tempos.shape}, expected (k, 2)")
    return Frames(
        **{name.removeprefix("madmom_features/"): array for name, array in features.items()},
        tempo=float(tempos[0, 0]),
        fingerprint=contents.fingerprint,
        size=contents.size,
        mtime_ns=contents.mtime_ns,
    )


def _time_first(name: str, array: np.ndarray) -> np.ndarray:
    """The array as (T,) or (T, coefficients); a square one as its name usually is."""
    width = DATASETS[name]
    if width is None:
        if array.ndim != 1:
            raise _WrongContentsError(f"{name} has shape {array.shape}, expected (frames,)")
        return array
    if array.ndim != 2 or width not in array.shape:
        raise _WrongContentsError(f"{name} has shape {array.shape}, expected {width} on one side")
    if array.shape == (width, width):
        return array.T if name == "mfcc_htk" else array
    return array if array.shape[1] == width else array.T


def _turn(square: np.ndarray, others: list[np.ndarray]) -> np.ndarray:
    """Turn a CREMA of 12 x 12 so that it follows the other chroma.

    It is compared by correlation, in the best of 12 rotations: they start at different pitches.
    """

    def likeness(array: np.ndarray, other: np.ndarray) -> float:
        length = min(len(array), len(other))
        a = np.nan_to_num(array[:length].astype(np.float64))
        a -= a.mean()
        b = np.nan_to_num(other[:length].astype(np.float64))
        b -= b.mean()
        scale = np.sqrt((a**2).sum() * (b**2).sum())
        best = max(float((a * np.roll(b, shift, axis=1)).sum()) for shift in range(12))
        return best / scale if scale > 0 else 0.0

    as_is, turned = (max(likeness(a, b) for b in others) for a in (square, square.T))
    if abs(as_is - turned) < TURN_MARGIN:
        raise _WrongContentsError(
            "crema is 12 x 12 and follows hpcp and chroma_cens as well one way as the other "
            f"({as_is:.2f}, {turned:.2f}), so nothing tells which side is time"
        )
    return square if as_is > turned else square.T
