"""The workspace: a directory for each result, named by a hash of what it was made from.

```
recordings/<folder>-<key>/      the features of a folder of recordings, by path
features/<data set>-<key>/      a data set: data.json has its path
    <key>/                      a feature store
    parts/                      what an unfinished run has read
bundles/<encoder>-<key>/        a trained encoder
vectors/<bundle>-<key>/         vectors.parquet, a vector for each performance
evaluations/<vectors>-<key>/    metrics.json, quality.csv and plots
duplicates/<collection>-<key>/  duplicates.csv
clusters/<data set>-<key>/      K-Means over k, and plots
splits/<data set>-<key>/        features of the works that a comparison trains on
comparisons/rows/<row>-<key>/   a row of a comparison: its figures and queries
comparisons/<key>/              comparison.parquet, comparison.json and a plot
qdrant/                         the collections of the embedded engine (owned by `search`)
latest.json                     the latest result of each role
served.json                     what each served collection was made of
```

A result is written under another name and renamed when it is complete. So every result in the
workspace is complete, and a stage whose inputs have not changed finds its result.
"""

import errno
import fcntl
import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import polars as pl
from filelock import FileLock

from embedding.bundle import PRETRAINED, PRETRAINED_NAME
from embedding.data.atomic import whole_directory, whole_file
from search import settings

logger = logging.getLogger(__name__)

#: The errors of a disk that is full, a quota, and a file that cannot grow.
DISK_FULL_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

#: The roles in latest.json, with the noun and the command for messages.
ROLES = {
    "features": ("features", "covers aggregate DIR"),
    "training": ("features to train on", "covers aggregate DIR"),
    "bundle": ("bundle", "covers train"),
    "vectors": ("vectors", "covers embed"),
}

#: In the directory of a data set's features: what an unfinished run has read.
PARTS = "parts"

#: The file in a result that names what the result is about.
MADE_FROM = "made_from.json"


@dataclass(frozen=True)
class Workspace:
    """The directory of all results: `$COVERS_HOME`, or one that the caller names."""

    root: Path

    @classmethod
    def at(cls, home: Path | None) -> "Workspace":
        """Return the workspace at `home`, or the environment's if it is None."""
        return cls((home or settings.home()).expanduser().resolve())

    def path(self, kind: str, name: str) -> Path:
        """Return the path of a result: `kind` is features, bundles, vectors and so on."""
        return self.root / kind / name

    def extracted(self, recordings: Path) -> Path:
        """Return the directory for the features of a folder of recordings."""
        return self.path("recordings", f"{recordings.name}-{key(str(recordings))[:6]}")

    def result(
        self,
        kind: str,
        subject: str,
        made_of: Sequence[object],
        make: Callable[[Path], None],
        made_from: Mapping[str, str] | None = None,
    ) -> Path:
        """Return the directory of a result, and make the result if it is missing.

        Parameters
        ----------
        kind : str
            bundles, vectors and so on, as above.
        subject : str
            The first part of the name; the second is the key.
        made_of : sequence of object
            Everything that decides the content: the key is a hash of it.
        make : callable
            Writes the content into the empty directory that it is given.
        made_from : mapping of str to str, optional
            The results (as `relative` writes them) or the collection that this result is about.
            `covers gc` deletes the result after one of them.
        """
        place = self.path(kind, "-".join(filter(None, (subject, key(*made_of)))))
        with claimed(place) as missing:
            if missing:
                with whole_directory(place) as scratch:
                    make(scratch)
                    if made_from is not None:
                        write_json(scratch / MADE_FROM, made_from)
        logger.info("%s %s", "made" if missing else "unchanged:", self.relative(place))
        return place

    def relative(self, path: Path) -> str:
        """Return a path as text that stays right when the workspace or the package moves."""
        if path == PRETRAINED:
            return PRETRAINED_NAME
        for form in (path, path.resolve()):
            if form.is_relative_to(self.root):
                return str(form.relative_to(self.root))
        return str(path.absolute())

    def resolve(self, text: str) -> Path:
        """Return the path that `relative` wrote."""
        return PRETRAINED if text == PRETRAINED_NAME else self.root / text

    def note(self, **made: Path) -> None:
        """Note results as the latest of their roles (`ROLES`)."""
        place = self.root / "latest.json"
        with room_for(place):
            self.root.mkdir(parents=True, exist_ok=True)
            with FileLock(self.root / ".latest.lock"):
                try:
                    noted = self.noted()
                except ValueError:
                    noted = {}  # a damaged file is replaced
                now = noted | {role: self.relative(path) for role, path in made.items()}
                if now != noted:
                    write_json(place, now)

    def noted(self) -> dict[str, str]:
        """Return the latest results by role, as `relative` writes them.

        Raises
        ------
        ValueError
            If latest.json is damaged.
        """
        noted = read_json(self.root / "latest.json")
        if noted is None:
            return {}
        if not isinstance(noted, dict) or not all(
            role in ROLES and isinstance(path, str) for role, path in noted.items()
        ):
            raise damaged(self.root / "latest.json")
        return noted

    def latest(self, role: str) -> Path:
        """Return the latest result of a role.

        Raises
        ------
        FileNotFoundError
            If there is none, or it is gone.
        ValueError
            If latest.json is damaged.
        """
        noted = self.noted().get(role)
        noun, command = ROLES[role]
        if noted is None or not self.resolve(noted).exists():
            why = " yet" if noted is None else f", as {noted} is missing"
            raise FileNotFoundError(
                f"The workspace {self.root} has no latest {noun}{why}: name a path, or run "
                f"`{command}` or `covers pipeline --data DIR`."
            )
        return self.resolve(noted)

    @contextmanager
    def used(self) -> Iterator[None]:
        """Keep all results in place while a flow runs. Several flows can do so at once."""
        with self._users() as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            yield

    @contextmanager
    def used_by_nobody(self) -> Iterator[bool]:
        """Say whether no flow uses the workspace, and if so, keep flows waiting meanwhile."""
        with self._users() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                free = False
            else:
                free = True
            yield free

    @contextmanager
    def _users(self) -> Iterator[TextIOWrapper]:
        try:
            with room_for(self.root):
                self.root.mkdir(parents=True, exist_ok=True)
                file = (self.root / ".users.lock").open("a", encoding="utf-8")
        except OSError as error:
            if error.errno is None:  # there is no room
                raise
            raise OSError(
                f"The workspace {self.root} cannot be made or written: {error.filename} "
                f"({error.strerror}). Name another directory with --home or COVERS_HOME."
            ) from error
        with file:  # the lock is freed when the file is closed or the process is killed
            yield file


