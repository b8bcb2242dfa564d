"""From a folder of recordings to a data set of features, which is brought up to date.

```
recordings/Work/Artist - Title.mp3   ->   data set/Work/Work - Artist - Title.h5
                                          data set/dataset.json, metadata.json
                                          data set/extracted.jsonl: what became of each recording
```

A recording is known by its content. So one that is moved or renamed is not analysed again, and
after an interruption only what is missing is.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from embedding.audio import features_file
from embedding.audio.rate import HOP, SAMPLE_RATE
from embedding.audio.recordings import Recording, Recordings, find_recordings
from embedding.data.atomic import beside, whole_file
from embedding.processes import TerminatedWorkerError, processes

logger = logging.getLogger(__name__)

#: Part of what a recording's features are known by. Increase it when the features change.
VERSION = 4

LOG = "extracted.jsonl"

#: The size and time of a file that is not there.
GONE = (-1, -1)

#: Recordings that are given to each process in advance.
QUEUED_PER_PROCESS = 2


@dataclass(frozen=True)
class Outcome:
    """What became of one recording; a line of `LOG`."""

    path: str  # of the recording, relative to its folder
    digest: str  # SHA-256 of its content and `VERSION`; empty if the outcome is not about them
    track_id: str
    work_id: str
    reason: str | None = None  # why it is rejected
    tags: dict[str, str] = field(default_factory=dict)  # by the names of Da-TACOS' metadata
    # Its size, and when it changed in ns. While both are the same, its content is not read again.
    file: Sequence[int] = GONE


@dataclass(frozen=True)
class Extracted:
    """The result of `extract_all`."""

    directory: Path
    outcomes: tuple[Outcome, ...]  # sorted by path; rejected recordings included
    analysed: int  # recordings that were analysed now
    works_from: str  # as of `Recordings`

    @property
    def rejects(self) -> dict[str, str]:
        """The reason for each rejected recording, by path."""
        return {each.path: each.reason for each in self.outcomes if each.reason is not None}


def extract_all(
    root: Path,
    directory: Path,
    workers: int,
    progress: Callable[[int, int], None] = lambda done, count: None,
) -> Extracted:
    """Bring a directory of features up to date with a folder of recordings.

    Features of recordings that are gone are deleted. The result does not depend on the number of
    processes, nor on the order in which they finish.

    Parameters
    ----------
    root : Path
        The recordings, as `embedding.audio.recordings.find_recordings` lists them.
    directory : Path
        The data set. It is made if it is missing; otherwise it must be a result of this function.
    workers : int
        Number of processes.
    progress : callable, optional
        Called with the number of recordings that are done, and of all that have to be analysed.

    Raises
    ------
    ValueError
        If there is no recording, or the directory holds something else.
    """
    recordings = find_recordings(root)
    _check_target(directory, root)
    directory.mkdir(parents=True, exist_ok=True)
    # The last outcome of each content.
    earlier = {each.digest: each for each in outcomes_in(directory) if each.digest}
    files = {each.path: _size_and_time(root / each.path) for each in recordings.found}
    digests = _digests(root, files, earlier.values(), workers)
    outcomes = {
        path: Outcome(path, "", "", "", reason) for path, reason in recordings.rejected.items()
    }
    first: dict[str, str] = {}
    missing = []
    for recording in recordings.found:
        digest = digests[recording.path]
        if digest and digest in first:
            # Without the digest, which is about the content.
            reason = f"it has the same content as {first[digest]}"
            outcomes[recording.path] = _rejected(recording, "", reason)
            continue
        first[digest] = recording.path
        if (known := _known(recording, digest, earlier, directory)) is not None:
            outcomes[recording.path] = known
        else:
            missing.append(recording)
    for recording in recordings.found:
        here = _file(directory, recording.work_id, recording.track_id)
        if _moved(here).is_file():
            _moved(here).replace(here)
    with (directory / LOG).open("a", encoding="utf-8") as log:
        for done, outcome in enumerate(_analysed(root, missing, digests, directory, workers), 1):
            outcomes[outcome.path] = outcome
            log.write(_line(outcome))
            log.flush()
            progress(done, len(missing))
    ordered = tuple(
        replace(outcomes[path], file=files.get(path, GONE)) for path in sorted(outcomes)
    )
    _finish(directory, recordings, ordered)
    return Extracted(directory, ordered, len(missing), recordings.works_from)


def _check_target(directory: Path, root: Path) -> None:
    if directory.is_dir() and any(directory.iterdir()) and not (directory / LOG).is_file():
        raise ValueError(
            f"{directory} holds something that covers did not extract: name a new directory."
        )
    if directory.resolve().is_relative_to(root.resolve()):
        raise ValueError(
            f"{directory} lies within the recordings in {root}: name a directory elsewhere."
        )


def outcomes_in(directory: Path) -> Iterator[Outcome]:
    """Yield what became of each recording. A line that a crash cut short is left out."""
    path = directory / LOG
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            yield Outcome(**json.loads(line))
        except (ValueError, TypeError):
            logger.warning("ignored a damaged line of %s", path)


def _line(outcome: Outcome) -> str:
    return json.dumps(asdict(outcome), ensure_ascii=False, sort_keys=True) + "\n"


def _size_and_time(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return GONE
    return found.st_size, found.st_mtime_ns


def _digests(
    root: Path, files: dict[str, tuple[int, int]], earlier: Iterable[Outcome], workers: int
) -> dict[str, str]:
    """Return the digest of each recording. Only new and changed files are read."""
    same = {
        each.path: each.digest
        for each in earlier
        if GONE != tuple(each.file) == files.get(each.path) and each.digest.endswith(f"-{VERSION}")
    }
    changed = [path for path in files if path not in same]
    with ThreadPoolExecutor(workers) as threads:  # hashing releases the interpreter lock
        read = threads.map(_digest, (root / path for path in changed))
        return same | dict(zip(changed, read, strict=True))


def _digest(path: Path) -> str:
    """Return the digest of a recording's content, or "" if it cannot be read."""
    try:
        with path.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return ""  # analysing it will say why
    return f"{content}-{VERSION}"


