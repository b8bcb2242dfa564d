"""Delete the results that nothing needs.

Needed are the results that the current collection and the one before were made of, those that
latest.json names, and whatever these were made from. A result with a made_from.json (an evaluation,
say) stays as long as everything that the file names. Comparisons stay, with the bundles they
measured. What an unfinished run read of a data set stays as long as the data set does.
"""

import logging
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import search
from flows.collection import vectors
from flows.collection.served import served
from flows.collection.sources import data_of
from flows.stages import STAGES
from flows.workspace import MADE_FROM, PARTS, Workspace, read_json

logger = logging.getLogger(__name__)


class InUse(RuntimeError):  # noqa: N818 - names the state of the workspace
    """Another run uses the workspace, so nothing is deleted."""


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
        Bytes on the disk.
    """

    kind: str
    path: Path
    size: int


def prune(workspace: Workspace, *, dry_run: bool = False) -> list[Unneeded]:
    """Delete all results that nothing needs, or only list them.

    Raises
    ------
    InUse
        If a flow uses the workspace.
    RuntimeError
        If it is not known what is published.
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
            for result in found:
                _remove(result.path)
            _sweep(workspace)
    return found


def tidy(workspace: Workspace) -> None:
    """Prune after a publication. If this is not possible now, the next publication does it."""
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
    """Return the number of results and their size, in words."""
    sizes = [result.size for result in found]
    results = "1 result" if len(sizes) == 1 else f"{len(sizes)} results"
    return f"{results}, {sum(sizes) / 1e6:.1f} MB"


def _unneeded(workspace: Workspace) -> Iterator[tuple[str, Path]]:
    needed = _needed(workspace)
    for parent in _parents(workspace, pruned=True):
        for path in _results(parent):
            if path.name == PARTS:
                data = data_of(parent)
                if data is None or not data.exists():
                    yield "unfinished", path
            elif not _is_needed(path, needed, workspace):
                yield path.relative_to(workspace.root).parts[0], path
    for parent in _parents(workspace):
        for path in sorted(parent.glob(".*/")):
            yield "unfinished", path


def _needed(workspace: Workspace) -> set[str]:
    """Paths as `Workspace.relative` writes them, and names of collections."""
    needed = set(workspace.noted().values())
    for origins in served(search.connect(home=workspace.root), workspace).values():
        for collection, origin in origins.items():
            needed |= {collection, *_paths(origin)}
    for parent in _parents(workspace, pruned=False):
        for path in _results(parent):
            needed.update(_made_from(path).values())
    for text in list(needed):
        path = workspace.resolve(text)
        if path.name == vectors.VECTORS and path.is_file():
            made_with = vectors.origin(path)
            needed |= {made_with[role] for role in ("bundle", "features") if role in made_with}
    return needed


def _paths(origin: Any) -> set[str]:
    """Return the paths in the origin of a collection; none if something else published it."""
    if not isinstance(origin, dict):
        return set()
    sources = [source for source in origin.get("sources", ()) if isinstance(source, dict)]
    paths = [origin.get("bundle"), *(path for source in sources for path in source.values())]
    return {path for path in paths if isinstance(path, str)}


def _is_needed(path: Path, needed: set[str], workspace: Workspace) -> bool:
    if made_from := _made_from(path):
        return all(
            name in needed or (Path(name).is_absolute() and Path(name).exists())
            for name in made_from.values()
        )
    names = {workspace.relative(path), workspace.relative(path / vectors.VECTORS)}
    return not names.isdisjoint(needed)


def _made_from(path: Path) -> dict[str, str]:
    try:
        return read_json(path / MADE_FROM) or {}
    except ValueError:
        return {}


def _parents(workspace: Workspace, *, pruned: bool | None = None) -> Iterator[Path]:
    """Yield the directories of the results of all stages, or of those that are pruned or not."""
    for stage in STAGES.values():
        if pruned in (None, stage.pruned):
            for pattern in stage.results:
                yield from sorted(workspace.root.glob(pattern))


def _results(parent: Path) -> list[Path]:
    return sorted(path for path in parent.glob("*/") if not path.name.startswith("."))


def _size(path: Path) -> int:
    # Counted in blocks of 512 bytes, because the files of an index are mostly holes.
    return sum(512 * file.lstat().st_blocks for file in path.rglob("*"))


def _remove(path: Path) -> None:
    """Delete a result, under another name: a result with its own name is always complete."""
    if not path.name.startswith("."):
        path = path.rename(path.with_name(f".{path.name}.removed"))
    shutil.rmtree(path)


def _sweep(workspace: Workspace) -> None:
    """Delete the locks of results that are gone, and the directories of data sets without any."""
    for parent in _parents(workspace):
        for lock in parent.glob(".*.lock"):
            if not (parent / lock.name[1 : -len(".lock")]).exists():
                lock.unlink()
    for slot in _results(workspace.root / "features"):
        if not (slot / PARTS).exists():
            for listing in slot.glob("*.rejects.csv"):
                listing.unlink()
        if not _results(slot):
            shutil.rmtree(slot)
