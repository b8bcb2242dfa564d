"""Going through a whole catalogue for works that are one, and performances with the wrong label."""

import logging
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from search.engines.collection import Collection, Payload
from search.matches import Duplicate, Match
from search.versions import judging

logger = logging.getLogger(__name__)

#: So many of the nearest performances of other works are compared with each performance.
NEIGHBOURS = 10


def duplicates(
    collection: Collection,
    neighbourhoods: Iterable[list[tuple[Payload, list[Match]]]],
    limit: int,
    least: float,
) -> list[Duplicate]:
    """Judge performances of different works that lie near to each other.

    Parameters
    ----------
    collection : Collection
        Calibrated.
    neighbourhoods : iterable of list of (dict, list of Match)
        What is known of a performance, and the nearest of other works; some performances at a time.
    limit : int
        The most pairs to return.
    least : float in [0, 1]
        And none that is less probable.
    """
    from joblib import cpu_count  # takes longer to import than a search to answer

    def judge(payload: Payload, matches: list[Match]) -> list[tuple[Payload, Match]]:
        aligned = judging.align(collection, payload["track_id"], matches)
        judged = judging.by_distance(collection, matches) if aligned is None else aligned.judged
        return [(payload, match) for match in judged]

    seen: set[tuple[str, str]] = set()
    likeliest: list[tuple[Payload, Match]] = []
    done = 0
    with ThreadPoolExecutor(cpu_count()) as threads:  # what is compiled lets others run
        for some in neighbourhoods:
            pending = [
                (payload, new)
                for payload, matches in some
                if (new := _unseen(payload, matches, seen))
            ]
            for found in threads.map(judge, *zip(*pending, strict=True)):
                likeliest += found
            # One way round is enough to find a pair; what is listed is judged both ways.
            likeliest.sort(key=lambda pair: -_probability(pair[1]))
            del likeliest[2 * limit :]
            done += len(some)
            logger.info("judged the neighbours of %d performances", done)
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
        for payload, match in likeliest
        if _probability(match) >= least / 2
    ]
    listed.sort(key=lambda one: (-_probability(one.match), one.track_id, one.match.track_id))
    return [one for one in listed if _probability(one.match) >= least][:limit]


def _unseen(payload: Payload, matches: list[Match], seen: set[tuple[str, str]]) -> list[Match]:
    """Leave out the pairs that were seen from their other side."""
    new = []
    for match in matches:
        a, b = sorted((payload["track_id"], match.track_id))
        if (a, b) not in seen:
            seen.add((a, b))
            new.append(match)
    return new


def _probability(match: Match) -> float:
    return match.probability or 0.0
