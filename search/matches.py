"""What a search answers with."""

from dataclasses import dataclass

from search.versions.alignment import Alignment


@dataclass(frozen=True)
class Match:
    """A performance near to the query.

    Attributes
    ----------
    track_id, work_id : str
        The performance, and the work it is a version of.
    title, work_title, artist, work_artist : str or None
        Of the performance and of the work, where known.
    year : int or None
        When the performance was released, where known.
    distance : float, at least 0
        Euclidean, between the query's vector and this one's.
    relative_distance : float or None
        In standard deviations from what is usual for the two, added up: far below 0 is much nearer
        than either is to others. None for a query that is only a vector.
    same_work : bool or None
        Whether it is labelled as of the query's work; None for a query that is only a vector.
    probability : float in [0, 1] or None
        That it is a version of the query, judged by the alignment where there is one, and by the
        distance where there is none; labels play no part in it. None in a collection whose bundle
        isn't calibrated.
    alignment : Alignment or None
        Which stretch of it matches which of the query, where the two were aligned.
    """

    track_id: str
    work_id: str
    title: str | None
    work_title: str | None
    artist: str | None
    work_artist: str | None
    year: int | None
    distance: float
    relative_distance: float | None
    same_work: bool | None
    probability: float | None = None
    alignment: Alignment | None = None


@dataclass(frozen=True)
class Work:
    """A work that a performance may be a version of.

    Attributes
    ----------
    work_id : str
    work_title, work_artist : str or None
        Where known.
    probability : float in [0, 1]
        That the performance is a version of it.
    performances : tuple of Match
        Those of its performances that speak for it most, first; the query isn't among them.
    """

    work_id: str
    work_title: str | None
    work_artist: str | None
    probability: float
    performances: tuple[Match, ...]


@dataclass(frozen=True)
class Identification:
    """What a performance is a version of.

    Attributes
    ----------
    track_id : str
        The performance that was asked for.
    work : Work or None
        The likeliest, or None where it is likelier that there is no version of it here.
    none : float in [0, 1]
        Probability that no performance of the collection is a version of it.
    works : tuple of Work
        The likeliest works; with `none` and those left out, their probabilities sum to 1.
    """

    track_id: str
    work: Work | None
    none: float
    works: tuple[Work, ...]


@dataclass(frozen=True)
class Duplicate:
    """Two performances that are probably of one work, although they are labelled otherwise.

    Attributes
    ----------
    track_id, work_id : str
        One of them.
    title, work_title, artist, work_artist : str or None
        Of it, where known.
    match : Match
        The other, as it is seen from this one, with its probability.
    """

    track_id: str
    work_id: str
    title: str | None
    work_title: str | None
    artist: str | None
    work_artist: str | None
    match: Match
