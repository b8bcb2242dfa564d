"""Publishing: build a collection out of sight, check it, then let the searchers have it."""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from search.collection import Collection, Description, Engine, Frames, Points, Vectors
from search.errors import CollectionGone, DamagedCollection, PublishError, SearchError
from search.fields import RESULTS
from search.sequences import Sequences

logger = logging.getLogger(__name__)

#: So many performances, evenly spread over the track ids, are read back before a collection is
#: published.
SAMPLE = 64

#: Performances that are looked up at once in what is current.
LOOKED_UP = 512


@dataclass(frozen=True)
class Status:
    """What is published.

    Attributes
    ----------
    location : str
        Where the collections are: a directory, or a server's URL.
    current : Description or None
        What searchers see.
    previous : tuple of Description
        What was current before, latest first; `rollback` goes to the first of them.
    """

    location: str
    current: Description | None
    previous: tuple[Description, ...]


def publish(
    points: Points, bundle: str, engine: Engine, keep: int = 2, timeout: float = 600.0
) -> Description:
    """Make points the current collection, once they are all there and read back as they are.

    Searchers go on with the old collection until the new one is complete, and a publication that
    is killed leaves it current; what it left behind is cleared away by the next one. Where the
    same content is current and whole already, nothing is done.

    Parameters
    ----------
    points : Points
        All performances of the collection.
    bundle : str
        Id of the bundle that embedded them.
    engine : Engine
        Where to publish, from `search.connect()`.
    keep : int, at least 1
        How many collections stay, the current one included. The default keeps one for `rollback`.
    timeout : float
        Seconds to wait for another publisher to finish.

    Returns
    -------
    Description
        Of the collection that is current now.

    Raises
    ------
    PublishError
        If another publisher doesn't finish, or the new collection doesn't hold what was written.
    """
    return publish_as(points.describe(bundle), points, engine, keep, timeout)


def publish_as(
    new: Description,
    points: Points,
    engine: Engine,
    keep: int,
    timeout: float,
    *,
    thorough: bool = False,
) -> Description:
    """Publish points under a description that is there already; the rest is as for `publish`.

    With `thorough`, every performance is read back, and not only `SAMPLE` of them.
    """
    check_keep(keep)
    with publishing(engine, timeout):
        history = engine.history()
        # A name tells the content, so what was current once need not be built again.
        fault = _fault(points, new, engine, thorough) if new.name in history else "not built yet"
        if fault is not None:
            logger.info("building %s: %s", new.name, fault)
            clear(engine, keep=history)
            if points.sequences is not None and points.background is None:
                points.backgrounds(_known_backgrounds(points, points.sequences, engine))
            engine.build(new, points)
            fault = _fault(points, new, engine, thorough)
            if fault is not None:
                engine.drop(new.name)
                raise PublishError(
                    f"{new.name} was not published, because {fault}: nothing has changed for "
                    "searchers, so look after the storage and publish again."
                )
        return serve_first(new.name, history, engine, keep)


def _known_backgrounds(points: Points, sequences: Sequence[Frames], engine: Engine) -> Vectors:
    """Look up the backgrounds of performances that are current with the same sequence; else NaN.

    Measuring them takes longer than all else of a publication, and most of a catalogue stays.
    """
    known = np.full((len(points), 2), np.nan, np.float32)
    with contextlib.suppress(SearchError):  # nothing is current, or it is damaged
        collection = engine.open()
        kept = collection.sequences
        if kept is None or kept.rate != points.rate:
            return known
        for start in range(0, len(points), LOOKED_UP):
            ids = points.track_ids[start : start + LOOKED_UP]
            there = collection.performances(ids)
            rows = [start + i for i, found in enumerate(there) if found is not None]
            track_ids = [points.track_ids[i] for i in rows]
            if not rows:
                continue
            pairs = zip(rows, kept.of(track_ids), kept.backgrounds(track_ids), strict=True)
            for i, sequence, background in pairs:
                if np.array_equal(sequence, sequences[i]):
                    known[i] = background
    return known


def check_keep(keep: int) -> None:
    """Raise ValueError unless at least one collection is kept."""
    if keep < 1:
        raise ValueError(f"keep={keep} would leave nothing to search: keep at least 1 collection.")


def serve_first(name: str, history: Sequence[str], engine: Engine, keep: int) -> Description:
    """Make a whole collection the current one, and prune the others."""
    standing = [name, *(other for other in history if other != name)][:keep]
    if standing != engine.history():  # a server forgets the alias of what it builds anew
        engine.serve(standing)
        logger.info("%s is current", name)
    clear(engine, keep=standing)
    return engine.describe(name)