def _file(directory: Path, work_id: str, track_id: str) -> Path:
    return directory / work_id / f"{track_id}.h5"


def _rejected(recording: Recording, digest: str, reason: str) -> Outcome:
    return Outcome(recording.path, digest, recording.track_id, recording.work_id, reason)


def _known(
    recording: Recording, digest: str, earlier: dict[str, Outcome], directory: Path
) -> Outcome | None:
    """Return what an earlier run found of the same content, and put its features in place."""
    before = earlier.get(digest)
    if before is None:
        return None
    if before.reason is not None:
        return _rejected(recording, digest, before.reason)
    there = _file(directory, before.work_id, before.track_id)
    here = _file(directory, recording.work_id, recording.track_id)
    if features_file.digest_of(there) != digest:
        return None  # it is gone, or an interrupted run has put another recording there
    if there != here:
        # The features of another recording may be here, which that one still needs.
        features_file.copy(there, _moved(here), recording.track_id, recording.work_id)
    ids = (recording.track_id, recording.work_id)
    return Outcome(recording.path, digest, *ids, tags=before.tags)


def _moved(path: Path) -> Path:
    return beside(path, ".moved")


def _analysed(
    root: Path,
    recordings: Iterable[Recording],
    digests: dict[str, str],
    directory: Path,
    workers: int,
) -> Iterator[Outcome]:
    """Analyse recordings in processes, and yield outcomes as they finish.

    A recording that kills its process is rejected: those that were being analysed at that moment
    are analysed again, each in a process of its own.
    """
    waiting = list(reversed(list(recordings)))
    while waiting:
        running: dict[Future[Outcome], Recording] = {}
        try:
            with processes(workers) as pool:
                while waiting or running:
                    while waiting and len(running) < QUEUED_PER_PROCESS * workers:
                        each = waiting[-1]
                        future = pool.submit(extract, root, each, digests[each.path], directory)
                        running[future] = waiting.pop()  # now, as a broken pool takes nothing
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        outcome = future.result()
                        del running[future]
                        yield outcome
        except TerminatedWorkerError:
            for each in list(running.values()):
                yield _alone(root, each, digests[each.path], directory)


def _alone(root: Path, recording: Recording, digest: str, directory: Path) -> Outcome:
    try:
        with processes(1) as pool:
            return pool.submit(extract, root, recording, digest, directory).result()
    except TerminatedWorkerError:
        reason = "decoding it kills the process, so the file must be damaged, or memory is short"
        return _rejected(recording, digest, reason)


def extract(root: Path, recording: Recording, digest: str, directory: Path) -> Outcome:
    """Analyse one recording and write its features. A recording that is rejected writes nothing."""
    from embedding.audio.analysis import analyse
    from embedding.audio.recording import UnusableRecording, read_tags

    path = root / recording.path
    try:
        # The sum of a product depends on the number of threads.
        with threadpool_limits(1):
            analysis = analyse(path)
        tags = read_tags(path)
    except UnusableRecording as error:
        return _rejected(recording, digest, str(error))
    except OSError as error:
        return _rejected(recording, "", f"it cannot be read ({error.strerror or error})")
    target = _file(directory, recording.work_id, recording.track_id)
    features_file.write(target, analysis, recording.track_id, recording.work_id, digest)
    return Outcome(recording.path, digest, recording.track_id, recording.work_id, tags=tags)


def _finish(directory: Path, recordings: Recordings, outcomes: tuple[Outcome, ...]) -> None:
    """Delete features of what is gone, and write what is known of the others."""
    used = [each for each in outcomes if each.reason is None]
    wanted = {_file(directory, each.work_id, each.track_id) for each in used}
    for path in directory.glob("*/*.h5"):
        if path not in wanted:
            path.unlink()
            if not any(path.parent.iterdir()):
                path.parent.rmdir()
    known = {each.track_id: each for each in recordings.found}
    metadata: dict[str, dict[str, dict[str, Any]]] = {}
    for each in used:
        recording = known[each.track_id]
        facts = (
            recording.own
            | recording.guessed
            | each.tags
            | recording.listed
            | {"recording": each.path}
        )
        metadata.setdefault(each.work_id, {})[each.track_id] = facts
    description = {"frame_rate": f"{SAMPLE_RATE}/{HOP}", "name": recordings.root.resolve().name}
    texts = {
        "metadata.json": json.dumps(metadata, indent=1, ensure_ascii=False),
        "dataset.json": json.dumps(description),
        LOG: "".join(map(_line, outcomes)),
    }
    for name, text in texts.items():
        with whole_file(directory / name) as scratch:
            scratch.write_text(text, encoding="utf-8")
