"""Judging: the probability that a match is a version of the query, by distance or alignment."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from search.asked import Query, backgrounds_of, sequences_of, stored_sequences
from search.engines.collection import Collection
from search.errors import InvalidQuery
from search.matches import Match
from search.point import Frames
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
    found = pair_probability(log_ratio, description.expected_versions, description.points)
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
    query : str or Query
        What is asked about.
    nearest : sequence of Match
        The nearest first.
    candidates : sequence of str or Query, optional
        What these matches are, if one of them is not in the collection.

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

    def __init__(
        self,
        collection: Collection,
        query: str | Query,
        nearest: Sequence[Match],
        candidates: Sequence[str | Query] | None = None,
    ) -> None:
        sequences = stored_sequences(collection)
        if candidates is None:
            candidates = [match.track_id for match in nearest]
        asked = [query, *candidates]
        self._query, *self._others = sequences_of(collection, asked)
        self._collection, self._nearest, self._rate = collection, nearest, sequences.rate
        self._check_length(query)
        self._similarity, self._hypothesis = similarities(self._query, self._others, self._rate)
        self.log_similarity = log_similarity(self._similarity)
        query_background, backgrounds = np.split(backgrounds_of(collection, asked), [1])
        self._backgrounds = query_background[0], backgrounds, sequences.mean_background
        self.log_ratio = self._judge(self.log_similarity)
        self._score = ranking_score(self._similarity, backgrounds)
        score = self._score if self.log_ratio is None else self.log_ratio
        aligned = self._similarity > 0
        self.order: list[int] = np.lexsort((np.where(aligned, -score, 0), ~aligned)).tolist()

    def _check_length(self, query: str | Query) -> None:
        name, seconds = self._collection.description.name, len(self._query) / self._rate
        where = "" if isinstance(query, Query) else f" in {name}"
        subject = str(query) if isinstance(query, Query) else f"Performance {query}"
        if not seconds:
            brought = "give it one" if isinstance(query, Query) else "publish it with its features"
            raise InvalidQuery(
                f"{subject} has no chroma sequence{where}, so it cannot be aligned: ask without "
                f"rerank, or {brought}."
            )
        if seconds < STACK_SECONDS:
            raise InvalidQuery(
                f"{subject} has {seconds:.1f} s of chroma{where}, and an alignment needs at least "
                f"{STACK_SECONDS} s: ask without rerank."
            )

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


def align(collection: Collection, query: str | Query, nearest: Sequence[Match]) -> Aligned | None:
    """Align a query with its nearest matches, if its sequence is long enough."""
    return Aligned(collection, query, nearest) if _alignable(collection, [query]) else None


def _alignable(collection: Collection, asked: Sequence[str | Query]) -> list[Frames] | None:
    """Return the sequences of performances that can be aligned, or None."""
    if collection.sequences is None:
        return None
    found = sequences_of(collection, asked)
    shortest = min(map(len, found))
    return found if shortest >= STACK_SECONDS * collection.sequences.rate else None


def same_work(collection: Collection, a: str | Query, b: str | Query, match: Match) -> Match:
    """Judge b, a match of a, in both directions, so that the order does not matter."""
    sequences = _alignable(collection, [a, b])
    if sequences is None or collection.sequences is None:
        return by_distance(collection, [match])[0]
    aligned = Aligned(collection, a, [match], [b])
    backward, _ = similarities(sequences[1], [sequences[0]], collection.sequences.rate)
    mean = (aligned.log_similarity + log_similarity(backward)) / 2
    return aligned.matches([0], mean)[0]
