"""Which recordings a folder holds, and what is known of each.

What is known comes, in this order, from

```
a CSV in the folder      path, and any of track_id, work, title, artist, year, work_title, …
tags in the recordings   title, artist, date
the path                 Work title/Artist - Title.mp3
```

Each folder directly below the given one is taken for a work, if no recording lies deeper or
beside the folders. Otherwise each recording is a work of its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from embedding.data import layout
from embedding.data.columns import guess

#: The names of recordings end in one of these, in lower or upper case.
SUFFIXES = (
    ".aac",
    ".aif",
    ".aiff",
    ".flac",
    ".m4a",
    ".mp3",
    ".oga",
    ".ogg",
    ".opus",
    ".wav",
    ".wma",
)

#: Columns of the CSV that are known, and their names in Da-TACOS' metadata.
COLUMNS = {
    "title": "perf_title",
    "artist": "perf_artist",
    "year": "release_year",
    "work_title": "work_title",
    "work_artist": "work_artist",
    "instrumental": "instrumental",
}

#: All other columns of the CSV are the user's own.
KNOWN = ("path", "track_id", "work", "work_id", *COLUMNS)

#: File names have at most this number of bytes, with the ending.
MAX_NAME_BYTES = 255 - len(".h5")


@dataclass(frozen=True)
class Recording:
    """A recording in a folder."""

    path: str  # relative to the folder, with "/"
    track_id: str
    work_id: str
    own: dict[str, Any] = field(default_factory=dict)  # further columns of the CSV
    # Titles, artists and years, by the names of Da-TACOS' metadata. Tags come between the two.
    listed: dict[str, str] = field(default_factory=dict)  # in the CSV
    guessed: dict[str, str] = field(default_factory=dict)  # from the path


@dataclass(frozen=True)
class Recordings:
    """What a folder holds."""

    root: Path
    found: tuple[Recording, ...]  # sorted by track id, which is unique
    rejected: dict[str, str]  # the reason by the path
    works_from: str  # the name of the CSV, "the folders" or "nowhere"


def holds_recordings(root: Path) -> bool:
    """Whether a directory holds recordings, in folders too, and no features."""
    found = False
    for _, _, names in os.walk(root):
        if any(name.endswith(layout.SUFFIXES) for name in names):
            return False
        found = found or any(map(_is_recording, names))
    return found


def find_recordings(root: Path) -> Recordings:
    """List the recordings of a folder, without opening them.

    Raises
    ------
    ValueError
        If the folder does not exist or holds no recording, or its CSV cannot be understood.
    """
    root = Path(root)
    if not root.is_dir():
        raise ValueError(f"There is no folder at {root}: name a folder of recordings.")
    paths = sorted(path.relative_to(root).as_posix() for path in _paths(root))
    if not paths:
        endings = ", ".join(SUFFIXES)
        raise ValueError(f"{root} holds no recording: its files should end in {endings}.")
    listed = _listed(root)
    if listed is None:
        folders = all(path.count("/") == 1 for path in paths)
        known = [_from_path(path, folders) for path in paths]
        source = "the folders" if folders else "nowhere"
        rejected = {}
    else:
        table, source = listed
        known = [_from_row(row, source) for row in table.iter_rows(named=True)]
        there, listed_paths = set(paths), {each.path for each in known}
        rejected = dict.fromkeys(listed_paths - there, f"{source} lists it, but it is not there")
        rejected |= dict.fromkeys(there - listed_paths, f"{source} does not list it")
    found: dict[str, Recording] = {}
    for each in known:
        if each.path in rejected:
            continue
        if reason := _why_unusable(each, found):
            rejected[each.path] = reason
        else:
            found[each.track_id] = each
    return Recordings(root, tuple(found[i] for i in sorted(found)), rejected, source)


def _paths(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if _is_recording(name):
                yield Path(folder) / name


def _is_recording(name: str) -> bool:
    return not name.startswith(".") and name.lower().endswith(SUFFIXES)


def _listed(root: Path) -> tuple[pl.DataFrame, str] | None:
    """Return the CSV that lists recordings, and its name."""
    tables = {}
    for path in sorted(root.glob("*.csv")):
        try:
            table = pl.read_csv(path, infer_schema=False).rename(_known_or_own)
        except pl.exceptions.PolarsError as error:
            raise ValueError(f"{path} cannot be read as a CSV table: {error}") from error
        if "path" in table.columns:
            own = [column for column in table if column.name not in KNOWN]
            table = table.with_columns(map(guess, own))
            tables[path.name] = table
    if len(tables) > 1:
        raise ValueError(
            f"{root} has several CSV tables with a column path ({', '.join(tables)}): leave one."
        )
    return next(((table, name) for name, table in tables.items()), None)


def _known_or_own(name: str) -> str:
    known = name.strip().lower()
    return known if known in KNOWN else name.strip()


def _from_row(row: dict[str, Any], source: str) -> Recording:
    own = {name: row.pop(name) for name in [*row] if name not in KNOWN}
    given = {name: text.strip() for name, text in row.items() if text and text.strip()}
    if "path" not in given:
        raise ValueError(f"{source} has a row without a path: {row}.")
    path = Path(given["path"]).as_posix()
    track_id = given.get("track_id") or _id(path)
    facts = {COLUMNS[name]: text for name, text in given.items() if name in COLUMNS}
    work = given.get("work_id") or given.get("work") or track_id
    if "work" in given:
        facts.setdefault("work_title", given["work"])
    return Recording(path, track_id, work, own, listed=facts)


def _from_path(path: str, folders: bool) -> Recording:
    """Read what a path says, such as Work title/Artist - Title.mp3."""
    track_id = _id(path)
    artist, dash, title = Path(path).stem.partition(" - ")
    facts = {"perf_title": title.strip(), "perf_artist": artist.strip()} if dash else {}
    facts.setdefault("perf_title", Path(path).stem)
    if not folders:
        return Recording(path, track_id, track_id, guessed=facts)
    work = path.split("/")[0]
    return Recording(path, track_id, work, guessed=facts | {"work_title": work})


def _id(path: str) -> str:
    """Return a track id from a path: its parts, without the ending."""
    return " - ".join(Path(path).with_suffix("").parts)


def _why_unusable(recording: Recording, found: dict[str, Recording]) -> str | None:
    for name in (recording.track_id, recording.work_id):
        if Path(name).name != name or name.startswith(".") or not name.isprintable():
            return f"its id {name!r} cannot be the name of a file: list another in a CSV"
        if len(name.encode()) > MAX_NAME_BYTES:
            return f"its id is longer than {MAX_NAME_BYTES} bytes: list a shorter one in a CSV"
    if (other := found.get(recording.track_id)) is not None:
        return f"it has the track id of {other.path}: list another in a CSV"
    return None
