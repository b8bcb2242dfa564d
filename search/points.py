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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from itertools import pairwise
from typing import Any, Self, TypeAlias
from uuid import UUID, uuid5

import numpy as np
import numpy.typing as npt

from search.errors import InvalidPoints
from search.fields import FIELDS, FILLED_IN, IN_MAP, KIND, RESULTS, fits, plain
from search.versions.calibration import Calibration, usual_distances
from search.versions.reranking import backgrounds

Vectors: TypeAlias = npt.NDArray[np.float32]
Frames: TypeAlias = npt.NDArray[np.float16]
Payload: TypeAlias = dict[str, Any]

#: The namespace of point ids, uuid5(NAMESPACE_DNS, "track.covers"). It must never change.
NAMESPACE = UUID("cee07c72-9fbf-5ce6-bb0e-2826bdd8ca19")

#: Part of every digest, so that a change of what a point looks like builds a new collection.
LAYOUT = 5

#: Mean and standard deviation of a performance's distances to the others of its collection.
USUAL_DISTANCE, USUAL_SPREAD = "usual_distance", "usual_spread"

#: Tells a performance's content from any other, see `Points.digests`.
DIGEST = "digest"

#: The name of the collection that a point is in, so that an answer says where it comes from.
COLLECTION = "collection"

#: Works whose performances are marked by `in_map`, for a picture whose colours can be told apart.
WORKS_IN_MAP = 15

#: Collections of up to this many bytes of vectors are searched exhaustively, which takes 1 ms a
#: query at 25,000 x 128. Each engine has its own way with more.
EXACT_BYTES = 32 * 2**20


def point_id(track_id: str) -> UUID:
    """Return the id of a performance's point: the uuid5 of its track id in `NAMESPACE`."""
    return uuid5(NAMESPACE, track_id.encode("utf-8", "backslashreplace").decode())


def is_exact(points: int, dimension: int) -> bool:
    """Whether a collection of this size is searched exactly."""
    return points * dimension * np.float32().nbytes <= EXACT_BYTES


@dataclass(frozen=True)
class Point:
    """A performance to publish.

    Attributes
    ----------
    track_id : str
        Its id.
    vector : array_like, shape=(d,)
        Finite numbers, which are kept as float32.
    payload : mapping
        What is known of it, by the names in `search.fields.FIELDS`. `work_id` is needed, None
        counts as unknown, and `FILLED_IN` and `RESULTS` cannot be given. `clique_size` is counted
        where it is missing.
    sequence : np.ndarray, shape=(F, 2, 12), float16, optional
        Chroma, HPCP and CREMA over time, finite; empty or None where there is none. Re-ranking
        needs it.
    background : array_like, shape=(2,), optional
        See `search.versions.reranking`. It is measured when it is first needed, unless a copy
        brings it.
    computed : mapping, optional
        Fields that are computed from other performances or found by an evaluation. Only a copy
        brings them; they are not part of the content.
    """

    track_id: str
    vector: npt.ArrayLike
    payload: Mapping[str, object]
    sequence: Frames | None = None
    background: npt.ArrayLike | None = None
    computed: Mapping[str, Any] | None = None


