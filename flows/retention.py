"""Which results are still needed, and freeing the room that the others take.

Needed are the results that the current collection and the one before it were made of, those that
latest.json names, and what all these were made from. An evaluation stays as long as the vectors it
measured, duplicates as long as their collection, clusters as long as their features. Comparisons
are started by hand and can take hours, so they stay, with the bundles they measured. What an
unfinished run read of a data set stays as long as the data set does.
"""

import logging
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import search
from flows import vectors
from flows.sources import data_of, served
from flows.workspace import MADE_FROM, PARTS, Workspace, read_json

logger = logging.getLogger(__name__)

#: Of all kinds of results, those that are never pruned.
BY_HAND = ("splits", "comparisons", "comparisons/rows")

#: And the others.
PRUNED = ("features/*", "bundles", "vectors", "evaluations", "duplicates", "clusters")


class InUse(RuntimeError):  # noqa: N818 - named for what is the matter
    """Another run uses the workspace, so nothing is pruned."""


@dataclass(frozen=True)
class Unneeded:
    """A result that nothing needs.

    Attributes
    ----------
    kind : str
        features, bundles and so on; "unfinished" for what a killed run left.
    path : Path
        Its directory.
    size : int
        Bytes that it takes on the disk.
    """

    kind: str
    path: Path
    size: int


def prune(workspace: Workspace, *, dry_run: bool = False) -> list[Unneeded]:
    """Delete all results that nothing needs, or only say which.

    Raises
    ------
    InUse
        If a flow uses the workspace.
    RuntimeError
        If it cannot be told what is published, so that nothing may be deleted.
    """
    with workspace.used_by_nobody() as free:
        if not free:
            raise InUse(
                f"Another run uses the workspace {workspace.root}, so nothing was pruned: try "
                "again when the run has ended."
            )
        try:
            found = [Unneeded(kind, path, _size(path)) for kind, path in _unneeded(workspace)]
        except (search.SearchError, ValueError) as error:
            raise RuntimeError(
                f"Nothing was pruned, because it is not known what is needed: {error}"
            ) from error
        if not dry_run:
            for each in found:
                _remove(each.path)
            _sweep(workspace)
    return found


def tidy(workspace: Workspace) -> None:
    """Prune after a publication; where that is not possible now, the next one does it."""
    try:
        freed = prune(workspace)
    except InUse as error:
        logger.debug("%s", error)
    except (RuntimeError, OSError) as error:
        logger.warning("%s", error)
    else:
        if freed:
            logger.info("freed %s", told(freed))


def told(found: Iterable[Unneeded]) -> str:
    """Say how many results there are, and how much room they take."""
    sizes = [each.size for each in found]
    results = "1 result" if len(sizes) == 1 else f"{len(sizes)} results"
    return f"{results}, {sum(sizes) / 1e6:.1f} MB"


def _unneeded(workspace: Workspace) -> Iterator[tuple[str, Path]]:
    needed, collections = _needed(workspace)
    root = workspace.root
    for pattern in PRUNED:
        for parent in sorted(root.glob(pattern)):
            for path in _results(parent):
                kind = pattern.partition("/")[0]
                if path.name == PARTS and kind == "features":
                    data = data_of(parent)
                    if data is None or not data.exists():
                        yield "unfinished", path
                elif not _is_needed(kind, path, needed, collections, workspace):
                    yield kind, path
    for pattern in (*PRUNED, *BY_HAND):
        for parent in sorted(root.glob(pattern)):
            for path in sorted(parent.glob(".*/")):
                yield "unfinished", path


def _needed(workspace: Workspace) -> tuple[set[Path], set[str]]:
    """The directories that are needed, and the names of the collections that are served."""
    origins = served(search.connect(home=workspace.root), workspace)
    texts = set(workspace.noted().values())
    for place in origins.values():
        for origin in place.values():
            texts |= _texts(origin)
    for row in (workspace.root / "comparisons" / "rows").glob(f"*/{MADE_FROM}"):
        texts |= set(_made_from(row.parent).values())
    found: set[Path] = set()
    for text in texts:
        path = workspace.resolve(text)
        found.add(path.parent if path.name == vectors.VECTORS else path)
    for path in list(found):
        if (path / vectors.VECTORS).is_file():
            made_with = vectors.origin(path / vectors.VECTORS)
            names = [made_with[name] for name in ("bundle", "features") if name in made_with]
            found |= {workspace.resolve(name) for name in names}
    return found, {name for place in origins.values() for name in place}


def _texts(origin: Any) -> set[str]:
    """The paths in an origin of a collection; none in what others published."""
    if not isinstance(origin, dict):
        return set()
    sources = [one for one in origin.get("sources", ()) if isinstance(one, dict)]
    paths = [origin.get("bundle"), *(path for one in sources for path in one.values())]
    return {path for path in paths if isinstance(path, str)}


def _is_needed(
    kind: str, path: Path, needed: set[Path], collections: set[str], workspace: Workspace
) -> bool:
    made_from = _made_from(path)
    if kind == "evaluations":
        measured = workspace.resolve(made_from.get("vectors", "unknown"))
        inside = measured.is_relative_to(workspace.root)
        return measured.parent in needed if inside else measured.exists()
    if kind == "duplicates":
        return made_from.get("collection") in collections
    if kind == "clusters":
        return workspace.resolve(made_from.get("features", "unknown")) in needed
    return path in needed


def _made_from(path: Path) -> dict[str, str]:
    try:
        return read_json(path / MADE_FROM) or {}
    except ValueError:
        return {}


def _results(parent: Path) -> list[Path]:
    return sorted(path for path in parent.glob("*/") if not path.name.startswith("."))


def _size(path: Path) -> int:
    # Blocks of 512 bytes, for the files of an index are mostly holes.
    return sum(512 * each.lstat().st_blocks for each in path.rglob("*"))


def _remove(path: Path) -> None:
    """Delete a result; one that is deleted by half is not there under its name."""
    gone = path
    if not path.name.startswith("."):
        gone = path.rename(path.with_name(f".{path.name}.removed"))
    shutil.rmtree(gone)


def _sweep(workspace: Workspace) -> None:
    """Delete the locks of results that are gone, and the directories of data sets without any."""
    for pattern in (*PRUNED, *BY_HAND):
        for parent in workspace.root.glob(pattern):
            for lock in parent.glob(".*.lock"):
                if not (parent / lock.name[1 : -len(".lock")]).exists():
                    lock.unlink()
    for slot in _results(workspace.root / "features"):
        if not (slot / PARTS).exists():
            for listing in slot.glob("*.rejects.csv"):
                listing.unlink()
        if not _results(slot):
            shutil.rmtree(slot)
