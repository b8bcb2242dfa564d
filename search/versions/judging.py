"""Judging: the probability that a match is a version of the query, by distance or alignment."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from search.engines.collection import Collection
from search.errors import InvalidQuery
from search.matches import Match
from search.versions.alignment import STACK_SECONDS, Alignment, explain, similarities
from search.versions.calibration import (
    Calibration,
    Numbers,
    alignment_columns,
    pair_probability,
)
from search.versions.reranking import log_similarity, ranking_score


def calibration_of(collection: Collection) -> Calibration:
    """Return the calibration of a collection; raise InvalidQuery if there is none."""
    found = collection.description.calibration
    if found is None:
        raise InvalidQuery(
            f"{collection.description.name} has no probabilities, because its bundle is not "
            "calibrated: train on data with a few dozen cliques, and publish again."
        )
    return found


def by_distance(collection: Collection, matches: Sequence[Match]) -> list[Match]:
    """Add the probability to each match, if the bundle is calibrated."""
    calibration = collection.description.calibration
    if calibration is None or not matches or matches[0].relative_distance is None:
        return list(matches)
    return _with_probabilities(collection, matches, _distance_ratios(calibration, matches))


def log_ratios(
    collection: Collection, matches: Sequence[Match], aligned: "Aligned | None"
) -> Numbers:
    """Return the log likelihood ratio of each match, by alignment or, without one, by distance."""
    if aligned is not None and aligned.log_ratio is not None:
        return aligned.log_ratio
    return _distance_ratios(calibration_of(collection), matches)


def _distance_ratios(calibration: Calibration, matches: Sequence[Match]) -> Numbers:
    return calibration.distance.log_ratio(_relative(matches)[:, None])


def _relative(matches: Sequence[Match]) -> Numbers:
    return np.array([match.relative_distance for match in matches], np.float64)


def _with_probabilities(
    collection: Collection, matches: Sequence[Match], log_ratio: Numbers
) -> list[Match]:
    description = collection.description
    found = pair_probability(log_ratio, description.versions, description.points)
    return [
        replace(match, probability=probability)
        for match, probability in zip(matches, found.tolist(), strict=True)
    ]


class Aligned:
    """A query aligned with its matches. Matches that can't be aligned are judged by distance.

    Parameters
    ----------
    collection : Collection
        With sequences.
    track_id : str
        The query.
    nearest : sequence of Match
        The nearest first.

    Attributes
    ----------
    log_similarity : np.ndarray, shape=(n,)
        Of each match to the query.
    log_ratio : np.ndarray, shape=(n,), or None
        Log likelihood ratio of each match; None if the bundle isn't calibrated.
    order : list of int
        Indices in `nearest`, the likeliest first. Matches without similarity or sequence come last,
        the nearest first.

    Raises
    ------
    InvalidQuery
        If the collection has no sequences, or that of the query is shorter than a stack.
    """

    def __init__(self, collection: Collection, track_id: str, nearest: Sequence[Match]) -> None:
        sequences, name = collection.sequences, collection.description.name
        if sequences is None:
            raise InvalidQuery(
                f"Reranking aligns chroma sequences, and {name} holds none: publish performances "
                "that have chroma, or ask without rerank."
            )
        rate = sequences.rate
        # They are read together, because that is one request to a server.
        track_ids = [track_id, *(match.track_id for match in nearest)]
        query, *self._others = sequences.of(track_ids)
        if not len(query):
            raise InvalidQuery(
                f"Performance {track_id} has no chroma sequence in {name}, so it cannot be "
                "aligned: ask without rerank, or publish it with its features."
            )
        if len(query) < STACK_SECONDS * rate:
            raise InvalidQuery(
                f"Performance {track_id} has {len(query) / rate:.1f} s of chroma in {name}, and an "
                f"alignment needs at least {STACK_SECONDS} s: ask without rerank."
            )
        self._collection, self._nearest = collection, nearest
        self._rate, self._query = rate, query
        self._similarity, self._hypothesis = similarities(query, self._others, rate)
        self.log_similarity = log_similarity(self._similarity)
        query_background, backgrounds = np.split(sequences.backgrounds(track_ids), [1])
        self._backgrounds = query_background[0], backgrounds, sequences.mean_background
        self.log_ratio = self._judge(self.log_similarity)
        self._score = ranking_score(self._similarity, backgrounds)
        score = self._score if self.log_ratio is None else self.log_ratio
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
            alignment_columns(_relative(self._nearest), similarity, *self._backgrounds)
        )
        # A sequence that is too short says nothing about the similarity.
        too_short = [len(other) < STACK_SECONDS * self._rate for other in self._others]
        return np.where(too_short, by_distance, ratios)

    @property
    def judged(self) -> list[Match]:
        """All matches with their probabilities but without alignments, the likeliest first."""
        ordered = [self._nearest[i] for i in self.order]
        if self.log_ratio is None:
            return ordered
        return _with_probabilities(self._collection, ordered, self.log_ratio[self.order])

    def matches(self, rows: Sequence[int], similarity: Numbers | None = None) -> list[Match]:
        """Return the matches of some rows with their probabilities and alignments.

        Without calibration, they have scores instead of probabilities. `similarity`, log
        similarities of all matches, replaces the similarity seen from the query.
        """
        log_ratio = self.log_ratio if similarity is None else self._judge(similarity)
        chosen = [replace(self._nearest[i], alignment=self._explain(i)) for i in rows]
        if log_ratio is None:
            return [
                replace(match, score=float(self._score[i]) if self._similarity[i] > 0 else None)
                for i, match in zip(rows, chosen, strict=True)
            ]
        return _with_probabilities(self._collection, chosen, log_ratio[list(rows)])

    def _explain(self, i: int) -> Alignment:
        similarity, hypothesis = float(self._similarity[i]), self._hypothesis[i]
        return explain(self._query, self._others[i], self._rate, similarity, hypothesis)


def align(collection: Collection, track_id: str, nearest: Sequence[Match]) -> Aligned | None:
    """Align a query with its nearest matches, if its sequence is long enough."""
    return Aligned(collection, track_id, nearest) if _alignable(collection, track_id) else None


def _alignable(collection: Collection, track_id: str) -> bool:
    sequences = collection.sequences
    if sequences is None:
        return False
    (sequence,) = sequences.of([track_id])
    return len(sequence) >= STACK_SECONDS * sequences.rate


def same_work(collection: Collection, a: str, match: Match) -> Match:
    """Judge a match of performance `a` in both directions, so that the order does not matter."""
    b = match.track_id
    if not (_alignable(collection, a) and _alignable(collection, b)):
        return by_distance(collection, [match])[0]
    forward = Aligned(collection, a, [match])
    backward = Aligned(collection, b, [replace(match, track_id=a)])
    mean = (forward.log_similarity + backward.log_similarity) / 2
    return forward.matches([0], mean)[0]
