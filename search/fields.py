"""The fields of a point's payload, and filters over them.

Beside the fields that every collection has, a publisher can bring columns of its own, such as an
ISRC or an owner. `Description.columns` names them with the kind of their values.

A filter is a mapping of fields to what they must hold, or a list of such mappings. All conditions
must be met. A performance without a field meets no condition on it, except `none_of`:

>>> where = {"instrumental": True, "artist": ["A", "B"], "year": between(1960, None)}

A value asks for equality, a list (or a set, an array, a series) for any of its values, `between`
for a range, `contains` for words of a title or a name, and `none_of` for anything else. A filter
stays what it is when it is written as JSON and read again.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from search.errors import InvalidQuery
from search.words import TEXTS, WORDS, words_of

Value: TypeAlias = str | int | bool
Result: TypeAlias = int | float | bool

#: The fields of a payload, by the names that a dashboard shows, with their types. Each can be
#: filtered by. An index is of keywords, integers, floats or booleans.
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
    "recording": str,
    "clique_size": int,
    "bundle": str,
    "nearest_cover": int,
    "clique_distance": float,
    "outlier": bool,
    "in_map": bool,
}

#: What a column of the publisher's own can hold.
KINDS: dict[str, type[str] | type[int] | type[bool] | type[float]] = {
    "text": str,
    "whole number": int,
    "number": float,
    "yes/no": bool,
}

#: Maximum number of such columns; a server keeps an index of each.
MAX_COLUMNS = 32

#: Fields that an evaluation writes after a performance is published.
RESULTS = ("nearest_cover", "clique_distance", "outlier")

#: Marks the performances of the largest works; other performances do not have the field.
IN_MAP = "in_map"

#: Fields that publishing fills in.
FILLED_IN = ("bundle", IN_MAP)

#: What the fields mean, for a person who opens a collection in a dashboard.
MEANINGS = {
    "track_id": "the performance",
    "work_id": "the work that it is a performance of; versions share it",
    "work_title": "title of the work",
    "work_artist": "who wrote the work, or performed it first",
    "title": "title of the performance",
    "artist": "who performs it",
    "year": "year of its release",
    "instrumental": "whether it has no singing",
    "subset": "the part of the data that it comes from",
    "recording": "path of its recording, in the data set that it comes from",
    "clique_size": "number of performances of its work here, including itself",
    "bundle": "the encoder that made the vector",
    "nearest_cover": "rank of its nearest version among all others; 1 if nothing is nearer",
    "clique_distance": "mean distance to its versions",
    "outlier": "whether clique_distance is larger than for nearly all others",
    "in_map": "true for performances of the largest works, to draw only these",
    "usual_distance": "mean of its distances to the nearer half",
    "usual_spread": "standard deviation of its distances to the nearer half",
    WORDS: "words of title, artist, work_title and work_artist, to search for",
    "digest": "changes with the content of the performance and of its sequence",
    "collection": "the collection that the point is in",
}

KIND = {str: "text", int: "an integer", bool: "true or false", float: "a number"}

#: The range of Qdrant's integer indexes.
MIN_INTEGER, MAX_INTEGER = -(2**63), 2**63 - 1


@dataclass(frozen=True)
class AnyOf:
    """The field holds one of the values."""

    field: str
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Between:
    """The field holds a number from `low` to `high`, inclusive; None leaves an end open."""

    field: str
    low: float | None
    high: float | None


@dataclass(frozen=True)
class NoneOf:
    """The field holds none of the values, or is missing."""

    field: str
    values: tuple[Value, ...]


Condition: TypeAlias = AnyOf | Between | NoneOf


def between(low: float | None, high: float | None) -> dict[str, Any]:
    """Ask for numbers from `low` to `high`, inclusive; None leaves an end open.

    >>> between(1960, 1990)
    {'between': [1960, 1990]}
    """
    return {"between": [plain(low), plain(high)]}


def contains(text: str) -> dict[str, Any]:
    """Ask for all words of a text, in any order, whatever their case and accents.

    >>> contains("bach cello")
    {'contains': 'bach cello'}
    """
    return {"contains": text}


def none_of(values: Iterable[Value] | Value) -> dict[str, Any]:
    """Ask for performances that hold none of the values.

    >>> none_of(["live", "remix"])
    {'none_of': ['live', 'remix']}
    """
    return {"none_of": _listed(values)}


def plain(value: object) -> object:
    """Return a number of numpy as Python's own, and anything else as it is."""
    is_single = isinstance(value, np.generic) or (isinstance(value, np.ndarray) and not value.ndim)
    return value.item() if is_single else value  # type: ignore[attr-defined]


