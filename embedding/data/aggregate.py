"""From a data set to its feature store, in batches that may run anywhere and in any order.

```
to_read = pending(dataset, earlier)                 in no earlier store or part
aggregate_batch(to_read[:500], rate, directory)     one process reads, writes one part
assemble(dataset, [*earlier, *parts], path)         rows of both, sorted, in one store
```

A part is a small feature store without works. A row is used again as long as its file has the same
path, size and time of modification. So after an interruption, or when performances are added,
changed or removed, only new files are read, and the assembled store has the same bytes as if it had
been read at once.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from embedding.data import chroma, features, store
from embedding.data.dataset import Dataset, subset_of
from embedding.data.features import FEATURE_NAMES
from embedding.data.frames import UnreadablePerformance, read
from embedding.data.layout import Performance
from embedding.data.metadata import METADATA
from embedding.data.store import OWN, REJECTS, SCHEMA, BadStore, FeatureStore
from embedding.data.table import read_table, with_own_works

logger = logging.getLogger(__name__)

#: This number of rejects never stops a run, however small the data set: a user can check them.
MAX_HARMLESS_REJECTS = 10

#: These columns tell whether a row is of a file as it is now.
KEY = ("track_id", "source", "size", "mtime_ns")

#: The columns that reading gives. The data set gives the others.
MEASURED = {
    name: dtype
    for name, dtype in SCHEMA.items()
    if name not in (*METADATA, "work_id", "subset", "chroma_start")
}

#: The size of a reject whose file system failed, so that the file is tried again.
OUT_OF_REACH = -1


class TooManyRejects(ValueError):  # noqa: N818 - named for what it is
    """More performances were rejected than allowed, or none is left."""


def pending(dataset: Dataset, earlier: Iterable[FeatureStore]) -> tuple[Performance, ...]:
    """Return the performances that have to be read, in the data set's order.

    `earlier` are parts and complete stores. Those of another frame rate are ignored.
    """
    done: set[tuple[Any, ...]] = set()
    for each in _usable(dataset, earlier):
        done.update(each.table.select(KEY).iter_rows())
        done.update(each.rejects.select(KEY).iter_rows())
    return tuple(
        performance for performance in dataset.performances if _key(performance) not in done
    )


def parts(directory: Path) -> list[FeatureStore]:
    """Open the parts in a directory, sorted by name, without those that are damaged."""
    return intact(sorted(Path(directory).glob("part-*")))


def intact(paths: Iterable[Path]) -> list[FeatureStore]:
    """Open parts or complete stores, without those that are damaged."""
    opened = []
    for path in paths:
        try:
            opened.append(FeatureStore.open(path))
        except BadStore as error:
            logger.warning("ignored: %s", error)
    return opened


def aggregate_batch(
    performances: Sequence[Performance], frame_rate: float, directory: Path
) -> Path:
    """Read performances in this process and write a part into `directory`.

    Returns the path of the part. Its name depends on the performances, so the same batch replaces
    it. `frame_rate` is the data set's, in frames per second.
    """
    rows, rejects, sequences = [], [], []
    for performance in performances:
        facts: dict[str, Any] = dict(zip(KEY, _key(performance), strict=True))
        try:
            row, sequence = _measure(performance, frame_rate)
        except UnreadablePerformance as error:
            if not error.lasting:
                facts |= {"size": OUT_OF_REACH, "mtime_ns": OUT_OF_REACH}
            rejects.append({**facts, "reason": error.reason})
        except ValueError as error:
            rejects.append({**facts, "reason": str(error)})
        else:
            rows.append({**facts, **row})
            sequences.append(sequence)
    batch = sorted(performance.source for performance in performances)
    digest = hashlib.sha256(json.dumps([frame_rate, *batch]).encode()).hexdigest()
    return store.write(
        Path(directory) / f"part-{digest[:16]}",
        name="part",
        table=pl.DataFrame(rows, schema=MEASURED),
        sequences=sequences,
        rejects=pl.DataFrame(rejects, schema=REJECTS),
        frame_rate=frame_rate,
    ).path


def _measure(performance: Performance, frame_rate: float) -> tuple[dict[str, Any], np.ndarray]:
    """Return the measured columns of a performance, and its chroma sequence."""
    frames = read(performance)
    averages = features.average(frames)
    sequence = chroma.reduce(frames, frame_rate)
    row = {
        **dict(zip(FEATURE_NAMES, averages.means.tolist(), strict=True)),
        "frames": len(frames.hpcp),
        "seconds": len(frames.hpcp) / frame_rate,
        "nonfinite": averages.nonfinite,
        "label": frames.label,
        "fingerprint": frames.fingerprint,
        "size": frames.size,
        "mtime_ns": frames.mtime_ns,
        "chroma_frames": len(sequence),
    }
    return row, sequence


def assemble(
    dataset: Dataset,
    stores: Sequence[FeatureStore],
    path: Path,
    *,
    max_reject_share: float = 0.05,
) -> FeatureStore:
    """Merge the rows of a data set as it is now into one store.

    Works, titles and the subset are found here, so that correcting them needs no reading. A work
    comes from a list or the folder, else from the metadata, else from the file; a performance of
    which none says it is a work of its own.

    Parameters
    ----------
    dataset : Dataset
        Lists the performances.
    stores : sequence of FeatureStore
        Parts and earlier stores, in any order.
    path : Path
        The store to write or replace.
    max_reject_share : float
        Largest share of rejects among all performances, in [0, 1]. Up to `MAX_HARMLESS_REJECTS`
        are always allowed, unless it is 0.

    Raises
    ------
    TooManyRejects
        If more performances were rejected, or none is left. `<path>.rejects.csv` lists them.
    ValueError
        If a performance is in none of the stores as it is now.
    """
    path = Path(path)
    usable = _usable(dataset, stores)
    wanted = pl.DataFrame(
        [(*_key(performance), performance.work_id) for performance in dataset.performances],
        schema={name: SCHEMA[name] for name in (*KEY, "work_id")},
        orient="row",
    )
    rows = _with_works(_rows(usable, wanted), dataset).drop(*METADATA)
    failed = _failed(usable, wanted).join(rows, on="track_id", how="anti")
    _check_complete(wanted, [*rows["track_id"], *failed["track_id"]])
    listed = pl.DataFrame([asdict(reject) for reject in dataset.rejects], schema=REJECTS)
    rejects = pl.concat([listed, failed])
    _check_share(rejects, len(rows), path, max_reject_share)
    table = rows.join(_facts(rows, dataset), on="track_id", how="left", maintain_order="left")
    return store.write(
        path,
        name=dataset.name,
        table=table.with_columns(subset=pl.lit(dataset.subset, dtype=pl.String)),
        sequences=(
            usable[number].sequence(row) for number, row in rows.select("store", "row").iter_rows()
        ),
        rejects=rejects,
        frame_rate=dataset.frame_rate,
    )


def aggregate_csv(csv: Path, path: Path, *, max_reject_share: float = 0.05) -> FeatureStore:
    """Make a store of the prototype's table (see `table`), without chroma, seconds or titles.

    Raises `TooManyRejects` as `assemble`, and ValueError if the file is not such a table.
    """
    csv, path = Path(csv), Path(path)
    table, reasons = read_table(csv)
    rejects = pl.DataFrame(
        [
            {"track_id": track_id, "source": csv.name, "reason": reason}
            for track_id, reason in reasons.items()
        ],
        schema=REJECTS,
    )
    _check_share(rejects, len(table), path, max_reject_share)
    table = table.with_columns(
        source=pl.lit(csv.name), subset=pl.lit(subset_of(csv.name), dtype=pl.String)
    )
    return store.write(
        path, name=csv.stem, table=table, sequences=[], rejects=rejects, frame_rate=None
    )


def _key(performance: Performance) -> tuple[str, str, int, int]:
    return (performance.track_id, performance.source, *performance.stat())


def _usable(dataset: Dataset, stores: Iterable[FeatureStore]) -> list[FeatureStore]:
    # Seconds and sequences depend on the frame rate.
    return [each for each in stores if each.frame_rate == dataset.frame_rate]


def _rows(stores: list[FeatureStore], wanted: pl.DataFrame) -> pl.DataFrame:
    """Return the row of each wanted performance, with the number of its store and its row there."""
    found = [pl.DataFrame(schema={**SCHEMA, "store": pl.Int64, "row": pl.Int64})]
    for number, each in enumerate(stores):
        numbered = each.table.with_columns(
            store=pl.lit(number, dtype=pl.Int64), row=pl.int_range(pl.len(), dtype=pl.Int64)
        )
        found.append(numbered.drop("work_id").join(wanted, on=KEY).select(found[0].columns))
    # Two rows with one key differ only if a file changed but not its size and time. The same row
    # must be chosen for any order of the stores.
    rows = pl.concat(found).sort("track_id", "fingerprint")
    return rows.unique("track_id", keep="first", maintain_order=True)


def _failed(stores: list[FeatureStore], wanted: pl.DataFrame) -> pl.DataFrame:
    """Return the wanted performances that could not be read as they are now."""
    rejects = pl.concat([pl.DataFrame(schema=REJECTS), *(each.rejects for each in stores)])
    rejects = rejects.drop("work_id")
    lasting = rejects.join(wanted, on=KEY)
    passing = rejects.filter(size=OUT_OF_REACH).join(wanted.drop("size", "mtime_ns"), on=KEY[:2])
    failed = pl.concat([each.select(*REJECTS) for each in (lasting, passing)]).sort(
        "track_id", "size", "reason", descending=[False, True, False]
    )
    return failed.unique("track_id", keep="first", maintain_order=True)


def _with_works(rows: pl.DataFrame, dataset: Dataset) -> pl.DataFrame:
    """Fill in the works that neither a list nor a folder says, and log what contradicts a file."""
    once = dataset.metadata.unique("track_id", keep="none")
    known = once.select("track_id", known="work_id")
    found = rows.join(known, on="track_id", how="left", maintain_order="left").with_columns(
        work_id=pl.coalesce("work_id", "known", "label")
    )
    apart = found.filter(pl.col("label") != pl.col("work_id"))
    if len(apart):
        logger.warning(
            "%d of %d files name another work than the list, folder or metadata says, which is "
            "used: %s names %s and is used as %s",
            len(apart),
            len(found),
            *apart.select("source", "label", "work_id").row(0),
        )
    alone = found["work_id"].is_null()
    if alone.any():
        logger.info(
            "%d of %d performances have no work, so each is its own", alone.sum(), len(alone)
        )
    return with_own_works(found.drop("known"))


def _facts(rows: pl.DataFrame, dataset: Dataset) -> pl.DataFrame:
    """Return what is stated of each performance, even under another work, and of its work.

    What a list states comes first. Own columns are in a struct, as their names may be those of the
    store's columns.
    """
    now = rows.select("track_id", now="work_id")
    listed = dataset.listed.join(now, on="track_id").rename({"now": "work_id"})
    stated = dataset.metadata.join(now, on="track_id")
    stated = stated.sort(pl.col("work_id") != pl.col("now"), "work_id")
    stated = stated.unique("track_id", keep="first", maintain_order=True).select(listed.columns)
    facts = pl.concat([listed, stated]).group_by("track_id", maintain_order=True)
    works = pl.concat(
        each.sort("work_id", "track_id").select("work_id", "work_title", "work_artist")
        for each in (listed, dataset.metadata)
    ).group_by("work_id", maintain_order=True)
    performances = facts.agg(pl.all().drop_nulls().first()).drop(
        "work_id", "work_title", "work_artist"
    )
    titles = works.agg(pl.all().drop_nulls().first())
    found = now.rename({"now": "work_id"}).join(performances, on="track_id", how="left")
    found = found.join(titles, on="work_id", how="left").drop("work_id")
    own = pl.struct(*dataset.columns) if dataset.columns else pl.lit(None)
    return found.select("track_id", *METADATA, own.alias(OWN))


def _check_complete(wanted: pl.DataFrame, known: list[str]) -> None:
    unread = wanted.filter(~pl.col("track_id").is_in(known))
    if len(unread):
        raise ValueError(
            f"{len(unread)} of {len(wanted)} performances have not been read as they are now, "
            f"for example {unread['source'][0]}: aggregate them first"
        )


def _check_share(rejects: pl.DataFrame, rows: int, path: Path, max_share: float) -> None:
    if not 0 <= max_share <= 1:
        raise ValueError(f"max_reject_share is {max_share}, expected a share between 0 and 1")
    listing = path.with_name(f"{path.name}.rejects.csv")
    listing.unlink(missing_ok=True)
    total = rows + len(rejects)
    allowed = max(MAX_HARMLESS_REJECTS, max_share * total) if max_share > 0 else 0
    if rows and len(rejects) <= allowed:
        return
    listing.parent.mkdir(parents=True, exist_ok=True)
    rejects = rejects.sort("track_id", "source")
    rejects.write_csv(listing)
    examples = "; ".join(
        f"{source}: {reason}"
        for source, reason in rejects.select("source", "reason").head(3).iter_rows()
    )
    excess = f"more than {max_share:.0%}" if rows else "which leaves none"
    raise TooManyRejects(
        f"{len(rejects)} of {total} performances were rejected, {excess}; all are listed in "
        f"{listing}, the first being {examples}"
    )
