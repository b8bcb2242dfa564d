"""Publishing: build a collection out of sight, check it, then let the searchers have it.

Or, where an engine can and little differs, change the current collection under their eyes.
"""

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from search.collection import (
    DIGEST,
    USUAL_DISTANCE,
    Collection,
    Description,
    Engine,
    Frames,
    Points,
    Sequences,
    Vectors,
)
from search.errors import CollectionGone, DamagedCollection, PublishError, SearchError

logger = logging.getLogger(__name__)

#: So many performances, evenly spread over the track ids, are read back before a collection is
#: published; of one that was changed, first those that were written.
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

    On a server, a current collection of which little differs is changed in place instead, and
    searchers see one performance after the other become its new self; a change that is killed is
    completed by the next publication. There `rollback` goes back to the collection before this
    one, and not to what this one was.

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

    With `thorough`, nothing is changed in place, and every performance is read back, and not only
    `SAMPLE` of them. The name of the description becomes another if it is taken.
    """
    check_keep(keep)
    with publishing(engine, timeout):
        history = engine.history()
        kept = standing(engine, history)
        new = settle(new, kept)
        fault: str | None = "not built yet"
        if new.name in kept:  # what was current once need not be built again
            fault = _fault(points, new, engine, thorough)
        elif history and not thorough and _alike(kept.get(history[0]), new):
            same = replace(new, name=history[0])
            written = engine.change(same, points)
            if written is not None:
                logger.info("changed %s: wrote %d performances", same.name, len(written))
                fault = _fault(points, same, engine, thorough, written)
                if fault is None:
                    new = same
        if fault is not None:
            logger.info("building %s: %s", new.name, fault)
            clear(engine, keep=history)
            if points.sequences is not None and points.background is None:
                points.backgrounds(_known_backgrounds(points, engine))
            engine.build(new, points)
            fault = _fault(points, new, engine, thorough, built=True)
            if fault is not None:
                engine.drop(new.name)
                raise PublishError(
                    f"{new.name} was not published, because {fault}: searchers stay with the "
                    "collection that is current, so look after the storage and publish again."
                )
        return serve_first(new.name, history, engine, keep)


def standing(engine: Engine, history: Sequence[str]) -> dict[str, Description]:
    """Describe the collections that are or were current, by name; not those that are damaged."""
    found = {}
    for name in history:
        with contextlib.suppress(CollectionGone, DamagedCollection):
            found[name] = engine.describe(name)
    return found


def settle(new: Description, kept: Mapping[str, Description]) -> Description:
    """Give a description the name of the collection with its content, else one that is free."""
    for name, description in kept.items():
        if description.content == new.content:
            return replace(new, name=name)
    name, number = new.name, 1
    while name in kept:  # it was built with this content, and changed since
        number += 1
        name = f"{new.name}-{number}"
    return replace(new, name=name)


def _alike(current: Description | None, new: Description) -> bool:
    """Whether a collection differs from a new one in its performances alone."""
    return current is not None and all(
        getattr(current, what) == getattr(new, what)
        for what in ("bundle", "dimension", "rate", "calibration")
    )


def check_whole(description: Description) -> None:
    """Raise SearchError if a collection is only half of what it was to become."""
    if not description.content:
        raise SearchError(
            f"{description.name} is being changed, or a change of it was broken off: publish again "
            "with `covers add` or `covers pipeline`, which completes it, and then try again."
        )


def _known_backgrounds(points: Points, engine: Engine) -> Vectors:
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
            there = collection.performances(points.track_ids[start : start + LOOKED_UP])
            rows = [
                i
                for i, found in enumerate(there, start)
                if found is not None
                and found.payload.get(DIGEST, [None])[-1] == points.digests[i][1]
            ]
            if rows:
                known[rows] = kept.backgrounds([points.track_ids[i] for i in rows])
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
        logger.debug("%s is current", name)  # of a trial collection, it would mislead
    clear(engine, keep=standing)
    return engine.describe(name)


def rollback(engine: Engine, timeout: float = 600.0) -> Description:
    """Make the previous collection current again.

    What was added to the current one in place stays in that one.

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


def _fault(
    points: Points,
    new: Description,
    engine: Engine,
    thorough: bool,
    written: Sequence[int] = (),
    *,
    built: bool = False,
) -> str | None:
    """Read a collection back and say how it differs from its points, None if it doesn't."""
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
            places = [*_spread(written), *_spread(range(len(points)))]
            chosen = list(dict.fromkeys(places))[:SAMPLE]
        for start in range(0, len(chosen), SAMPLE):
            rows = chosen[start : start + SAMPLE]
            fault = _fault_of_points(points, new, collection, rows, built)
            if fault is None and points.sequences is not None and kept is not None:
                fault = _fault_of_sequences(points, points.sequences, kept, rows)
            if fault is not None:
                return fault
    except SearchError as error:
        return f"it can't be read back ({error})"
    return None


def _spread(rows: Sequence[int]) -> list[int]:
    """Choose up to `SAMPLE` rows."""
    places = np.linspace(0, len(rows) - 1, min(len(rows), SAMPLE)).astype(int)
    return [rows[i] for i in places]


def _fault_of_points(
    points: Points, new: Description, collection: Collection, rows: Sequence[int], built: bool
) -> str | None:
    stored = collection.performances([points.track_ids[i] for i in rows])
    for i, found in zip(rows, stored, strict=True):
        wanted = points.payload(i, new.bundle)
        known = {} if found is None else found.payload
        if not built:  # results may have come since, and a collection that was changed has kept
            if points.usual is None:  # the usual distances of what stayed
                del wanted[USUAL_DISTANCE]
            known = {name: value for name, value in known.items() if name in wanted}
        if found is None or known != wanted or not np.array_equal(found.vector, points.vectors[i]):
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
