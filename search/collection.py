"""What a collection is: one point a performance, with its vector and a payload to read and filter.

Distances are Euclidean. A point's id follows from its track id, so a performance is found without
searching for it, and writing it twice gives one point. Another version is another collection, and
what is current moves to it; only where little differs, and the engine can do it, does the current
collection become the other version itself, point by point, by the digest that each carries.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, Self, TypeAlias
from uuid import UUID, uuid5

import numpy as np
import numpy.typing as npt

from search.calibration import Calibration, usual_distances
from search.errors import InvalidPoints
from search.fields import FIELDS, KIND, RESULTS, Condition, Result, fits
from search.reranking import backgrounds

Vectors: TypeAlias = npt.NDArray[np.float32]
Frames: TypeAlias = npt.NDArray[np.float16]
Payload: TypeAlias = dict[str, Any]

#: The namespace of point ids, uuid5(NAMESPACE_DNS, "track.covers"). It must never change.
NAMESPACE = UUID("cee07c72-9fbf-5ce6-bb0e-2826bdd8ca19")

#: Goes into a collection's name, so that a change of what a point looks like builds a new one.
LAYOUT = 4

#: The field that isn't given but computed: mean and standard deviation of a performance's distances
#: to others.
USUAL_DISTANCE = "usual_distance"

#: Another such field: what tells a performance's content from any other, see `Points.digests`.
DIGEST = "digest"

#: Vectors of up to so many bytes are compared one by one as they are, which is exact and takes 1 ms
#: a query at 25,000 x 128. How an engine does with more is its own.
EXACT_BYTES = 32 * 2**20


def point_id(track_id: str) -> UUID:
    """Return the id of a performance's point: the uuid5 of its track id in `NAMESPACE`."""
    return uuid5(NAMESPACE, track_id.encode("utf-8", "backslashreplace").decode())


def is_exact(points: int, dimension: int) -> bool:
    """Whether a collection of this size is searched exactly."""
    return points * dimension * np.float32().nbytes <= EXACT_BYTES


