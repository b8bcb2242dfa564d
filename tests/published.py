"""What searchers see of a workspace, and which of its files a run has written."""

from pathlib import Path
from typing import Any

import search


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
