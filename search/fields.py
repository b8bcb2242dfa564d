"""The fields of a point's payload, and the small form of a filter over them.

A filter is written `where={"instrumental": True, "year": (1960, None), "work_artist": ["A", "B"]}`:
a value asks for equality, a list for any of its values, and a pair of a field of numbers for an
inclusive range, open at an end that is None. All of them must hold, and a performance that lacks a
field meets no condition on it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from search.errors import InvalidQuery

Value: TypeAlias = str | int | bool
Result: TypeAlias = int | float | bool

#: What a payload can hold, by the names that a dashboard shows, and the type of each. Any of them
#: can be filtered by; where one is indexed, it is as a keyword, an integer, a float or a bool.
FIELDS: dict[str, type[str] | type[int] | type[bool] | type[float]] = {
    "track_id": str,
    "work_id": str,
    "work_title": str,
    "work_artist": str,
    "title": str,
    "artist": str,
    "year": int,
    "instrumental": bool,
    "subset": str,
    "clique_size": int,
    "bundle": str,
    "nearest_cover": int,
    "clique_distance": float,
    "outlier": bool,
    "in_map": bool,
}

#: Those that an evaluation finds out about a performance after it is published.
RESULTS = ("nearest_cover", "clique_distance", "outlier")

#: Marks the performances of the largest works; the others do not have the field.
IN_MAP = "in_map"

#: Those that publishing fills in by itself.
FILLED_IN = ("bundle", IN_MAP)

#: What the fields say, for whoever opens a collection in a dashboard.
MEANINGS = {
    "track_id": "the performance",
    "work_id": "the work it is a performance of; versions share it",
    "work_title": "title of the work",
    "work_artist": "who wrote the work, or played it first",
    "title": "title of the performance",
    "artist": "who plays it",
    "year": "when it came out",
    "instrumental": "whether nobody sings",
    "subset": "the part of the data it comes from",
    "clique_size": "how many performances of its work are here, itself included",
    "bundle": "the encoder that made the vector",
    "nearest_cover": "rank of its nearest version among all others; 1 where nothing is nearer",
    "clique_distance": "mean distance to its versions",
    "outlier": "whether that is further than nearly all others are from their versions",
    "in_map": "true for the performances of the largest works, to draw these alone",
    "usual_distance": "mean of its distances to others",
    "usual_spread": "standard deviation of its distances to others",
    "digest": "changes with the content of the performance and of its sequence",
    "collection": "the collection that the point is in",
}

KIND = {str: "text", int: "an integer", bool: "true or false", float: "a number"}

# What Qdrant's integer indexes hold.
LOWEST, HIGHEST = -(2**63), 2**63 - 1


@dataclass(frozen=True)
class AnyOf:
    """The field holds one of the values."""

    field: str
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Between:
    """The field holds a number from `low` to `high`, both included; None leaves an end open."""

    field: str
    low: float | None
    high: float | None


@dataclass(frozen=True)
class NoneOf:
    """The field holds none of the values, or is missing."""

    field: str
    values: tuple[Value, ...]


Condition: TypeAlias = AnyOf | Between | NoneOf


def fits(field: str, value: object) -> bool:
    """Whether a field can hold a value: True is no integer here, though Python has it so."""
    if type(value) is not FIELDS[field]:
        return False
    if isinstance(value, str):
        # Half a surrogate pair is no character, and no engine stores it.
        return not any("\ud800" <= character <= "\udfff" for character in value)
    if isinstance(value, float):
        return math.isfinite(value)
    return not isinstance(value, int) or LOWEST <= value <= HIGHEST


def conditions(where: Mapping[str, object] | None) -> tuple[Condition, ...]:
    """Read a filter in its small form.

    Raises
    ------
    InvalidQuery
        If a field doesn't exist, or what is asked of it isn't of its type.
    """
    return tuple(_condition(field, asked) for field, asked in (where or {}).items())


def _condition(field: str, asked: object) -> Condition:
    if field not in FIELDS:
        raise InvalidQuery(
            f"There is no field {field!r} to filter by: the fields are {', '.join(FIELDS)}."
        )
    if isinstance(asked, tuple):
        return _range(field, asked)
    if FIELDS[field] is float:
        raise InvalidQuery(
            f"{field} is a number that is hardly ever met exactly, so ask for a range like (4, "
            f"None), and not for {asked!r}."
        )
    values = tuple(asked) if isinstance(asked, list) else (asked,)
    if not values:
        raise InvalidQuery(f"{field}=[] lets nothing through: list at least one value.")
    for value in values:
        if not fits(field, value):
            raise InvalidQuery(f"{field} is {KIND[FIELDS[field]]}, so it can't be {value!r}.")
    return AnyOf(field, values)


def _range(field: str, ends: tuple[object, ...]) -> Between:
    if FIELDS[field] not in (int, float):
        raise InvalidQuery(
            f"{field} has no order, so {ends!r} is no range of it: for any of several values "
            "write a list."
        )
    if len(ends) != 2 or not all(end is None or _is_end(field, end) for end in ends):
        kind, example = ("integers", "1960, 1990") if FIELDS[field] is int else ("numbers", "2, 4")
        raise InvalidQuery(
            f"A range of {field} is a pair of {kind} like ({example}), either of them None for "
            f"an open end, and not {ends!r}."
        )
    low, high = ends
    if low is not None and high is not None and low > high:  # type: ignore[operator]
        raise InvalidQuery(f"The range {ends!r} of {field} is empty: its first end is the larger.")
    return Between(field, low, high)  # type: ignore[arg-type]


def _is_end(field: str, end: object) -> bool:
    if type(end) is int and FIELDS[field] is float:  # 4 will do for 4.0
        return LOWEST <= end <= HIGHEST
    return fits(field, end)
