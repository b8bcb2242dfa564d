"""Identification: which work a performance is a version of, or that it is of none here.

The evidence of all performances of a work is pooled. Two works that are probably one, although
nobody has linked them, are then grouped, so that they don't compete. This is what happens to the
probabilities. Let q be the query, and r_i the likelihood ratio of q with performance i.

- By `work_probabilities`, the odds of a work against no work are its prior, which is proportional
  to its number of performances, times the mean of their r_i. That is proportional to the sum of
  its r_i.
- If two works are one, the odds of this one work are proportional to the sum over all
  performances of both. So its probability is the sum of the two probabilities, the probability of
  no work stays, and all probabilities still sum to 1.
- If they are not one, works exclude each other, and the sum is the probability that q is a version
  of either. So it holds whether the works are one or not, and only the claim that they are one can
  be wrong.

A medley is a version of several works, which match different parts of it. Such works do not exclude
each other: the probability of a work is the one among the works that match the same part.

The groups are formed from the likeliest work down. Another work b belongs to the group of a work a
if it is probably the same, by the same rule: b is taken as a query, and the performances that are
known to be of work a are its candidates. These are the best performance of a, and also q if q is
probably a version of a, and a and b do not match different parts of it. The prior is that of
versions with another label, because the labels say that a and b are two works.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from search import nearest
from search.asked import Query
from search.engines.collection import Collection, Stored
from search.errors import CollectionGone
from search.matches import Identification, Match, Work
from search.versions import judging
from search.versions.calibration import Numbers, pair_probability, work_probabilities

#: Number of performances that are listed as evidence for a work.
MAX_EVIDENCE = 3

#: Number of works, the likeliest, that may be grouped, and the least probability of a work that
#: others are compared with. They bound the time: a comparison is an alignment.
MAX_GROUPED, MIN_LEADER = 10, 0.01

#: Two works match different parts of the query if their heaviest stretches share at most this part
#: of the shorter one.
MAX_SHARED = 0.25

#: The least probability that two works are one. It is high because a wrong link misleads, and a
#: missing one only divides a probability.
MIN_SAME = 0.8


@dataclass(frozen=True)
class _Pooled:
    """A work, with the rows of its matches, the best first."""

    probability: float
    work_id: str
    rows: list[int]
    part: tuple[float, float] | None = None  # seconds of the query that match the best one

    def is_apart(self, other: "_Pooled") -> bool:
        """Whether two works match different parts of the query."""
        if self.part is None or other.part is None:
            return False
        (a, b), (c, d) = self.part, other.part
        return min(b, d) - max(a, c) <= MAX_SHARED * min(b - a, d - c)


def identify(
    collection: Collection,
    query: str | Query,
    matches: Sequence[Match],
    aligned: judging.Aligned | None,
    limit: int,
) -> Identification:
    """Pool the evidence of the performances of each work; see `Searcher.identify`.

    Parameters
    ----------
    collection, query
        What is asked about, and where.
    matches : sequence of Match
        Those nearest to the query.
    aligned : judging.Aligned or None
        The query aligned with the matches, if it can be aligned.
    limit : int
        Maximum number of works.
    """
    log_ratio = judging.log_ratios(collection, matches, aligned)
    pooled, probability_of_none = _pool(collection, matches, aligned, log_ratio)
    groups = _groups(collection, matches, log_ratio, pooled[:MAX_GROUPED])
    groups += [[work] for work in pooled[MAX_GROUPED:]]
    groups.sort(key=lambda group: -_probability(group))
    works = []
    for group in groups[:limit]:
        rows = sorted(
            (row for work in group for row in work.rows[:MAX_EVIDENCE]),
            key=lambda row: -log_ratio[row],
        )
        if aligned is None:
            evidence = judging.by_distance(collection, [matches[row] for row in rows])
        else:
            evidence = aligned.matches(rows)
        first, *others = group
        best = matches[first.rows[0]]
        works.append(
            Work(
                work_id=first.work_id,
                work_title=best.work_title,
                work_artist=best.work_artist,
                probability=_probability(group),
                performances=tuple(evidence),
                same_as=tuple(work.work_id for work in others),
            )
        )
    work = works[0] if works and works[0].probability > probability_of_none else None
    return Identification(str(query), work, probability_of_none, tuple(works))


def _pool(
    collection: Collection,
    matches: Sequence[Match],
    aligned: judging.Aligned | None,
    log_ratio: Numbers,
) -> tuple[list[_Pooled], float]:
    """Return the works of the matches, the likeliest first, and the probability of no work."""
    rows_of: dict[str, list[int]] = {}
    for i in np.argsort(-log_ratio, kind="stable").tolist():
        rows_of.setdefault(matches[i].work_id, []).append(i)

    def probabilities(works: Iterable[list[int]]) -> tuple[list[float], float]:
        evidence = [log_ratio[rows] for rows in works]
        description = collection.description
        found, of_none = work_probabilities(
            evidence, description.expected_linked, description.points
        )
        return found.tolist(), of_none

    found, probability_of_none = probabilities(rows_of.values())
    pooled = [
        _Pooled(probability, work_id, rows)
        for probability, (work_id, rows) in zip(found, rows_of.items(), strict=True)
    ]
    pooled.sort(key=_order)
    if aligned is not None:
        best = aligned.matches([work.rows[0] for work in pooled[:MAX_GROUPED]])
        pooled[:MAX_GROUPED] = [
            replace(work, part=_part(match)) for work, match in zip(pooled, best, strict=False)
        ]
        for i, work in enumerate(pooled[:MAX_GROUPED]):
            rivals = [other for other in pooled if other is not work and not work.is_apart(other)]
            among, _ = probabilities([work.rows, *(other.rows for other in rivals)])
            pooled[i] = replace(work, probability=among[0])
        pooled.sort(key=_order)
    return pooled, probability_of_none


def _order(work: _Pooled) -> tuple[float, str]:
    return -work.probability, work.work_id


def _part(match: Match) -> tuple[float, float] | None:
    if match.alignment is None or not match.alignment.stretches:
        return None
    heaviest = match.alignment.stretches[0]
    return heaviest.query_start, heaviest.query_end


def _probability(group: Sequence[_Pooled]) -> float:
    return min(sum(work.probability for work in group), 1.0)


def _groups(
    collection: Collection,
    matches: Sequence[Match],
    log_ratio: Numbers,
    works: Sequence[_Pooled],
) -> list[list[_Pooled]]:
    """Group works, the likeliest first, that are probably one; see the top of this module."""
    best = [matches[work.rows[0]].track_id for work in works]
    queries: dict[str, Stored] = {}
    for track_id, stored in zip(best, collection.performances(best), strict=True):
        if stored is None:
            raise CollectionGone(f"{track_id} has just been withdrawn.")
        queries[track_id] = stored

    description = collection.description

    def are_versions(ratio: Numbers) -> Numbers:
        return pair_probability(ratio, description.hidden_versions, description.points)

    groups = []
    free = list(works)
    while free:
        leader, *free = free
        group = [leader]
        if free and leader.probability >= MIN_LEADER:
            first, *others = (queries[matches[work.rows[0]].track_id] for work in (leader, *free))
            found = nearest.compare(collection, first, others)
            aligned = judging.align(collection, str(first.track_id), found)
            ratio = judging.log_ratios(collection, found, aligned)
            own = log_ratio[[work.rows[0] for work in (leader, *free)]]
            if are_versions(own[:1])[0] > 0.5:
                apart = [leader.is_apart(work) for work in free]
                ratio = np.where(apart, ratio, np.logaddexp(ratio, own[1:]))
            same = are_versions(ratio) >= MIN_SAME
            group += [work for work, is_same in zip(free, same, strict=True) if is_same]
            free = [work for work, is_same in zip(free, same, strict=True) if not is_same]
        groups.append(group)
    return groups
