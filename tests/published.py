"""Copies of a workspace, what searchers see of it, and which of its files a run has written."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from catalogue import in_memory

import search


def copy(home: Path, to: Path) -> None:
    """Copy a workspace, whose collections are sparse files."""
    subprocess.run(["cp", "--recursive", "--sparse=always", f"{home}/.", to], check=True)


@contextlib.contextmanager
def copied(home: Path) -> Iterator[Path]:
    """A copy of a workspace, in memory."""
    with in_memory() as directory:
        copy(home, directory / "home")
        yield directory / "home"


def searcher(home: Path) -> search.Searcher:
    """Search the collection of a workspace."""
    return search.Searcher(search.connect(home=home))


def served(home: Path) -> dict[str, dict[str, Any]]:
    """The payload of each performance that searchers see."""
    collection = search.connect(home=home).open()
    return {stored.payload["track_id"]: stored.payload for stored in collection.everything()}


def times(home: Path, *patterns: str) -> dict[Path, int]:
    """When each file of these patterns was written."""
    return {path: path.lstat().st_mtime_ns for each in patterns for path in home.rglob(each)}
