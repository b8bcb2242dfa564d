"""The libraries of the extra `audio`, which recordings need."""

from importlib.util import find_spec

LIBRARIES = ("av", "essentia")


def check_installed() -> None:
    """Raise ValueError if one of the libraries is missing, without loading them."""
    missing = [name for name in LIBRARIES if find_spec(name) is None]
    if missing:
        raise ValueError(
            f"Recordings need the extra `audio`, and {' and '.join(missing)} cannot be imported: "
            "install it with pip install 'covers[audio]'."
        )
