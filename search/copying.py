"""Copying: take a whole collection out of one engine, and publish it on another as it is."""

from search.engines.collection import (
    USUAL_DISTANCE,
    USUAL_SPREAD,
    Collection,
    Description,
    Engine,
    Point,
    Points,
)
from search.engines.server.patience import patience
from search.errors import SearchError
from search.fields import FIELDS, FILLED_IN, IN_MAP, RESULTS
from search.publishing import check_whole, publish_as

#: Fields of a payload that a copy brings as they are, and those that it takes for given.
COMPUTED = (USUAL_DISTANCE, USUAL_SPREAD, IN_MAP, *RESULTS)
GIVEN = tuple(name for name in FIELDS if name not in (*FILLED_IN, *RESULTS))


def copy(source: Engine, target: Engine, keep: int = 2, timeout: float = 600.0) -> Description:
    """Make the current collection of one engine the current one of another.

    Nothing is computed anew: name, bundle, calibration, vectors, payloads, results of evaluations,
    sequences and their backgrounds stay what they are, and every one of them is read back and
    compared before searchers of the target see it. Only the name can change: it begins with the
    target's deployment and follows from the content. The collection has to fit in memory.

    Parameters
    ----------
    source, target : Engine
        From `search.connect` or `search.connect_to`.
    keep, timeout
        As for `search.publish`, of the target.

    Raises
    ------
    NoCollection
        If there is nothing to copy.
    PublishError
        As `search.publish`.
    SearchError
        If it isn't whole, or is changed meanwhile.
    """
    with patience():
        # By its name, so that what it says of itself is read anew, before and afterwards.
        collection = source.open(next(iter(source.history()), None))
        name, content = collection.description.name, collection.description.content
        check_whole(collection.description)
        points = take_out(collection)
        if name in source.history() and source.describe(name).content != content:
            raise SearchError(f"{name} in {source.location} changed as it was read: copy it again.")
    if len(points) != collection.description.points:
        raise SearchError(
            f"{collection.description.name} in {source.location} gave {len(points)} of its "
            f"{collection.description.points} performances: make it anew with `covers pipeline`."
        )
    return publish_as(collection.description, points, target, keep, timeout, thorough=True)


def take_out(collection: Collection) -> Points:
    """Return all that a collection was published from."""
    stored = {str(one.payload["track_id"]): one for one in collection.everything()}
    track_ids = list(stored)
    nothing: list[None] = [None] * len(stored)
    kept = collection.sequences
    sequences = nothing if kept is None else kept.of(track_ids)
    backgrounds = nothing if kept is None else kept.backgrounds(track_ids)
    return Points(
        (
            Point(
                track_id,
                one.vector,
                {name: one.payload[name] for name in GIVEN if name in one.payload},
                sequence,
                background,
                {name: one.payload[name] for name in COMPUTED if name in one.payload},
            )
            for (track_id, one), sequence, background in zip(
                stored.items(), sequences, backgrounds, strict=True
            )
        ),
        rate=collection.description.rate,
        calibration=collection.description.calibration,
    )