def rollback(engine: Engine, timeout: float = 600.0) -> Description:
    """Make the previous collection current again.

    Raises
    ------
    PublishError
        If there is none, or another publisher doesn't finish in `timeout` seconds.
    """
    with publishing(engine, timeout):
        history = engine.history()
        if len(history) < 2:
            raise PublishError(
                f"There is no earlier collection in {engine.location} to go back to: "
                f"{history[0] if history else 'nothing'} is all that was published."
            )
        description = engine.open(history[1]).description
        engine.serve(history[1:])
        logger.info("%s is current again", description.name)
        return description


def status(engine: Engine) -> Status:
    """Say what is published."""
    while True:
        history = engine.history()
        try:
            described = [engine.describe(name) for name in history]
        except (CollectionGone, DamagedCollection):
            if engine.history() == history:
                raise
            continue  # a publisher pruned one of them meanwhile
        return Status(engine.location, described[0] if described else None, tuple(described[1:]))


@contextlib.contextmanager
def publishing(engine: Engine, timeout: float) -> Iterator[None]:
    """Be the only publisher; what the file system refuses becomes a sentence.

    The lock of a process that dies is free again.
    """
    from filelock import FileLock, Timeout  # takes longer to import than a search to answer

    try:
        engine.lock.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(engine.lock, timeout=timeout):
            yield
    except Timeout as error:
        raise PublishError(
            f"Another process has been publishing for {timeout:g} s (it holds {engine.lock}): wait "
            "for it to finish, or end it, and publish again."
        ) from error
    except SearchError:
        raise  # some are OSErrors too, and have their sentence
    except OSError as error:
        raise PublishError(
            f"{engine.location} can't be written ({error}): searchers keep what they had, so put "
            "that right and publish again."
        ) from error


def clear(engine: Engine, keep: Sequence[str]) -> None:
    """Drop what isn't kept: pruned collections, and what killed publishers left."""
    for name in engine.names():
        if name not in keep:
            engine.drop(name)


def _fault(points: Points, new: Description, engine: Engine, thorough: bool) -> str | None:
    """Read a built collection back and say how it differs from its points, None if it doesn't."""
    try:
        collection = engine.open(new.name)
        count = collection.count()
        if count != len(points):
            return f"it holds {count} performances and not {len(points)}"
        kept = collection.sequences
        if points.sequences is not None:
            if kept is None:
                return "it holds no sequences"
            if kept.count() != len(points):
                return f"it holds {kept.count()} sequences and not {len(points)}"
        chosen: Sequence[int] = range(len(points))
        if not thorough:
            chosen = np.unique(np.linspace(0, len(points) - 1, SAMPLE).astype(int)).tolist()
        for start in range(0, len(chosen), SAMPLE):
            rows = chosen[start : start + SAMPLE]
            fault = _fault_of_points(points, new, collection, rows)
            if fault is None and points.sequences is not None and kept is not None:
                fault = _fault_of_sequences(points, points.sequences, kept, rows)
            if fault is not None:
                return fault
    except SearchError as error:
        return f"it can't be read back ({error})"
    return None


def _fault_of_points(
    points: Points, new: Description, collection: Collection, rows: Sequence[int]
) -> str | None:
    later = RESULTS if points.results is None else ()  # which aren't published
    stored = collection.performances([points.track_ids[i] for i in rows])
    for i, found in zip(rows, stored, strict=True):
        if (
            found is None
            or {name: value for name, value in found.payload.items() if name not in later}
            != points.payload(i, new.bundle)
            or not np.array_equal(found.vector, points.vectors[i])
        ):
            return f"performance {points.track_ids[i]} doesn't read back as it was written"
    return None


def _fault_of_sequences(
    points: Points, sequences: Sequence[Frames], kept: Sequences, rows: Sequence[int]
) -> str | None:
    track_ids = [points.track_ids[i] for i in rows]
    for i, sequence in zip(rows, kept.of(track_ids), strict=True):
        if not np.array_equal(sequence, sequences[i]):
            return f"the sequence of {points.track_ids[i]} isn't the one that was written"
    given = points.background
    if given is not None and not np.array_equal(kept.backgrounds(track_ids), given[list(rows)]):
        return (
            f"the backgrounds of {track_ids[0]} to {track_ids[-1]} aren't those that were written"
        )
    return None
