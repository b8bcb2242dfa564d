"""Which engine to use: the one that the environment selects, or one at a place that is named."""

from pathlib import Path

from search import settings
from search.engines.collection import Engine
from search.settings import Settings

#: What marks a directory as a workspace: its collections, or what the flows note of their results.
WORKSPACE = ("qdrant", "latest.json")


def connect(home: Path | str | None = None) -> Engine:
    """Return the engine that the environment selects: QDRANT_URL's, else the embedded one.

    Parameters
    ----------
    home : Path or str, optional
        The workspace; by default the environment's.
    """
    environment = settings.read()
    home = environment.home if home is None else Path(home).expanduser()
    if environment.qdrant_url is None:
        return _embedded(environment, home)
    return _server(environment, environment.qdrant_url, environment.qdrant_api_key, home)


def connect_to(place: str, api_key: str | None = None) -> Engine:
    """Return the engine at a named place, whatever the environment selects.

    Parameters
    ----------
    place : str
        A Qdrant server's URL; or a workspace, for the embedded engine in it. A workspace that does
        not exist yet is made by the first publication.
    api_key : str, optional
        The server's key; by default COVERS_COPY_API_KEY. QDRANT_API_KEY is sent to no other server
        than the one in QDRANT_URL.

    Raises
    ------
    ValueError
        If the place is neither, or is a directory that holds something other than a workspace.
    """
    environment = settings.read()
    if place.startswith(("http://", "https://")):
        key = api_key or environment.copy_api_key
        if key is None and place == environment.qdrant_url:
            key = environment.qdrant_api_key
        return _server(environment, place, key, environment.home)
    if "://" in place:
        raise ValueError(
            f"{place!r} is not a place for a collection: name a directory, or a Qdrant server like "
            "http://localhost:6333."
        )
    home = Path(place).expanduser()
    if home.exists() and not home.is_dir():
        raise ValueError(f"{home} is a file: name a directory for the workspace.")
    held = sorted(path.name for path in home.iterdir()) if home.is_dir() else []
    if held and not set(WORKSPACE) & set(held):
        raise ValueError(
            f"{home} is not a workspace, but holds {held[0]}: name a workspace, an empty "
            "directory, or one that does not exist yet."
        )
    return _embedded(environment, home)


def _embedded(environment: Settings, home: Path) -> Engine:
    from search.engines.embedded import Embedded  # the engine takes a while to import

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
