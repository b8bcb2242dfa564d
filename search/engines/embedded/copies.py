"""A reader's own copy of a published collection, for the moment in which it is opened.

The engine wants a directory of its own even for reading, and it opens most files for writing,
although it writes nothing that differs. So each process that searches loads a copy. The large
files, which the engine only reads, are symbolic links to the published ones. The other files, a few
megabytes, are copied, into memory if there is room, because the engine waits for the disk at each
of them. As soon as the copy is loaded, all files are mapped, and the copy is deleted. A process
leaves nothing behind, dropping a collection does not disturb its readers, and a reader needs no
right to write in the workspace.
"""

import contextlib
import errno
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from search.engines.sequences import FILES
from search.errors import SearchError

#: Files that qdrant-edge 0.9 only reads, and that grow with the collection; and the sequences.
LINKED_FILES = {
    *FILES,
    "id_tracker.mappings",
    "links_compressed.bin",
    "matrix.dat",
    "point_to_values.bin",
    "quantized.data",
    "values_to_points.bin",
}

COPY_PREFIX = "covers-reader-"

#: Copies of up to `MAX_MEMORY_BYTES` are made in `MEMORY`, unless TMPDIR names another directory.
MEMORY, MAX_MEMORY_BYTES = Path("/dev/shm"), 64 * 2**20  # noqa: S108

#: Bytes that opening a copy takes in addition, for a moment: 60 to 75 MB at any size.
SPARE_BYTES = 96 * 2**20

#: Seconds after which a copy that was left behind is removed.
MAX_COPY_AGE = 3600


class IncompleteError(Exception):
    """A published file is missing or has another size."""


def is_linked(path: Path) -> bool:
    """Whether a reader links a file instead of copying it."""
    return path.name in LINKED_FILES


@contextlib.contextmanager
def copy_of(published: Path, files: Mapping[str, int], to_copy: int) -> Iterator[Path]:
    """Give a directory with a copy of a collection, and delete it afterwards.

    `files` has the size of each file by its path in the collection's directory; those that are
    copied and not linked have `to_copy` bytes. Raises an `IncompleteError` if a file is missing or
    has another size, and a `SearchError` if the copy cannot be made.
    """
    parent = _choose_parent(to_copy)
    _sweep(parent)
    try:
        # The engine maps files with holes. On a full disk, filling a hole would kill the process.
        if shutil.disk_usage(parent).free < 2 * to_copy + SPARE_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(parent))
        with tempfile.TemporaryDirectory(prefix=COPY_PREFIX, dir=parent) as directory:
            for file, size in files.items():
                bring(published / file, Path(directory) / file, size)
            yield Path(directory)
    except SearchError:
        raise  # some are also OSErrors
    except OSError as error:
        raise SearchError(
            f"The collection {published.name} cannot be opened by way of {parent} ({error}): make "
            "room there, or name another directory in TMPDIR."
        ) from error


def bring(source: Path, target: Path, size: int) -> None:
    """Copy or link a published file into a reader's directory."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        if source.stat().st_size != size:
            raise IncompleteError(f"{source} is missing or cut short")
        if is_linked(source):
            target.symlink_to(source)
        else:
            _copy(source, target, size)
    except FileNotFoundError as error:
        raise IncompleteError(f"{source} is missing or cut short") from error


def _copy(source: Path, target: Path, size: int) -> None:
    """Copy a file without its holes: of 120 MB, 8 MB are data."""
    with source.open("rb") as read, target.open("wb") as written:
        written.truncate(size)
        end = 0
        while end < size:
            try:
                start = os.lseek(read.fileno(), end, os.SEEK_DATA)
            except OSError:  # the rest is a hole
                break
            end = os.lseek(read.fileno(), start, os.SEEK_HOLE)
            read.seek(start)
            written.seek(start)
            while start < end:
                data = read.read(min(end - start, 2**20))
                if not data:
                    raise IncompleteError(f"{source} is missing or cut short")
                start += written.write(data)


def _choose_parent(size: int) -> Path:
    """Choose the directory in which a copy is made."""
    allowed = size <= MAX_MEMORY_BYTES and "TMPDIR" not in os.environ and os.access(MEMORY, os.W_OK)
    if allowed and shutil.disk_usage(MEMORY).free > 2 * size + SPARE_BYTES:
        return MEMORY
    return Path(tempfile.gettempdir())


def _sweep(parent: Path) -> None:
    """Remove old copies of readers that were killed while they opened a collection."""
    for path in parent.glob(f"{COPY_PREFIX}*"):
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < time.time() - MAX_COPY_AGE:
                shutil.rmtree(path, ignore_errors=True)
