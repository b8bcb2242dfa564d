"""The embedded engine: publishes collections into directories, and opens them.

```
CURRENT                       names of the collections that were current, the current one first
covers-<bundle>-<hash>/       a published collection; its name is never used for another one
  shard/                      the engine's files, never written again; results of an evaluation
                              come with a shard-1/ (2, ...), which collection.json then names
  sequences/                  chroma to align, if published; see `search.engines.sequences`
  collection.json             what the collection is, and the sizes of its files; written last
covers-....building/          begun and not finished; the next publisher removes it
covers-....removed/           being removed
publish.lock                  held by the publisher
```

A process that searches opens a copy of its own (see `search.engines.embedded.copies`).
"""

import os
import shutil
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import qdrant_edge as edge

from search.engines.comparing import Results
from search.engines.durable import sync
from search.engines.embedded import collection as shards
from search.engines.embedded import manifest
from search.engines.embedded.collection import EmbeddedCollection, engine_errors
from search.engines.embedded.copies import IncompleteError, copy_of
from search.engines.embedded.manifest import Identity, Manifest
from search.engines.engine import Engine
from search.engines.sequences import MappedSequences
from search.engines.sequences import write as write_sequences
from search.errors import DamagedCollection, NoCollection, NoRoom, PublishError
from search.point import Payload, Vectors
from search.points import Description, Points
from search.settings import COLLECTION

#: A collection is reported as damaged after this many failures to open the same collection, or
#: after this many failures in all, while other collections take its place.
MAX_ATTEMPTS, MAX_FAILURES = 4, 50

#: Suffixes of directories that are not a collection yet, or not any more.
BUILDING, REMOVED = ".building", ".removed"


