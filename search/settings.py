"""What the environment says: where the workspace is, and whether a Qdrant server is used."""

import os
from dataclasses import dataclass, field
from pathlib import Path


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
    """

    home: Path
    qdrant_url: str | None = None
    qdrant_api_key: str | None = field(default=None, repr=False)


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
    """Read COVERS_HOME, QDRANT_URL and QDRANT_API_KEY; an empty variable counts as unset.

    Raises
    ------
    ValueError
        If the URL is no http one, or the key can't be sent in a header (it is not repeated).
    """
    url = os.environ.get("QDRANT_URL", "").strip() or None
    key = os.environ.get("QDRANT_API_KEY", "").strip() or None
    if url is not None and not url.startswith(("http://", "https://")):
        raise ValueError(
            f"QDRANT_URL is {url!r}, which is no http address: write it like http://localhost:6333."
        )
    if key is not None and not (key.isascii() and key.isprintable()):
        raise ValueError(
            "QDRANT_API_KEY holds a character that a header can't carry: copy the key again."
        )
    return Settings(home(), url, key)
