"""What the Prefect UI shows of a result: one page for each data set and encoder."""

import base64
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from prefect.artifacts import create_markdown_artifact

#: The columns and rows of a table.
Table = tuple[Sequence[str], Iterable[Sequence[Any]]]


def show_page(
    key: Sequence[str], summary: str, tables: Iterable[Table], figures: Iterable[Path] = ()
) -> None:
    """Make an artifact with tables and pictures, whose key is made of several names.

    Prefect shows the summary above them.
    """
    parts = [*map(_table, tables), *map(_picture, figures)]
    create_markdown_artifact("\n\n".join(parts), key=artifact_key(*key), description=summary)


def artifact_key(*names: str) -> str:
    """Join names into a key as Prefect allows it: lower-case letters, digits and dashes."""
    return re.sub("[^a-z0-9]+", "-", "-".join(names).lower()).strip("-")


def _table(table: Table) -> str:
    columns, rows = table
    return "\n".join(map(_row, [columns, ["---"] * len(columns), *rows]))


def _row(cells: Iterable[Any]) -> str:
    return "| " + " | ".join(map(_cell, cells)) + " |"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else re.sub(r"([|\\`*_<\[])", r"\\\1", str(value))


def _picture(figure: Path) -> str:
    picture = base64.b64encode(figure.read_bytes()).decode()
    return f"![{figure.stem}](data:image/png;base64,{picture})"
