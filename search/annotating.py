"""Writing what an evaluation found out about performances into the collections that hold them."""

import logging
from collections.abc import Mapping
from typing import TypeAlias

from search.engines.collection import Engine
from search.errors import InvalidPoints
from search.fields import FIELDS, KIND, RESULTS, Result, fits
from search.publishing import LOOKED_UP, publishing

logger = logging.getLogger(__name__)

Results: TypeAlias = Mapping[str, Mapping[str, Result | None]]


def annotate(results: Results, bundle: str, engine: Engine, timeout: float = 600.0) -> int:
    """Write results into the current collection and those before it, as far as `bundle` made them.

    Distances are the bundle's, so they say nothing of what another one made. Performances that a
    collection doesn't hold are passed over, and what it says already isn't written again. Another
    publication doesn't know the results: they are gone with the collection that has them.

    Parameters
    ----------
    results : mapping of str to mapping
        By track id, values of the fields in `search.fields.RESULTS`; None takes away what an
        earlier evaluation said.
    bundle : str
        Id of the bundle whose vectors were evaluated.
    engine : Engine
        From `search.connect()`.
    timeout : float
        Seconds to wait for a publisher to finish.

    Returns
    -------
    int
        How many performances were written, in however many collections.

    Raises
    ------
    InvalidPoints
        If a field isn't one of these, or can't hold its value.
    PublishError
        If a publisher doesn't finish.
    """
    for track_id, values in results.items():
        for field, value in values.items():
            if field not in RESULTS or not (value is None or fits(field, value)):
                what = KIND[FIELDS[field]] if field in RESULTS else "no result of an evaluation"
                raise InvalidPoints(f"{field} of {track_id} can't be {value!r}: it is {what}.")
    if not engine.history():
        return 0  # and no lock is made where nothing is
    written = 0
    with publishing(engine, timeout):
        for name in engine.history():
            if engine.describe(name).bundle == bundle:
                changed = _changed(results, name, engine)
                if changed:
                    engine.annotate(name, changed)
                    logger.info("wrote results of %d performances into %s", len(changed), name)
                written += len(changed)
    return written


def _changed(results: Results, name: str, engine: Engine) -> Results:
    """Leave out what a collection doesn't hold, and what it says already."""
    collection = engine.open(name)
    changed = {}
    everyone = list(results)
    for start in range(0, len(everyone), LOOKED_UP):
        track_ids = everyone[start : start + LOOKED_UP]
        for track_id, found in zip(track_ids, collection.performances(track_ids), strict=True):
            if found is not None and any(
                found.payload.get(field) != value for field, value in results[track_id].items()
            ):
                changed[track_id] = results[track_id]
    return changed
