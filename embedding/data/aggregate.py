"""From a data set to its feature store, in batches that may run anywhere, in any order, and again.

```
to_read = pending(dataset, earlier)                 what no earlier store or part has
aggregate_batch(to_read[:500], rate, directory)     one process reads, writes one part
assemble(dataset, [*earlier, *parts], path)         rows of both, sorted, in one store
```

A part is a small feature store. A row is taken over as long as its file has the same place, size
and time of modification, so that after an interruption, or when performances come, change or go,
only what is new is read; the assembled store is the same, byte for byte, as if read in one go.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl

from embedding.data import chroma, features, store
from embedding.data.dataset import Dataset, UnreadablePerformance, read, subset_of
from embedding.data.features import FEATURE_NAMES
from embedding.data.layout import Performance
from embedding.data.store import METADATA, REJECTS, SCHEMA, BadStore, FeatureStore

logger = logging.getLogger(__name__)

#: So few rejects never stop a run, however small the data set: they are soon looked through.
FEW_REJECTS = 10

#: By these a row is known to be of a file as it is now.
KEY = ("track_id", "work_id", "source", "size", "mtime_ns")

#: What reading gives; the rest of a store's columns is known of the data set.
MEASURED = {
    name: dtype
    for name, dtype in SCHEMA.items()
    if name not in (*METADATA, "subset", "chroma_start")
}

#: In place of a size: the file system failed, so that the file has to be tried again.
OUT_OF_REACH = -1


class TooManyRejects(ValueError):  # noqa: N818 - named for what it is
    """More performances were rejected than the stated share, or none was left."""


def pending(dataset: Dataset, earlier: Iterable[FeatureStore]) -> tuple[Performance, ...]:
    """Return the performances that have to be read, in the data set's order.

    Parameters
    ----------
    dataset : Dataset
        As it is now.
    earlier : iterable of FeatureStore
        Parts and complete stores; those made at another frame rate count for nothing.
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
    """Open parts or complete stores to take rows from; a damaged one is as good as missing."""
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
    """Read some performances in this process and write a part.

    Parameters
    ----------
    performances : sequence of Performance
        What one batch is; its cut and order do not matter.
    frame_rate : float
        Frames a second of the data set.
    directory : Path
        Where parts lie.

    Returns
    -------
    Path
        The part, named after what was to be read, so that doing a batch again replaces it.
    """
    rows, rejects, sequences = [], [], []
    for performance in performances:
        facts: dict[str, Any] = dict(zip(KEY, _key(performance), strict=True))
        try:
            frames = read(performance)
            averages = features.average(frames)
        except UnreadablePerformance as error:
            if not error.lasting:
                facts |= {"size": OUT_OF_REACH, "mtime_ns": OUT_OF_REACH}
            rejects.append({**facts, "reason": error.reason})
            continue
        except ValueError as error:
            rejects.append({**facts, "reason": str(error)})
            continue
        sequence = chroma.reduce(frames, frame_rate)
        sequences.append(sequence)
        rows.append(
            {
                **facts,
                **dict(zip(FEATURE_NAMES, averages.means.tolist(), strict=True)),
                "frames": len(frames.hpcp),
                "seconds": len(frames.hpcp) / frame_rate,
                "nonfinite": averages.nonfinite,
                "fingerprint": frames.fingerprint,
                "size": frames.size,
                "mtime_ns": frames.mtime_ns,
                "chroma_frames": len(sequence),
            }
        )
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