def whole(value: object) -> object:
    """Return a whole number as an integer, such as 1990.0, and anything else as `plain` does."""
    value = plain(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _listed(values: object) -> list[object]:
    """Return a value, or each of several, as Python's own."""
    values = plain(values)
    if isinstance(values, Iterable) and not isinstance(values, (str, bytes, Mapping)):
        return [plain(value) for value in values]
    return [values]


def fits(kind: type, value: object) -> bool:
    """Whether a field of a type can hold a value. True is not an integer, although Python says so.

    >>> fits(int, 1990), fits(int, True), fits(float, float("nan"))
    (True, False, False)
    """
    if type(value) is not kind:
        return False
    if isinstance(value, str):
        # Half a surrogate pair is not a character, and no engine stores it.
        return not any("\ud800" <= character <= "\udfff" for character in value)
    if isinstance(value, float):
        return math.isfinite(value)
    return not isinstance(value, int) or MIN_INTEGER <= value <= MAX_INTEGER


def fields_of(columns: Mapping[str, str]) -> dict[str, type]:
    """Return the fields of a collection that has these columns of its publisher, with types."""
    return {**FIELDS, **{name: KINDS[kind] for name, kind in columns.items()}}


def named(field: str, fields: Mapping[str, type]) -> str:
    """Return the name of a field, which may be given in other letters, as `ISRC` for `isrc`.

    Raises InvalidQuery if there is none.
    """
    same = [name for name in fields if name.lower() == str(field).lower()]
    if field not in fields and len(same) != 1:
        raise InvalidQuery(
            f"There is no field {field!r} to filter by: the fields are {', '.join(fields)}."
        )
    return field if field in fields else same[0]


def path_of(field: str) -> str:
    """Return a field's name as Qdrant's paths write it, which have quotes around special ones."""
    return field if re.fullmatch("[A-Za-z0-9_-]+", field) else f'"{field}"'


def conditions(
    where: Mapping[str, object] | Sequence[Mapping[str, object]] | None,
    columns: Mapping[str, str] | None = None,
) -> tuple[Condition, ...]:
    """Read a filter of a collection that has these columns of its publisher.

    Raises
    ------
    InvalidQuery
        If a field does not exist, or a value is not of its type.
    """
    filters = [where] if isinstance(where, Mapping) else where or []
    if not all(isinstance(each, Mapping) for each in filters):
        raise InvalidQuery(
            f"{where!r} is not a filter: give fields with what they must hold, such as "
            "{'year': 1990}, or a list of these."
        )
    fields = fields_of(columns or {})
    asked = [(named(name, fields), wanted) for each in filters for name, wanted in each.items()]
    return tuple(
        condition
        for field, wanted in asked
        for condition in _conditions(field, fields[field], wanted)
    )


def _conditions(field: str, kind: type, wanted: object) -> Sequence[Condition]:
    if not isinstance(wanted, Mapping):
        return [AnyOf(field, _values(field, kind, _listed(wanted)))]
    match [*wanted.items()]:
        case [("between", ends)]:
            return [_range(field, kind, _listed(ends))]
        case [("none_of", values)]:
            return [NoneOf(field, _values(field, kind, _listed(values)))]
        case [("contains", str(text))]:
            return [AnyOf(WORDS, (word,)) for word in _words(field, text)]
    raise InvalidQuery(
        f"{field}={dict(wanted)!r} is not a condition: use a value, a list, "
        "search.between(low, high), search.contains(words) or search.none_of(values)."
    )


def _words(field: str, text: str) -> list[str]:
    if field not in TEXTS:
        raise InvalidQuery(
            f"{field} has no words to search for: only {', '.join(TEXTS)} have, so give the whole "
            f"value instead of {text!r}."
        )
    found = words_of({field: text})
    if not found:
        raise InvalidQuery(
            f"{text!r} has no word to search for in {field}: give letters or digits."
        )
    return found


def _values(field: str, kind: type, given: Sequence[object]) -> tuple[Value, ...]:
    if kind is float:
        raise InvalidQuery(
            f"{field} is a number that hardly any performance has exactly: ask for a range, such "
            f"as search.between(4, None), instead of {', '.join(map(repr, given))}."
        )
    values = [whole(value) if kind is int else value for value in given]
    if not values:
        raise InvalidQuery(f"{field}=[] has no value: list at least one.")
    for value in values:
        if not fits(kind, value):
            hint = " (a range is search.between(low, high))" if value is None else ""
            raise InvalidQuery(f"{field} is {KIND[kind]}, so it cannot be {value!r}{hint}.")
    return tuple(values)  # type: ignore[arg-type]


def _range(field: str, kind: type, given: Sequence[object]) -> Between:
    if kind not in (int, float):
        raise InvalidQuery(
            f"{field} is {KIND[kind]} and has no range: list its values instead of {given!r}."
        )
    ends = [whole(end) if kind is int else end for end in given]
    if len(ends) != 2 or not all(end is None or _is_end(kind, end) for end in ends):
        raise InvalidQuery(
            f"{given!r} is not a range of {field}: give two ends, each {KIND[kind]} or None, such "
            "as search.between(4, None)."
        )
    low, high = ends
    if low is not None and high is not None and low > high:  # type: ignore[operator]
        raise InvalidQuery(f"The range {given!r} of {field} is empty: its first end is larger.")
    return Between(field, low, high)  # type: ignore[arg-type]


def _is_end(kind: type, end: object) -> bool:
    if type(end) is int and kind is float:  # 4 stands for 4.0
        return MIN_INTEGER <= end <= MAX_INTEGER
    return fits(kind, end)
