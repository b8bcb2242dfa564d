"""A data set: which performances a directory holds, and the facts stated beside them.

Beside the performances (see `layout`) may lie

```
*metadata.json      titles and artists (see `metadata`)
dataset.json        {"name": …, "frame_rate": "44100/512", "subset": …}, each optional
provenance.json     {P: {"T": frames, "sec": seconds}}
```
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from embedding.data.frame_rate import from_provenance, measure, parse_frame_rate
from embedding.data.frames import is_readable, read_beats
from embedding.data.layout import SINGLE_FILES, Layout, Performance, Reject, find
from embedding.data.metadata import read_json, read_metadata

#: Performances whose beats are read when the frame rate has to be measured.
MAX_MEASURED = 50


@dataclass(frozen=True)
class Dataset:
    """The contents of a directory."""

    name: str  # from dataset.json, or the name of the folders
    root: Path
    subset: str | None  # "benchmark", "coveranalysis", or None if it is not stated
    frame_rate: float  # frames per second of every feature
    performances: tuple[Performance, ...]  # sorted by track id, which is unique
    rejects: tuple[Reject, ...]  # rejected without reading, sorted by track id and source
    metadata: pl.DataFrame  # see metadata.read_metadata


def open_dataset(root: Path, frame_rate: float | None = None) -> Dataset:
    """List a data set's performances without reading them.

    Parameters
    ----------
    root : Path
        As for `layout.find`.
    frame_rate : float, optional
        Frames per second. By default it comes from `dataset.json`, else from `provenance.json`,
        else it is measured from the beats of some performances, with a warning.

    Raises
    ------
    ValueError
        If the layout is unknown or ambiguous, a file beside the performances is malformed, or the
        frame rate cannot be determined.
    """
    layout = find(Path(root))
    # Facts lie in the root, or beside it if the root is the folder of single files.
    homes = [layout.root]
    if layout.root.name.endswith(SINGLE_FILES):
        homes.append(layout.root.parent)
    descriptions = (home / "dataset.json" for home in homes)
    description = next((read_json(path) for path in descriptions if path.is_file()), {})

    subset = subset_of(description.get("subset") or layout.name)
    files = [
        path
        for home in homes
        for folder in (home, home / "da-tacos_metadata")  # where mirdata puts it
        for path in sorted(folder.glob("*metadata.json"))
        if subset is None or subset_of(path.name) in (None, subset)
    ]
    if subset is None and len(stated := {subset_of(path.name) for path in files}) == 1:
        subset = stated.pop()
    metadata = read_metadata(files)

    performances, rejects = _without_duplicates(layout, metadata)
    if not performances and not rejects:
        raise ValueError(
            f"{layout.root} holds no performances: there is no .h5 file in its folders"
        )
    if frame_rate is None:
        frame_rate = _frame_rate(homes, description, performances)
    return Dataset(
        name=_checked_name(description["name"]) if description.get("name") else layout.name,
        root=layout.root,
        subset=subset,
        frame_rate=parse_frame_rate(frame_rate),
        performances=performances,
        rejects=rejects,
        metadata=metadata,
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


def _without_duplicates(
    layout: Layout, metadata: pl.DataFrame
) -> tuple[tuple[Performance, ...], tuple[Reject, ...]]:
    """Return one performance per track id, and the rejects.

    If a track lies under several works, a copy is misfiled if it cannot be read, or if its label
    or the metadata contradict its place. If one copy is left, it is used. Otherwise all are
    rejected, since a wrong work would spoil all results about it.
    """
    copies: dict[str, list[Performance]] = defaultdict(list)
    rejects = [item for item in layout.found if isinstance(item, Reject)]
    for item in layout.found:
        if isinstance(item, Performance):
            copies[item.track_id].append(item)

    used = [same[0] for same in copies.values() if len(same) == 1]
    known = set(metadata.select("track_id", "work_id").iter_rows())
    for track_id, same in copies.items():
        if len(same) == 1:
            continue
        right = [copy for copy in same if (track_id, copy.work_id) in known] or same
        right = [copy for copy in right if is_readable(copy)]
        works = " and ".join(sorted(copy.work_id for copy in same))
        reason = f"duplicate track id: {track_id} lies under {works}"
        if len(right) == 1:
            used += right
            reason += f", and belongs to {right[0].work_id}"
        rejects += [
            Reject(track_id, copy.work_id, copy.source, reason) for copy in same if right != [copy]
        ]
    return (
        tuple(sorted(used, key=lambda performance: performance.track_id)),
        tuple(sorted(rejects, key=lambda reject: (reject.track_id, reject.source))),
    )


def _frame_rate(
    homes: list[Path], description: dict[str, Any], performances: tuple[Performance, ...]
) -> float:
    if "frame_rate" in description:
        try:
            return parse_frame_rate(description["frame_rate"])
        except ValueError as error:
            raise ValueError(f"dataset.json beside {homes[0]}: {error}") from error
    for home in homes:
        path = home / "provenance.json"
        if path.is_file() and (rate := from_provenance(read_json(path))) is not None:
            return rate
    sample = performances[:: max(1, len(performances) // MAX_MEASURED)]
    try:
        return measure(filter(None, map(read_beats, sample)))
    except ValueError as error:
        raise ValueError(
            f"the frame rate of {homes[0]} is not stated, and {error}: give it, or write it to a "
            'dataset.json there, as in {"frame_rate": "44100/512"}'
        ) from error