def assemble(
    dataset: Dataset,
    stores: Sequence[FeatureStore],
    path: Path,
    *,
    max_reject_share: float = 0.05,
) -> FeatureStore:
    """Merge the rows that belong to a data set as it is now into one store.

    Titles and the subset come from `dataset`, so that mending the metadata needs no reading. The
    chroma sequences are copied one at a time.

    Parameters
    ----------
    dataset : Dataset
        As it is now.
    stores : sequence of FeatureStore
        Parts and earlier stores, in any order.
    path : Path
        The store to write; the one there is replaced.
    max_reject_share : float
        Of all performances, in [0, 1]. `FEW_REJECTS` are let pass in any case, unless it is 0.

    Raises
    ------
    TooManyRejects
        If more were rejected, or nothing is left. `<path>.rejects.csv` then lists them.
    ValueError
        If a performance is in none of the stores: it has not been read, or has changed since.
    """
    path = Path(path)
    usable = _usable(dataset, stores)
    wanted = pl.DataFrame(
        [_key(performance) for performance in dataset.performances],
        schema={name: SCHEMA[name] for name in KEY},
        orient="row",
    )
    rows = _rows(usable, wanted)
    failed = _failed(usable, wanted).join(rows, on="track_id", how="anti")
    known = pl.concat([rows.select("track_id"), failed.select("track_id")])
    if len(unread := wanted.join(known, on="track_id", how="anti")):
        raise ValueError(
            f"{len(unread)} of {len(wanted)} performances have not been read as they are now, "
            f"{unread['source'][0]} for one: aggregate them first"
        )

    listed = pl.DataFrame([asdict(reject) for reject in dataset.rejects], schema=REJECTS)
    rejects = pl.concat([listed, failed])
    _check_share(rejects, len(rows), path, max_reject_share)
    titled = rows.drop(*METADATA, "subset").join(
        dataset.metadata, on=["track_id", "work_id"], how="left", maintain_order="left"
    )
    return store.write(
        path,
        name=dataset.name,
        table=titled.with_columns(subset=pl.lit(dataset.subset, dtype=pl.String)),
        sequences=(
            usable[number].sequence(row) for number, row in rows.select("store", "row").iter_rows()
        ),
        rejects=rejects,
        frame_rate=dataset.frame_rate,
    )


def aggregate_csv(csv: Path, path: Path) -> FeatureStore:
    """Make a store of the prototype's table, with no chroma, seconds or titles.

    Raises
    ------
    ValueError
        As `features.read_csv`.
    """
    csv = Path(csv)
    table = features.read_csv(csv).with_columns(
        source=pl.lit(csv.name), subset=pl.lit(subset_of(csv.name), dtype=pl.String)
    )
    return store.write(
        Path(path),
        name=csv.stem,
        table=table,
        sequences=[],
        frame_rate=None,
    )


def _key(performance: Performance) -> tuple[str, str, str, int, int]:
    return (performance.track_id, performance.work_id, performance.source, *performance.stat())


def _usable(dataset: Dataset, stores: Iterable[FeatureStore]) -> list[FeatureStore]:
    # Seconds and sequences of another frame rate are wrong throughout.
    return [each for each in stores if each.frame_rate == dataset.frame_rate]


def _rows(stores: list[FeatureStore], wanted: pl.DataFrame) -> pl.DataFrame:
    """Each wanted performance's row, with the number of its store and its place there."""
    found = [pl.DataFrame(schema={**SCHEMA, "store": pl.Int64, "row": pl.Int64})]
    for number, each in enumerate(stores):
        numbered = each.table.with_columns(
            store=pl.lit(number, dtype=pl.Int64), row=pl.int_range(pl.len(), dtype=pl.Int64)
        )
        found.append(numbered.join(wanted, on=KEY, how="semi"))
    # Two rows of one key differ only if a file changed and kept its size and time. The same one
    # must win whatever the order of the stores.
    rows = pl.concat(found).sort("track_id", "fingerprint")
    return rows.unique("track_id", keep="first", maintain_order=True)


def _failed(stores: list[FeatureStore], wanted: pl.DataFrame) -> pl.DataFrame:
    """The wanted performances that could not be read as they are now."""
    rejects = pl.concat([pl.DataFrame(schema=REJECTS), *(each.rejects for each in stores)])
    lasting = rejects.join(wanted, on=KEY, how="semi")
    passing = rejects.filter(size=OUT_OF_REACH).join(wanted, on=KEY[:3], how="semi")
    failed = pl.concat([lasting, passing]).sort(
        "track_id", "size", "reason", descending=[False, True, False]
    )
    return failed.unique("track_id", keep="first", maintain_order=True)


def _check_share(rejects: pl.DataFrame, kept: int, path: Path, max_share: float) -> None:
    if not 0 <= max_share <= 1:
        raise ValueError(f"max_reject_share is {max_share}, expected a share between 0 and 1")
    listing = path.with_name(f"{path.name}.rejects.csv")
    listing.unlink(missing_ok=True)
    total = kept + len(rejects)
    tolerated = max(FEW_REJECTS, max_share * total) if max_share > 0 else 0
    if kept and len(rejects) <= tolerated:
        return
    listing.parent.mkdir(parents=True, exist_ok=True)
    rejects.sort("track_id", "source").write_csv(listing)
    few = rejects.sort("track_id", "source").select("source", "reason").head(3)
    examples = "; ".join(f"{source}: {reason}" for source, reason in few.iter_rows())
    excess = f"more than {max_share:.0%}" if kept else "which leaves none"
    raise TooManyRejects(
        f"{len(rejects)} of {total} performances were rejected, {excess}; all are listed in "
        f"{listing}, the first being {examples}"
    )
