"""Prefect's temporary server, where none is configured, ends with the command that started it.

It ends by itself when that command does, unless the command is killed outright: then it would stay,
with its 200 MB, until somebody looks.
"""

import subprocess
from contextlib import AbstractContextManager, nullcontext

import prefect.main  # noqa: F401 - sets up the log, in which the server's start is told
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    PREFECT_SERVER_EPHEMERAL_ENABLED,
    temporary_settings,
)

_watching: list[subprocess.Popen[bytes]] = []


def settings() -> AbstractContextManager[object]:
    """Settings for runs that no other server than a temporary one hears of.

    They have no heartbeat: by it a server that stays finds out which runs have died, but each flow
    waits at its end for the thread that sends it, up to a second.
    """
    if PREFECT_API_URL.value():
        return nullcontext()
    return temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None})


def start() -> None:
    """Start the server that Prefect would start at its first need, and watch over it.

    Nothing happens where a server is configured, or no temporary one is wanted.
    """
    if PREFECT_API_URL.value() or not PREFECT_SERVER_EPHEMERAL_ENABLED.value():
        return
    server = SubprocessASGIServer()
    server.start()
    if server.server_process is None or _watching:
        return
    # However this process ends, its end of the pipe is closed, and the shell reads no further. In a
    # session of its own, it isn't reached by what kills the group.
    _watching.append(
        subprocess.Popen(  # noqa: S603 - its words are all ours
            ["/bin/sh", "-c", 'read -r _; kill "$0"', str(server.server_process.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    )