@dataclass
class Points:
    """The performances to publish: checked, and sorted by track id.

    Attributes
    ----------
    track_ids : sequence of str
        One a performance, none of them twice.
    vectors : np.ndarray, shape=(n, d), float32
        Row i is of performance i; finite.
    payloads : sequence of dict
        What is known of performance i, by the names in `search.fields.FIELDS` but for its
        `RESULTS`; None is left out.
        `work_id` is needed. `track_id` is filled in, and `clique_size`, where it isn't given, with
        the number of the work's performances among these.
    sequences : sequence of np.ndarray, each shape=(F, 2, 12), float16, optional
        Chroma of performance i, HPCP and CREMA over time, finite; empty where there is none. Needed
        to re-rank, and None where all are empty.
    rate : float, optional
        Frames a second of the sequences; None without any.
    calibration : Calibration, optional
        Of the bundle that made the vectors. Needed to say how likely a match is.
    usual : sequence of [float, float], optional
        Usual distance of performance i. Computed, unless a copy brings what was published.
    background : np.ndarray, shape=(n, 2), float32, optional
        Of performance i, see `search.reranking`. Measured when it is first needed, unless a copy
        brings what was published.
    results : sequence of dict, optional
        What an evaluation found out about performance i. Only a copy brings it: it is written into
        collections that stand (`search.annotate`), and no part of the content that names them.

    Raises
    ------
    InvalidPoints
        Naming the first performance that is wrong.
    """

    track_ids: Sequence[str]
    vectors: Vectors
    payloads: Sequence[Mapping[str, object]]
    sequences: Sequence[Frames] | None = None
    rate: float | None = None
    calibration: Calibration | None = None
    usual: Sequence[Sequence[float]] | None = None
    background: Vectors | None = None
    results: Sequence[Mapping[str, Result]] | None = None

    def __post_init__(self) -> None:
        counts = len(self.track_ids), len(self.vectors), len(self.payloads)
        if len(set(counts)) > 1:
            raise InvalidPoints(
                "Each performance needs a track id, a vector and a payload: there are {} ids, {} "
                "vectors and {} payloads.".format(*counts)
            )
        if not counts[0]:
            raise InvalidPoints("There is no performance to publish.")
        for track_id in self.track_ids:
            if not (track_id and fits("track_id", track_id)):
                raise InvalidPoints(f"{track_id!r} is no track id: it must be a non-empty text.")
        if counts[0] > len(set(self.track_ids)):
            twice = Counter(self.track_ids).most_common(1)[0][0]
            raise InvalidPoints(f"Performance {twice} is there twice: leave one of them out.")
        vectors = _matrix(self.track_ids, self.vectors)
        order = sorted(range(counts[0]), key=self.track_ids.__getitem__)
        payloads = [_payload(self.track_ids[i], self.payloads[i]) for i in order]
        cliques = Counter(payload["work_id"] for payload in payloads)
        for payload in payloads:
            payload.setdefault("clique_size", cliques[payload["work_id"]])
        self.sequences, self.rate = _sequences(self.track_ids, self.sequences, self.rate)
        if self.sequences is not None:
            self.sequences = [self.sequences[i] for i in order]
        self.track_ids = [self.track_ids[i] for i in order]
        self.vectors = vectors[order]
        self.payloads = payloads
        if self.usual is not None:
            self.usual = [list(self.usual[i]) for i in order]
        if self.background is not None:
            self.background = np.asarray(self.background, np.float32)[order]
        if self.results is not None:
            self.results = [self.results[i] for i in order]
        self._usual = self.usual or usual_distances(self.vectors).round(6).tolist()
        self._background = self.background

    def __len__(self) -> int:
        return len(self.track_ids)

    @property
    def dimension(self) -> int:
        """Number of components of a vector."""
        return int(self.vectors.shape[1])

    def payload(self, i: int, bundle: str) -> Payload:
        """Return what is stored beside vector `i` when it comes from `bundle`."""
        results = {} if self.results is None else self.results[i]
        return {
            **self.payloads[i],
            "bundle": bundle,
            USUAL_DISTANCE: self._usual[i],
            DIGEST: self.digests[i],
            **results,
        }

    @cached_property
    def digests(self) -> list[list[str]]:
        """Digests of what is given of each performance: of vector and payload, and of its sequence.

        What is computed from the other performances is no part of them.
        """
        points = [
            _digest(f"{LAYOUT} {json.dumps(payload, sort_keys=True)}".encode() + vector.tobytes())
            for vector, payload in zip(self.vectors, self.payloads, strict=True)
        ]
        if self.sequences is None:
            return [[point, ""] for point in points]
        sequences = [_digest(sequence.tobytes()) for sequence in self.sequences]
        return [list(both) for both in zip(points, sequences, strict=True)]

    def backgrounds(self, known: Vectors | None = None) -> Vectors:
        """Return how much each performance resembles others anyway, shape=(n, 2).

        Parameters
        ----------
        known : np.ndarray, shape=(n, 2), optional
            What was measured before and need not be again, NaN where nothing was; row i is of
            performance i.

        Raises
        ------
        ValueError
            If there are no sequences to tell it by.
        """
        if self._background is None:
            self._background = self._measure(known)
        return self._background

    def backgrounds_of(self, rows: Sequence[int]) -> Vectors:
        """Measure some backgrounds, shape=(len(rows), 2), as `backgrounds` would all of them."""
        known = np.zeros((len(self), 2), np.float32)
        known[list(rows)] = np.nan
        return self._measure(known)[list(rows)]

    def _measure(self, known: Vectors | None) -> Vectors:
        if self.sequences is None or self.rate is None:
            raise ValueError("There are no sequences to measure backgrounds of.")
        # By point id, which is no order of theirs: so the first of them are a fair sample.
        order = sorted(range(len(self)), key=lambda i: point_id(self.track_ids[i]).bytes)
        before = None if known is None else known[order]
        measured = backgrounds([self.sequences[i] for i in order], self.rate, before)
        found = np.empty_like(measured)
        found[order] = measured
        return found

    def describe(self, bundle: str) -> "Description":
        """Name the collection these points make: by its bundle, and by what is in it.

        Raises
        ------
        InvalidPoints
            If the bundle's id can't be part of a name.
        """
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}", bundle):
            raise InvalidPoints(
                f"{bundle!r} can't name a bundle: use up to 100 letters, digits, - and _."
            )
        content = _digest(
            f"{bundle} {self.rate} {self.calibration!r} {json.dumps(self.digests)}".encode()
        )
        sizes = np.array([payload["clique_size"] for payload in self.payloads])
        return Description(
            name=name_of(bundle, content),
            content=content,
            bundle=bundle,
            points=len(self),
            dimension=self.dimension,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            rate=self.rate,
            versions=float((sizes - 1).mean()),
            linked=float((sizes > 1).mean()),
            calibration=self.calibration,
        )


