"""Copy a complete collection from one engine to another, as it is."""

from search.engines.collection import Collection
from search.engines.engine import Engine
from search.engines.patience import patience
from search.errors import SearchError
from search.fields import FIELDS, FILLED_IN, IN_MAP, RESULTS
from search.point import Frames, Point, Vectors
from search.points import USUAL_DISTANCE, USUAL_SPREAD, Description, Points

#: Fields of a payload that were computed, and fields that a publisher gives.
COMPUTED = (USUAL_DISTANCE, USUAL_SPREAD, IN_MAP, *RESULTS)
GIVEN = tuple(name for name in FIELDS if name not in (*FILLED_IN, *RESULTS))


def copy(source: Engine, target: Engine, *, keep: int = 2, timeout: float = 600.0) -> Description:
    """Make the current collection of one engine the current one of another.

    Nothing is computed again: bundle, calibration, vectors, payloads, results of evaluations,
    sequences and backgrounds stay as they are. All of them are read back and compared before
    searches of the target see them. The name begins with the deployment of the target. The
    collection must fit in memory.

    Parameters
    ----------
    source, target : Engine
        From `search.connect`.
    keep, timeout
        As for `Engine.publish`, of the target.

    Raises
    ------
    NoCollection
        If there is nothing to copy.
    PublishError
        As `Engine.publish`.
    SearchError
        If the collection is not complete, or changes meanwhile.

    Examples
    --------
    >>> import search, tempfile
    >>> with tempfile.TemporaryDirectory() as directory, search.connect(directory) as target:
    ...     copy(search.connect(), target).points
    40
    """
    with patience():
        # It is opened by its name, so that its description is read again before and afterwards.
        collection = source.open(next(iter(source.history()), None))
        description = collection.description
        if not description.content:
            raise SearchError(
                f"A change of {description.name} is going on or was interrupted: complete it with "
                "`covers add` or `covers pipeline`, and copy again."
            )
        points = take_out(collection)
        name = description.name
        if name in source.history() and source.describe(name).content != description.content:
            raise SearchError(f"{name} in {source.location} changed while it was read: copy again.")
    if len(points) != description.points:
        raise SearchError(
            f"{name} in {source.location} gave {len(points)} of its {description.points} "
            "performances: build it again with `covers pipeline`."
        )
    return target.publish_described(description, points, keep=keep, timeout=timeout, thorough=True)


def take_out(collection: Collection) -> Points:
    """Return the points that a collection was published from."""
    stored = {str(each.payload["track_id"]): each for each in collection.everything()}
    track_ids = list(stored)
    given = [*GIVEN, *collection.description.columns]
    sequences: list[Frames | None] = [None] * len(stored)
    backgrounds: list[Vectors | None] = [None] * len(stored)
    if collection.sequences is not None:
        sequences = [*collection.sequences.of(track_ids)]
        backgrounds = [*collection.sequences.backgrounds(track_ids)]
    return Points(
        (
            Point(
                track_id,
                found.vector,
                {name: found.payload[name] for name in given if name in found.payload},
                sequence,
                background,
                {name: found.payload[name] for name in COMPUTED if name in found.payload},
            )
            for (track_id, found), sequence, background in zip(
                stored.items(), sequences, backgrounds, strict=True
            )
        ),
        rate=collection.description.rate,
        calibration=collection.description.calibration,
        columns=collection.description.columns,
    )
