"""The answers of a search.

They are dataclasses, and short when they are printed. `polars.DataFrame(matches)` makes a table of
matches, and `dataclasses.asdict` a dictionary of any answer, which can be written as JSON:

>>> import json
>>> from dataclasses import asdict
>>> import search
>>> found = search.identify("P_0")
>>> found
Identification(track_id='P_0', work=Work(work_id='W_0', work_title='Work 0', ...), ...)
>>> json.loads(json.dumps(asdict(found)))["work"]["performances"][0]["work_id"]
'W_0'
"""

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from search.fields import Result
from search.versions.alignment import Alignment


def _brief(answer: object, *names: str) -> str:
    """Show the fields of an answer that say most, without those that are empty."""
    shown = []
    for name in names:
        value = getattr(answer, name)
        if value is None or value == ():
            continue
        if isinstance(value, float):
            text = f"{value:.4g}"
        elif name in ("title", "work_title", "work_artist"):
            text = reprlib.repr(value)  # in up to 30 characters
        else:
            text = repr(value)
        shown.append(f"{name}={text}")
    return f"{type(answer).__name__}({', '.join(shown)})"


@dataclass(frozen=True, repr=False)
class Match:
    """A performance that a search has found.

    Attributes
    ----------
    track_id, work_id : str
        The performance, and the work that it is a version of.
    work_title, work_artist, title, artist : str or None
        Of the work and of the performance, if known.
    year : int or None
        Year of its release, if known.
    instrumental : bool or None
        Whether it has no singing, if known.
    subset, bundle : str or None
        The part of the data that it comes from, and the encoder that made its vector.
    recording : str or None
        The path of its recording in the data set that it comes from, if it was made from one.
    clique_size : int or None
        Number of performances of its work in the collection.
    nearest_cover, clique_distance, outlier : int, float and bool, or None
        Results of an evaluation, see `search.fields.MEANINGS`.
    in_map : bool or None
        True for performances of the largest works.
    distance : float, at least 0
        Euclidean distance between the vectors of the query and of this performance.
    relative_distance : float or None
        The distance in standard deviations from what is usual for both. Far below 0, it is much
        closer than either is to others.
    same_work : bool or None
        Whether it is labelled with the work of the query; None for a query that is not in the
        collection.
    probability : float in [0, 1] or None
        The probability that it is a version of the query, judged by the alignment or, without one,
        by the distance; labels play no part. None if the bundle of the collection has no
        calibration.
    alignment : Alignment or None
        Which stretches of both match, if they were aligned.
    score : float or None
        The score that re-ranked matches are ordered by where there are no probabilities; the
        best match has the highest. None with a calibration, and for a match that could not be
        aligned.
    columns : dict
        The columns that the publisher has brought, such as `match.columns["isrc"]`; None where the
        performance has no value.
    """

    track_id: str
    work_id: str
    work_title: str | None
    work_artist: str | None
    title: str | None
    artist: str | None
    year: int | None
    instrumental: bool | None
    subset: str | None
    recording: str | None
    clique_size: int | None
    bundle: str | None
    nearest_cover: int | None
    clique_distance: float | None
    outlier: bool | None
    in_map: bool | None
    distance: float
    relative_distance: float | None
    same_work: bool | None
    probability: float | None = None
    alignment: Alignment | None = None
    score: float | None = None
    columns: Mapping[str, str | Result | None] = field(default_factory=dict, hash=False)

    def __repr__(self) -> str:
        return _brief(
            self, "track_id", "work_id", "title", "distance", "probability", "score", "same_work"
        )


@dataclass(frozen=True, repr=False)
class Work:
    """A work that a performance may be a version of.

    Attributes
    ----------
    work_id : str
        Its id.
    work_title, work_artist : str or None
        If known.
    probability : float in [0, 1]
        The probability that the performance is a version of it, or of a work in `same_as`.
    performances : tuple of Match
        The performances that give most evidence, best first, without the query: up to three of
        this work, and of each work in `same_as`.
    same_as : tuple of str
        Ids of other works that are probably this one, although they have other labels; the
        likeliest first.
    """

    work_id: str
    work_title: str | None
    work_artist: str | None
    probability: float
    performances: tuple[Match, ...]
    same_as: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return _brief(self, "work_id", "work_title", "work_artist", "probability", "same_as")


@dataclass(frozen=True, repr=False)
class Identification:
    """What a performance is a version of.

    Attributes
    ----------
    track_id : str
        The performance, or the name of the query.
    work : Work or None
        The likeliest work; None if it is likelier that no version of it is here.
    probability_of_none : float in [0, 1]
        The probability that no performance of the collection is a version of it.
    works : tuple of Work
        The likeliest works. The probabilities of works that match the same part of the performance,
        those that are not listed, and `probability_of_none` sum to 1. So two works can be probable,
        if it is a medley.
    """

    track_id: str
    work: Work | None
    probability_of_none: float
    works: tuple[Work, ...]

    def __repr__(self) -> str:
        return _brief(self, "track_id", "work", "probability_of_none")


@dataclass(frozen=True, repr=False)
class Duplicate:
    """Two performances that are probably of one work, although their labels say otherwise.

    Attributes
    ----------
    track_id, work_id : str
        The first performance, and its work.
    work_title, work_artist, title, artist : str or None
        Of the first performance, if known.
    match : Match
        The second performance, as a match of the first, with its probability.
    """

    track_id: str
    work_id: str
    work_title: str | None
    work_artist: str | None
    title: str | None
    artist: str | None
    match: Match

    def __repr__(self) -> str:
        return _brief(self, "track_id", "work_id", "title", "match")


@dataclass(frozen=True, repr=False)
class DuplicateGroup:
    """Performances that are probably of one work, although their labels say otherwise.

    It consists of pairs that share a performance, or that connect the same two works.

    Attributes
    ----------
    track_ids, work_ids : tuple of str
        The performances, and the works that they are labelled with, both sorted.
    weakest_link : Duplicate
        The pair without which the group falls into two: it would do so if `min_probability` were
        higher than the probability of this pair.
    pairs : tuple of Duplicate
        All listed pairs of the group, the most probable first.
    """

    track_ids: tuple[str, ...]
    work_ids: tuple[str, ...]
    weakest_link: Duplicate
    pairs: tuple[Duplicate, ...]

    def __repr__(self) -> str:
        return _brief(self, "track_ids", "work_ids", "weakest_link")
