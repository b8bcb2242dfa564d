"""Go through a whole collection for works that are one, and performances with a wrong label."""

import logging
from collections.abc import Hashable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from search.engines.collection import Collection
from search.matches import Duplicate, DuplicateGroup, Match
from search.point import Payload
from search.versions import judging
from search.versions.calibration import with_versions

logger = logging.getLogger(__name__)

#: Number of nearest performances of other works that each performance is compared with.
NEIGHBOURS = 10


def find_duplicates(
    collection: Collection,
    neighbourhoods: Iterable[list[tuple[Payload, list[Match]]]],
    max_pairs: int,
    min_probability: float,
) -> list[DuplicateGroup]:
    """Judge performances of different works that are near to each other, and group them.

    `neighbourhoods` are batches of payloads, each with the nearest matches of other works. The
    other parameters are those of `Searcher.duplicates`.
    """
    from joblib import cpu_count  # importing it takes longer than a search

    description = collection.description

    def with_hidden_prior(match: Match) -> Match:
        """All pairs here have two labels, so their prior is that of versions with two labels."""
        before, versions = description.expected_versions, description.hidden_versions
        found = with_versions(_probability(match), before, versions, description.points)
        return replace(match, probability=found)

    def judge(payload: Payload, matches: list[Match]) -> list[tuple[Payload, Match]]:
        aligned = judging.align(collection, payload["track_id"], matches)
        judged = judging.by_distance(collection, matches) if aligned is None else aligned.judged
        return [(payload, with_hidden_prior(match)) for match in judged]

    seen: set[tuple[str, str]] = set()
    likeliest: list[tuple[Payload, Match]] = []
    done = 0
    with ThreadPoolExecutor(cpu_count()) as threads:  # compiled code runs in parallel
        for batch in neighbourhoods:
            pending = [
                (payload, new)
                for payload, matches in batch
                if (new := _unseen(payload, matches, seen))
            ]
            for found in threads.map(judge, *zip(*pending, strict=True)):
                likeliest += found
            # One direction is enough to find a pair; pairs that are listed are judged in both.
            likeliest.sort(key=lambda pair: -_probability(pair[1]))
            del likeliest[2 * max_pairs :]
            done += len(batch)
            logger.info("judged the neighbours of %d performances", done)
    listed = [
        Duplicate(
            track_id=payload["track_id"],
            work_id=payload["work_id"],
            title=payload.get("title"),
            work_title=payload.get("work_title"),
            artist=payload.get("artist"),
            work_artist=payload.get("work_artist"),
            match=with_hidden_prior(
                judging.same_work(collection, payload["track_id"], match.track_id, match)
            ),
        )
        for payload, match in likeliest
        if _probability(match) >= min_probability / 2
    ]
    listed.sort(key=lambda pair: (-_probability(pair.match), pair.track_id, pair.match.track_id))
    return grouped(
        [pair for pair in listed if _probability(pair.match) >= min_probability][:max_pairs]
    )


def grouped(pairs: Sequence[Duplicate]) -> list[DuplicateGroup]:
    """Group pairs, the most probable first, that share a performance or connect the same works.

    The last pair that joins two parts of a group is its weakest link, as in Kruskal's algorithm.
    Groups whose weakest link is strongest come first.
    """
    parent: dict[Hashable, Hashable] = {}

    def root(node: Hashable) -> Hashable:
        while (above := parent.setdefault(node, node)) != node:
            parent[node] = node = parent[above]
        return node

    links = []
    for pair in pairs:
        a, b = root(pair.track_id), root(pair.match.track_id)
        if a != b:
            links.append(pair)
        parent[a] = parent[b] = root(frozenset((pair.work_id, pair.match.work_id)))
    members: dict[Hashable, list[Duplicate]] = {}
    for pair in pairs:
        members.setdefault(root(pair.track_id), []).append(pair)
    weakest = {root(link.track_id): link for link in links}
    groups = [
        DuplicateGroup(
            track_ids=tuple(sorted({id for p in own for id in (p.track_id, p.match.track_id)})),
            work_ids=tuple(sorted({id for p in own for id in (p.work_id, p.match.work_id)})),
            weakest_link=weakest[node],
            pairs=tuple(own),
        )
        for node, own in members.items()
    ]
    return sorted(groups, key=lambda group: -_probability(group.weakest_link.match))


def _unseen(payload: Payload, matches: list[Match], seen: set[tuple[str, str]]) -> list[Match]:
    """Leave out the pairs that were seen from their other performance."""
    new = []
    for match in matches:
        a, b = sorted((payload["track_id"], match.track_id))
        if (a, b) not in seen:
            seen.add((a, b))
            new.append(match)
    return new


def _probability(match: Match) -> float:
    return match.probability or 0.0
