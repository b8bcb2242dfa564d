"""Prefect's temporary server, which ends with the command that started it."""

import logging
import os
import subprocess
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import prefect.main  # noqa: F401 - sets up logging, so that the server's start is logged
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    PREFECT_SERVER_EPHEMERAL_ENABLED,
    get_current_settings,
    temporary_settings,
)

logger = logging.getLogger(__name__)

#: Serves on the port in its arguments until the pipe to its parent is closed, which happens however
#: the parent ends.
SERVER = """
import os, sys, threading

def end_with_parent():
    os.read(0, 1)
    os._exit(0)

threading.Thread(target=end_with_parent, daemon=True).start()

import uvicorn
from prefect.server.api.server import create_app

app = create_app(ephemeral=True, final=True)
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="error", lifespan="on")
"""


class _Server(SubprocessASGIServer):
    """The server in a session of its own, which Ctrl-C in a terminal does not reach."""

    def _run_uvicorn_command(self) -> subprocess.Popen[Any]:
        settings = get_current_settings().to_environment_variables(exclude_unset=True)
        return subprocess.Popen(  # noqa: S603 - all arguments are ours
            [sys.executable, "-c", SERVER, str(self.port)],
            env={**os.environ, **settings, "PREFECT_UI_ENABLED": "0"},
            stdin=subprocess.PIPE,
            start_new_session=True,
        )


def settings() -> AbstractContextManager[object]:
    """Return settings for runs that only a temporary server sees.

    They have no heartbeat. It tells a permanent server which runs have died, and delays the end of
    each flow by up to a second.
    """
    if PREFECT_API_URL.value():
        return nullcontext()
    return temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None})


def start() -> None:
    """Start the server that Prefect would start when it needs one.

    Nothing happens if a server is configured, or temporary servers are disabled.
    """
    if PREFECT_API_URL.value() or not PREFECT_SERVER_EPHEMERAL_ENABLED.value():
        return
    server = _Server()  # the only one of a process, which Prefect finds
    if not server.running:
        logger.info("starting a temporary Prefect server")
        server.start()
