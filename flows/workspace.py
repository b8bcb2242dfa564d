"""The workspace: one directory a result, named by what it was made from.

```
features/<data set>/<key>/   aggregated features and chroma sequences
bundles/<encoder>-<key>/     a trained encoder
vectors/<bundle>-<key>/      vectors.parquet, a vector a performance
evaluations/<key>/           metrics.json, quality.csv and plots
published/<collection>.json  what a collection was made of
duplicates/<collection>-<key>/  duplicates.csv
clusters/<key>/              K-Means over k, and plots
splits/<data set>-<key>/     features of the works that a comparison trains on
comparisons/rows/<row>-<key>/  one row of a comparison: its figures and queries
comparisons/<key>/           comparison.parquet, comparison.json and a plot
qdrant/                      the collections of the embedded engine (search owns them)
```

A result is built beside its place and renamed when it is whole, so whatever stands is complete,
and a stage whose inputs haven't changed finds its result standing and does nothing.
"""

import errno
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import polars as pl
from filelock import FileLock

from search import settings

SECOND = 10**9  # in ns

#: What the system calls a disk, a quota or a file that can't grow.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Workspace:
    """Where results are kept: `$COVERS_HOME`, or a directory named by the caller."""

    root: Path

    @classmethod
    def at(cls, home: Path | None) -> "Workspace":
        """The workspace at `home`, or the environment's where it is None."""
        return cls((home or settings.home()).expanduser().resolve())

    def path(self, kind: str, name: str) -> Path:
        """The place of one result: `kind` is features, bundles, vectors and so on, as above."""
        return self.root / kind / name

    def latest(self, kind: str, manifest: str) -> Path:
        """The result of this kind that was made last, told by its file `manifest`.

        Raises
        ------
        FileNotFoundError
            If there is none yet.
        ValueError
            If the clock was set back since, so that a later one may seem older.
        """
        found = sorted(
            (path.stat().st_mtime_ns, path.parent)
            for path in (self.root / kind).glob(f"**/{manifest}")
            if not any(part.startswith(".") for part in path.relative_to(self.root).parts)
        )
        if not found:
            raise FileNotFoundError(
                f"There are no {kind} in the workspace {self.root} yet: "
                "make them with `covers pipeline --data DIR`, or name another workspace by --home."
            )
        made, place = found[-1]
        if made > time.time_ns() + SECOND:
            raise ValueError(
                f"{place} is from {datetime.fromtimestamp(made / SECOND):%Y-%m-%d %H:%M}, so the "
                f"clock was set back, and which of the {kind} is the latest can't be told: name it."
            )
        return place


def key(*made_from: object) -> str:
    """Twelve hex digits that change when anything a result is made from changes."""
    text = json.dumps(made_from, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


@contextmanager
def room_for(place: Path) -> Iterator[None]:
    """Where the disk is too full to write a result, say so, whatever wrote it and in any words.

    Raises
    ------
    OSError
        Naming the result.
    """
    try:
        yield
    except (Exception, pl.exceptions.PanicException) as error:
        full = getattr(error, "errno", None) in FULL or f"os error {errno.ENOSPC}" in str(error)
        if not full:
            raise
        raise OSError(
            f"There is no room on the disk for {place}: make room, and run the same again."
        ) from error


@contextmanager
def claimed(place: Path) -> Iterator[bool]:
    """Hold a result's place, and say whether it has to be made.

    A second process that wants the same result waits for the first one, then finds it. What a
    killed process left half-made beside the place is cleared away.
    """
    with room_for(place):
        place.parent.mkdir(parents=True, exist_ok=True)
    with room_for(place), FileLock(place.parent / f".{place.name}.lock"):
        for left in place.parent.glob(f".{place.name}.*/"):
            shutil.rmtree(left, ignore_errors=True)
        yield not place.exists()


def make_once(place: Path, make: Callable[[Path], None]) -> bool:
    """Fill `place` by calling `make` on a scratch directory, unless it stands already.

    Returns
    -------
    bool
        Whether it had to be made.
    """
    with claimed(place) as missing:
        if missing:
            scratch = place.parent / f".{place.name}.building"
            scratch.mkdir()
            make(scratch)
            scratch.replace(place)
    return missing