class Embedded(Engine):
    """Collections in a directory, for any number of processes of this machine.

    Threads may share an `Embedded`. After a fork, the child opens its own copy. The directory holds
    nothing else, and the first publication makes it.
    """

    def __init__(self, directory: Path, collection: str = COLLECTION) -> None:
        self.directory = directory.absolute()
        self.collection = collection
        self.lock = self.directory / "publish.lock"
        self._forget()

    def _forget(self) -> None:
        self._process = os.getpid()
        self._opening = threading.Lock()
        #: The collection that was opened last, and which manifest it was opened by.
        self._opened: tuple[EmbeddedCollection, Identity] | None = None

    def __repr__(self) -> str:
        return f"Embedded({str(self.directory)!r})"

    @property
    def location(self) -> str:
        """The directory."""
        return str(self.directory)

    def names(self) -> list[str]:
        """Return the names of complete, half-built and half-removed collections."""
        return sorted(path.name for path in self.directory.glob("*") if path.is_dir())

    def unfinished(self) -> list[str]:
        """Return the names of half-built and half-removed collections."""
        return [name for name in self.names() if name.endswith((BUILDING, REMOVED))]

    def is_taken(self, name: str) -> bool:
        """Whether a directory or file has this name."""
        return (self.directory / name).exists()

    def history(self) -> list[str]:
        """Return the names in CURRENT whose collections exist, and the first one in any case."""
        try:
            lines = self._current_file.read_text(encoding="utf-8").split()
        except FileNotFoundError:
            return []
        return lines[:1] + [name for name in lines[1:] if (self.directory / name).is_dir()]

    def serve(self, history: Sequence[str]) -> None:
        """Replace CURRENT, in one step."""
        scratch = self._current_file.with_name("CURRENT.new")
        scratch.write_text("".join(f"{name}\n" for name in history), encoding="utf-8")
        sync(scratch)
        scratch.replace(self._current_file)
        sync(self.directory)

    @property
    def _current_file(self) -> Path:
        return self.directory / "CURRENT"

    def describe(self, name: str) -> Description:
        """Read the collection.json of a collection."""
        return self._manifest(name).description

    def _manifest(self, name: str) -> Manifest:
        try:
            return manifest.read(self.directory / name)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self._damaged(name, "collection.json is missing or not JSON") from error

    def _damaged(self, name: str, reason: str) -> DamagedCollection:
        return DamagedCollection(
            f"The collection {name} in {self.directory} is damaged ({reason}): make it again with "
            "`covers pipeline --data DIR`, or go back with `covers rollback`."
        )

    def drop(self, name: str) -> None:
        """Remove a collection. It loses its name first, so that readers notice."""
        path = self.directory / name
        removed = path.with_suffix(REMOVED)
        if path != removed and path.exists():
            shutil.rmtree(removed, ignore_errors=True)
            path.rename(removed)
        shutil.rmtree(removed, ignore_errors=True)

    def build(self, description: Description, points: Points) -> None:
        """Write a collection under a temporary name, flush it to the disk, and rename it."""
        sequences = sum(sequence.nbytes for sequence in points.sequences or ())
        self._check_room(description, sequences)
        scratch = self.directory / f"{description.name}{BUILDING}"
        scratch.mkdir()
        try:
            payloads = (points.payload(i, description) for i in range(len(points)))
            self._write(scratch / "shard", description, zip(points.vectors, payloads, strict=True))
            if points.sequences is not None:
                directory, backgrounds = scratch / "sequences", points.backgrounds()
                write_sequences(directory, points.track_ids, points.sequences, backgrounds)
            manifest.write(scratch, description, "shard")
            _sync_all(scratch)
            scratch.rename(self.directory / description.name)
        except Exception:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
        sync(self.directory)

    def change(self, description: Description, points: Points) -> None:
        """Refuse: building takes seconds, and searches have the files of this collection open."""

    def note(self, description: Description) -> None:
        """Replace collection.json, in one step."""
        shard = self._manifest(description.name).shard
        manifest.write(self.directory / description.name, description, shard)

    def _write(
        self, shard: Path, description: Description, points: Iterable[tuple[Vectors, Payload]]
    ) -> None:
        with engine_errors(lambda reason: PublishError(f"{shard} cannot be written: {reason}.")):
            shards.write(shard, description, points)

    def write_results(self, name: str, results: Results) -> None:
        """Write a new shard, which takes as long as a publication without alignments.

        If the shard were changed in place, the engine would move the points into a segment of their
        own, which takes 100 MB, and readers would have to copy all of it.
        """
        directory = self.directory / name
        before = self._manifest(name)
        self._check_room(before.description)
        shard = f"shard-{int(before.shard.partition('-')[2] or 0) + 1}"
        _clear_shards(directory, keep=before.shard)

        def points() -> Iterator[tuple[Vectors, Payload]]:
            for stored in self.open(name).everything():
                payload = {**stored.payload, **results.get(stored.payload["track_id"], {})}
                known = {field: value for field, value in payload.items() if value is not None}
                yield stored.vector, known

        self._write(directory / shard, before.description, points())
        _sync_all(directory / shard)
        manifest.write(directory, before.description, shard)
        _clear_shards(directory, keep=shard)

    def _check_room(self, description: Description, sequences: int = 0) -> None:
        # The engine maps sparse files: a full disk would kill the process in the middle of a write.
        vectors = np.float32().nbytes * description.points * description.dimension
        needed = 64 * 2**20 + 4096 * description.points + 4 * vectors + sequences
        free = shutil.disk_usage(self.directory).free
        if free < needed:
            raise NoRoom(
                f"{self.directory} has room for {free // 2**20} MB where the new collection may "
                f"take {needed // 2**20} MB: make room and publish again."
            )

    def open(self, name: str | None = None) -> EmbeddedCollection:
        """Open a collection, by default the current one, which stays open for the next query."""
        if name is not None:
            return self._load(name)[0]
        if self._process != os.getpid():
            self._forget()  # the engine's threads are not in this forked child
        with self._opening:
            if self._opened is None or not self._is_current(*self._opened):
                # What is published meanwhile is for the next query.
                self._opened = self._load_current()
            return self._opened[0]

    def _is_current(self, opened: EmbeddedCollection, identity: Identity) -> bool:
        """Whether an open collection is the current one; if its file is lost, nothing is better."""
        name = opened.description.name
        return self._current() == name and self._identity(name) in (identity, None)

    def _current(self) -> str:
        history = self.history()
        if not history:
            raise NoCollection(
                f"There is no collection in {self.directory} yet: make one with "
                "`covers pipeline --data DIR`."
            )
        return history[0]

    def _identity(self, name: str) -> Identity | None:
        return manifest.identity(self.directory / name)

    def _load_current(self) -> tuple[EmbeddedCollection, Identity]:
        """Load the current collection, which may be replaced or described again meanwhile."""
        failures: list[tuple[str, Identity | None]] = []
        while True:
            name = self._current()
            attempt = name, self._identity(name)
            try:
                return self._load(name)
            except DamagedCollection:
                failures.append(attempt)
                if failures.count(attempt) == MAX_ATTEMPTS or len(failures) == MAX_FAILURES:
                    raise
                time.sleep(0.02)

    def _load(self, name: str) -> tuple[EmbeddedCollection, Identity]:
        """Load a copy of a collection, and return which manifest it was loaded by."""
        found = self._manifest(name)
        description, sequences = found.description, None
        try:
            with copy_of(self.directory / name, found.files, found.to_copy) as directory:
                with engine_errors(lambda reason: self._damaged(name, reason)):
                    shard = edge.EdgeShard.load(str(directory / found.shard))
                    count = shard.info().points_count
                if description.rate is not None:
                    sequences = MappedSequences(directory / "sequences", description.rate)
        except IncompleteError as error:
            raise self._damaged(name, str(error)) from error
        except ValueError as error:
            raise self._damaged(name, f"its sequences: {error}") from error
        # The engine does not report missing files. A collection loses its name or its manifest
        # names another shard before any file is removed, so this shows that none was missing.
        if self._manifest(name).shard != found.shard:
            raise self._damaged(name, "it was replaced while it was opened")
        if count != description.points:
            raise self._damaged(name, f"{count} of its {description.points} performances are left")
        return EmbeddedCollection(description, shard, sequences), found.identity


def _sync_all(directory: Path) -> None:
    for path in (*directory.rglob("*"), directory):
        sync(path)


def _clear_shards(directory: Path, keep: str) -> None:
    """Remove shards that were replaced, and those that killed processes left."""
    for path in directory.glob("shard*"):
        if path.name != keep:
            shutil.rmtree(path, ignore_errors=True)
