"""Lists: CSV files beside the performances that say which work each of them is of, and more.

A list has a column `track_id`, `path` or `file`, and a column `work_id` or `work`, or titles, or
columns of its own. They are separated by commas, semicolons or tabs. acoss has such lists. A list
may name a file by its name, or by its path in the data set; `.h5` may be left out. It may name some
files only, and what it says overrides the folder, the metadata and the file.
"""

from __future__ import annotations

import csv
import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from embedding.data.columns import guess
from embedding.data.layout import SUFFIXES, Performance, Reject
from embedding.data.metadata import KNOWN, METADATA, value, warn_of
from embedding.errors import first_line

logger = logging.getLogger(__name__)

TRACK_COLUMNS = ("track_id", "path", "file")
WORK_COLUMNS = ("work_id", "work")

#: Characters of the first line; a longer one is not the heading of a list.
MAX_HEADING = 10_000


@dataclass(frozen=True)
class Row:
    """The name of a file, without its ending; its work, or nothing; and the other cells."""

    track: str
    work_id: str
    facts: Mapping[str, str]


@dataclass(frozen=True)
class WorkList:
    """A list, whose rows are all different."""

    path: Path
    names_works: bool
    rows: tuple[Row, ...]


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
    fitting = [each for each in fitting if each.names_works] or fitting
    if len(fitting) > 1:
        first = fitting[0].path
        raise ValueError(
            f"{' and '.join(each.path.name for each in fitting)} in {first.parent} both say what "
            f"the performances are: name one of them in a dataset.json there, as in "
            f'{{"list": "{first.name}"}}, or take the others away'
        )
    strange = [each for each in lists if each.names_works]
    if strange and found and not fitting:
        listed = strange[0].rows[0].track if strange[0].rows else "nothing"
        raise ValueError(
            f"{strange[0].path} names none of the {len(found)} performances (it begins with "
            f"{listed}, and there is {found[0].place}): correct it, or take it away"
        )
    for other in lists:
        if other not in fitting:
            logger.warning(
                "ignored: %s names none of the performances here, or another list names their "
                "works",
                other.path,
            )
    return fitting[0] if fitting else None


def apply(
    listed: WorkList, found: Sequence[Performance]
) -> tuple[list[Performance | Reject], pl.DataFrame]:
    """Give performances the works that a list says, and reject what it contradicts itself about.

    Returns the performances and rejects, and what else it says: `track_id`, the columns of
    `METADATA`, and its own columns. Where rows contradict each other, the first one is right.
    """
    name = listed.path.name
    works: dict[str, set[str]] = defaultdict(set)
    facts: dict[str, dict[str, str]] = defaultdict(dict)
    rejects = []
    lost = []
    for row, same in zip(listed.rows, _matches(found, listed), strict=True):
        if len(same) == 1:
            works[same[0].source] |= {row.work_id} - {""}
            facts[same[0].track_id] = {**row.facts, **facts[same[0].track_id]}
        elif not row.work_id:
            lost.append(row.track)
        else:
            reason = f"{name} lists it, but the file is missing"
            if same:
                reason = f"{name} lists it, but {len(same)} files have this name: write their paths"
            rejects.append(Reject(row.track, row.work_id, name, reason))
    if lost:
        about = "%s lists %d names of no file here, or of several, for example %s"
        logger.warning(about, listed.path, len(lost), lost[0])
    kept: list[Performance | Reject] = []
    for each in found:
        said = sorted(works.get(each.source, ()))
        if len(said) > 1:
            reason = f"{name} lists it under {' and '.join(said)}: keep one of these rows"
            kept.append(Reject(each.track_id, each.work_id, each.source, reason))
        else:
            kept.append(replace(each, work_id=said[0]) if said else each)
    silent = [each for each in found if not works.get(each.source)]
    if listed.names_works and silent:
        logger.warning(
            "%s does not list %d of %d performances, for example %s: these keep the work of their "
            "folder or of the metadata, or else are a work of their own",
            listed.path,
            len(silent),
            len(found),
            silent[0].source,
        )
    return [*kept, *rejects], _table(facts, listed.path)


def _table(facts: Mapping[str, Mapping[str, str]], path: Path) -> pl.DataFrame:
    lost: list[str] = []
    known = {
        column: pl.Series(
            column, [value(column, row, each, lost) for each, row in facts.items()], kind
        )
        for column, kind in METADATA.items()
    }
    warn_of(lost, path)
    names = dict.fromkeys(name for row in facts.values() for name in row if name not in KNOWN)
    own = {
        name: guess(pl.Series(name, [row.get(name, "") for row in facts.values()]))
        for name in names
    }
    return pl.DataFrame({"track_id": pl.Series("track_id", [*facts], pl.String), **known, **own})


def _read(path: Path) -> WorkList:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        heading = stream.readline(MAX_HEADING)
        delimiter = max(",;\t", key=heading.count)
        names = [cell.strip() for cell in next(csv.reader([heading], delimiter=delimiter))]
        columns = [name.lower() for name in names]
        track = next((columns.index(each) for each in TRACK_COLUMNS if each in columns), None)
        work = next((columns.index(each) for each in WORK_COLUMNS if each in columns), None)
        others = {
            i: columns[i] if columns[i] in KNOWN else name
            for i, name in enumerate(names)
            if columns[i] not in (*TRACK_COLUMNS, *WORK_COLUMNS)
        }
        if track is None or (work is None and not others):
            raise ValueError(
                f"its columns are {', '.join(columns)[:100] or 'missing'}, where a list has "
                f"{' or '.join(TRACK_COLUMNS)}, and {' or '.join(WORK_COLUMNS)} or others"
            )
        rows = {}
        for cells in csv.reader(stream, delimiter=delimiter):
            cells += [""] * (len(names) - len(cells))
            name, work_id = (cells[i].strip() if i is not None else "" for i in (track, work))
            facts = {other: cells[i].strip() for i, other in others.items() if cells[i].strip()}
            if name and (work_id or facts):
                name = _without_ending(name.replace("\\", "/"))
                rows[(name, work_id, *facts.items())] = Row(name, work_id, facts)
    return WorkList(path, work is not None, tuple(rows.values()))


def _without_ending(name: str) -> str:
    return next((name[: -len(s)] for s in SUFFIXES if name.lower().endswith(s)), name)


def _matches(found: Sequence[Performance], listed: WorkList) -> Iterable[list[Performance]]:
    """Yield the performances that each row of a list can mean."""
    by_name: dict[str, list[Performance]] = defaultdict(list)
    for each in found:
        for name in {each.track_id, each.place.rsplit("/", 1)[-1]}:
            by_name[name].append(each)
    for row in listed.rows:
        same = by_name.get(row.track.rsplit("/", 1)[-1], [])
        if "/" in row.track:
            same = [each for each in same if f"/{each.place}".endswith(f"/{row.track}")]
        elif len(same) > 1:
            same = [each for each in same if each.work_id == row.work_id] or same
        yield same