def name_of(bundle: str, content: str) -> str:
    """Return the name of a collection that is built with this content."""
    return f"covers-{bundle}-{content[:8]}"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _matrix(track_ids: Sequence[str], vectors: Any) -> Vectors:
    """Make one float32 array of the vectors, which may come as a list of rows."""
    lengths = {} if isinstance(vectors, np.ndarray) else {len(row): None for row in vectors}
    if len(lengths) > 1:
        wanted = len(vectors[0])
        odd = next(i for i, row in enumerate(vectors) if len(row) != wanted)
        raise InvalidPoints(
            f"The vector of performance {track_ids[odd]} has {len(vectors[odd])} components where "
            f"the others have {wanted}: embed them with one bundle."
        )
    with np.errstate(over="ignore"):  # what float32 can't hold becomes infinite, and is found
        matrix = np.ascontiguousarray(vectors, dtype=np.float32)
    if matrix.ndim != 2 or not matrix.shape[1]:
        raise InvalidPoints(
            f"Vectors must be an array of shape (performances, dimension), not {matrix.shape}."
        )
    finite = np.isfinite(matrix).all(axis=1)
    if not finite.all():
        i = int(np.argmin(finite))
        at = int(np.argmin(np.isfinite(matrix[i])))
        raise InvalidPoints(
            f"The vector of performance {track_ids[i]} is not finite ({matrix[i, at]} at component "
            f"{at}): leave the performance out, or embed it again."
        )
    return matrix


def _sequences(
    track_ids: Sequence[str], sequences: Sequence[Any] | None, rate: float | None
) -> tuple[Sequence[Frames] | None, float | None]:
    """Check sequences, which may be views of a file that doesn't fit in memory."""
    if sequences is None or not any(map(len, sequences)):
        return None, None
    if len(sequences) != len(track_ids):
        raise InvalidPoints(
            f"Each performance needs a sequence, if only an empty one: there are {len(track_ids)} "
            f"ids and {len(sequences)} sequences."
        )
    if rate is None or not 0 < rate < np.inf:
        raise InvalidPoints(f"Sequences need their rate in frames a second, which can't be {rate}.")
    nothing = np.empty((0, 2, 12), np.float16)
    checked = [np.asarray(each, np.float16) if len(each) else nothing for each in sequences]
    for track_id, sequence in zip(track_ids, checked, strict=True):
        if sequence.shape[1:] != (2, 12):
            raise InvalidPoints(
                f"The sequence of performance {track_id} has the shape {sequence.shape}, where it "
                "must be (frames, 2, 12)."
            )
        if not np.isfinite(sequence).all():
            raise InvalidPoints(
                f"The sequence of performance {track_id} is not finite: leave it empty, or read "
                "the features again."
            )
    return checked, float(rate)


def _payload(track_id: str, given: Mapping[str, object]) -> Payload:
    """Check one payload, leave out what is unknown in it, and fill in the track id."""
    payload = {name: value for name, value in given.items() if value is not None}
    for name, value in payload.items():
        if name not in FIELDS:
            raise InvalidPoints(
                f"The payload of performance {track_id} has a field {name!r} that a point hasn't: "
                f"the fields are {', '.join(FIELDS)}."
            )
        if name in RESULTS:
            raise InvalidPoints(
                f"The payload of performance {track_id} has {name!r}, which only an evaluation "
                "finds out: leave it out, and write it with search.annotate afterwards."
            )
        if not fits(name, value):
            raise InvalidPoints(
                f"{name} of performance {track_id} can't be {value!r}: it is {KIND[FIELDS[name]]}."
            )
    if not payload.get("work_id"):
        raise InvalidPoints(f"Performance {track_id} has no work_id: give it its work.")
    if payload.setdefault("track_id", track_id) != track_id:
        raise InvalidPoints(
            f"The payload of performance {track_id} says it were {payload['track_id']}."
        )
    return payload


@dataclass(frozen=True)
class Description:
    """What a collection says of itself.

    Attributes
    ----------
    name : str
        covers-<bundle>-<eight digits of the hash of the content it was built with>, and a number
        after it where that was taken.
    content : str
        Hash of its content; empty while it is being changed, or if that was broken off.
    bundle : str
        Id of the bundle that made the vectors.
    points : int
        Number of performances.
    dimension : int
        Of their vectors.
    created : str
        When it was built or last changed, ISO 8601 in UTC.
    rate : float or None
        Frames a second of the sequences it holds; None without any.
    versions : float, at least 0
        How many others of its work a performance has here, on average.
    linked : float in [0, 1]
        Share of the performances whose work has another one here.
    calibration : Calibration or None
        How far to trust its distances; None where the bundle doesn't know.
    """

    name: str
    content: str
    bundle: str
    points: int
    dimension: int
    created: str
    rate: float | None
    versions: float
    linked: float
    calibration: Calibration | None

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """The inverse of `dataclasses.asdict`, also after JSON has made lists of tuples.

        Raises
        ------
        KeyError, TypeError, ValueError
            If it is something else.
        """
        # What earlier versions published says less of itself.
        known = {
            "content": content["name"].rpartition("-")[2],
            "rate": None,
            "versions": 0.0,
            "linked": 0.0,
            "calibration": None,
            **content,
        }
        if known["calibration"] is not None:
            known["calibration"] = Calibration.from_json(known["calibration"])
        return cls(**known)


