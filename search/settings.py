"""What the environment says: where the workspace is, and which Qdrant server is used, and how."""

import os
from dataclasses import dataclass, field
from pathlib import Path

#: Qdrant's own default.
GRPC_PORT = 6334


@dataclass(frozen=True)
class Settings:
    """The environment at the moment it was read.

    Attributes
    ----------
    home : Path
        The workspace, an absolute path.
    qdrant_url : str or None
        The Qdrant server; None means the embedded engine, inside the workspace.
    qdrant_api_key : str or None
        Kept out of the repr, so that it can't end up in a log.
    qdrant_grpc_port : int or None
        Where the server takes gRPC, which is faster for many vectors; None not to try.
    qdrant_ca_cert : Path or None
        PEM file of the authority that signed the server's certificate, instead of the well-known
        ones.
    qdrant_shards, qdrant_replicas : int or None
        Of each collection that is published to a cluster; None leaves it to the server.
    """

    home: Path
    qdrant_url: str | None = None
    qdrant_api_key: str | None = field(default=None, repr=False)
    qdrant_grpc_port: int | None = GRPC_PORT
    qdrant_ca_cert: Path | None = None
    qdrant_shards: int | None = None
    qdrant_replicas: int | None = None


def home() -> Path:
    """Return the workspace: $COVERS_HOME, else $XDG_DATA_HOME/covers, else ~/.local/share/covers.

    Returns
    -------
    Path
        Absolute; it need not exist.
    """
    if named := os.environ.get("COVERS_HOME"):
        return Path(named).expanduser().absolute()
    data = os.environ.get("XDG_DATA_HOME", "")
    # The XDG specification has a relative path ignored.
    base = Path(data) if Path(data).is_absolute() else Path("~/.local/share").expanduser()
    return base / "covers"


def read() -> Settings:
    """Read COVERS_HOME and the variables that begin with QDRANT_; an empty one counts as unset.

    Raises
    ------
    ValueError
        If the URL is no http one, the key can't be sent in a header (it is not repeated), a number
        is none or out of range, or the certificate can't be read.
    """
    url, key = _text("QDRANT_URL"), _text("QDRANT_API_KEY")
    if url is not None and not url.startswith(("http://", "https://")):
        raise ValueError(
            f"QDRANT_URL is {url!r}, which is no http address: write it like http://localhost:6333."
        )
    if key is not None and not (key.isascii() and key.isprintable()):
        raise ValueError(
            "QDRANT_API_KEY holds a character that a header can't carry: copy the key again."
        )
    certificate = _text("QDRANT_CA_CERT")
    grpc_port = _number("QDRANT_GRPC_PORT", 0, 65535)
    return Settings(
        home(),
        url,
        key,
        GRPC_PORT if grpc_port is None else grpc_port or None,
        None if certificate is None else _certificate(Path(certificate).expanduser(), url),
        _number("QDRANT_SHARDS", 1, 1024),
        _number("QDRANT_REPLICAS", 1, 64),
    )


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
            f"QDRANT_CA_CERT is {path}, but QDRANT_URL is no https address, so nothing would be "
            "encrypted: write https:// there, or unset QDRANT_CA_CERT."
        )
    import ssl  # takes 30 ms, which those without a server needn't wait

    try:
        ssl.create_default_context(cafile=path)
    except OSError as error:  # which ssl.SSLError is too
        raise ValueError(
            f"QDRANT_CA_CERT is {path}, which can't be read as PEM certificates ({error}): name "
            "the file of the authority that signed the server's certificate."
        ) from error
    return path.absolute()
