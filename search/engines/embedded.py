"""The embedded engine: Qdrant's own, in this process, with collections as directories.

```
CURRENT                       names of the collections that were current, the current one first
covers-<bundle>-<hash>/       a published collection; its name is never used for another one
  shard/                      the engine's files, never written to again: results of an evaluation
                              come with a shard-1/ (2, …), to which collection.json changes over
  sequences/                  chroma to align, where it was published; see
  `search.engines.sequences`
  collection.json             what it is, and its files with their sizes; written last
covers-….building/            begun and not finished: cleared away by the next publisher
covers-….removed/             being removed
publish.lock                  held by the one publisher
```

The engine wants a directory to itself even for reading, and while it writes nothing that differs,
it opens most files for writing. So each searching process loads a copy: the large files, which the
engine only ever reads, are symbolic links to the published ones, and the few megabytes left are
copied, in memory where there is room, since the engine waits for the disk at each of them. Once it
is loaded everything is mapped and the copy is deleted at once, so a process leaves nothing behind,
pruning doesn't disturb it, and a searcher needs no right to write in the workspace. Sequences are
mapped like that too.
"""

import contextlib
import errno
import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import qdrant_edge as edge

from search.engines.collection import Candidate, Sequences, Stored
from search.engines.durable import sync
from search.engines.engine import Engine, Results
from search.engines.sequences import FILES, MappedSequences
from search.engines.sequences import write as write_sequences
from search.errors import DamagedCollection, NoCollection, NoRoom, PublishError, SearchError
from search.fields import FIELDS, AnyOf, Between, Condition, NoneOf
from search.points import DIGEST, Description, Payload, Points, Vectors, is_exact, point_id
from search.settings import COLLECTION

# Files that qdrant-edge 0.9 opens for reading alone, and that grow with the collection; and ours.
READ_ONLY = {
    *FILES,
    "id_tracker.mappings",
    "links_compressed.bin",
    "matrix.dat",
    "point_to_values.bin",
    "quantized.data",
    "values_to_points.bin",
}

# Each index takes the engine 10 to 50 ms to open, so only what one filters by has one. Without, a
# filter is the payload of each performance in turn, 0.1 s at 25,000.
INDEXED = ("work_id", "work_artist", "artist", "year", "instrumental", "subset")

INDEX = {
    str: edge.PayloadSchemaType.Keyword,
    int: edge.PayloadSchemaType.Integer,
    bool: edge.PayloadSchemaType.Bool,
}

COPY_PREFIX = "covers-reader-"

#: Where copies of up to so many bytes go, if it is there and TMPDIR names no other place.
MEMORY, MEMORY_BYTES = Path("/dev/shm"), 64 * 2**20  # noqa: S108

#: What opening a copy takes beyond it, for a moment: 60 to 75 MB at any size.
SPARE_BYTES = 96 * 2**20

#: Past `EXACT_BYTES` vectors are first compared by a byte a component, and so many times the wanted
#: number then exactly. At 100,000 x 128 that found all of the nearest ten and took 2 ms where a
#: graph took longer, found 98.5 % of them, and had taken minutes to build instead of seconds.
OVERSAMPLING = 4.0

#: A collection is called damaged after this many failures to open the very same one, or after that
#: many while others take its place.
ATTEMPTS, REPLACED = 4, 50

#: How the names of directories end that hold no collection yet, or none any more.
BUILDING, REMOVED = ".building", ".removed"

#: Tells a file from what replaced it: a number of its own can be given again, but not at one time.
Identity: TypeAlias = tuple[int, int]


class _Manifest(NamedTuple):
    """What collection.json says, and which file said it."""

    description: Description
    files: dict[str, int]
    to_copy: int
    shard: str
    identity: Identity


