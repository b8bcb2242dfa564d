"""The layout of a directory: which performances it holds, without opening their files.

Three layouts are recognised:

```
da-tacos_<subset>_subset_single_files/W_x/P_y.h5                     one file per performance
da-tacos_<subset>_subset_<feature>/W_x_<feature>/P_y_<feature>.h5    one per feature (`FOLDERS`)
W/P.h5 and a CSV with columns work_id, track_id                      acoss; the CSV lists them
```
"""

from __future__ import annotations

import stat
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

#: The feature folders that are needed; `key` and `tags` are not read.
FOLDERS = ("cens", "crema", "hpcp", "madmom", "mfcc")

SINGLE_FILES = "_single_files"


@dataclass(frozen=True)
class Performance:
    """One recording on disk."""

    track_id: str  # from the name of the file, or from acoss' CSV
    work_id: str  # from the name of the folder, or from acoss' CSV
    files: tuple[Path, ...]  # a single file, or one per feature in the order of FOLDERS
    source: str  # the file relative to the root; a pattern if there are several files

    def stat(self) -> tuple[int, int]:
        """Return the bytes of all files and the latest mtime in ns; (-1, -1) if one is gone."""
        try:
            stats = [path.stat() for path in self.files]
        except OSError:
            return -1, -1
        return sum(s.st_size for s in stats), max(s.st_mtime_ns for s in stats)


@dataclass(frozen=True)
class Reject:
    """A performance that is not used, and why."""

    track_id: str
    work_id: str
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
    if len(names := sorted({*single, *stems})) > 1:
        raise ValueError(
            f"{root} holds several data sets ({', '.join(names)}): choose one of them, as in "
            f"{root / names[0]}"
        )
    if not prefix and (listed := _listed(root)) is not None:
        return Layout(root.name, root, tuple(_acoss(root, *listed)))
    if single:
        ((name, folder),) = single.items()
        return Layout(name, root, tuple(_single_files(root, folder)))
    if stems:
        return Layout(names[0], root, tuple(_feature_folders(root, names[0])))
    if not prefix and any(next(folder.glob("*.h5"), None) for folder in folders):
        return Layout(root.name.removesuffix(SINGLE_FILES), root, tuple(_single_files(root, root)))
    raise ValueError(
        f"{root / prefix} does not hold a data set: expected da-tacos_…{SINGLE_FILES}/W_…/P_….h5, "
        f"or the folders da-tacos_…_{{{','.join(FOLDERS)}}}, or W/P.h5 beside a CSV with the "
        "columns work_id,track_id"
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
            f"there is no data set at {root / prefix}: name a directory of features or a CSV table"
        )
    root = root.resolve()
    return root, prefix, [root / folder.name for folder in folders]


def _visible(folder: Path) -> list[Path]:
    # Hidden files are the file manager's (._P_1.h5, .DS_Store), not the data set's.
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _files(root: Path, folder: Path) -> Iterator[Path]:
    """Yield the HDF5 files of every work folder."""
    if _leaves(root, folder):
        raise ValueError(f"{folder} is a link that leaves {root}: give the directory it leads to")
    for work in _visible(folder):
        if work.is_dir():
            yield from (path for path in _visible(work) if path.suffix == ".h5")


def _single_files(root: Path, folder: Path) -> Iterator[Performance | Reject]:
    for path in _files(root, folder):
        source = path.relative_to(root).as_posix()
        yield _checked(root, Performance(path.stem, path.parent.name, (path,), source))


def _feature_folders(root: Path, stem: str) -> Iterator[Performance | Reject]:
    missing = [name for name in FOLDERS if not (root / f"{stem}_{name}").is_dir()]
    if missing:
        wanted = ", ".join(f"{stem}_{name}" for name in missing)
        raise ValueError(f"{root} lacks {wanted}: a performance's row needs all five features")
    performances: dict[tuple[str, str], dict[str, Path]] = defaultdict(dict)
    for name in FOLDERS:
        for path in _files(root, root / f"{stem}_{name}"):
            track_id = path.stem.removesuffix(f"_{name}")
            work_id = path.parent.name.removesuffix(f"_{name}")
            performances[track_id, work_id][name] = path
    for (track_id, work_id), files in performances.items():
        source = f"{stem}_*/{work_id}_*/{track_id}_*.h5"
        if missing := [name for name in FOLDERS if name not in files]:
            yield Reject(track_id, work_id, source, f"it has no {', '.join(missing)} file")
        else:
            ordered = tuple(files[name] for name in FOLDERS)
            yield _checked(root, Performance(track_id, work_id, ordered, source))


def _listed(root: Path) -> tuple[pl.DataFrame, Path] | None:
    """Return the rows and the path of acoss' CSV, if the root has one."""
    for path in sorted(root.glob("*.csv")):
        try:
            table = pl.read_csv(path, infer_schema=False)
        except (OSError, pl.exceptions.PolarsError):
            continue  # another kind of file
        if {"work_id", "track_id"} <= set(table.columns):
            return table.select("work_id", "track_id").drop_nulls().unique(), path
    return None


def _acoss(root: Path, table: pl.DataFrame, csv: Path) -> Iterator[Performance | Reject]:
    folders = [root, *(path for path in _visible(root) if path.is_dir())]
    works = table["work_id"].unique().to_list()
    # acoss is given the CSV and the features' folder apart. The folder may be the root here.
    base = next((f for f in folders if any((f / work).is_dir() for work in works)), root)
    for work_id, track_id in table.iter_rows():
        path = base / work_id / f"{track_id}.h5"
        if not (_plain(work_id) and _plain(track_id)):
            yield Reject(
                track_id, work_id, csv.name, f"{csv.name} has an id that is not a plain file name"
            )
        elif not path.exists():
            source = path.relative_to(root).as_posix()
            yield Reject(track_id, work_id, source, f"{csv.name} lists it, but the file is missing")
        else:
            source = path.relative_to(root).as_posix()
            yield _checked(root, Performance(track_id, work_id, (path,), source))


def _plain(name: str) -> bool:
    return name not in ("", ".", "..") and Path(name).name == name


def _checked(root: Path, performance: Performance) -> Performance | Reject:
    """Reject files that must not be opened: a link out of the root, or a pipe, which blocks."""
    for path in performance.files:
        reason = None
        try:
            if (path.is_symlink() or path.parent.is_symlink()) and _leaves(root, path):
                reason = f"{path.name} is a link that leaves {root.name}"
            elif not stat.S_ISREG(path.stat().st_mode):
                reason = f"{path.name} is not a regular file"
        except OSError as error:
            reason = f"{path.name} cannot be opened ({error.strerror or error})"
        if reason:
            return Reject(performance.track_id, performance.work_id, performance.source, reason)
    return performance


def _leaves(root: Path, path: Path) -> bool:
    return not path.resolve().is_relative_to(root)
