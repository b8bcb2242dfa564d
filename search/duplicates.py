"""Going through a whole catalogue for works that are one, and performances with the wrong label."""

import logging
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from search import judging
from search.collection import Collection, Payload
from search.matches import Duplicate, Match

logger = logging.getLogger(__name__)

#: So many of the nearest performances of other works are compared with each performance.
NEIGHBOURS = 10


def duplicates(
    collection: Collection,
    neighbours: Iterable[tuple[Payload, list[Match]]],
    limit: int,
    least: float,
) -> list[Duplicate]:
    """Judge performances of different works that lie near to each other.

    Parameters
    ----------
    collection : Collection
        Calibrated.
    neighbours : iterable of (dict, list of Match)
        What is known of a performance, and the nearest of other works.
    limit : int
        The most pairs to return.
    least : float in [0, 1]
        And none that is less probable.
    """

    def judge(payload: Payload, matches: list[Match]) -> list[tuple[Payload, Match]]:
        aligned = judging.align(collection, payload["track_id"], matches)
        judged = judging.by_distance(collection, matches) if aligned is None else aligned.judged
        return [(payload, match) for match in judged]

    seen: set[frozenset[str]] = set()
    pending = []
    for payload, matches in neighbours:
        pairs = {frozenset((payload["track_id"], match.track_id)): match for match in matches}
        new = [match for pair, match in pairs.items() if pair not in seen]
        seen.update(pairs)
        if new:
            pending.append((payload, new))
    if not pending:
        return []
    judged: list[tuple[Payload, Match]] = []
    with ThreadPoolExecutor(os.cpu_count()) as threads:  # what is compiled lets others run
        for done, found in enumerate(threads.map(judge, *zip(*pending, strict=True)), 1):
            judged += found
            if done % 1000 == 0:
                logger.info("judged the neighbours of %d of %d", done, len(pending))
    # One way round is enough to find a pair; what is listed is judged both ways.
    judged.sort(key=lambda pair: -_probability(pair[1]))
    listed = [
        Duplicate(
            track_id=payload["track_id"],
            work_id=payload["work_id"],
            title=payload.get("title"),
            work_title=payload.get("work_title"),
            artist=payload.get("artist"),
            work_artist=payload.get("work_artist"),
            match=judging.same_work(collection, payload["track_id"], match),
        )
        for payload, match in judged[: 2 * limit]
        if _probability(match) >= least / 2
    ]
    listed.sort(key=lambda one: (-_probability(one.match), one.track_id, one.match.track_id))
    return [one for one in listed if _probability(one.match) >= least][:limit]


def _probability(match: Match) -> float:
    return match.probability or 0.0
