"""The file collection.json: what an embedded collection is, and which files are part of it."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

from search.engines.durable import sync
from search.engines.embedded.copies import is_linked
from search.points import Description

#: The name of the file in the directory of a collection.
FILE = "collection.json"

#: Tells a file from the file that replaced it. An inode number alone can be used again, but not at
#: the same time.
Identity: TypeAlias = tuple[int, int]


@dataclass(frozen=True)
class Manifest:
    """What collection.json says, and the identity of the file that said it.

    `files` has the size of each file by its path in the collection's directory, `to_copy` is the
    number of bytes that a reader copies, and `shard` the directory of the engine's files.
    """

    description: Description
    files: dict[str, int]
    to_copy: int
    shard: str
    identity: Identity


def read(directory: Path) -> Manifest:
    """Read the manifest of a collection, which may be missing or damaged."""
    with (directory / FILE).open(encoding="utf-8") as file:
        identity = _identity(os.fstat(file.fileno()))
        content = json.load(file)
    return Manifest(
        Description.from_json(content["description"]),
        content["files"],
        content["to_copy"],
        content["shard"],
        identity,
    )


def write(directory: Path, description: Description, shard: str) -> None:
    """Write the manifest of the files that are in the directory, in one step."""
    files = {
        str(path.relative_to(directory)): path.stat()
        for part in (shard, "sequences")
        for path in sorted((directory / part).rglob("*"))
        if path.is_file()
    }
    manifest = {
        "description": asdict(description),
        "shard": shard,
        "files": {file: stat.st_size for file, stat in files.items()},
        # Most files consist mostly of holes, so they take less space than their size.
        "to_copy": sum(
            512 * stat.st_blocks for file, stat in files.items() if not is_linked(Path(file))
        ),
    }
    scratch = directory / f"{FILE}.new"
    scratch.write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    sync(scratch)
    scratch.replace(directory / FILE)
    sync(directory)


def identity(directory: Path) -> Identity | None:
    """Return which file is the manifest now; None if there is none."""
    try:
        return _identity((directory / FILE).stat())
    except FileNotFoundError:
        return None


def _identity(found: os.stat_result) -> Identity:
    return found.st_ino, found.st_mtime_ns
