"""What is shown beside a performance: titles, artists, year, and the data set's own columns.

Da-TACOS' JSON holds `{W: {P: {work_title, work_artist, perf_title, perf_artist, release_year}}}`.
What pandas writes for a missing value is missing here too. What cannot be kept is left out, and the
log names its performance.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from embedding.data.columns import MISSING, from_json, utf8

logger = logging.getLogger(__name__)

METADATA = {
    "work_title": pl.String,
    "work_artist": pl.String,
    "title": pl.String,
    "artist": pl.String,
    "year": pl.Int32,
    "instrumental": pl.Boolean,
    "recording": pl.String,  # its path, in the folder of recordings
}

#: The names of columns in the JSON, where they differ.
NAMES = {"title": "perf_title", "artist": "perf_artist", "year": "release_year"}

#: Keys of the JSON that are not columns of the data set's own.
KNOWN = {"track_id", "work_id", "perf_id", *METADATA, *NAMES.values()}

TRUTHS = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}

#: Values that the log names, of those that cannot be kept.
MAX_NAMED = 5


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; ValueError if the file does not hold one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} could not be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, where an object is expected")
    return content


def read_metadata(paths: Iterable[Path]) -> pl.DataFrame:
    """Read metadata files into `track_id`, `work_id`, the columns of `METADATA`, and own columns.

    The rows are sorted. Raises ValueError if a file is not JSON of the expected form.
    """
    ids: list[tuple[str, str]] = []
    rows: list[dict[str, Any]] = []
    for path in paths:
        lost: list[str] = []
        for work_id, performances in read_json(path).items():
            if not isinstance(performances, dict):
                raise ValueError(f"{path}: {work_id} should hold its performances by track id")
            for track_id, facts in performances.items():
                if not isinstance(facts, dict):
                    raise ValueError(f"{path}: {track_id} should hold its titles by name")
                if (place := utf8(f"{work_id}/{track_id}")) != f"{work_id}/{track_id}":
                    lost.append(f"the ids {place}")
                    continue
                ids.append((track_id, work_id))
                known = {column: value(column, facts, track_id, lost) for column in METADATA}
                rows.append({**facts, **known})
        warn_of(lost, path)
    names = dict.fromkeys(name for row in rows for name in row if name not in KNOWN)
    frame = pl.DataFrame(ids, schema=["track_id", "work_id"], orient="row")
    frame = frame.cast(pl.String).with_columns(
        *(pl.Series(name, [row[name] for row in rows], kind) for name, kind in METADATA.items()),
        *(from_json(name, [row.get(name) for row in rows]) for name in names),
    )
    return frame.unique(["track_id", "work_id"], keep="first").sort("track_id", "work_id")


def value(column: str, facts: Mapping[str, Any], track_id: str, lost: list[str]) -> Any:
    """Return a performance's value of a column, and note in `lost` what cannot be kept of it."""
    name = NAMES.get(column, column)
    given = facts.get(name, facts.get(column))
    if isinstance(given, float):
        given = int(given) if given.is_integer() else given if math.isfinite(given) else None
    text = "" if given is None else utf8(str(given)).strip()
    if text in MISSING:
        return None
    kept: Any = None
    if column == "year":
        kept = int(year.group(1)) if (year := re.match(r"(\d{4})\b", text)) else None
    elif column == "instrumental":
        kept = TRUTHS.get(text.lower())
    elif not isinstance(given, list | dict):
        kept = text
    if kept is None or (kept == text and text != str(given).strip()):
        lost.append(f"{name} {text[:40]!r} of {track_id}")
    return kept


def warn_of(lost: Sequence[str], path: Path) -> None:
    """Log which values of a file cannot be kept."""
    if lost:
        named = "; ".join(lost[:MAX_NAMED]) + (" …" if len(lost) > MAX_NAMED else "")
        logger.warning("%s: %d values cannot be kept as they are: %s", path, len(lost), named)
