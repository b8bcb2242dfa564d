"""Write a file or a directory as a whole or not at all."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def beside(path: Path, ending: str) -> Path:
    """Return a hidden path beside a file, which stays the same and is never too long a name."""
    digest = hashlib.blake2b(path.name.encode(), digest_size=8).hexdigest()
    return path.with_name(f".{digest}{ending}")


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a path beside `path`, and rename it to `path` if the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = beside(path, ".tmp")
    try:
        yield scratch
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


@contextmanager
def whole_directory(path: Path) -> Iterator[Path]:
    """Give an empty directory beside `path`, and rename it to `path` if the block succeeds.

    A directory that is already at `path` is replaced. Processes that have its files open keep
    reading them. If the block fails, nothing is left of the new directory.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{path.name}."
    scratch = Path(tempfile.mkdtemp(prefix=prefix, suffix=".tmp", dir=path.parent))
    try:
        scratch.chmod(0o755)  # mkdtemp's 0700 would keep the operator's other users out
        yield scratch
        if path.exists():
            # A directory cannot be renamed onto a full one, so the old one is moved first.
            aside = Path(tempfile.mkdtemp(prefix=prefix, suffix=".old", dir=path.parent))
            path.rename(aside / path.name)
            scratch.rename(path)
            shutil.rmtree(aside, ignore_errors=True)
        else:
            scratch.rename(path)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
