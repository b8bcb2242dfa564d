"""Copying: take a whole collection out of one engine, and publish it on another as it is."""

from search.collection import DIGEST, USUAL_DISTANCE, Collection, Description, Engine, Points
from search.errors import SearchError
from search.fields import RESULTS
from search.publishing import check_whole, publish_as


def copy(source: Engine, target: Engine, keep: int = 2, timeout: float = 600.0) -> Description:
    """Make the current collection of one engine the current one of another.

    Nothing is computed anew: name, bundle, calibration, vectors, payloads, results of evaluations,
    sequences and their backgrounds stay what they are, and every one of them is read back and
    compared before searchers of the target see it. Only the name changes, if the target has it for
    another content. The collection has to fit in memory.

    Parameters
    ----------
    source, target : Engine
        From `search.connect()` or `search.connect_to()`.
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
    collection = source.open()
    check_whole(collection.description)
    points = take_out(collection)
    now = source.open().description
    if now.name == collection.description.name and now.content != collection.description.content:
        raise SearchError(f"{now.name} in {source.location} changed as it was read: copy it again.")
    if len(points) != collection.description.points:
        raise SearchError(
            f"{collection.description.name} in {source.location} gave {len(points)} of its "
            f"{collection.description.points} performances: make it anew with `covers pipeline`."
        )
    return publish_as(collection.description, points, target, keep, timeout, thorough=True)


def take_out(collection: Collection) -> Points:
    """Return all that a collection was published from."""
    stored = list(collection.everything())
    given = [
        {
            name: value
            for name, value in one.payload.items()
            if name not in ("bundle", USUAL_DISTANCE, DIGEST, *RESULTS)
        }
        for one in stored
    ]
    results = [
        {name: one.payload[name] for name in RESULTS if name in one.payload} for one in stored
    ]
    track_ids = [payload["track_id"] for payload in given]
    kept = collection.sequences
    return Points(
        track_ids,
        [one.vector for one in stored],  # type: ignore[arg-type]
        given,
        None if kept is None else kept.of(track_ids),
        collection.description.rate,
        collection.description.calibration,
        [one.payload[USUAL_DISTANCE] for one in stored],
        None if kept is None else kept.backgrounds(track_ids),
        results,
    )
