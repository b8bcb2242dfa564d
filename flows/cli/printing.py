"""How the command line prints: text as it is, tables that fit, or one JSON object for a machine."""

import dataclasses
import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

Content = TypeVar("Content")

#: Columns that are wrapped where a terminal is narrow. All others are ids and numbers, which are
#: printed whole.
WRAPPED = {"title", "artist", "row", "other title", "source", "current", "previous"}

#: Minimum width of a wrapped column, and characters between two columns.
LEAST_WIDTH, GAP = 10, 2

#: Characters that move the cursor, end a line, reverse the direction of text, or cannot be encoded.
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def show(content: Content, as_json: bool, show_tables: Callable[[Content], None]) -> None:
    """Print the result of a command, for a machine or for a person."""
    if as_json:
        text = json.dumps(content, ensure_ascii=False, default=_plain)
        sys.stdout.write(text + "\n")
    else:
        show_tables(content)


def _plain(value: Any) -> Any:
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) else str(value)  # type: ignore[arg-type]


def visible(text: str) -> str:
    """Write control characters as escapes, so that text from data cannot steer a terminal."""
    return UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def say(text: str) -> None:
    """Print a line as it is; a terminal wraps it."""
    sys.stdout.write(visible(text) + "\n")


def show_table(columns: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
    """Print a table without its empty columns, and as records where a terminal is too narrow."""
    cells = [[_text(value) for value in row] for row in rows]
    kept = [i for i in range(len(columns)) if any(row[i] for row in cells)]
    columns = [columns[i] for i in kept]
    cells = [[row[i] for i in kept] for row in cells]
    natural = [max(map(_width, column)) for column in zip(columns, *cells, strict=True)]
    widths = _fit(columns, natural)
    if widths is None:
        _show_records(columns, cells)
    elif widths:
        _show_grid(columns, cells, widths)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return "\n".join(map(_text, value))
    return visible(str(value))


def _width(text: str) -> int:
    return max(map(cell_len, text.split("\n")))


def _fit(columns: Sequence[str], natural: list[int]) -> list[int] | None:
    """Narrow the columns that are wrapped until all fit; None if they don't."""
    console = Console()
    if not console.is_terminal:
        return natural
    room = console.width - GAP * (len(columns) - 1)
    pairs = zip(columns, natural, strict=True)
    least = [min(width, LEAST_WIDTH) if name in WRAPPED else width for name, width in pairs]
    if sum(least) > room:
        return None
    widths = list(natural)
    while sum(widths) > room:
        widest = max(range(len(widths)), key=lambda i: widths[i] * (widths[i] > least[i]))
        widths[widest] -= 1
    return widths


def _show_grid(columns: Sequence[str], cells: list[list[str]], widths: list[int]) -> None:
    table = Table(box=SIMPLE_HEAD, padding=(0, GAP - 1, 0, 0), show_edge=False, pad_edge=False)
    for name, width in zip(columns, widths, strict=True):
        table.add_column(Text(name), width=width, no_wrap=name not in WRAPPED, overflow="fold")
    for row in cells:
        table.add_row(*map(Text, row))
    Console(width=sum(widths) + GAP * (len(widths) - 1)).print(table)
    sys.stdout.write("\n")


def _show_records(columns: Sequence[str], cells: list[list[str]]) -> None:
    """Print a line for each cell, under the first one; the terminal wraps lines that are longer."""
    indent = max(map(_width, columns)) + GAP
    for row in cells:
        for name, text in zip(columns, row, strict=True):
            for line in filter(None, text.split("\n")):
                sys.stdout.write(f"{name:{indent}}{line}\n" if name else f"{line}\n")
        sys.stdout.write("\n")
