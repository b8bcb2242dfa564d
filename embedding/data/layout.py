"""The layout of a directory: which performances it holds, without opening their files.

Three layouts are recognised. `features/` stands for any one folder:

```
da-tacos_<subset>_subset_single_files/W_x/P_y.h5                     one file per performance
da-tacos_<subset>_subset_<feature>/W_x_<feature>/P_y_<feature>.h5    one per feature (`FOLDERS`)
W/P.h5, P.h5 or features/W/P.h5                                      one file per performance
```

A file that does not lie in a work's folder does not say here which work it is of (see `lists`).
"""

from __future__ import annotations

import stat
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

#: The feature folders that are needed; `key` and `tags` are not read.
FOLDERS = ("cens", "crema", "hpcp", "madmom", "mfcc")

SINGLE_FILES = "_single_files"

SUFFIXES = (".h5", ".hdf5")


@dataclass(frozen=True)
class Performance:
    """One recording on disk."""

    track_id: str  # from the name of the file
    work_id: str | None  # from a list or the folder; None if neither says it
    files: tuple[Path, ...]  # a single file, or one per feature in the order of FOLDERS
    source: str  # the file relative to the root; a pattern if there are several files

    def stat(self) -> tuple[int, int]:
        """Return the bytes of all files and the latest mtime in ns; (-1, -1) if one is gone."""
        try:
            stats = [path.stat() for path in self.files]
        except OSError:
            return -1, -1
        return sum(s.st_size for s in stats), max(s.st_mtime_ns for s in stats)

    @property
    def place(self) -> str:
        """The source without its ending, such as `W_x/P_y`."""
        return self.source.removesuffix(Path(self.source).suffix).removesuffix("_*")


@dataclass(frozen=True)
class Reject:
    """A performance that is not used, and why."""

    track_id: str
    work_id: str | None
    source: str
    reason: str


@dataclass(frozen=True)
class Layout:
    """What was found in a directory."""

    name: str  # common name of the folders, such as "da-tacos_benchmark_subset"
    root: Path  # resolved; nothing outside it is read
    found: tuple[Performance | Reject, ...]  # a track id may be there more than once


def find(root: Path) -> Layout:
    """Recognise a directory's layout and list what it holds.

    Parameters
    ----------
    root : Path
        The directory; or a `*_single_files` folder; or, if a directory holds both subsets, the
        common beginning of the folder names of one subset (`…/da-tacos_benchmark_subset`).

    Raises
    ------
    ValueError
        If the directory does not exist, its layout is not one of the three, a feature folder is
        missing, or it holds several data sets.
    """
    root, prefix, folders = _folders(Path(root))
    single = {
        folder.name.removesuffix(SINGLE_FILES): folder
        for folder in folders
        if folder.name.endswith(SINGLE_FILES)
    }
    stems = {
        folder.name.removesuffix(f"_{feature}")
        for folder in folders
        for feature in FOLDERS
        if folder.name.endswith(f"_{feature}")
    }
    _check_one(root, names := sorted({*single, *stems}))
    if single:
        ((name, folder),) = single.items()
        return Layout(name, root, tuple(_single_files(root, folder)))
    if stems:
        return Layout(names[0], root, tuple(_feature_folders(root, names[0])))
    if not prefix:
        if found := tuple(_single_files(root, root)):
            return Layout(root.name.removesuffix(SINGLE_FILES), root, found)
        full = [folder for folder in folders if any(True for _ in _files(root, folder))]
        if len(full) == 1:
            return Layout(root.name, root, tuple(_single_files(root, full[0])))
        _check_one(root, [folder.name for folder in full])
    raise ValueError(
        f"{root / prefix} does not hold a data set: expected da-tacos_…{SINGLE_FILES}/W_…/P_….h5, "
        f"or the folders da-tacos_…_{{{','.join(FOLDERS)}}}, or WORK/TRACK.h5, or TRACK.h5; a CSV "
        f"table of means is named itself, as in {root / 'means.csv'}"
    )


def _check_one(root: Path, names: list[str]) -> None:
    if len(names) > 1:
        raise ValueError(
            f"{root} holds several data sets ({', '.join(names)}): choose one of them, as in "
            f"{root / names[0]}"
        )


