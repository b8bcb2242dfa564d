"""Reading the frames of one performance, with time first, whoever wrote the files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from embedding.data.hdf5 import WrongContentsError, read_arrays
from embedding.data.layout import Performance

#: The arrays of a performance, and their number of coefficients (None: one number per frame).
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

#: Lengths differ by a few frames (a window of MFCC has 43 hops). Beyond both limits, two features
#: are not of the same recording.
MAX_FRAMES_APART = 50
MAX_SHARE_APART = 0.1

#: A higher correlation by this much settles an orientation. 12 frames of real music reach it the
#: right way round in 98 of 100 cases, random numbers in none of 500.
ORIENTATION_MARGIN = 0.2


@dataclass(frozen=True)
class Frames:
    """One performance's features, time first, in the floating-point type of the file.

    T differs by a few frames between features. Values may be NaN or infinite.
    """

    hpcp: np.ndarray  # (T, 12), like the next two
    crema: np.ndarray
    chroma_cens: np.ndarray
    mfcc_htk: np.ndarray  # (T, 13)
    novfn: np.ndarray  # (T,), like the next
    snovfn: np.ndarray
    tempo: float  # the strongest, in bpm
    fingerprint: str = ""  # SHA-256 of the contents of all files, as hex
    size: int = 0  # of the files when they were read, see layout.Performance.stat
    mtime_ns: int = 0
    label: str | None = None  # the work that the files name


class Chroma(NamedTuple):
    """Chroma alone, time first, shape=(T, 12)."""

    hpcp: np.ndarray
    crema: np.ndarray


class UnreadablePerformance(ValueError):  # noqa: N818 - named for what it is
    """A performance cannot be used. The text is one sentence.

    Attributes
    ----------
    track_id, source, reason : str
    lasting : bool
        False if the file system failed, so that another try may succeed.
    """

    def __init__(self, track_id: str, source: str, reason: str, *, lasting: bool = True) -> None:
        super().__init__(track_id, source, reason)
        self.track_id = track_id
        self.source = source
        self.reason = reason
        self.lasting = lasting

    def __str__(self) -> str:
        return f"{self.source} cannot be used: {self.reason}"


def read(performance: Performance) -> Frames:
    """Read one performance's features, each file once.

    The side of 12 (or 13) of an array is not time. A CREMA of 12 x 12 is turned so that it follows
    the other chroma of the performance. A square array of another feature has that feature's usual
    orientation, which is the same in every subset.

    Raises
    ------
    UnreadablePerformance
        If a file is not HDF5 or leads out of itself, lacks a feature, or names another track; or
        if a feature has an unexpected type, shape or length.
    """
    try:
        arrays, facts = _load(performance, (*DATASETS, TEMPOS))
        return from_arrays(arrays, **facts)
    except WrongContentsError as error:
        reason, lasting = str(error), True
    except OSError as error:
        reason, lasting = f"a file cannot be read ({error.strerror or error})", False
    raise UnreadablePerformance(performance.track_id, performance.source, reason, lasting=lasting)


def is_confirmed(performance: Performance) -> bool:
    """Return whether `read` succeeds, and the files do not name another work."""
    try:
        return read(performance).label in (None, performance.work_id)
    except UnreadablePerformance:
        return False


def read_beats(performance: Performance) -> tuple[float, np.ndarray] | None:
    """Return the tempo in bpm and the beats in frames, or None if they cannot be read."""
    try:
        arrays, _ = _load(performance, (TEMPOS, BEATS))
        return float(arrays[TEMPOS][0, 0]), arrays[BEATS].ravel()
    except (WrongContentsError, OSError, LookupError):
        return None


def _load(
    performance: Performance, names: Iterable[str]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the arrays of all files, and the facts about the files that `Frames` holds."""
    arrays: dict[str, np.ndarray] = {}
    labels: set[str] = set()
    digest, size, mtime_ns = hashlib.sha256(), 0, 0
    for path in performance.files:
        missing = [name for name in names if name not in arrays]
        contents = read_arrays(path, missing, ("label", "track_id"))
        arrays |= contents.arrays
        stated = contents.attributes.get("track_id", performance.track_id)
        # An id that is unique only in its work was given the work's name, see `dataset`.
        if not f"_{performance.track_id}".endswith(f"_{stated}"):
            raise WrongContentsError(
                f"its track_id is {stated}, but its name is {performance.track_id}: rename the "
                "file, or correct what it says"
            )
        labels |= {contents.attributes["label"]} if "label" in contents.attributes else set()
        size += len(contents.image)
        mtime_ns = max(mtime_ns, contents.mtime_ns)
        digest.update(contents.image)
    if len(labels) > 1:
        raise WrongContentsError(f"its files name several works: {', '.join(sorted(labels))}")
    facts = {"fingerprint": digest.hexdigest(), "size": size, "mtime_ns": mtime_ns}
    return arrays, {**facts, "label": next(iter(labels), None)}


