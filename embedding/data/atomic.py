"""Write a directory as a whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
