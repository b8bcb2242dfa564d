"""Lists: CSV files beside the performances that say which work each of them is of.

A list has a column `track_id`, `path` or `file`, and a column `work_id` or `work`, separated by
commas, semicolons or tabs. acoss has such lists. A list may name a file by its name, or by its path
in the data set; `.h5` may be left out. It may name some files only, and what it says overrides the
folder, the metadata and the file.
"""

from __future__ import annotations

import csv
import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from embedding.data.layout import SUFFIXES, Performance, Reject
from embedding.errors import first_line

logger = logging.getLogger(__name__)

TRACK_COLUMNS = ("track_id", "path", "file")
WORK_COLUMNS = ("work_id", "work")

#: Characters of the first line; a longer one is not the heading of a list.
MAX_HEADING = 10_000


@dataclass(frozen=True)
class WorkList:
    """The rows of a list: the name of a file, without its ending, and the work."""

    path: Path
    rows: tuple[tuple[str, str], ...]


def choose(
    paths: Sequence[Path], name: str | None, found: Sequence[Performance]
) -> WorkList | None:
    """Return the list of a data set, if it has one, and log which files are ignored.

    Parameters
    ----------
    paths : sequence of Path
        The CSV files beside the performances.
    name : str, optional
        The file to use, where `dataset.json` says it.
    found : sequence of Performance
        A list that names none of them is of other data.

    Raises
    ------
    ValueError
        If the named file is not a list, if several could be meant, or if a list names none of the
        performances and no other does.
    """
    lists = []
    for path in paths:
        if name in (None, path.name):
            try:
                lists.append(_read(path))
            except (OSError, ValueError, csv.Error) as error:
                if name is not None:
                    raise ValueError(f"{path} is not a list of works: {error}") from error
                logger.warning("ignored: %s is not a list of works: %s", path, first_line(error))
    if name is not None and not lists:
        raise ValueError(f"dataset.json names the list {name}, which does not lie beside it")
    fitting = [each for each in lists if any(_matches(found, each))]
    if len(fitting) > 1:
        first = fitting[0].path
        raise ValueError(
            f"{' and '.join(each.path.name for each in fitting)} in {first.parent} both say which "
            f"works the performances are of: name one of them in a dataset.json there, as in "
            f'{{"list": "{first.name}"}}, or take the others away'
        )
    if lists and found and not fitting:
        listed = lists[0].rows[0][0] if lists[0].rows else "nothing"
        raise ValueError(
            f"{lists[0].path} names none of the {len(found)} performances (it begins with "
            f"{listed}, and there is {found[0].place}): correct it, or take it away"
        )
    for other in lists:
        if other not in fitting:
            logger.warning("ignored: %s names none of the performances here", other.path)
    return fitting[0] if fitting else None


def apply(listed: WorkList, found: Sequence[Performance]) -> list[Performance | Reject]:
    """Give performances the works that a list says, and reject what it contradicts itself about."""
    name = listed.path.name
    works: dict[str, set[str]] = defaultdict(set)
    rejects = []
    for (track, work_id), same in zip(listed.rows, _matches(found, listed), strict=True):
        if len(same) == 1:
            works[same[0].source].add(work_id)
        else:
            reason = f"{name} lists it, but the file is missing"
            if same:
                reason = f"{name} lists it, but {len(same)} files have this name: write their paths"
            rejects.append(Reject(track, work_id, name, reason))
    kept: list[Performance | Reject] = []
    for each in found:
        said = sorted(works.get(each.source, ()))
        if len(said) > 1:
            reason = f"{name} lists it under {' and '.join(said)}: keep one of these rows"
            kept.append(Reject(each.track_id, each.work_id, each.source, reason))
        else:
            kept.append(replace(each, work_id=said[0]) if said else each)
    if silent := [each for each in found if each.source not in works]:
        logger.warning(
            "%s does not list %d of %d performances, for example %s: these keep the work of their "
            "folder or of the metadata, or else are a work of their own",
            listed.path,
            len(silent),
            len(found),
            silent[0].source,
        )
    return [*kept, *rejects]


def _read(path: Path) -> WorkList:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        heading = stream.readline(MAX_HEADING)
        delimiter = max(",;\t", key=heading.count)
        columns = [
            cell.strip().lower() for cell in next(csv.reader([heading], delimiter=delimiter))
        ]
        track = next((columns.index(each) for each in TRACK_COLUMNS if each in columns), None)
        work = next((columns.index(each) for each in WORK_COLUMNS if each in columns), None)
        if track is None or work is None:
            raise ValueError(
                f"its columns are {', '.join(columns)[:100] or 'missing'}, where a list has "
                f"{' or '.join(TRACK_COLUMNS)}, and {' or '.join(WORK_COLUMNS)}"
            )
        cells = [
            (row[track].strip().replace("\\", "/"), row[work].strip())
            for row in csv.reader(stream, delimiter=delimiter)
            if len(row) > max(track, work)
        ]
    said = {(_without_ending(name), work_id): None for name, work_id in cells if name and work_id}
    return WorkList(path, tuple(said))


def _without_ending(name: str) -> str:
    return next((name[: -len(s)] for s in SUFFIXES if name.lower().endswith(s)), name)


def _matches(found: Sequence[Performance], listed: WorkList) -> Iterable[list[Performance]]:
    """Yield the performances that each row of a list can mean."""
    by_name: dict[str, list[Performance]] = defaultdict(list)
    for each in found:
        for name in {each.track_id, each.place.rsplit("/", 1)[-1]}:
            by_name[name].append(each)
    for track, work_id in listed.rows:
        same = by_name.get(track.rsplit("/", 1)[-1], [])
        if "/" in track:
            same = [each for each in same if f"/{each.place}".endswith(f"/{track}")]
        elif len(same) > 1:
            same = [each for each in same if each.work_id == work_id] or same
        yield same