def _folders(root: Path) -> tuple[Path, str, list[Path]]:
    """Return the resolved root, the beginning of names that was given, and such folders."""
    prefix = ""
    if not root.is_dir():
        root, prefix = root.parent, root.name
    folders = [
        path
        for path in (_visible(root) if root.is_dir() else [])
        if path.is_dir() and path.name.startswith(prefix)
    ]
    if prefix and not folders:
        raise ValueError(
            f"There is no data set at {root / prefix}: name a directory of features or recordings, "
            "or a CSV table."
        )
    root = root.resolve()
    return root, prefix, [root / folder.name for folder in folders]


def _visible(folder: Path) -> list[Path]:
    # Hidden files are the file manager's (._P_1.h5, .DS_Store), not the data set's.
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _files(root: Path, folder: Path) -> Iterator[tuple[str | None, Path]]:
    """Yield the HDF5 files of a folder and of the folders of works in it, with the work."""
    if leaves(root, folder):
        raise ValueError(f"{folder} is a link that leaves {root}: give the directory it leads to")
    for path in _visible(folder):
        if path.suffix.lower() in SUFFIXES:
            yield None, path
        elif path.is_dir():
            for inner in _visible(path):
                if inner.suffix.lower() in SUFFIXES:
                    yield path.name, inner


def _single_files(root: Path, folder: Path) -> Iterator[Performance | Reject]:
    for work_id, path in _files(root, folder):
        source = path.relative_to(root).as_posix()
        yield _checked(root, Performance(path.stem, work_id, (path,), source))


def _feature_folders(root: Path, stem: str) -> Iterator[Performance | Reject]:
    missing = [name for name in FOLDERS if not (root / f"{stem}_{name}").is_dir()]
    if missing:
        wanted = ", ".join(f"{stem}_{name}" for name in missing)
        raise ValueError(f"{root} lacks {wanted}: a performance's row needs all five features")
    performances: dict[tuple[str, str | None], dict[str, Path]] = defaultdict(dict)
    for name in FOLDERS:
        for work, path in _files(root, root / f"{stem}_{name}"):
            track_id = path.stem.removesuffix(f"_{name}")
            work_id = work and work.removesuffix(f"_{name}")
            performances[track_id, work_id][name] = path
    for (track_id, work_id), files in performances.items():
        source = "/".join([f"{stem}_*", *([f"{work_id}_*"] if work_id else []), f"{track_id}_*.h5"])
        if missing := [name for name in FOLDERS if name not in files]:
            yield Reject(track_id, work_id, source, f"it has no {', '.join(missing)} file")
        else:
            ordered = tuple(files[name] for name in FOLDERS)
            yield _checked(root, Performance(track_id, work_id, ordered, source))


def _checked(root: Path, performance: Performance) -> Performance | Reject:
    """Reject what must not be opened: a link that leaves the root, or a pipe, which blocks."""
    track_id, work_id, source = (
        text and text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        for text in (performance.track_id, performance.work_id, performance.source)
    )
    reason = None
    if source != performance.source:
        reason = "its path is not UTF-8 text: rename it"
    for path in performance.files:
        try:
            if (path.is_symlink() or path.parent.is_symlink()) and leaves(root, path):
                reason = (
                    f"{path.name} is a link that leaves {root.name}: copy the file there (links "
                    "may only leave into a folder named blobs beside it)"
                )
            elif not stat.S_ISREG(path.stat().st_mode):
                reason = f"{path.name} is not a regular file"
        except OSError as error:
            reason = f"{path.name} cannot be opened ({error.strerror or error})"
    return Reject(str(track_id), work_id, str(source), reason) if reason else performance


def leaves(root: Path, path: Path) -> bool:
    """Whether a path leads out of a resolved root.

    Files that lie directly in a folder named `blobs` beside the root, or beside a directory above
    it, count as inside, for the caches of model hubs hold `snapshots/…` of links to `blobs/…`.
    """
    target = path.resolve()
    if target.is_relative_to(root):
        return False
    blobs, cache = target.parent, target.parent.parent
    return not (blobs.name == "blobs" and cache.name and root.is_relative_to(cache))
