"""Publishing: build a collection out of sight, check it, then let the searchers have it.

Or, where an engine can and little differs, change the current collection under their eyes.
"""

import contextlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from search.engines.collection import (
    Collection,
    Description,
    Engine,
    Frames,
    Points,
    Sequences,
    Vectors,
    name_of,
    sequence_digest,
)
from search.engines.server.patience import patience
from search.errors import (
    CollectionGone,
    DamagedCollection,
    NoCollection,
    PublishError,
    SearchError,
    ServerUnreachable,
)

logger = logging.getLogger(__name__)

#: Performances, evenly spread over the track ids, that are read back before a collection is
#: published. Of one that was changed, the performances that were written come first.
SAMPLE = 64

#: Performances that are looked up at once in the current collection.
LOOKED_UP = 512

#: A collection that answers like this does not hold what it should. Any other failure is one to
#: ask, and says nothing about the collection.
FAULTS = (CollectionGone, DamagedCollection)


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
    points: Points,
    bundle: str,
    engine: Engine,
    keep: int = 2,
    timeout: float = 600.0,
    *,
    origin: dict[str, Any] | None = None,
) -> Description:
    """Make points the current collection, once they are all there and read back as they are.

    Searchers go on with the old collection until the new one is complete. The new one always gets
    a name of its own: the current collection is never overwritten, and a publication that is killed
    or fails leaves it current. Where the same content is current and whole already, nothing is
    written but a new `origin`.

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
        Number of collections to keep, the current one included. The default keeps one for
        `rollback`.
    timeout : float
        Seconds to wait for another publisher to finish.
    origin : dict, optional
        What the publisher notes about where the points came from, as JSON.

    Returns
    -------
    Description
        Of the collection that is current now.

    Raises
    ------
    PublishError
        If another publisher doesn't finish, or the new collection doesn't hold what was written.
    SearchError
        If the engine cannot be asked or written; searchers keep what they had.
    """
    new = points.describe(bundle, engine.collection, origin)
    return publish_as(new, points, engine, keep, timeout)


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
    `SAMPLE` of them. The collection's name follows from the engine and the content.
    """
    check_keep(keep)
    with publishing(engine, timeout):
        history = engine.history()
        kept = _described(engine, history)
        if same := next((one for one in kept.values() if one.content == new.content), None):
            fault = _fault(points, same, engine, thorough)
            if fault is None:
                if same.origin != new.origin:
                    same = replace(same, origin=new.origin)
                    engine.note(same)
                return _serve(same, kept, history, engine, keep)
            logger.warning("%s is built again under another name: %s", same.name, fault)
            del kept[same.name]
        elif history and not thorough and _alike(kept.get(history[0]), new):
            changed = replace(new, name=history[0])
            written = engine.change(changed, points)
            if written is not None:
                logger.info("changed %s: wrote %d performances", changed.name, len(written))
                fault = _fault(points, changed, engine, thorough, written)
                if fault is None:
                    return _serve(changed, kept, history, engine, keep)
                logger.warning("%s is built again under another name: %s", changed.name, fault)
                del kept[changed.name]
        built = _build(new, points, engine, thorough)
        return _serve(built, kept, history, engine, keep)


def _described(engine: Engine, history: Sequence[str]) -> dict[str, Description]:
    """Describe the collections that are kept, by name, without those that are damaged."""
    found = {}
    for name in history:
        with contextlib.suppress(*FAULTS):
            found[name] = engine.describe(name)
    return found


def _build(new: Description, points: Points, engine: Engine, thorough: bool) -> Description:
    """Build a collection under a name that nothing else has, and read it back."""
    for left in engine.unfinished():
        engine.drop(left)
    new = replace(new, name=_free_name(new, engine))
    logger.info("building %s", new.name)
    if points.sequences is not None and not points.has_backgrounds:
        points.backgrounds(_known_backgrounds(points, engine))
    try:
        engine.build(new, points)
        fault = _fault(points, new, engine, thorough, built=True)
        if fault is not None:
            raise PublishError(
                f"{new.name} was not published, because {fault}: searchers stay with the "
                "collection that is current, so look after the storage and publish again."
            )
    except SearchError as error:
        # The next publication drops it otherwise.
        if not isinstance(error, ServerUnreachable):
            with contextlib.suppress(SearchError):
                engine.drop(new.name)
        raise
    return new


def _free_name(new: Description, engine: Engine) -> str:
    wanted = name = name_of(engine.collection, new.bundle, new.content)
    number = 1
    while engine.is_taken(name):
        number += 1
        name = f"{wanted}-{number}"
    return name


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
    with contextlib.suppress(NoCollection, *FAULTS):
        collection = engine.open()
        kept = collection.sequences
        if kept is None or kept.rate != points.rate:
            return known
        wanted = [sequence_digest(digest) for digest in points.digests]
        for start in range(0, len(points), LOOKED_UP):
            there = collection.digests(points.track_ids[start : start + LOOKED_UP])
            rows = [
                i for i, digest in enumerate(there, start) if sequence_digest(digest) == wanted[i]
            ]
            if rows:
                known[rows] = kept.backgrounds([points.track_ids[i] for i in rows])
    return known


def check_keep(keep: int) -> None:
    """Raise ValueError unless at least one collection is kept."""
    if keep < 1:
        raise ValueError(f"keep={keep} would leave nothing to search: keep at least 1 collection.")


def _serve(
    new: Description, kept: Iterable[str], history: Sequence[str], engine: Engine, keep: int
) -> Description:
    """Make a whole collection the current one, and drop those that are no longer kept."""
    standing = [new.name, *(name for name in kept if name != new.name)][:keep]
    if standing != history:
        engine.serve(standing)
        logger.debug("%s is current", new.name)  # of a trial collection, it would mislead
    try:
        for name in engine.names():
            if name not in standing:
                engine.drop(name)
    except SearchError as error:
        logger.warning("old collections are left for the next publication to drop: %s", error)
    return new


def rollback(engine: Engine, timeout: float = 600.0) -> Description:
    """Make the previous collection current again; a second call goes forward again.

    What was added to the current collection in place stays in that one.

    Raises
    ------
    PublishError
        If there is none, or another publisher doesn't finish in `timeout` seconds.
    """
    with publishing(engine, timeout):
        history = engine.history()
        if len(history) < 2:
            raise PublishError(
                f"There is no other collection in {engine.location} to go back to: "
                f"{history[0] if history else 'nothing'} is all that is kept."
            )
        description = engine.open(history[1]).description
        engine.serve([history[1], history[0], *history[2:]])
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
        with FileLock(engine.lock, timeout=timeout), patience():
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
            f"{engine.location} cannot be written ({error}): searchers keep what they had, so put "
            "that right and publish again."
        ) from error


def _fault(
    points: Points,
    new: Description,
    engine: Engine,
    thorough: bool,
    written: Sequence[int] = (),
    *,
    built: bool = False,
) -> str | None:
    """Read a collection back and say how it differs from its points, None if it doesn't.

    Raises
    ------
    SearchError
        If it cannot be asked: that is not a fault of the collection.
    """
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
                compared = points.has_backgrounds and (built or points.are_copied)
                fault = _fault_of_sequences(points, points.sequences, kept, rows, compared)
            if fault is not None:
                return fault
    except FAULTS as error:
        return f"it cannot be read back ({error})"
    return None


def _spread(rows: Sequence[int]) -> list[int]:
    """Choose up to `SAMPLE` rows."""
    places = np.linspace(0, len(rows) - 1, min(len(rows), SAMPLE)).astype(int)
    return [rows[i] for i in places]


def _fault_of_points(
    points: Points, new: Description, collection: Collection, rows: Sequence[int], built: bool
) -> str | None:
    stored = collection.performances([points.track_ids[i] for i in rows])
    # Evaluations write into a collection that is served, and one that was changed in place has
    # kept what was computed for the performances that stayed.
    wanted_of = points.payload if built or points.are_copied else points.content
    for i, found in zip(rows, stored, strict=True):
        wanted = wanted_of(i, new)
        known = {} if found is None else found.payload
        if not built:
            known = {name: value for name, value in known.items() if name in wanted}
        if found is None or known != wanted or not np.array_equal(found.vector, points.vectors[i]):
            return f"performance {points.track_ids[i]} doesn't read back as it was written"
    return None


def _fault_of_sequences(
    points: Points,
    sequences: Sequence[Frames],
    kept: Sequences,
    rows: Sequence[int],
    compare_backgrounds: bool,
) -> str | None:
    track_ids = [points.track_ids[i] for i in rows]
    for i, sequence in zip(rows, kept.of(track_ids), strict=True):
        if not np.array_equal(sequence, sequences[i]):
            return f"the sequence of {points.track_ids[i]} isn't the one that was written"
    if compare_backgrounds:
        written = points.backgrounds()[list(rows)]
        if not np.array_equal(kept.backgrounds(track_ids), written):
            return f"the backgrounds of {track_ids[0]} to {track_ids[-1]} are not those written"
    return None
