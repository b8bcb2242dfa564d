"""What is served now, and from what it was made.

The workspace notes it in served.json for every place that it published to, because pruning must
spare what the collections of another server or deployment need.
"""

import os
from typing import Any

from filelock import FileLock

import search
from flows.collection.sources import Recipe, UnknownSources, read_origin
from flows.workspace import Workspace, damaged, read_json, room_for, write_json
from search.engines.engine import Engine


def current(engine: Engine, workspace: Workspace) -> Recipe | None:
    """Return the recipe of the current collection; None if nothing is published.

    Raises
    ------
    UnknownSources
        As `read_origin`, or if the collection is damaged.
    SearchError
        If the engine does not answer.
    """
    history = engine.history()
    if not history:
        return None
    try:
        described = engine.describe(history[0])
    except search.DamagedCollection as error:
        raise UnknownSources(
            f"It is not known what the current collection was made of ({error}): go back with "
            "`covers rollback`, or publish without its performances with `--only`."
        ) from error
    return read_origin(described, workspace)


def served(engine: Engine, workspace: Workspace) -> dict[str, dict[str, Any]]:
    """Return the origins of all collections made from this workspace, by place and name.

    The engine answers for its own place. Other places are as they were noted last.

    Raises
    ------
    SearchError
        If the engine does not answer.
    ValueError
        If served.json is damaged.
    """
    path = workspace.root / "served.json"
    noted = read_json(path) or {}
    if not (isinstance(noted, dict) and all(isinstance(place, dict) for place in noted.values())):
        raise damaged(path)
    place = f"{engine.collection} in {engine.location}".replace(f"{workspace.root}{os.sep}", "")
    known = noted.get(place, {})
    history = engine.history()
    if history:  # a server that lost everything can be filled again
        noted[place] = {name: _origin(name, engine, known) for name in history}
    return noted


def _origin(name: str, engine: Engine, known: dict[str, Any]) -> Any:
    try:
        return engine.describe(name).origin
    except search.DamagedCollection:
        return known.get(name)


def note_served(engine: Engine, workspace: Workspace) -> None:
    """Write served.json."""
    path = workspace.root / "served.json"
    with room_for(path), FileLock(workspace.root / ".served.lock"):
        write_json(path, served(engine, workspace))
