"""Read a collection back, and compare it with the points that were written."""

from collections.abc import Sequence

import numpy as np

from search.engines.collection import Collection, Sequences
from search.errors import CollectionGone, DamagedCollection
from search.points import Description, Points

#: Performances, evenly spread over the track ids, that are read back before a collection is served.
SAMPLE_SIZE = 64

#: A collection that raises one of these does not hold what it should. Any other failure says
#: nothing about the collection.
FAULTS = (CollectionGone, DamagedCollection)


def find_fault(
    collection: Collection,
    description: Description,
    points: Points,
    *,
    thorough: bool,
    written: Sequence[int] = (),
    is_new: bool = False,
) -> str | None:
    """Return how a collection differs from its points, or None if it does not.

    `SAMPLE_SIZE` performances are compared, those of the rows `written` in place first, or all of
    them if `thorough`. A collection that `is_new` was built just now. Any other may have results of
    an evaluation, and values that were computed for an earlier state of the collection.
    """
    if (count := collection.count()) != len(points):
        return f"it holds {count} performances and not {len(points)}"
    sequences = collection.sequences
    if points.sequences is not None:
        if sequences is None:
            return "it holds no sequences"
        if (count := sequences.count()) != len(points):
            return f"it holds {count} sequences and not {len(points)}"
    rows: Sequence[int] = range(len(points))
    if not thorough:
        rows = list(dict.fromkeys([*_spread(written), *_spread(rows)]))[:SAMPLE_SIZE]
    for start in range(0, len(rows), SAMPLE_SIZE):
        some = rows[start : start + SAMPLE_SIZE]
        fault = _fault_of_points(collection, description, points, some, is_new)
        if fault is None and points.sequences is not None and sequences is not None:
            fault = _fault_of_sequences(sequences, points, some, is_new)
        if fault is not None:
            return fault
    return None


def _spread(rows: Sequence[int]) -> list[int]:
    """Choose up to `SAMPLE_SIZE` rows."""
    places = np.linspace(0, len(rows) - 1, min(len(rows), SAMPLE_SIZE)).astype(int)
    return [rows[i] for i in places]


def _fault_of_points(
    collection: Collection,
    description: Description,
    points: Points,
    rows: Sequence[int],
    is_new: bool,
) -> str | None:
    stored = collection.performances([points.track_ids[i] for i in rows])
    expected_of = points.payload if is_new or points.are_copied else points.content
    for i, found in zip(rows, stored, strict=True):
        expected = expected_of(i, description)
        payload = {} if found is None else found.payload
        if not is_new:
            payload = {name: value for name, value in payload.items() if name in expected}
        same = found is not None and np.array_equal(found.vector, points.vectors[i])
        if not same or payload != expected:
            return f"performance {points.track_ids[i]} does not read back as it was written"
    return None


def _fault_of_sequences(
    sequences: Sequences, points: Points, rows: Sequence[int], is_new: bool
) -> str | None:
    track_ids = [points.track_ids[i] for i in rows]
    written = points.sequences or []
    for i, sequence in zip(rows, sequences.of(track_ids), strict=True):
        if not np.array_equal(sequence, written[i]):
            return f"the sequence of {points.track_ids[i]} does not read back as it was written"
    if points.has_backgrounds and (is_new or points.are_copied):
        backgrounds = points.backgrounds()[list(rows)]
        if not np.array_equal(sequences.backgrounds(track_ids), backgrounds):
            return f"the backgrounds of {track_ids[0]} to {track_ids[-1]} are not those written"
    return None
