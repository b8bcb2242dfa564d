"""Judging matches: how likely each is a version of the query, by its distance or its alignment."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from search.engines.collection import Collection
from search.errors import InvalidQuery
from search.matches import Identification, Match, Work
from search.versions.alignment import STACK_SECONDS, Alignment, explain, similarities
from search.versions.calibration import (
    Calibration,
    Numbers,
    alignment_columns,
    pair_probability,
    work_probabilities,
)
from search.versions.reranking import log_similarity, ranking_score

#: So many performances, at most, are listed as speaking for a work.
SPEAKING = 3


def calibration_of(collection: Collection) -> Calibration:
    """Return the collection's calibration; raises InvalidQuery without one."""
    found = collection.description.calibration
    if found is None:
        raise InvalidQuery(
            f"{collection.description.name} can't tell probabilities, since its bundle isn't "
            "calibrated: train on data with a few dozen cliques, and publish again."
        )
    return found


def by_distance(collection: Collection, matches: Sequence[Match]) -> list[Match]:
    """Say of each match how likely it is, where the bundle is calibrated."""
    calibration = collection.description.calibration
    if calibration is None or not matches or matches[0].relative_distance is None:
        return list(matches)
    return _with_probabilities(collection, matches, _distance_ratios(calibration, matches))


def _distance_ratios(calibration: Calibration, matches: Sequence[Match]) -> Numbers:
    return calibration.distance.log_ratio(_relative(matches)[:, None])


def _relative(matches: Sequence[Match]) -> Numbers:
    return np.array([match.relative_distance for match in matches], np.float64)


def _with_probabilities(
    collection: Collection, matches: Sequence[Match], log_ratio: Numbers
) -> list[Match]:
    facts = collection.description
    probabilities = pair_probability(log_ratio, facts.versions, facts.points).tolist()
    return [
        replace(match, probability=probability)
        for match, probability in zip(matches, probabilities, strict=True)
    ]


class Aligned:
    """A query aligned with some matches of it.

    Matches that can't be aligned are judged by their distance.

    Parameters
    ----------
    collection : Collection
        With sequences, or InvalidQuery is raised; as it is for a query too short to be aligned.
    track_id : str
        The query.
    nearest : sequence of Match
        Nearest first.

    Attributes
    ----------
    log_similarity : np.ndarray, shape=(n,)
        Of each match to the query.
    log_ratio : np.ndarray, shape=(n,), or None
        Log likelihood ratio of each to be a version; None where the bundle isn't calibrated.
    order : list of int
        Places in `nearest`, the likeliest first; last what has nothing in common with the query or
        can't be aligned, nearest first.
    """

    def __init__(self, collection: Collection, track_id: str, nearest: Sequence[Match]) -> None:
        sequences, name = collection.sequences, collection.description.name
        if sequences is None:
            raise InvalidQuery(
                f"Re-ranking aligns chroma sequences, and {name} holds none: publish performances "
                "that have chroma, or ask without rerank."
            )
        rate = sequences.rate
        # Asked for together, since on a server that is one request.
        track_ids = [track_id, *(match.track_id for match in nearest)]
        query, *self._others = sequences.of(track_ids)
        if len(query) < STACK_SECONDS * rate:
            raise InvalidQuery(
                f"Performance {track_id} has {len(query) / rate:.1f} s of chroma in {name}, and "
                f"aligning takes {STACK_SECONDS} s at least: ask without rerank."
            )
        self._collection, self._nearest = collection, nearest
        self._rate, self._query = rate, query
        self._similarity, self._hypothesis = similarities(query, self._others, rate)
        self.log_similarity = log_similarity(self._similarity)
        of_query, backgrounds = np.split(sequences.backgrounds(track_ids), [1])
        self._usual = of_query[0], backgrounds, sequences.mean_background
        self.log_ratio = self._judge(self.log_similarity)
        score = self.log_ratio
        if score is None:
            score = ranking_score(self._similarity, backgrounds)
        aligned = self._similarity > 0
        self.order: list[int] = np.lexsort((np.where(aligned, -score, 0), ~aligned)).tolist()

    def _judge(self, similarity: Numbers) -> Numbers | None:
        calibration = self._collection.description.calibration
        if calibration is None:
            return None
        by_distance = _distance_ratios(calibration, self._nearest)
        if calibration.alignment is None:
            return by_distance
        ratios = calibration.alignment.log_ratio(
            alignment_columns(_relative(self._nearest), similarity, *self._usual)
        )
        # What is too short to be aligned isn't unlike the query for that.
        short = [len(other) < STACK_SECONDS * self._rate for other in self._others]
        return np.where(short, by_distance, ratios)

    @property
    def judged(self) -> list[Match]:
        """All matches, the likeliest first, with their probabilities and without the why."""
        ordered = [self._nearest[i] for i in self.order]
        if self.log_ratio is None:
            return ordered
        return _with_probabilities(self._collection, ordered, self.log_ratio[self.order])

    def matches(self, places: Sequence[int], similarity: Numbers | None = None) -> list[Match]:
        """Return the matches at some places, with their probabilities and what matches what.

        Parameters
        ----------
        places : sequence of int
            In `nearest`.
        similarity : np.ndarray, shape=(n,), optional
            Log similarities to judge by, instead of those seen from the query.
        """
        log_ratio = self.log_ratio if similarity is None else self._judge(similarity)
        chosen = [replace(self._nearest[i], alignment=self._explain(i)) for i in places]
        if log_ratio is None:
            return chosen
        return _with_probabilities(self._collection, chosen, log_ratio[list(places)])

    def _explain(self, i: int) -> Alignment:
        similarity, how = float(self._similarity[i]), self._hypothesis[i]
        return explain(self._query, self._others[i], self._rate, similarity, how)


