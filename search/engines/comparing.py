"""Compare a published collection with what is to be published or written."""

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np

from search.engines.collection import Collection
from search.fields import Result
from search.point import Vectors
from search.points import Description, Points, sequence_digest

#: Performances that are looked up at once.
BATCH_LOOKUPS = 512

#: Results of an evaluation, by track id and field; None removes a value.
Results: TypeAlias = Mapping[str, Mapping[str, Result | None]]


def is_alike(current: Description | None, new: Description) -> bool:
    """Whether a collection differs from a new one in its performances alone."""
    return current is not None and all(
        getattr(current, field) == getattr(new, field)
        for field in ("bundle", "dimension", "rate", "calibration", "columns")
    )


def known_backgrounds(collection: Collection, points: Points) -> Vectors:
    """Look up the backgrounds of performances whose sequence is the same in the collection.

    The others are NaN. Measuring backgrounds takes longer than the rest of a publication, and most
    of a catalogue stays the same.
    """
    known = np.full((len(points), 2), np.nan, np.float32)
    sequences = collection.sequences
    if sequences is None or sequences.rate != points.rate:
        return known
    wanted = [sequence_digest(digest) for digest in points.digests]
    for start in range(0, len(points), BATCH_LOOKUPS):
        found = collection.digests(points.track_ids[start : start + BATCH_LOOKUPS])
        rows = [i for i, digest in enumerate(found, start) if sequence_digest(digest) == wanted[i]]
        if rows:
            known[rows] = sequences.backgrounds([points.track_ids[i] for i in rows])
    return known


def changed_results(results: Results, collection: Collection) -> Results:
    """Return the results that a collection does not have, of performances that it holds."""
    changed = {}
    track_ids = list(results)
    for start in range(0, len(track_ids), BATCH_LOOKUPS):
        batch = track_ids[start : start + BATCH_LOOKUPS]
        for track_id, found in zip(batch, collection.performances(batch), strict=True):
            if found is not None and any(
                found.payload.get(field) != value for field, value in results[track_id].items()
            ):
                changed[track_id] = results[track_id]
    return changed