class Embedded(Engine):
    """Collections in a directory, for any number of processes of this machine.

    Safe to share between threads, and after a fork the child opens its own copy.

    Parameters
    ----------
    directory : Path
        Holds nothing else; made by the first publication.
    collection : str
        The deployment, with which the collections' names begin.
    """

    def __init__(self, directory: Path, collection: str = COLLECTION) -> None:
        self.directory = directory.absolute()
        self.collection = collection
        self.lock = self.directory / "publish.lock"
        self._forget()

    def _forget(self) -> None:
        self._process = os.getpid()
        self._opening = threading.Lock()
        self._opened: EmbeddedCollection | None = None

    def __repr__(self) -> str:
        return f"Embedded({str(self.directory)!r})"

    @property
    def location(self) -> str:
        """The directory."""
        return str(self.directory)

    def names(self) -> list[str]:
        """Names of whole, half-built and half-removed collections."""
        return sorted(path.name for path in self.directory.glob("*") if path.is_dir())

    def unfinished(self) -> list[str]:
        """Names of half-built and half-removed collections."""
        return [name for name in self.names() if name.endswith((BUILDING, REMOVED))]

    def is_taken(self, name: str) -> bool:
        """Whether there is a directory or file of that name."""
        return (self.directory / name).exists()

    def history(self) -> list[str]:
        """Names in CURRENT whose collections stand; the first, the current one, in any case."""
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
        """Read what a collection's collection.json says of it."""
        return self._manifest(name).description

    def _manifest(self, name: str) -> _Manifest:
        path = self.directory / name / "collection.json"
        try:
            with path.open(encoding="utf-8") as file:
                identity = _identity(os.fstat(file.fileno()))
                content = json.load(file)
            description = Description.from_json(content["description"])
            return _Manifest(
                description, content["files"], content["to_copy"], content["shard"], identity
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self._damaged(name, f"{path.name} is missing or no longer JSON") from error

    def _damaged(self, name: str, reason: str) -> DamagedCollection:
        return DamagedCollection(
            f"The collection {name} in {self.directory} is damaged ({reason}): make it anew with "
            "`covers pipeline --data DIR`, or go back with `covers rollback`."
        )

    def drop(self, name: str) -> None:
        """Remove a collection, its name first: by that whoever is copying it notices."""
        path = self.directory / name
        removed = path.with_suffix(REMOVED)
        if path != removed and path.exists():
            shutil.rmtree(removed, ignore_errors=True)
            path.rename(removed)
        shutil.rmtree(removed, ignore_errors=True)

    def build(self, description: Description, points: Points) -> None:
        """Write a collection beside its place, flush it to the disk, and rename it."""
        sequences = sum(sequence.nbytes for sequence in points.sequences or ())
        self._make_sure_of_room(description, sequences)
        scratch = self.directory / f"{description.name}{BUILDING}"
        scratch.mkdir()
        try:
            payloads = (points.payload(i, description) for i in range(len(points)))
            self._write(scratch / "shard", description, zip(points.vectors, payloads, strict=True))
            if points.sequences is not None:
                where, background = scratch / "sequences", points.backgrounds()
                write_sequences(where, points.track_ids, points.sequences, background)
            _write_manifest(scratch, description, "shard")
            for path in (*scratch.rglob("*"), scratch):
                sync(path)
            scratch.rename(self.directory / description.name)
        except Exception:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
        sync(self.directory)

    def change(self, description: Description, points: Points) -> None:
        """Never: a new collection takes seconds, and searchers have the files of this one open."""

    def note(self, description: Description) -> None:
        """Replace collection.json, in one step."""
        place = self.directory / description.name
        _write_manifest(place, description, self._manifest(description.name).shard)

    def _write(
        self, shard: Path, description: Description, points: Iterable[tuple[Vectors, Payload]]
    ) -> None:
        with _engine_errors(lambda reason: PublishError(f"{shard} can't be written: {reason}.")):
            _write(shard, description, points)

    def write_results(self, name: str, results: Results) -> None:
        """Write the shard anew, which takes what a publication does without its alignments.

        Changed in place, the engine would move the points into a segment of their own, which takes
        100 MB, and readers would have to copy all of it.
        """
        place = self.directory / name
        before = self._manifest(name)
        self._make_sure_of_room(before.description)
        shard = f"shard-{int(before.shard.partition('-')[2] or 0) + 1}"
        _clear_shards(place, keep=before.shard)

        def points() -> Iterator[tuple[Vectors, Payload]]:
            for stored in self.open(name).everything():
                payload = {**stored.payload, **results.get(stored.payload["track_id"], {})}
                known = {field: value for field, value in payload.items() if value is not None}
                yield stored.vector, known

        self._write(place / shard, before.description, points())
        for path in (*(place / shard).rglob("*"), place / shard):
            sync(path)
        _write_manifest(place, before.description, shard)
        _clear_shards(place, keep=shard)

    def _make_sure_of_room(self, description: Description, sequences: int = 0) -> None:
        # The engine maps sparse files: on a full disk it would be killed in the middle of a write.
        vectors = np.float32().nbytes * description.points * description.dimension
        needed = 64 * 2**20 + 4096 * description.points + 4 * vectors + sequences
        free = shutil.disk_usage(self.directory).free
        if free < needed:
            raise NoRoom(
                f"{self.directory} has room for {free // 2**20} MB where the new collection may "
                f"take {needed // 2**20} MB: make room and publish again."
            )

    def open(self, name: str | None = None) -> "EmbeddedCollection":
        """Open a collection, by default the current one, which stays open for the next query."""
        if name is not None:
            return self._load(name)
        if self._process != os.getpid():
            self._forget()  # the engine's threads did not come along into this forked child
        with self._opening:
            failed: list[tuple[str, Identity | None]] = []
            while True:
                if not (history := self.history()):
                    raise NoCollection(
                        f"There is no collection in {self.directory} yet: make one with "
                        "`covers pipeline --data DIR`."
                    )
                current = history[0]
                if self._opened is not None and self._stands(self._opened, current):
                    return self._opened
                tried = current, self._identity_of(current)
                try:
                    self._opened = self._load(current)
                    return self._opened  # what has come since is for the next query
                except DamagedCollection:
                    # It may have been replaced on the way, by another one or by a new description.
                    failed.append(tried)
                    if failed.count(tried) == ATTEMPTS or len(failed) == REPLACED:
                        raise
                    time.sleep(0.02)

    def _stands(self, opened: "EmbeddedCollection", current: str) -> bool:
        """Whether what was opened is still what is current; a lost file leaves nothing better."""
        known = (opened.identity, None)
        return opened.description.name == current and self._identity_of(current) in known

    def _identity_of(self, name: str) -> Identity | None:
        try:
            return _identity((self.directory / name / "collection.json").stat())
        except FileNotFoundError:
            return None

    def _load(self, name: str) -> "EmbeddedCollection":
        published = self.directory / name
        description, files, to_copy, shard_name, identity = self._manifest(name)
        parent = _room_for_copy(to_copy)
        _sweep_copies(parent)
        try:
            # The engine maps files with holes: on a full disk it would be killed by filling one.
            if shutil.disk_usage(parent).free < 2 * to_copy + SPARE_BYTES:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(parent))
            with tempfile.TemporaryDirectory(prefix=COPY_PREFIX, dir=parent) as scratch:
                for file, size in files.items():
                    _bring(published / file, Path(scratch) / file, size)
                with _engine_errors(lambda reason: self._damaged(name, reason)):
                    shard = edge.EdgeShard.load(str(Path(scratch) / shard_name))
                    count = shard.info().points_count
                rate = description.rate
                sequences: Sequences | None = None
                if rate is not None:
                    try:
                        sequences = MappedSequences(Path(scratch) / "sequences", rate)
                    except ValueError as error:
                        raise self._damaged(name, f"its sequences: {error}") from error
            # The engine is silent about files that are missing. Before a file is removed, the
            # collection loses its name, or its collection.json names another shard: if neither is
            # so, nothing was missing.
            if self._manifest(name).shard != shard_name:
                raise self._damaged(name, "it was replaced while it was opened")
        except OSError as error:
            if str(error.filename).startswith(str(published)) and error.errno == errno.ENOENT:
                raise self._damaged(name, f"{error.filename} is missing or cut short") from error
            raise SearchError(
                f"The collection {name} can't be opened by way of {parent} ({error}): make room "
                "there, or name another directory in TMPDIR."
            ) from error
        if count != description.points:
            raise self._damaged(name, f"{count} of its {description.points} performances are left")
        return EmbeddedCollection(description, shard, sequences, identity)


