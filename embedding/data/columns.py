"""Own columns: what a data set says of its performances, and covers has no field for.

An ISRC, an owner or a label, for example. A list, the metadata and a table of vectors can bring
them. Each has one type in the whole data set, and what does not have it is kept as text. Texts of a
CSV are taken for numbers only if each of them is one: an id such as 000123, or with more digits
than a number can hold exactly, keeps its column text.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from functools import reduce
from typing import Any

import polars as pl

#: What a column can hold.
KINDS: dict[str, Any] = {
    "text": pl.String,
    "whole number": pl.Int64,
    "number": pl.Float64,
    "yes/no": pl.Boolean,
}

#: Maximum number of columns.
MAX_COLUMNS = 32

#: Texts that pandas writes where there is no value. ("None" and "Nan" can be titles.)
MISSING = ("", "nan", "NaN", "NaT", "<NA>")

TRUTHS = {True: "yes", False: "no"}

WHOLE = "(?:0|-?[1-9][0-9]{0,14})"
NUMBER = rf"(?:{WHOLE}|-0)(?:\.[0-9]+)?"

#: Characters that a name cannot have, because filters and paths in a payload use them.
SPECIAL = '"\\=~'


def guess(texts: pl.Series) -> pl.Series:
    """Convert the texts of a CSV to the one type that fits all; empty cells become null.

    >>> guess(pl.Series(["7", "", " 12"])).to_list(), guess(pl.Series(["007", "12"])).to_list()
    ([7, None, 12], ['007', '12'])
    """
    texts = _stripped(texts)
    there = texts.drop_nulls()
    if there.str.contains(f"^{WHOLE}$").all():
        return texts.cast(pl.Int64) if len(there) else texts
    if there.str.contains(f"^{NUMBER}$").all():
        return texts.cast(pl.Float64)
    lower = texts.str.to_lowercase()
    if lower.drop_nulls().is_in(["yes", "no", "true", "false"]).all():
        return lower.is_in(["yes", "true"])
    return texts


def from_json(name: str, values: Sequence[Any]) -> pl.Series:
    """Return a column of values of JSON: of their type, or of text if they have several."""
    values = [None if isinstance(x, float) and not math.isfinite(x) else x for x in values]
    kinds = {type(value) for value in values if value is not None}
    if kinds & {dict, list}:
        return pl.Series(name, [None] * len(values), dtype=pl.List(pl.Null))  # `settle` says why
    whole = [value for value in values if type(value) is int]
    if kinds <= {int, float} and -(2**63) <= min(whole, default=0) <= max(whole, default=0) < 2**63:
        return pl.Series(name, values, dtype=pl.Float64 if float in kinds else pl.Int64)
    if kinds <= {bool}:
        return pl.Series(name, values, dtype=pl.Boolean)
    texts = [TRUTHS.get(each, each) if isinstance(each, bool) else each for each in values]
    return pl.Series(name, [None if x is None else utf8(str(x)) for x in texts], dtype=pl.String)


def settle(
    tables: Sequence[pl.DataFrame], fields: Collection[str], taken: Collection[str]
) -> tuple[list[pl.DataFrame], dict[str, str]]:
    """Give all tables the same own columns, each of one type.

    Parameters
    ----------
    tables : sequence of pl.DataFrame
        Tables about performances.
    fields : collection of str
        Columns that are not own ones, and stay as they are.
    taken : collection of str
        Names that own columns cannot have, in upper or lower case.

    Returns
    -------
    tables : list of pl.DataFrame
        With the same own columns, of types in `KINDS`, after the fields.
    left_out : dict of str to str
        Other columns, and why they are left out.
    """
    names = dict.fromkeys(name for table in tables for name in table.columns if name not in fields)
    kinds: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    used = {name.lower() for name in taken}
    for name in names:
        found = [_kind(table[name]) for table in tables if name in table.columns]
        known = [kind for kind in found if kind is not None and kind != pl.Null]
        if name.lower() in used:
            left_out[name] = "another field has this name: rename the column"
        elif not _is_usable(name):
            left_out[name] = "a filter cannot use its name: rename the column"
        elif None in found:
            left_out[name] = "its values are nested: give each performance a text or a number"
        elif not known:
            left_out[name] = "it has no values"
        elif len(kinds) == MAX_COLUMNS:
            left_out[name] = f"a collection has up to {MAX_COLUMNS}: take out columns before it"
        else:
            kinds[name] = reduce(_common, known)
            used.add(name.lower())
    return [_with(table, kinds, [*fields]) for table in tables], left_out


def kinds_of(table: pl.DataFrame, fields: Collection[str]) -> dict[str, str]:
    """Return what each own column of a settled table holds, by the names in `KINDS`."""
    names = {dtype: kind for kind, dtype in KINDS.items()}
    schema = table.schema.items()
    return {name: names[dtype] for name, dtype in schema if name not in fields}


def told(kinds: Mapping[str, str], left_out: Mapping[str, str]) -> str:
    """Say in one line which columns travel, and which are left out; empty if there are none."""
    kept = ", ".join(f"{name} ({kind})" for name, kind in kinds.items())
    others = "; ".join(f"{name} ({reason})" for name, reason in left_out.items())
    parts = {"own columns": kept, "columns left out": others}
    return "; ".join(f"{title}: {part}" for title, part in parts.items() if part)


def utf8(text: str) -> str:
    """Replace halves of characters beyond 16 bits, which cannot be stored or printed."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _with(table: pl.DataFrame, kinds: Mapping[str, Any], fields: Sequence[str]) -> pl.DataFrame:
    kept = table.select(name for name in table.columns if name in fields)
    return kept.with_columns(
        _cast(_plain(table[name]), kind).alias(name)
        if name in table.columns
        else pl.lit(None, kind).alias(name)
        for name, kind in kinds.items()
    )


def _is_usable(name: str) -> bool:
    plain = name.isprintable() and not {*name} & {*SPECIAL}
    return bool(name) and plain and name == name.strip()


def _kind(column: pl.Series) -> Any:
    """Return the type in `KINDS` of a column; Null if it is empty, None if no type holds it."""
    if column.dtype.is_nested() or column.dtype in (pl.Binary, pl.Duration, pl.Object):
        return None
    plain = _plain(column)
    return pl.Null if plain.null_count() == len(plain) else plain.dtype


def _plain(column: pl.Series) -> pl.Series:
    """Return a column as one of the types in `KINDS`, with null where there is no value."""
    dtype = column.dtype
    if dtype.is_integer():
        whole = column.cast(pl.Int64, strict=False)
        return whole if whole.null_count() == column.null_count() else column.cast(pl.String)
    if dtype.is_numeric():
        numbers = column.cast(pl.Float64)
        numbers = numbers.set(~numbers.is_finite(), None)
        # Whole numbers become these where pandas has to note that some are missing.
        are_whole = ((numbers % 1 == 0) & (numbers.abs() < 2**53)).all()
        return numbers.cast(pl.Int64) if are_whole else numbers
    return column if dtype == pl.Boolean else _stripped(column.cast(pl.String))


def _stripped(texts: pl.Series) -> pl.Series:
    stripped = texts.str.strip_chars()
    return stripped.set(stripped.is_in(MISSING), None)


def _common(first: Any, second: Any) -> Any:
    """Return the type that holds the values of both."""
    if first == second:
        return first
    return pl.Float64 if {first, second} == {pl.Int64, pl.Float64} else pl.String


def _cast(column: pl.Series, kind: Any) -> pl.Series:
    if column.dtype == pl.Boolean and kind == pl.String:
        return column.replace_strict(TRUTHS, return_dtype=pl.String)
    return column.cast(kind)
