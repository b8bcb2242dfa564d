"""Prefect's temporary server ends with the command that started it.

Without this, a command that is killed with SIGKILL would leave the server, with its 200 MB.
"""

import subprocess
from contextlib import AbstractContextManager, nullcontext

import prefect.main  # noqa: F401 - sets up logging, so that the server's start is logged
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    PREFECT_SERVER_EPHEMERAL_ENABLED,
    temporary_settings,
)

_watchers: list[subprocess.Popen[bytes]] = []


def settings() -> AbstractContextManager[object]:
    """Return settings for runs that only a temporary server sees.

    They have no heartbeat. It tells a permanent server which runs have died, and delays the end of
    each flow by up to a second.
    """
    if PREFECT_API_URL.value():
        return nullcontext()
    return temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None})


def start() -> None:
    """Start the server that Prefect would start when it needs one, and watch it.

    Nothing happens if a server is configured, or temporary servers are disabled.
    """
    if PREFECT_API_URL.value() or not PREFECT_SERVER_EPHEMERAL_ENABLED.value():
        return
    server = SubprocessASGIServer()
    server.start()
    if server.server_process is None or _watchers:
        return
    # When this process ends, however it ends, its end of the pipe is closed and `read` returns. The
    # shell has its own session, so that a signal to our process group does not kill it.
    _watchers.append(
        subprocess.Popen(  # noqa: S603 - all arguments are ours
            ["/bin/sh", "-c", 'read -r _; kill "$0"', str(server.server_process.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    )
