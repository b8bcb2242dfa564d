"""Recordings -> a data set of features, which `aggregate` reads like any other."""

import time
from pathlib import Path
from typing import Any

import joblib
from prefect import get_run_logger

from embedding.audio.extract import Extracted, extract_all
from embedding.audio.libraries import check_installed
from flows import alert
from flows.rejects import rejected_recordings, tell
from flows.workspace import Workspace

#: Seconds between two lines that say how far it is.
REPORT_SECONDS = 5

#: From what their works are known, if no list says them.
WORKS_FROM = {
    "the folders": "each folder is a work",
    "nowhere": "nothing says which are of one work, so each is a work of its own",
}


@alert.flow("extract", "extract {recordings}")
def extract(recordings: Path, to: Path, home: Path | None = None) -> dict[str, Any]:
    """Compute the features of all recordings that are new or changed, on all cores.

    A recording that cannot be used is rejected, with the reason. The run may be interrupted at any
    time, and the next one continues.

    Parameters
    ----------
    recordings : Path
        A folder, as `embedding.audio.recordings.find_recordings` lists it.
    to : Path
        The directory of the data set, new or made by an earlier run.
    home : Path, optional
        The workspace, which other runs leave in place meanwhile; by default `$COVERS_HOME`.

    Returns
    -------
    dict
        `directory`; the numbers `extracted` and `analysed` (now, not by an earlier run); and
        `rejected`, the file and the reason of each recording that was left out.
    """
    with Workspace.at(home).used():
        made = extract_features(recordings, to)
    return {
        "directory": str(made.directory),
        "extracted": len(made.outcomes) - len(made.rejects),
        "analysed": made.analysed,
        "rejected": rejected_recordings(recordings, made.outcomes),
    }


def extract_features(recordings: Path, to: Path) -> Extracted:
    """Extract in a flow, which logs the progress and lists the rejects in an artifact.

    Raises
    ------
    ValueError
        If the extra `audio` is not installed, or as `extract_all`.
    """
    check_installed()
    logger = get_run_logger()
    started = reported = time.monotonic()

    def report(done: int, count: int) -> None:
        nonlocal reported
        now = time.monotonic()
        if now - reported >= REPORT_SECONDS or done == count:
            reported = now
            left = (now - started) / done * (count - done)
            logger.info("analysed %d of %d recordings, %s left", done, count, duration(left))

    made = extract_all(recordings, to, joblib.cpu_count(), report)
    logger.info(
        "%d recordings in %s, %d rejected; %s",
        len(made.outcomes) - len(made.rejects),
        recordings,
        len(made.rejects),
        WORKS_FROM.get(made.works_from, f"{made.works_from} says their works"),
    )
    if rejects := rejected_recordings(recordings, made.outcomes):
        tell(rejects, "rejected-recordings", recordings.name, "cannot be used")
    return made


def duration(seconds: float) -> str:
    """Write a duration for people.

    Examples
    --------
    >>> duration(8), duration(200), duration(9000)
    ('8 s', '3 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