class EmbeddedCollection:
    """A collection loaded into this process; see `search.engines.collection.Collection`."""

    def __init__(
        self,
        description: Description,
        shard: edge.EdgeShard,
        sequences: Sequences | None,
        identity: Identity,
    ) -> None:
        self.description = description
        self.sequences = sequences
        self.identity = identity
        self._shard = shard
        rescore = edge.QuantizationSearchParams(rescore=True, oversampling=OVERSAMPLING)
        exact = is_exact(description.points, description.dimension)
        self._params = edge.SearchParams(exact=exact, quantization=None if exact else rescore)

    def _damaged(self, reason: str) -> DamagedCollection:
        return DamagedCollection(
            f"The collection {self.description.name} can't be searched ({reason}): make it anew "
            "with `covers pipeline --data DIR`, or go back with `covers rollback`."
        )

    def count(self) -> int:
        """Count the points."""
        return self._shard.count(edge.CountRequest(exact=True))

    def performances(self, track_ids: Sequence[str]) -> list[Stored | None]:
        """Look points up by their ids."""
        ids = [point_id(track_id) for track_id in track_ids]
        with _engine_errors(self._damaged):
            records = self._shard.retrieve(list(set(ids)), True, True)
        found = {
            record.id: Stored(np.array(record.vector, dtype=np.float32), record.payload or {})
            for record in records
        }
        return [found.get(id_) for id_ in ids]

    def digests(self, track_ids: Sequence[str]) -> list[str | None]:
        """Read the digests alone."""
        ids = [point_id(track_id) for track_id in track_ids]
        with _engine_errors(self._damaged):
            records = self._shard.retrieve(list(set(ids)), [DIGEST], False)
        found = {record.id: (record.payload or {}).get(DIGEST) for record in records}
        return [found.get(id_) for id_ in ids]

    def around(
        self, track_ids: Sequence[str], limit: int, conditions: Sequence[Condition]
    ) -> list[tuple[Stored, list[Candidate]] | None]:
        """Look the performances up, then ask for one more than the limit, which may be itself."""
        stored = self.performances(track_ids)
        known = [one for one in stored if one is not None]
        if not known:
            return [None] * len(stored)
        answers = self.nearest(np.stack([one.vector for one in known]), limit + 1, conditions)
        nearest = iter(answers)
        found: list[tuple[Stored, list[Candidate]] | None] = []
        for track_id, one in zip(track_ids, stored, strict=True):
            if one is None:
                found.append(None)
                continue
            others = [each for each in next(nearest) if each.payload["track_id"] != track_id]
            found.append((one, others[:limit]))
        return found

    def nearest(
        self, vectors: Vectors, limit: int, conditions: Sequence[Condition]
    ) -> list[list[Candidate]]:
        """Ask in one batch, which shares the pass over the vectors."""
        met = edge.Filter(must=[_condition(condition) for condition in conditions])
        requests = [
            edge.QueryRequest(
                limit=limit,
                query=edge.Query.Nearest(vector),
                filter=met if conditions else None,
                params=self._params,
                with_payload=True,
            )
            for vector in vectors.tolist()
        ]
        with _engine_errors(self._damaged):
            answers = self._shard.query_batch(edge.QueryBatchRequest(requests))
        return [
            [Candidate(point.score, point.payload or {}) for point in found] for found in answers
        ]

    def some_track_ids(self, limit: int) -> list[str]:
        """Return the first track ids by point id, which is no order of theirs."""
        records, _ = self._shard.scroll(edge.ScrollRequest(limit=limit, with_payload=["track_id"]))
        return [record.payload["track_id"] for record in records if record.payload]

    def everything(self) -> Iterator[Stored]:
        """Scroll, a batch at a time."""
        start: Any = None
        while True:
            request = edge.ScrollRequest(
                offset=start, limit=1000, with_payload=True, with_vector=True
            )
            with _engine_errors(self._damaged):
                records, start = self._shard.scroll(request)
            for record in records:
                yield Stored(np.array(record.vector, dtype=np.float32), record.payload or {})
            if start is None:
                return