def key(*made_of: object) -> str:
    """Return twelve hex digits that change when anything in the arguments changes."""
    text = json.dumps(made_of, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def data_name(features: Path | str | None) -> str:
    """Return the name of the data set that a feature store is of."""
    return Path(features).parent.name.rpartition("-")[0] if features else "the latest features"


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file as a whole or not at all."""
    with whole_file(path) as scratch:
        text = json.dumps(content, indent=1, ensure_ascii=False)
        scratch.write_text(f"{text}\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Return the content of a JSON file, or None if it is missing.

    Raises
    ------
    ValueError
        If it is damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise damaged(path) from error


def damaged(path: Path) -> ValueError:
    """Return the error for a damaged file that the next pipeline replaces."""
    return ValueError(
        f"{path} is damaged: name the result to use, or run `covers pipeline --data DIR`, which "
        "writes the file anew."
    )


@contextmanager
def room_for(place: Path) -> Iterator[None]:
    """Turn all errors of a full disk into an OSError that names the result.

    Libraries report a full disk in various ways.
    """
    try:
        yield
    except (Exception, pl.exceptions.PanicException) as error:
        number = getattr(error, "errno", None)
        if number not in DISK_FULL_ERRORS and f"os error {errno.ENOSPC}" not in str(error):
            raise
        raise OSError(
            f"There is no room on the disk for {place}: make room, and run the same again."
        ) from error


@contextmanager
def claimed(place: Path) -> Iterator[bool]:
    """Lock the place of a result, and say whether the result is missing.

    A second process that wants the same result waits for the first, then finds it. What a killed
    process left beside the place is deleted.
    """
    with room_for(place):
        place.parent.mkdir(parents=True, exist_ok=True)
    with room_for(place), FileLock(place.parent / f".{place.name}.lock"):
        for dots in (".", ".."):  # two where a result was written within a result
            for left in place.parent.glob(f"{dots}{place.name}.*/"):
                shutil.rmtree(left, ignore_errors=True)
        yield not place.exists()
