"""Snapshots: the current collection as files that can be kept elsewhere, and back from them.

```
<directory>/covers-<bundle>-<hash>/
  snapshot.json   which engine it is of, what the collection says of itself, every file with its
                  size and SHA-256, and digests of some performances; written last
  files/          the engine's own: of the embedded one the collection's directory, of a server its
                  snapshots of the collection and of its sequences
```

A snapshot is the quick way back on the same engine, index and all; `search.copying` is the way to
another one. What is restored is compared with the digests before searchers see it.
"""

import hashlib
import json
import logging
import re
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from search.collection import Collection, Description, Engine, name_of
from search.durable import sync
from search.errors import DamagedSnapshot, PublishError, SearchError
from search.publishing import (
    SAMPLE,
    check_keep,
    check_whole,
    clear,
    publishing,
    serve_first,
    settle,
    standing,
)

logger = logging.getLogger(__name__)

MANIFEST = "snapshot.json"


@dataclass(frozen=True)
class Manifest:
    """What snapshot.json holds."""

    engine: str
    description: Description
    files: dict[str, tuple[int, str]]
    performances: dict[str, str]


def snapshot(engine: Engine, directory: Path, timeout: float = 600.0) -> Path:
    """Write the current collection into a directory, where it is whole or not at all.

    Publishing waits meanwhile, so that nothing is pruned or changed under it. The snapshot is named
    by the collection's content: one that is there already, and undamaged, is not written again.

    Parameters
    ----------
    engine : Engine
        From `search.connect()`.
    directory : Path
        Made if it isn't there.
    timeout : float
        Seconds to wait for a publisher to finish.

    Returns
    -------
    Path
        The snapshot's own directory.

    Raises
    ------
    NoCollection
        If nothing is published.
    SearchError
        If it can't be written, the collection isn't whole, or another publisher doesn't finish.
    """
    with publishing(engine, timeout):
        collection = engine.open()
        description = collection.description
        check_whole(description)
        name, called = description.name, name_of(description.bundle, description.content)
        place, scratch = directory / called, directory / f"{called}.writing"
        try:
            if place.exists():
                try:
                    standing = _read(place)
                    check_files(place, standing)
                except DamagedSnapshot as error:
                    logger.warning("%s It is written again.", error)
                else:
                    # An evaluation may have written its results into the collection since.
                    if _digests(collection, standing.performances) == standing.performances:
                        return place
            shutil.rmtree(scratch, ignore_errors=True)
            (scratch / "files").mkdir(parents=True)
            engine.save(name, scratch / "files")
            manifest = Manifest(
                engine.kind,
                description,
                {
                    str(path.relative_to(scratch / "files")): _size_and_digest(path)
                    for path in sorted((scratch / "files").rglob("*"))
                    if path.is_file()
                },
                _digests(collection, collection.some_track_ids(SAMPLE)),
            )
            (scratch / MANIFEST).write_text(json.dumps(asdict(manifest), indent=1), "utf-8")
            for path in (*scratch.rglob("*"), scratch):
                sync(path)
            shutil.rmtree(place, ignore_errors=True)
            scratch.rename(place)
            sync(directory)
        except SearchError:
            raise  # some are OSErrors too, and have their sentence
        except OSError as error:
            raise SearchError(
                f"The snapshot of {name} can't be written to {directory} ({error}): make room "
                "there, or name another directory."
            ) from error
    return place


def restore(engine: Engine, place: Path, keep: int = 2, timeout: float = 600.0) -> Description:
    """Make a snapshot's collection the current one, once it is there and what it was.

    Parameters
    ----------
    engine : Engine
        Of the kind that the snapshot is of.
    place : Path
        A snapshot's directory, its snapshot.json, or a directory with one snapshot in it.
    keep, timeout
        As for `search.publish`.

    Raises
    ------
    DamagedSnapshot
        If a file is missing, or isn't what was written.
    SearchError
        If it is of the other engine.
    PublishError
        As `search.publish`.
    """
    check_keep(keep)
    directory = _find(place)
    manifest = _read(directory)
    if manifest.engine != engine.kind:
        raise SearchError(
            f"{directory} is a snapshot of the {manifest.engine} engine, and {engine.location} is "
            f"of the {engine.kind} one: restore it there, and go on with `covers copy --to`."
        )
    check_files(directory, manifest)
    with publishing(engine, timeout):
        history = engine.history()
        kept = standing(engine, history)
        expected = settle(manifest.description, kept)
        name = expected.name
        fault = _fault(manifest, expected, engine) if name in kept else "not restored yet"
        if fault is not None:
            logger.info("restoring %s: %s", name, fault)
            clear(engine, keep=history)
            engine.load(name, directory / "files")
            fault = _fault(manifest, expected, engine)
            if fault is not None:
                engine.drop(name)
                raise PublishError(
                    f"{name} was not restored, because {fault}: nothing has changed for searchers, "
                    "so look after the storage and restore it again."
                )
        return serve_first(name, history, engine, keep)


