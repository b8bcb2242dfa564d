"""A data set: which performances a directory holds, and the facts stated beside them.

Beside the performances (see `layout`) may lie

```
*metadata.json      titles, artists and own columns (see `metadata`)
*.csv               which work each performance is of, and the same (see `lists`)
dataset.json        {"name": …, "frame_rate": "44100/512", "subset": …, "list": "….csv", "ids": …},
                    each optional
provenance.json     {P: {"T": frames, "sec": seconds}}
```

With `"ids": "work_track"`, the id of `W/P.h5` is `W_P`, because in some data sets a performance has
a number that is unique only within its work.
"""

from __future__ import annotations

import logging
import math
import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from embedding.data import columns, lists
from embedding.data.frame_rate import differs, from_provenance, measure, parse_frame_rate
from embedding.data.frames import is_confirmed, read_beats
from embedding.data.layout import SINGLE_FILES, Performance, Reject, find, leaves
from embedding.data.metadata import METADATA, read_json, read_metadata

logger = logging.getLogger(__name__)

#: Performances whose beats are read when the frame rate is measured.
MAX_MEASURED = 50

#: The value of `ids` in dataset.json for ids that are unique only within a work.
WITHIN_WORKS = "work_track"


@dataclass(frozen=True)
class Dataset:
    """The contents of a directory."""

    name: str  # from dataset.json, or the name of the folders
    root: Path
    subset: str | None  # "benchmark", "coveranalysis", or None if it is not stated
    frame_rate: float  # frames per second of every feature
    performances: tuple[Performance, ...]  # sorted by track id, which is unique
    rejects: tuple[Reject, ...]  # rejected without reading, sorted by track id and source
    metadata: pl.DataFrame  # see `metadata.read_metadata`
    listed: pl.DataFrame  # what a list says, and what therefore holds: see `lists.apply`
    columns: dict[str, str]  # own columns of both, and what they hold: see `columns.KINDS`
    left_out: dict[str, str]  # other columns, and why they are left out


def open_dataset(
    root: Path, frame_rate: float | None = None, taken: Collection[str] = ()
) -> Dataset:
    """List a data set's performances without reading them.

    Parameters
    ----------
    root : Path
        As for `layout.find`.
    frame_rate : float, optional
        Frames per second. By default it comes from `dataset.json`, else from `provenance.json`,
        else it is measured from the beats of some performances, with a warning.
    taken : collection of str
        Names that own columns cannot have.

    Raises
    ------
    ValueError
        If the layout is unknown or ambiguous, a file beside the performances is malformed, ids are
        unique only within works, or the frame rate cannot be determined.
    """
    layout = find(Path(root))
    # Facts lie in the root, or beside it if the root is the folder of single files.
    homes = [layout.root]
    if layout.root.name.endswith(SINGLE_FILES):
        homes.append(layout.root.parent)
    description = next(map(read_json, _beside(homes, "dataset.json")), {})

    subset = subset_of(description.get("subset") or layout.name)
    mirdata = [home / "da-tacos_metadata" for home in homes]
    files = [
        path
        for path in _beside([*homes, *mirdata], "*metadata.json")
        if subset is None or subset_of(path.name) in (None, subset)
    ]
    if subset is None and len(stated := {subset_of(path.name) for path in files}) == 1:
        subset = stated.pop()
    metadata = read_metadata(files)

    found = [item for item in layout.found if isinstance(item, Performance)]
    rejects = [item for item in layout.found if isinstance(item, Reject)]
    if not found and not rejects:
        raise ValueError(
            f"{layout.root} holds no performances: there is no .h5 file in its folders"
        )
    if _within_works(description, homes[0], found):
        found = [replace(each, track_id=f"{each.work_id}_{each.track_id}") for each in found]
        metadata = metadata.with_columns(track_id=pl.format("{}_{}", "work_id", "track_id"))
    listed = pl.DataFrame(schema={"track_id": pl.String, **METADATA})
    if chosen := lists.choose(_beside(homes, "*.csv"), description.get("list"), found):
        applied, listed = lists.apply(chosen, found)
        found = [item for item in applied if isinstance(item, Performance)]
        rejects += [item for item in applied if isinstance(item, Reject)]
    performances, duplicates = _without_duplicates(found, metadata)
    rejects = sorted([*rejects, *duplicates], key=lambda reject: (reject.track_id, reject.source))
    fields = ("track_id", "work_id", *METADATA)
    (listed, metadata), left_out = columns.settle([listed, metadata], fields, (*taken, *fields))
    return Dataset(
        name=_checked_name(description["name"]) if description.get("name") else layout.name,
        root=layout.root,
        subset=subset,
        frame_rate=_frame_rate(frame_rate, homes, description, performances),
        performances=performances,
        rejects=tuple(rejects),
        metadata=metadata,
        listed=listed,
        columns=columns.kinds_of(metadata, fields),
        left_out=left_out,
    )


def subset_of(text: Any) -> str | None:
    """Return the subset of Da-TACOS in a name: "benchmark", "coveranalysis" or None."""
    found = re.search("benchmark|coveranalysis", str(text))
    return found.group() if found else None


def _checked_name(name: Any) -> str:
    """Return the name of a data set, which becomes the name of directories."""
    plain = isinstance(name, str) and Path(name).name == name and name.isprintable()
    if not plain or name.startswith(".") or len(name) > 100:
        raise ValueError(
            f"dataset.json has the name {str(name)[:100]!r}, which cannot be the name of a "
            'directory: write another name, as in {"name": "my songs"}'
        )
    return str(name)


