"""The points of a collection: a point is a performance, with its vector and a payload.

Distances are Euclidean. A point's id follows from its track id, so a performance is found without a
search, and writing it twice gives a single point. Another version of the points is another
collection, and the current collection is then exchanged. If little differs and the engine can do
it, the current collection is changed instead, point by point, by the digest that each point has.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Self

import numpy as np

from search.errors import InvalidPoints
from search.fields import IN_MAP
from search.point import (
    Payload,
    Point,
    Vectors,
    check_columns,
    check_payload,
    check_sequences,
    point_id,
    sort,
    stack_vectors,
)
from search.versions import hidden
from search.versions.calibration import Calibration, usual_distances
from search.versions.hidden import Hidden
from search.versions.reranking import backgrounds
from search.words import WORDS, words_of

#: Part of every digest, so that another layout of the points gives a new collection.
LAYOUT = 8

#: Mean and standard deviation of a performance's distances to the nearer half of its collection.
USUAL_DISTANCE, USUAL_SPREAD = "usual_distance", "usual_spread"

#: The field of a digest of the performance's content, see `Points.digests`.
DIGEST = "digest"

#: The field of the name of the point's collection, so that an answer says where it comes from.
COLLECTION = "collection"

#: Number of works that `in_map` marks, so that a picture has colours that can be told apart.
WORKS_IN_MAP = 15

#: Collections of up to this many bytes of vectors are searched exhaustively, which takes 1 ms a
#: query at 25,000 x 128. Each engine searches larger collections in its own way.
EXACT_BYTES = 32 * 2**20


#: A catalogue whose labels are incomplete may hold unknown versions. Where they are not estimated,
#: a performance is expected to have this many versions, and this share to have one, at least.
MIN_VERSIONS, MIN_LINKED = 0.5, 0.2


def is_exact(points: int, dimension: int) -> bool:
    """Whether a collection of this size is searched exactly."""
    return points * dimension * np.float32().nbytes <= EXACT_BYTES


class Points:
    """The performances of a collection: checked, and sorted by track id.

    Parameters
    ----------
    points : iterable of Point
        In any order.
    rate : float, optional
        Frames per second of the sequences; needed if there are any.
    calibration : Calibration, optional
        Of the bundle that made the vectors. Without it, matches have no probability.
    columns : mapping of str to str, optional
        Up to `search.fields.MAX_COLUMNS` columns of your own in the payloads, and for each what it
        holds: a name in `search.fields.KINDS`, such as {"isrc": "text"}.

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
    columns : dict
        As given.

    Raises
    ------
    InvalidPoints
        If there are no points, or a point is wrong; the message names it.
    """

    def __init__(
        self,
        points: Iterable[Point],
        *,
        rate: float | None = None,
        calibration: Calibration | None = None,
        columns: Mapping[str, str] | None = None,
    ) -> None:
        ordered = sort(points)
        self.columns = check_columns(columns or {})
        self.track_ids = [point.track_id for point in ordered]
        self.vectors = stack_vectors(ordered)
        self.payloads = [check_payload(point, self.columns) for point in ordered]
        cliques = Counter(payload["work_id"] for payload in self.payloads)
        for payload in self.payloads:
            payload.setdefault("clique_size", cliques[payload["work_id"]])
        self.sequences = check_sequences(ordered, rate)
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
        facts = ("track_ids", "digests", "rate", "calibration", "columns")
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
            WORDS: words_of(self.payloads[i]),
            "bundle": description.bundle,
            COLLECTION: description.name,
            DIGEST: self.digests[i],
        }

    @cached_property
    def digests(self) -> list[str]:
        """A digest of vector and payload per performance, and of its sequence if there is one.

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
        """Return how much each performance resembles unrelated ones, shape=(n, 2).

        Parameters
        ----------
        known : np.ndarray, shape=(n, 2), optional
            What was measured before, with NaN in the rows that are to be measured.

        Raises
        ------
        ValueError
            If there are no sequences.
        """
        if self._background is None:
            self._background = self._measure(known)
        return self._background

    def backgrounds_of(self, rows: Sequence[int]) -> Vectors:
        """Measure the backgrounds of some rows, shape=(len(rows), 2)."""
        known = np.zeros((len(self), 2), np.float32)
        known[list(rows)] = np.nan
        return self._measure(known)[list(rows)]

    def _measure(self, known: Vectors | None) -> Vectors:
        if self.sequences is None or self.rate is None:
            raise ValueError("There are no sequences to measure backgrounds of.")
        # Sorted by point id, which is effectively random, so the first ones are a fair sample.
        order = sorted(range(len(self)), key=lambda i: point_id(self.track_ids[i]).bytes)
        before = None if known is None else known[order]
        measured = backgrounds([self.sequences[i] for i in order], self.rate, before)
        found = np.empty_like(measured)
        found[order] = measured
        return found

    def hidden(self) -> Hidden | None:
        """Estimate the versions that no label links; None if nothing can be aligned and judged."""
        if self.sequences is None or self.rate is None:
            return None
        if self.calibration is None or self.calibration.alignment is None:
            return None
        return hidden.estimate(
            self.vectors,
            np.array([payload["work_id"] for payload in self.payloads]),
            np.array([[each[USUAL_DISTANCE], each[USUAL_SPREAD]] for each in self._computed]),
            self.sequences,
            self.rate,
            self.backgrounds(),
            self.calibration.alignment,
        )

    def describe(
        self, bundle: str, deployment: str, origin: dict[str, Any] | None = None
    ) -> "Description":
        """Describe the collection of these points. Its name has a hash of the content.

        Parameters
        ----------
        bundle : str
            Id of the bundle that made the vectors.
        deployment : str
            The beginning of the names of all collections, see `search.settings`.
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
            columns=self.columns,
        )


def name_of(deployment: str, bundle: str, content: str) -> str:
    """Return the name of a collection that is built with this content."""
    return f"{deployment}-{bundle}-{content[:8]}"


def sequence_digest(digest: str | None) -> str:
    """Return the part of a digest that is about the sequence; empty if there is none."""
    return (digest or "").partition(" ")[2]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


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
    """What a collection says about itself.

    Attributes
    ----------
    name : str
        <deployment>-<bundle>-<eight digits of the hash of the content it was built with>, and a
        number if that name was taken.
    content : str
        Hash of its content; empty during a change, and after a change that was interrupted.
    bundle : str
        Id of the bundle that made the vectors.
    points : int
        Number of performances.
    dimension : int
        Number of components of a vector.
    created : str
        When it was built or last changed, ISO 8601 in UTC.
    rate : float or None
        Frames per second of the sequences; None if there are none.
    versions : float, at least 0
        Mean number of other performances of the same work.
    linked : float in [0, 1]
        Share of the performances whose work has another performance in the collection.
    hidden : Hidden or None
        What an estimate adds to both: versions that no label links. None if it was not made.
    calibration : Calibration or None
        Calibration of the distances; None if the bundle has none.
    origin : dict or None
        What the publisher noted about where the points came from, as JSON; `search` passes it on.
    columns : dict
        The columns that the publisher has brought, and what each holds, see `search.fields.KINDS`.
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
    columns: dict[str, str] = field(default_factory=dict)
    hidden: Hidden | None = None

    @property
    def hidden_versions(self) -> float:
        """Mean number of versions of a performance that have another label."""
        return MIN_VERSIONS if self.hidden is None else self.hidden.versions

    @property
    def expected_versions(self) -> float:
        """Mean number of versions of a performance, with any label."""
        if self.hidden is None:
            return max(self.versions, MIN_VERSIONS)
        return self.versions + self.hidden.versions

    @property
    def expected_linked(self) -> float:
        """Share of the performances that have a version, with any label."""
        if self.hidden is None:
            return max(self.linked, MIN_LINKED)
        return self.linked + (1 - self.linked) * self.hidden.linked

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """The inverse of `dataclasses.asdict`, also after JSON has made lists of tuples.

        Raises
        ------
        KeyError, TypeError, ValueError
            If `content` is something else.
        """
        known = dict(content)
        if known["calibration"] is not None:
            known["calibration"] = Calibration.from_json(known["calibration"])
        if known.get("hidden") is not None:
            known["hidden"] = Hidden(**known["hidden"])
        return cls(**known)
