"""Connect to an engine: the one that the environment selects, or the one at a place."""

import os
from pathlib import Path

from search import settings
from search.engines.engine import Engine
from search.settings import Settings

#: What a workspace holds: its collections, or what the flows note about their results.
WORKSPACE = ("qdrant", "latest.json")


def connect(
    place: str | os.PathLike[str] | None = None,
    *,
    api_key: str | None = None,
    home: Path | None = None,
) -> Engine:
    """Connect to the engine at a place, by default the one that the environment selects.

    Parameters
    ----------
    place : str or path, optional
        The URL of a Qdrant server, or a workspace directory for the embedded engine in it. The
        first publication makes a workspace that does not exist. By default the server at QDRANT_URL
        or, if that is not set, the embedded engine in the workspace.
    api_key : str, optional
        The key of the server at `place`; by default COVERS_COPY_API_KEY. QDRANT_API_KEY is only
        sent to the server at QDRANT_URL.
    home : Path, optional
        The workspace if no place is given; by default $COVERS_HOME.

    Returns
    -------
    Engine
        A context manager, with `publish`, `rollback`, `annotate` and `status`.

    Raises
    ------
    ValueError
        If the place is neither a server nor a workspace.

    Examples
    --------
    >>> with connect() as engine:
    ...     engine.status().current.points
    40
    """
    environment = settings.read()
    if place is None:
        home = environment.home if home is None else Path(home).expanduser()
        if environment.qdrant_url is None:
            return _embedded(environment, home)
        return _server(environment, environment.qdrant_url, environment.qdrant_api_key, home)
    if isinstance(place, str) and place.startswith(("http://", "https://")):
        key = api_key or environment.copy_api_key
        if key is None and place == environment.qdrant_url:
            key = environment.qdrant_api_key
        return _server(environment, place, key, environment.home)
    if isinstance(place, str) and "://" in place:
        raise ValueError(
            f"{place!r} is not a place for a collection: name a directory, or a Qdrant server such "
            "as http://localhost:6333."
        )
    return _embedded(environment, _workspace(Path(place).expanduser()))


def _workspace(home: Path) -> Path:
    """Check that a directory is a workspace or may become one."""
    if home.exists() and not home.is_dir():
        raise ValueError(f"{home} is a file: name a directory for the workspace.")
    names = sorted(path.name for path in home.iterdir()) if home.is_dir() else []
    if names and not set(WORKSPACE) & set(names):
        raise ValueError(
            f"{home} is not a workspace, because it holds {names[0]}: name a workspace, an empty "
            "directory, or a directory that does not exist yet."
        )
    return home


def _embedded(environment: Settings, home: Path) -> Engine:
    from search.engines.embedded import Embedded  # importing the engine takes a while

    return Embedded(home / "qdrant" / environment.collection, environment.collection)


def _server(environment: Settings, url: str, api_key: str | None, home: Path) -> Engine:
    from search.engines.server.server import Server

    return Server(
        url,
        api_key,
        home / "qdrant" / f"{environment.collection}.lock",
        collection=environment.collection,
        grpc_port=environment.qdrant_grpc_port,
        ca_cert=environment.qdrant_ca_cert,
        shards=environment.qdrant_shards,
        replicas=environment.qdrant_replicas,
    )
