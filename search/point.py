"""A performance to publish, and the checks of its values."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias
from uuid import UUID, uuid5

import numpy as np
import numpy.typing as npt

from search.errors import InvalidPoints
from search.fields import (
    FILLED_IN,
    KIND,
    KINDS,
    MAX_COLUMNS,
    MEANINGS,
    RESULTS,
    fields_of,
    fits,
    plain,
)

Vectors: TypeAlias = npt.NDArray[np.float32]
Frames: TypeAlias = npt.NDArray[np.float16]
Payload: TypeAlias = dict[str, Any]

#: The namespace of point ids, uuid5(NAMESPACE_DNS, "track.covers"). It must never change.
NAMESPACE = UUID("cee07c72-9fbf-5ce6-bb0e-2826bdd8ca19")


def point_id(track_id: str) -> UUID:
    """Return the id of a performance's point: the uuid5 of its track id in `NAMESPACE`."""
    return uuid5(NAMESPACE, track_id.encode("utf-8", "backslashreplace").decode())


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
        The known fields, by the names in `search.fields.FIELDS`, and the columns of the publisher
        that `Points` is given. `work_id` is needed, None counts as unknown, and `FILLED_IN` and
        `RESULTS` cannot be given. If `clique_size` is missing, it is counted.
    sequence : np.ndarray, shape=(F, 2, 12), float16, optional
        HPCP and CREMA over time, finite; empty or None if there is none. Re-ranking needs it.
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


def sort(points: Iterable[Point]) -> list[Point]:
    """Sort points by their track ids, which must all be different."""
    given = list(points)
    if not given:
        raise InvalidPoints("There is no performance to publish.")
    for point in given:
        if not (point.track_id and fits(str, point.track_id)):
            raise InvalidPoints(
                f"{point.track_id!r} is not a track id: use a text with characters."
            )
    ordered = sorted(given, key=lambda point: point.track_id)
    for first, second in pairwise(ordered):
        if first.track_id == second.track_id:
            raise InvalidPoints(
                f"Performance {first.track_id} is there twice: leave one of them out."
            )
    return ordered


def stack_vectors(points: Sequence[Point]) -> Vectors:
    """Return the vectors as a matrix, shape=(n, d)."""
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


def check_sequences(points: Sequence[Point], rate: float | None) -> list[Frames] | None:
    """Return the sequences; None if all are empty.

    They may be views of a file that does not fit in memory.
    """
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


def check_columns(columns: Mapping[str, str]) -> dict[str, str]:
    """Check the columns of a publisher: their number, names and kinds."""
    if len(columns) > MAX_COLUMNS:
        raise InvalidPoints(
            f"There are {len(columns)} columns beside the known fields: bring up to {MAX_COLUMNS}."
        )
    for name, kind in columns.items():
        if name in MEANINGS or not name.isprintable() or not name or {*name} & {*'"\\'}:
            raise InvalidPoints(
                f"{name!r} cannot name a column: use a name that no field has, without quotes and "
                "backslashes."
            )
        if kind not in KINDS:
            raise InvalidPoints(
                f"Column {name!r} cannot hold {kind!r}: the kinds are {', '.join(KINDS)}."
            )
    return dict(columns)


def check_payload(point: Point, columns: Mapping[str, str]) -> Payload:
    """Return the known fields of a payload, its columns, and the track id."""
    fields = fields_of(columns)
    payload = {name: plain(value) for name, value in point.payload.items() if value is not None}
    for name, value in payload.items():
        if name not in fields:
            raise InvalidPoints(
                f"The payload of performance {point.track_id} has a field {name!r} that points do "
                f"not have: the fields are {', '.join(fields)}. `Points` takes further `columns`."
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
        if not fits(fields[name], value):
            raise InvalidPoints(
                f"{name} of performance {point.track_id} cannot be {value!r}: it is "
                f"{KIND[fields[name]]}."
            )
    if not payload.get("work_id"):
        raise InvalidPoints(f"Performance {point.track_id} has no work_id: give it its work.")
    if payload.setdefault("track_id", point.track_id) != point.track_id:
        raise InvalidPoints(
            f"The payload of performance {point.track_id} has track_id {payload['track_id']}."
        )
    return payload