def check_files(directory: Path, manifest: Manifest) -> None:
    """Raise DamagedSnapshot unless every file is what was written, and there is no other."""
    for path in (directory / "files").rglob("*"):
        if path.is_file() and str(path.relative_to(directory / "files")) not in manifest.files:
            raise DamagedSnapshot(f"The snapshot {directory} is damaged: {path} is none of it.")
    for file, expected in manifest.files.items():
        path = directory / "files" / file
        if not path.is_file():
            raise DamagedSnapshot(f"The snapshot {directory} is damaged: {path} is missing.")
        if _size_and_digest(path) != expected:
            raise DamagedSnapshot(
                f"The snapshot {directory} is damaged: {path} isn't what was written."
            )


def _find(place: Path) -> Path:
    if place.name == MANIFEST:
        return place.parent
    if (place / MANIFEST).is_file():
        return place
    found = sorted(path.parent.name for path in place.glob(f"*/{MANIFEST}"))
    if len(found) == 1:
        return place / found[0]
    raise ValueError(
        f"{place} holds several snapshots: name one of {', '.join(found)} in it."
        if found
        else f"{place} holds no snapshot: name a directory that `covers snapshot` wrote."
    )


def _read(directory: Path) -> Manifest:
    try:
        content = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
        description = Description.from_json(content["description"])
        files = {
            file: (int(size), str(digest)) for file, (size, digest) in content["files"].items()
        }
        manifest = Manifest(
            str(content["engine"]), description, files, dict(content["performances"])
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedSnapshot(
            f"The snapshot {directory} is damaged: its {MANIFEST} is missing or no longer JSON."
        ) from error
    # They become paths, and may come from anywhere.
    outside = any(Path(file).is_absolute() or ".." in Path(file).parts for file in files)
    if outside or not re.fullmatch(r"covers-[A-Za-z0-9_-]+", description.name):
        raise DamagedSnapshot(f"The snapshot {directory} names files outside of it: leave it be.")
    return manifest


def _fault(manifest: Manifest, expected: Description, engine: Engine) -> str | None:
    """Say how a collection differs from what its snapshot was taken of, None if it doesn't."""
    try:
        collection = engine.open(expected.name)
        count = collection.count()
        if collection.description != expected or count != expected.points:
            return (
                f"it holds {count} performances that aren't the {expected.points} of the snapshot"
            )
        if collection.sequences is not None and collection.sequences.count() != count:
            return f"it holds {collection.sequences.count()} sequences and not {count}"
        found = _digests(collection, manifest.performances)
        for track_id, digest in manifest.performances.items():
            if found[track_id] != digest:
                return f"performance {track_id} isn't what it was"
    except SearchError as error:
        return f"it can't be read back ({error})"
    return None


def _digests(collection: Collection, track_ids: Iterable[str]) -> dict[str, str]:
    """SHA-256 of all that is stored of performances; of nothing, where one is missing."""
    names = list(track_ids)
    stored = collection.performances(names)
    digests = {name: hashlib.sha256() for name in names}
    for name, found in zip(names, stored, strict=True):
        if found is not None:
            digests[name].update(found.vector.tobytes())
            digests[name].update(json.dumps(found.payload, sort_keys=True).encode())
    kept = collection.sequences
    if kept is not None:
        for name, sequence, background in zip(
            names, kept.of(names), kept.backgrounds(names), strict=True
        ):
            digests[name].update(sequence.tobytes() + background.tobytes())
    return {name: digest.hexdigest() for name, digest in digests.items()}


def _size_and_digest(path: Path) -> tuple[int, str]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return file.tell(), digest