class Points:
    """The performances of a collection: checked, and sorted by track id.

    Parameters
    ----------
    points : iterable of Point
        In any order.
    rate : float, optional
        Frames per second of the sequences; needed if there are any.
    calibration : Calibration, optional
        Of the bundle that made the vectors. Needed to say how likely a match is.

    Attributes
    ----------
    track_ids : list of str
        In order.
    vectors : np.ndarray, shape=(n, d), float32
        Row i belongs to performance i.
    payloads : list of dict
        The known fields of performance i, `track_id` and `clique_size` included.
    sequences : list of np.ndarray or None
        None if all are empty.
    rate : float or None
        None without sequences.

    Raises
    ------
    InvalidPoints
        If there are none, or one of them is wrong; it is named.
    """

    def __init__(
        self,
        points: Iterable[Point],
        *,
        rate: float | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        ordered = _sorted(points)
        self.track_ids = [point.track_id for point in ordered]
        self.vectors = _matrix(ordered)
        self.payloads = [_payload(point) for point in ordered]
        cliques = Counter(payload["work_id"] for payload in self.payloads)
        for payload in self.payloads:
            payload.setdefault("clique_size", cliques[payload["work_id"]])
        self.sequences = _sequences(ordered, rate)
        self.rate = None if self.sequences is None or rate is None else float(rate)
        self.calibration = calibration
        #: Whether a copy brought what is computed.
        self.are_copied = all(point.computed is not None for point in ordered)
        self._computed = (
            [dict(point.computed or {}) for point in ordered]
            if self.are_copied
            else _compute(self.vectors, self.payloads)
        )
        self._background: Vectors | None = None
        if all(point.background is not None for point in ordered):
            self._background = np.array([point.background for point in ordered], np.float32)

    def __len__(self) -> int:
        return len(self.track_ids)

    def __repr__(self) -> str:
        first = ", ".join(self.track_ids[:3])
        rest = f", … ({len(self)} in all)" if len(self) > 3 else ""
        return f"Points({first}{rest}; dimension {self.dimension})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Points):
            return NotImplemented
        facts = ("track_ids", "digests", "rate", "calibration")
        return all(getattr(self, name) == getattr(other, name) for name in facts)

    __hash__ = None  # type: ignore[assignment]

    @property
    def dimension(self) -> int:
        """Number of components of a vector."""
        return int(self.vectors.shape[1])

    def payload(self, i: int, description: "Description") -> Payload:
        """Return what is stored beside vector `i` in the collection of that description."""
        return self.content(i, description) | self._computed[i]

    def content(self, i: int, description: "Description") -> Payload:
        """Return what is stored of performance `i`, without what is computed from others."""
        return {
            **self.payloads[i],
            "bundle": description.bundle,
            COLLECTION: description.name,
            DIGEST: self.digests[i],
        }

    @cached_property
    def digests(self) -> list[str]:
        """One text a performance: a digest of vector and payload, and one of the sequence if any.

        Values computed from other performances are not included.
        """
        points = [
            _digest(f"{LAYOUT} {json.dumps(payload, sort_keys=True)}".encode() + vector.tobytes())
            for vector, payload in zip(self.vectors, self.payloads, strict=True)
        ]
        if self.sequences is None:
            return points
        return [
            f"{point} {_digest(sequence.tobytes())}"
            for point, sequence in zip(points, self.sequences, strict=True)
        ]

    @property
    def has_backgrounds(self) -> bool:
        """Whether the backgrounds are known already."""
        return self._background is not None

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
        # Sorted by point id, which is effectively random: so the first ones are a fair sample.
        order = sorted(range(len(self)), key=lambda i: point_id(self.track_ids[i]).bytes)
        before = None if known is None else known[order]
        measured = backgrounds([self.sequences[i] for i in order], self.rate, before)
        found = np.empty_like(measured)
        found[order] = measured
        return found

    def describe(
        self, bundle: str, deployment: str, origin: dict[str, Any] | None = None
    ) -> "Description":
        """Name the collection these points make: by its bundle, and by what is in it.

        Parameters
        ----------
        bundle : str
            Id of the bundle that made the vectors.
        deployment : str
            What the names of all collections begin with, see `search.settings`.
        origin : dict, optional
            What the publisher notes about where the points came from, as JSON.

        Raises
        ------
        InvalidPoints
            If the bundle's id cannot be part of a name.
        """
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}", bundle):
            raise InvalidPoints(
                f"{bundle!r} cannot name a bundle: use up to 100 letters, digits, - and _."
            )
        content = _digest(
            f"{bundle} {self.rate} {self.calibration!r} {json.dumps(self.digests)}".encode()
        )
        sizes = np.array([payload["clique_size"] for payload in self.payloads])
        return Description(
            name=name_of(deployment, bundle, content),
            content=content,
            bundle=bundle,
            points=len(self),
            dimension=self.dimension,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            rate=self.rate,
            versions=float((sizes - 1).mean()),
            linked=float((sizes > 1).mean()),
            calibration=self.calibration,
            origin=origin,
        )


def name_of(deployment: str, bundle: str, content: str) -> str:
    """Return the name of a collection that is built with this content."""
    return f"{deployment}-{bundle}-{content[:8]}"


def sequence_digest(digest: str | None) -> str:
    """Return the part of a point's digest that is of its sequence; empty where there is none."""
    return (digest or "").partition(" ")[2]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _sorted(points: Iterable[Point]) -> list[Point]:
    given = list(points)
    if not given:
        raise InvalidPoints("There is no performance to publish.")
    for point in given:
        if not (point.track_id and fits("track_id", point.track_id)):
            raise InvalidPoints(
                f"{point.track_id!r} is not a track id: use a text with characters."
            )
    ordered = sorted(given, key=lambda point: point.track_id)
    for one, other in pairwise(ordered):
        if one.track_id == other.track_id:
            raise InvalidPoints(
                f"Performance {one.track_id} is there twice: leave one of them out."
            )
    return ordered