def _write(
    shard_directory: Path, description: Description, points: Iterable[tuple[Vectors, Payload]]
) -> None:
    exact = is_exact(description.points, description.dimension)
    bytes_ = edge.ScalarQuantizationConfig(
        edge.ScalarType.Int8, quantile=0.99, memory=edge.Memory.Cached
    )
    shard = edge.EdgeShard.create(
        str(shard_directory),
        edge.EdgeConfig(
            vectors=edge.EdgeVectorParams(
                size=description.dimension, distance=edge.Distance.Euclid
            ),
            # A graph without links is none: its segment holds the vectors in one plain file.
            hnsw_config=edge.HnswIndexConfig(m=0, ef_construct=100, full_scan_threshold=10_000),
            quantization_config=None if exact else bytes_,
            optimizers=edge.EdgeOptimizersConfig(default_segment_number=1, indexing_threshold=1),
            # Without a log of writes the files are complete after flush, and a log would only
            # be copied by every reader: a build that is interrupted is not resumed.
            wal_enabled=False,
        ),
    )
    rest = iter(points)
    while some := list(islice(rest, 1000)):
        batch = [
            edge.Point(id=point_id(payload["track_id"]), vector=vector.tolist(), payload=payload)
            for vector, payload in some
        ]
        shard.update(edge.UpdateOperation.upsert_points(batch))
    shard.optimize()
    # Only now, or each index would be built twice.
    for field in INDEXED:
        shard.update(edge.UpdateOperation.create_field_index(field, INDEX[FIELDS[field]]))
    shard.flush()
    shard.close()


