"""Settings from the environment: the workspace, and the Qdrant server."""

import os
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

#: The deployment, unless COVERS_COLLECTION names another.
COLLECTION = "covers"


@dataclass(frozen=True)
class Settings:
    """The settings at the moment they were read.

    Attributes
    ----------
    home : Path
        The workspace, an absolute path.
    collection : str
        The deployment: the name of the alias on a server, the beginning of every collection's name,
        and the mark of the collections that this deployment may drop. Deployments that share a
        server or a workspace need different names.
    qdrant_url : str or None
        The Qdrant server; None means the embedded engine, inside the workspace.
    qdrant_api_key : str or None
        It is not in the repr, so that it cannot end up in a log.
    qdrant_grpc_port : int or None
        Port for queries and uploads by gRPC, which is faster for many vectors (Qdrant's own is
        6334). None sends them by HTTP.
    qdrant_ca_cert : Path or None
        PEM file of the authority that signed the server's certificate, instead of the well-known
        authorities.
    qdrant_shards, qdrant_replicas : int or None
        Shards and replicas of each collection on a cluster; None leaves the choice to the server.
    copy_api_key : str or None
        The key of the server that a copy goes to or comes from. It is not in the repr either.
    """

    home: Path
    collection: str = COLLECTION
    qdrant_url: str | None = None
    qdrant_api_key: str | None = field(default=None, repr=False)
    qdrant_grpc_port: int | None = None
    qdrant_ca_cert: Path | None = None
    qdrant_shards: int | None = None
    qdrant_replicas: int | None = None
    copy_api_key: str | None = field(default=None, repr=False)


def home() -> Path:
    """Return the workspace: $COVERS_HOME, else $XDG_DATA_HOME/covers, else ~/.local/share/covers.

    The path is absolute. The directory need not exist.
    """
    if named := os.environ.get("COVERS_HOME"):
        return Path(named).expanduser().absolute()
    data = os.environ.get("XDG_DATA_HOME", "")
    # The XDG specification says that a relative path is ignored.
    base = Path(data) if Path(data).is_absolute() else Path("~/.local/share").expanduser()
    return base / "covers"


def read() -> Settings:
    """Read COVERS_HOME, COVERS_COLLECTION, COVERS_COPY_API_KEY and the QDRANT_ variables.

    An empty variable counts as unset.

    Raises
    ------
    ValueError
        If a value cannot be used. The message does not repeat a key.
    """
    url = _text("QDRANT_URL")
    if url is not None and not url.startswith(("http://", "https://")):
        raise ValueError(
            f"QDRANT_URL is {url!r}, which is not an http address: write it like "
            "http://localhost:6333."
        )
    certificate = _text("QDRANT_CA_CERT")
    return Settings(
        home(),
        _collection(),
        url,
        _key("QDRANT_API_KEY"),
        _number("QDRANT_GRPC_PORT", 1, 65535),
        None if certificate is None else _certificate(Path(certificate).expanduser(), url),
        _number("QDRANT_SHARDS", 1, 1024),
        _number("QDRANT_REPLICAS", 1, 64),
        _key("COVERS_COPY_API_KEY"),
    )


def _collection() -> str:
    name = _text("COVERS_COLLECTION") or COLLECTION
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}", name):
        raise ValueError(
            f"COVERS_COLLECTION is {name!r}, which cannot name a collection: use up to 63 letters, "
            "digits, - and _, and begin with a letter or digit."
        )
    return name


def _key(name: str) -> str | None:
    key = _text(name)
    if key is not None and not (key.isascii() and key.isprintable()):
        raise ValueError(
            f"{name} holds a character that a header cannot carry: copy the key again."
        )
    return key


def _text(name: str) -> str | None:
    return os.environ.get(name, "").strip() or None


def _number(name: str, lowest: int, highest: int) -> int | None:
    text = _text(name)
    if text is None:
        return None
    if not (text.isdecimal() and lowest <= int(text) <= highest):
        raise ValueError(
            f"{name} is {text!r}, where it must be a whole number from {lowest} to {highest}."
        )
    return int(text)


def _certificate(path: Path, url: str | None) -> Path:
    if url is not None and not url.startswith("https://"):
        raise ValueError(
            f"QDRANT_CA_CERT is {path}, but QDRANT_URL is not an https address, so nothing is "
            "encrypted: write https:// there, or unset QDRANT_CA_CERT."
        )
    try:
        _parse_certificates(path, path.stat().st_mtime_ns)
    except OSError as error:  # which ssl.SSLError is too
        raise ValueError(
            f"QDRANT_CA_CERT is {path}, which cannot be read as PEM certificates ({error}): name "
            "the file of the authority that signed the server's certificate."
        ) from error
    return path.absolute()


@cache
def _parse_certificates(path: Path, _written_at: int) -> None:
    """Check a file once, and again if it changes, because every search reads the settings."""
    import ssl  # takes 30 ms, and is only needed with a server

    ssl.create_default_context(cafile=path)