def _matrix(points: Sequence[Point]) -> Vectors:
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is found
        rows = [np.asarray(point.vector, np.float32) for point in points]
    wanted = rows[0].shape
    for point, row in zip(points, rows, strict=True):
        if row.ndim != 1 or not len(row):
            raise InvalidPoints(
                f"The vector of performance {point.track_id} has the shape {row.shape}, where it "
                "must be a list of numbers."
            )
        if row.shape != wanted:
            raise InvalidPoints(
                f"The vector of performance {point.track_id} has {len(row)} components where "
                f"{points[0].track_id} has {wanted[0]}: embed all of them with one bundle."
            )
    matrix = np.stack(rows)
    finite = np.isfinite(matrix).all(axis=1)
    if not finite.all():
        i = int(np.argmin(finite))
        at = int(np.argmin(np.isfinite(matrix[i])))
        raise InvalidPoints(
            f"The vector of performance {points[i].track_id} is not finite ({matrix[i, at]} at "
            f"component {at}): leave the performance out, or embed it again."
        )
    return matrix


def _sequences(points: Sequence[Point], rate: float | None) -> list[Frames] | None:
    """Check sequences, which may be views of a file that does not fit in memory."""
    if not any(point.sequence is not None and len(point.sequence) for point in points):
        return None
    if rate is None or not 0 < rate < np.inf:
        raise InvalidPoints(
            f"Sequences need their rate in frames per second, which cannot be {rate}."
        )
    nothing = np.empty((0, 2, 12), np.float16)
    checked = []
    for point in points:
        given = point.sequence
        sequence = nothing if given is None or not len(given) else np.asarray(given, np.float16)
        if sequence.shape[1:] != (2, 12):
            raise InvalidPoints(
                f"The sequence of performance {point.track_id} has the shape {sequence.shape}, "
                "where it must be (frames, 2, 12)."
            )
        if not np.isfinite(sequence).all():
            raise InvalidPoints(
                f"The sequence of performance {point.track_id} is not finite: leave it empty, or "
                "read the features again."
            )
        checked.append(sequence)
    return checked


def _payload(point: Point) -> Payload:
    """Check one payload, leave out what is unknown in it, and fill in the track id."""
    payload = {name: plain(value) for name, value in point.payload.items() if value is not None}
    for name, value in payload.items():
        if name not in FIELDS:
            raise InvalidPoints(
                f"The payload of performance {point.track_id} has a field {name!r} that points do "
                f"not have: the fields are {', '.join(FIELDS)}."
            )
        if name in RESULTS:
            raise InvalidPoints(
                f"The payload of performance {point.track_id} has {name!r}, which only an "
                "evaluation finds out: leave it out, and write it with the engine's `annotate` "
                "afterwards."
            )
        if name in FILLED_IN:
            raise InvalidPoints(
                f"The payload of performance {point.track_id} has {name!r}, which publishing fills "
                "in: leave it out."
            )
        if not fits(name, value):
            raise InvalidPoints(
                f"{name} of performance {point.track_id} cannot be {value!r}: it is "
                f"{KIND[FIELDS[name]]}."
            )
    if not payload.get("work_id"):
        raise InvalidPoints(f"Performance {point.track_id} has no work_id: give it its work.")
    if payload.setdefault("track_id", point.track_id) != point.track_id:
        raise InvalidPoints(
            f"The payload of performance {point.track_id} has track_id {payload['track_id']}."
        )
    return payload


def _compute(vectors: Vectors, payloads: Sequence[Payload]) -> list[Payload]:
    """Compute the fields of each performance that depend on the others."""
    sizes = Counter(payload["work_id"] for payload in payloads)
    cliques = sorted((-size, work_id) for work_id, size in sizes.items() if size > 1)
    in_map = {work_id for _, work_id in cliques[:WORKS_IN_MAP]}
    computed: list[Payload] = []
    usual = usual_distances(vectors).round(6).tolist()
    for payload, (mean, spread) in zip(payloads, usual, strict=True):
        found: Payload = {USUAL_DISTANCE: mean, USUAL_SPREAD: spread}
        if payload["work_id"] in in_map:
            found[IN_MAP] = True
        computed.append(found)
    return computed


@dataclass(frozen=True)
class Description:
    """What a collection says of itself.

    Attributes
    ----------
    name : str
        <deployment>-<bundle>-<eight digits of the hash of the content it was built with>, and a
        number after it where that was taken.
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
        How far to trust its distances; None where the bundle does not know.
    origin : dict or None
        What the publisher noted about where the points came from, as JSON; `search` passes it on.
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
    origin: dict[str, Any] | None

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """The inverse of `dataclasses.asdict`, also after JSON has made lists of tuples.

        Raises
        ------
        KeyError, TypeError, ValueError
            If it is something else.
        """
        known = dict(content)
        if known["calibration"] is not None:
            known["calibration"] = Calibration.from_json(known["calibration"])
        return cls(**known)