def _write_manifest(place: Path, description: Description, shard: str) -> None:
    """Say what a collection is and which files are part of it, in one step."""
    files = {
        str(path.relative_to(place)): path.stat()
        for part in (shard, "sequences")
        for path in sorted((place / part).rglob("*"))
        if path.is_file()
    }
    manifest = {
        "description": asdict(description),
        "shard": shard,
        "files": {file: stat.st_size for file, stat in files.items()},
        # Most files are mostly holes, so what they take is another matter than their size.
        "to_copy": sum(
            512 * stat.st_blocks for file, stat in files.items() if Path(file).name not in READ_ONLY
        ),
    }
    scratch = place / "collection.json.new"
    scratch.write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    sync(scratch)
    scratch.replace(place / "collection.json")
    sync(place)


def _clear_shards(place: Path, keep: str) -> None:
    """Remove the shard that another took the place of, and what killed processes left."""
    for path in place.glob("shard*"):
        if path.name != keep:
            shutil.rmtree(path, ignore_errors=True)


def _identity(found: os.stat_result) -> Identity:
    return found.st_ino, found.st_mtime_ns


def _condition(condition: Condition) -> Any:
    if isinstance(condition, Between):
        span = edge.RangeFloat(gte=condition.low, lte=condition.high)
        return edge.FieldCondition(condition.field, range=span)
    if isinstance(condition, NoneOf):
        return edge.Filter(must_not=[_condition(AnyOf(condition.field, condition.values))])
    values: Any = condition.values
    if FIELDS[condition.field] is not bool:
        return edge.FieldCondition(condition.field, match=edge.MatchAny(list(values)))
    # qdrant-edge 0.9 takes Python's True for the integer 1, which matches no bool; not numpy's.
    either: list[Any] = [
        edge.FieldCondition(condition.field, match=edge.MatchValue(value))  # type: ignore[arg-type]
        for value in map(np.bool_, values)
    ]
    return edge.Filter(should=either)


@contextlib.contextmanager
def _engine_errors(sentence: Callable[[str], SearchError]) -> Iterator[None]:
    """Put the engine's failures, bare Exceptions and Rust panics, into a sentence of ours."""
    try:
        yield
    except BaseException as error:
        panic = type(error).__name__ == "PanicException"  # a BaseException, and not importable
        if type(error) is Exception or panic:
            raise sentence(str(error).splitlines()[0].rstrip(".")) from error
        raise


def _bring(source: Path, target: Path, size: int) -> None:
    """Copy one published file into a reader's own directory, or link it if it is only ever read."""
    if source.name not in READ_ONLY:
        _copy(source, target, size)
        return
    _check_size(source, size)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(source)


def _check_size(path: Path, size: int) -> None:
    if path.stat().st_size != size:
        raise FileNotFoundError(errno.ENOENT, "cut short", str(path))


def _copy(source: Path, target: Path, size: int) -> None:
    """Copy a file that has so many bytes."""
    _check_size(source, size)
    target.parent.mkdir(parents=True, exist_ok=True)
    # Holes are skipped: of 120 MB, 8 are data.
    with source.open("rb") as read, target.open("wb") as written:
        written.truncate(size)
        end = 0
        while end < size:
            try:
                start = os.lseek(read.fileno(), end, os.SEEK_DATA)
            except OSError:  # nothing but a hole is left
                break
            end = os.lseek(read.fileno(), start, os.SEEK_HOLE)
            read.seek(start)
            written.seek(start)
            while start < end:
                data = read.read(min(end - start, 2**20))
                if not data:
                    raise FileNotFoundError(errno.ENOENT, "cut short", str(source))
                start += written.write(data)


def _room_for_copy(size: int) -> Path:
    """Choose where a reader's copy is made."""
    allowed = size <= MEMORY_BYTES and "TMPDIR" not in os.environ and os.access(MEMORY, os.W_OK)
    if allowed and shutil.disk_usage(MEMORY).free > 2 * size + SPARE_BYTES:
        return MEMORY
    return Path(tempfile.gettempdir())


def _sweep_copies(parent: Path) -> None:
    """Remove what readers left that were killed while they opened a collection, long ago."""
    for path in parent.glob(f"{COPY_PREFIX}*"):
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < time.time() - 3600:
                shutil.rmtree(path, ignore_errors=True)