@dataclass(frozen=True)
class Stored:
    """One performance as the collection holds it: vector of shape (d,), and payload."""

    vector: Vectors
    payload: Payload


@dataclass(frozen=True)
class Candidate:
    """A performance near to a query, at this Euclidean distance."""

    distance: float
    payload: Payload


class Sequences(Protocol):
    """The sequences of a collection, and the background of each."""

    @property
    def rate(self) -> float:
        """Frames a second."""

    @property
    def mean_background(self) -> float:
        """The mean of the first column over all performances of the collection."""

    def count(self) -> int:
        """Count them, the empty ones too."""

    def of(self, track_ids: Sequence[str]) -> list[Frames]:
        """Return the sequences of performances of the collection, each shape=(F, 2, 12)."""

    def backgrounds(self, track_ids: Sequence[str]) -> Vectors:
        """Return the backgrounds of performances of the collection, shape=(n, 2)."""


class Collection(Protocol):
    """One published collection, open for searching.

    Where the engine changes it meanwhile, each performance is its old or its new self. Every method
    may raise `CollectionGone` where the collection can be pruned or changed while it is open.
    """

    @property
    def description(self) -> Description:
        """What it says of itself."""

    @property
    def sequences(self) -> Sequences | None:
        """The chroma to align; None where none is kept."""

    def count(self) -> int:
        """Count its performances, exactly."""

    def performances(self, track_ids: Sequence[str]) -> list[Stored | None]:
        """Look performances up; None where there is none of that id."""

    def nearest(
        self, vectors: Vectors, limit: int, conditions: Sequence[Condition]
    ) -> list[list[Candidate]]:
        """Find, for each row of `vectors`, the `limit` nearest that meet all conditions.

        Nearest first; which of several equally near ones are cut off is left open.
        """

    def some_track_ids(self, limit: int) -> list[str]:
        """Return up to `limit` track ids, always the same ones."""

    def everything(self) -> Iterator[Stored]:
        """Go through all performances, by point id, which is no order of theirs."""


class Engine(Protocol):
    """Where collections are kept, with a pointer to the current one and to those before it."""

    @property
    def kind(self) -> str:
        """'embedded' or 'server': snapshots are of the one or the other."""

    @property
    def location(self) -> str:
        """Where that is, in words for a person."""

    @property
    def lock(self) -> Path:
        """A file that is locked by whoever publishes here."""

    def names(self) -> list[str]:
        """Names of all that was ever begun here and not dropped."""

    def history(self) -> list[str]:
        """Names of the collections that were current: the current one first."""

    def describe(self, name: str) -> Description:
        """What a whole collection says of itself."""

    def build(self, description: Description, points: Points) -> None:
        """Write a collection, unseen by searchers, in place of what has its name."""

    def change(self, description: Description, points: Points) -> list[int] | None:
        """Make the collection of that name hold these points, while it is searched.

        Only what differs is written; a change that was broken off is completed by the next one.

        Returns
        -------
        list of int or None
            Rows of the points that were written; None, and nothing is changed, where this engine
            would rather build a new collection.
        """

    def annotate(self, name: str, values: Mapping[str, Mapping[str, Result | None]]) -> None:
        """Write fields of performances that a collection holds, while it is searched.

        By track id; None removes a field. Searchers see the values at their next query.
        """

    def serve(self, history: Sequence[str]) -> None:
        """Make the first name current, at once for every searcher, and remember the others."""

    def drop(self, name: str) -> None:
        """Remove a collection, whole or not."""

    def save(self, name: str, directory: Path) -> None:
        """Write a collection as files of the engine's own into an empty directory."""

    def load(self, name: str, directory: Path) -> None:
        """Build a collection, unseen by searchers, from what `save` wrote."""

    def open(self, name: str | None = None) -> Collection:
        """Open a collection, by default the current one; raises `NoCollection` without one."""
