"""What is shown beside a performance: titles, artists and year, from Da-TACOS' metadata JSON.

The JSON holds `{W: {P: {work_title, work_artist, perf_title, perf_artist, release_year, …}}}`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl

METADATA = {
    "work_title": pl.String,
    "work_artist": pl.String,
    "title": pl.String,
    "artist": pl.String,
    "year": pl.Int32,
    "instrumental": pl.Boolean,
}


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; ValueError if the file does not hold one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} could not be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, where an object is expected")
    return content


def read_metadata(paths: Iterable[Path]) -> pl.DataFrame:
    """Read metadata files into `track_id`, `work_id` and the columns of `METADATA`, sorted.

    Raises ValueError if a file is not JSON of the expected form.
    """
    rows = []
    for path in paths:
        for work_id, performances in read_json(path).items():
            if not isinstance(performances, dict):
                raise ValueError(f"{path}: {work_id} should hold its performances by track id")
            for track_id, facts in performances.items():
                if not isinstance(facts, dict):
                    raise ValueError(f"{path}: {track_id} should hold its titles by name")
                rows.append({"track_id": track_id, "work_id": work_id, **_row(facts)})
    schema = {"track_id": pl.String, "work_id": pl.String, **METADATA}
    frame = pl.DataFrame(rows, schema=schema)
    return frame.unique(["track_id", "work_id"], keep="first").sort("track_id", "work_id")


def _row(facts: dict[str, Any]) -> dict[str, Any]:
    year = re.match(r"\s*(\d{4})\b", str(facts.get("release_year") or ""))
    return {
        "work_title": _text(facts.get("work_title")),
        "work_artist": _text(facts.get("work_artist")),
        "title": _text(facts.get("perf_title")),
        "artist": _text(facts.get("perf_artist")),
        "year": int(year.group(1)) if year else None,
        "instrumental": {"Yes": True, "No": False}.get(str(facts.get("instrumental"))),
    }


def _text(value: Any) -> str | None:
    text = "" if value is None else str(value).strip()
    return text or None
