"""What can be checked before a flow starts: importing Prefect and torch would take seconds.

The flows check the same again, because they are also started from Python and on schedules.
"""

import logging
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import search
from embedding import bundle as bundles
from embedding.audio.libraries import check_installed
from embedding.audio.recordings import find_recordings, holds_recordings
from embedding.data.dataset import open_dataset
from embedding.data.store import lacks_chroma
from embedding.data.table import read_table
from embedding.encoders.registry import encoder_class
from flows.stages import STAGES
from flows.workspace import Workspace
from search import settings

#: Seconds to wait for a server.
MAX_WAIT = 1.5


def check_data(
    *paths: Path | None, frame_rate: float | None = None, inputs: str | None = None
) -> None:
    """Raise ValueError if a path is not a data set that an encoder of these inputs can use."""
    logging.disable(logging.WARNING)  # the flow opens the data again, and logs what it finds
    try:
        for path in filter(None, paths):
            path = path.expanduser()
            if path.is_file():
                read_table(path)
                check_inputs(inputs, path)
            elif holds_recordings(path):
                check_installed()
            else:
                open_dataset(path, frame_rate)
    finally:
        logging.disable(logging.NOTSET)


def check_recordings(folder: Path) -> None:
    """Raise ValueError if a folder holds no recordings, or the extra `audio` is missing."""
    check_installed()
    find_recordings(folder.expanduser())


def check_inputs(inputs: str | None, *data: Path | None) -> None:
    """Raise ValueError if an encoder takes chroma, and one of the data sets is a table of means."""
    for path in data:
        if inputs == "chroma" and path is not None and path.expanduser().is_file():
            raise lacks_chroma(str(path))


def check_encoder(
    encoder: str,
    config: Mapping[str, Any] | None = None,
    bundle: Path | None = None,
    training_data: Path | None = None,
) -> str | None:
    """Return what the encoder takes: "means", "chroma", or None if its vectors are made elsewhere.

    Raises
    ------
    ValueError
        If the encoder, its config or the bundle is wrong, or they contradict each other.
    """
    bundles.configure(encoder, config or {})
    if bundle is None:
        return encoder_class(encoder).input
    if training_data is not None:
        raise ValueError(
            f"{bundle} is trained already, so {training_data} would go unused: leave one out."
        )
    return bundles.head(bundle).inputs


def check_schedules(schedules: Mapping[str, str]) -> None:
    """Raise ValueError if a flow does not exist, or its schedule is not a cron expression."""
    if unknown := sorted(set(schedules) - set(STAGES)):
        raise ValueError(
            f"There is no flow named {unknown[0]!r} to schedule: choose from {', '.join(STAGES)}."
        )
    from prefect.client.schemas.schedules import CronSchedule

    for name, cron in schedules.items():
        try:
            CronSchedule(cron=cron)
        except ValueError as error:
            raise ValueError(
                f"The schedule of {name} is {cron!r}, which is not a cron expression: write "
                'minute, hour, day, month and weekday, as in "0 2 * * *" for every night at 2.'
            ) from error


def check_result(path: Path | None, role: str, home: Path | None) -> None:
    """Raise FileNotFoundError if a result is missing: the one that is named, or the latest."""
    if path is None:
        Workspace.at(home).latest(role)
    elif not path.expanduser().exists():
        raise FileNotFoundError(f"{path} does not exist: name a result, or none for the latest.")


def check_places(home: Path | None) -> None:
    """Check that the workspace can be used, and that the servers in the environment answer.

    Raises
    ------
    OSError
        If a directory cannot be made.
    ValueError
        If a variable of the environment is wrong.
    ServerUnreachable, RuntimeError
        If a server does not answer.
    """
    environment = settings.read()
    prefect_url = os.environ.get("PREFECT_API_URL", "")
    with Workspace.at(home).used():
        pass
    if not prefect_url:
        _check_prefect_home()
    elif why := _unreachable(prefect_url):
        raise RuntimeError(
            f"No Prefect server answers at PREFECT_API_URL={prefect_url} ({why}): start it, or "
            "correct the address; without PREFECT_API_URL a temporary server is started."
        )
    if environment.qdrant_url and (why := _unreachable(environment.qdrant_url)):
        parts = urlsplit(environment.qdrant_url)
        shown = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        raise search.ServerUnreachable(
            f"No Qdrant server answers at {shown} ({why}): start it, or correct QDRANT_URL; "
            "without QDRANT_URL the embedded engine is used."
        )


def _check_prefect_home() -> None:
    home = Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser()
    try:
        home.mkdir(parents=True, exist_ok=True)
        if not os.access(home, os.W_OK):
            raise PermissionError(None, "Permission denied")
    except OSError as error:
        raise OSError(
            f"Prefect cannot write into {home} ({error.strerror}): set PREFECT_HOME to another "
            "directory."
        ) from error


def _unreachable(url: str) -> str | None:
    """Say why nothing listens at an address; None if something does, or a proxy decides it."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme in getproxies() and not proxy_bypass(host):
        return None
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((host, port), timeout=MAX_WAIT).close()
    except OSError as error:
        return error.strerror or str(error)
    return None
