"""The fields of a point's payload, and the small form of a filter over them.

A filter is written `where={"instrumental": True, "year": (1960, None), "work_artist": ["A", "B"]}`:
a value asks for equality, a list for any of its values, and a pair of an integer field for an
inclusive range, open at an end that is None. All of them must hold, and a performance that lacks a
field meets no condition on it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from search.errors import InvalidQuery

Value: TypeAlias = str | int | bool

#: What a payload can hold, by the names that a dashboard shows, and the type of each. Any of them
#: can be filtered by; where one is indexed, it is as a keyword, an integer or a bool.
FIELDS: dict[str, type[str] | type[int] | type[bool]] = {
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
}

KIND = {str: "text", int: "an integer", bool: "true or false"}

# What Qdrant's integer indexes hold.
LOWEST, HIGHEST = -(2**63), 2**63 - 1


@dataclass(frozen=True)
class AnyOf:
    """The field holds one of the values."""

    field: str
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Between:
    """The field holds an integer from `low` to `high`, both included; None leaves an end open."""

    field: str
    low: int | None
    high: int | None


Condition: TypeAlias = AnyOf | Between


def fits(field: str, value: object) -> bool:
    """Whether a field can hold a value: True is no integer here, though Python has it so."""
    if type(value) is not FIELDS[field]:
        return False
    if isinstance(value, str):
        # Half a surrogate pair is no character, and no engine stores it.
        return not any("\ud800" <= character <= "\udfff" for character in value)
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
    values = tuple(asked) if isinstance(asked, list) else (asked,)
    if not values:
        raise InvalidQuery(f"{field}=[] lets nothing through: list at least one value.")
    for value in values:
        if not fits(field, value):
            raise InvalidQuery(f"{field} is {KIND[FIELDS[field]]}, so it can't be {value!r}.")
    return AnyOf(field, values)


def _range(field: str, ends: tuple[object, ...]) -> Between:
    if FIELDS[field] is not int:
        raise InvalidQuery(
            f"{field} has no order, so {ends!r} is no range of it: for any of several values "
            "write a list."
        )
    if len(ends) != 2 or not all(end is None or fits(field, end) for end in ends):
        raise InvalidQuery(
            f"A range of {field} is a pair of integers like (1960, 1990), either of them None for "
            f"an open end, and not {ends!r}."
        )
    low, high = ends
    if low is not None and high is not None and low > high:  # type: ignore[operator]
        raise InvalidQuery(f"The range {ends!r} of {field} is empty: its first end is the larger.")
    return Between(field, low, high)  # type: ignore[arg-type]