def _beside(homes: Sequence[Path], pattern: str) -> list[Path]:
    """Return the files beside the performances that match a pattern, without unsafe links."""
    found = []
    for home in homes:
        for path in sorted(home.glob(pattern)):
            if path.name.startswith(".") or not path.is_file():
                continue
            if path.is_symlink() and leaves(home.resolve(), path):
                logger.warning("ignored: %s is a link that leaves its directory", path)
            else:
                found.append(path)
    return found


def _within_works(description: dict[str, Any], home: Path, found: list[Performance]) -> bool:
    """Return whether ids are stated to be unique only within a work, and check that they are not.

    That a few lie under several works is a mistake, which `_without_duplicates` rejects.
    """
    ids = description.get("ids")
    if ids not in (None, WITHIN_WORKS):
        raise ValueError(
            f"dataset.json beside {home} has the ids {ids!r}: write {WITHIN_WORKS!r}, if ids are "
            "unique only within a work, or leave it out"
        )
    if ids is not None:
        if flat := next((each for each in found if each.work_id is None), None):
            raise ValueError(
                f"dataset.json beside {home} has the ids {ids!r}, but {flat.source} does not lie "
                "in the folder of a work: move it there"
            )
        return True
    works: dict[str, set[str | None]] = defaultdict(set)
    for each in found:
        works[each.track_id].add(each.work_id)
    repeated = [track_id for track_id, under in works.items() if len(under) > 1]
    if 2 * len(repeated) > len(works):
        raise ValueError(
            f"{len(repeated)} of {len(works)} track ids in {home} lie under several works, for "
            f"example {repeated[0]}: if ids are unique only within a work, write "
            f'{{"ids": "{WITHIN_WORKS}"}} into a dataset.json there, and the id of '
            f"WORK/{repeated[0]}.h5 becomes WORK_{repeated[0]}; if not, take the copies away"
        )
    return False


def _without_duplicates(
    found: Sequence[Performance], metadata: pl.DataFrame
) -> tuple[tuple[Performance, ...], list[Reject]]:
    """Return one performance per track id, and the rejects.

    If a track lies under several works, a copy is misfiled if it cannot be read, or if its label
    or the metadata contradict its place. If one copy is left, it is used. Otherwise all are
    rejected, since a wrong work would spoil all results about it.
    """
    copies: dict[str, list[Performance]] = defaultdict(list)
    rejects = []
    for item in found:
        copies[item.track_id].append(item)

    used = [same[0] for same in copies.values() if len(same) == 1]
    known = set(metadata.select("track_id", "work_id").iter_rows())
    for track_id, same in copies.items():
        if len(same) == 1:
            continue
        right = [copy for copy in same if (track_id, copy.work_id) in known] or same
        right = [copy for copy in right if is_confirmed(copy)]
        works = " and ".join(sorted(copy.work_id or "no work" for copy in same))
        reason = f"duplicate track id: {track_id} lies under {works}"
        if len(right) == 1:
            used += right
            reason += f", and belongs to {right[0].work_id}"
        rejects += [
            Reject(track_id, copy.work_id, copy.source, reason) for copy in same if right != [copy]
        ]
    return tuple(sorted(used, key=lambda performance: performance.track_id)), rejects


def check_frame_rate(dataset: Dataset) -> None:
    """Log a warning if the beats of some performances contradict the frame rate of a data set."""
    try:
        measured = measure(_beats(dataset.performances))
    except ValueError:
        return
    if differs(measured.rate, dataset.frame_rate):
        logger.warning(
            "the frame rate of %s is stated as %.3f per second, but it is %s: if that is right, "
            "give it with --frame-rate or correct dataset.json, because times and re-ranking "
            "depend on it",
            dataset.name,
            dataset.frame_rate,
            measured,
        )


def _beats(performances: Sequence[Performance]) -> list[tuple[float, np.ndarray]]:
    sample = performances[:: max(1, len(performances) // MAX_MEASURED)]
    return [beats for beats in map(read_beats, sample) if beats is not None]


def _frame_rate(
    given: float | None,
    homes: list[Path],
    description: dict[str, Any],
    performances: Sequence[Performance],
) -> float:
    """Return the frame rate that is given, or stated beside the data, or measured."""
    stated = _stated_rate(homes, description)
    if given is None:
        return stated or _measured_rate(homes[0], performances)
    if stated is not None and not math.isclose(given, stated, rel_tol=0.01):
        logger.warning(
            "the frame rate is given as %.3f per second, but %s states %.3f",
            given,
            homes[0],
            stated,
        )
    return parse_frame_rate(given)


def _stated_rate(homes: list[Path], description: dict[str, Any]) -> float | None:
    if "frame_rate" in description:
        try:
            return parse_frame_rate(description["frame_rate"])
        except ValueError as error:
            raise ValueError(f"dataset.json beside {homes[0]}: {error}") from error
    rates = (from_provenance(read_json(path)) for path in _beside(homes, "provenance.json"))
    return next((rate for rate in rates if rate is not None), None)


def _measured_rate(home: Path, performances: Sequence[Performance]) -> float:
    try:
        measured = measure(_beats(performances))
    except ValueError as error:
        raise ValueError(
            f"the frame rate of {home} is not stated, and {error}: give it, or write it to a "
            'dataset.json there, as in {"frame_rate": "44100/512"}'
        ) from error
    logger.warning("the frame rate of %s is %s", home, measured)
    return measured.rate