def from_arrays(arrays: Mapping[str, np.ndarray], **facts: Any) -> Frames:
    """Check the arrays of all `DATASETS` and the `TEMPOS`, and turn them.

    Raises
    ------
    WrongContentsError
        If one is missing, or has an unexpected shape or length.
    """
    features = _turned_and_checked(arrays, DATASETS, (TEMPOS,))
    if arrays["crema"].shape == (12, 12):
        features["crema"] = _turned(arrays["crema"], [features["hpcp"], features["chroma_cens"]])
    tempos = arrays[TEMPOS]
    if tempos.ndim != 2 or tempos.shape[1] != 2:
        raise WrongContentsError(f"{TEMPOS} has shape {tempos.shape}, expected (k, 2)")
    if len(tempos) == 0:
        raise WrongContentsError(f"{TEMPOS} is empty, as for silence: leave the file out")
    named: dict[str, Any] = {
        name.removeprefix("madmom_features/"): array for name, array in features.items()
    }
    return Frames(**named, tempo=float(tempos[0, 0]), **facts)


def chroma_from_arrays(arrays: Mapping[str, np.ndarray]) -> Chroma:
    """Check and turn `hpcp` and `crema` as `from_arrays` does, without needing the others."""
    return Chroma(**_turned_and_checked(arrays, Chroma._fields))


def _turned_and_checked(
    arrays: Mapping[str, np.ndarray], names: Iterable[str], others: Iterable[str] = ()
) -> dict[str, np.ndarray]:
    if missing := [name for name in (*names, *others) if name not in arrays]:
        raise WrongContentsError(f"it has no {', '.join(missing)}")
    features = {name: _time_first(name, arrays[name]) for name in names}
    length = len(features["hpcp"])
    for name, array in features.items():
        if len(array) == 0:
            raise WrongContentsError(f"{name} has no frames")
        if abs(len(array) - length) > max(MAX_FRAMES_APART, MAX_SHARE_APART * length):
            raise WrongContentsError(f"{name} has {len(array)} frames where hpcp has {length}")
    return features


def _time_first(name: str, array: np.ndarray) -> np.ndarray:
    """Return the array as (T,) or (T, coefficients)."""
    width = DATASETS[name]
    if width is None:
        if array.ndim != 1:
            raise WrongContentsError(f"{name} has shape {array.shape}, expected (frames,)")
        return array
    if array.ndim != 2 or width not in array.shape:
        raise WrongContentsError(f"{name} has shape {array.shape}, expected {width} on one side")
    if array.shape == (width, width):
        return array.T if name == "mfcc_htk" else array
    return array if array.shape[1] == width else array.T


def _turned(square: np.ndarray, others: list[np.ndarray]) -> np.ndarray:
    """Turn a CREMA of 12 x 12 so that it follows the other chroma.

    They are compared by correlation, in the best of 12 rotations, because they start at different
    pitch classes.
    """

    def likeness(array: np.ndarray, other: np.ndarray) -> float:
        length = min(len(array), len(other))
        a, b = (np.nan_to_num(each[:length].astype(np.float64)) for each in (array, other))
        a -= a.mean()
        b -= b.mean()
        scale = np.sqrt((a**2).sum() * (b**2).sum())
        best = max(float((a * np.roll(b, shift, axis=1)).sum()) for shift in range(12))
        return best / scale if scale > 0 else 0.0

    as_is, turned = (max(likeness(a, b) for b in others) for a in (square, square.T))
    if abs(as_is - turned) < ORIENTATION_MARGIN:
        raise WrongContentsError(
            "crema is 12 x 12 and follows hpcp and chroma_cens equally well either way round "
            f"({as_is:.2f}, {turned:.2f}), so it is not known which side is time"
        )
    return square if as_is > turned else square.T