def align(collection: Collection, track_id: str, nearest: Sequence[Match]) -> Aligned | None:
    """Align a query with its nearest matches, if it has a sequence here that is long enough."""
    return Aligned(collection, track_id, nearest) if _alignable(collection, track_id) else None


def _alignable(collection: Collection, track_id: str) -> bool:
    sequences = collection.sequences
    if sequences is None:
        return False
    (sequence,) = sequences.of([track_id])
    return len(sequence) >= STACK_SECONDS * sequences.rate


def same_work(collection: Collection, a: str, match: Match) -> Match:
    """Judge a match of performance `a` both ways round, and so the same for both."""
    b = match.track_id
    if not (_alignable(collection, a) and _alignable(collection, b)):
        return by_distance(collection, [match])[0]
    there = Aligned(collection, a, [match])
    back = Aligned(collection, b, [replace(match, track_id=a)])
    both = (there.log_similarity + back.log_similarity) / 2
    return there.matches([0], both)[0]


def identify(
    collection: Collection,
    track_id: str,
    nearest: Sequence[Match],
    aligned: Aligned | None,
    limit: int,
) -> Identification:
    """Pool the evidence of each work's performances.

    Parameters
    ----------
    collection : Collection
        Calibrated, or InvalidQuery is raised.
    track_id, limit
        As for `Searcher.identify`.
    nearest : sequence of Match
        Of the query, nearest first.
    aligned : Aligned, optional
        What `align` says of these.
    """
    calibration, facts = calibration_of(collection), collection.description
    log_ratio = None if aligned is None else aligned.log_ratio
    if log_ratio is None:
        log_ratio = _distance_ratios(calibration, nearest)
    of_work: dict[str, list[int]] = {}
    for i in np.argsort(-log_ratio, kind="stable").tolist():
        of_work.setdefault(nearest[i].work_id, []).append(i)
    probabilities, none = work_probabilities(
        [log_ratio[places] for places in of_work.values()], facts.linked, facts.points
    )
    likeliest = sorted(zip((-probabilities).tolist(), of_work, strict=True))[:limit]
    works = []
    for negative, work_id in likeliest:
        places = of_work[work_id][:SPEAKING]
        speaking = (
            aligned.matches(places)
            if aligned is not None
            else by_distance(collection, [nearest[i] for i in places])
        )
        title, artist = speaking[0].work_title, speaking[0].work_artist
        works.append(Work(work_id, title, artist, -negative, tuple(speaking)))
    named = works[0] if works and works[0].probability > none else None
    return Identification(track_id, named, none, tuple(works))
