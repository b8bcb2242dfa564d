"""The temporary server ends with the command that started it, however the command ends."""

import os
import signal
import subprocess
import sys
import time

import pytest
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    temporary_settings,
)
from prefect_server import ROOT

from flows import temporary

#: It does not wait until the server answers, which takes ten seconds.
STARTS_ONE = """
import threading, time
from prefect.server.api.server import SubprocessASGIServer
from flows import temporary
server = temporary._Server()
threading.Thread(target=temporary.start, daemon=True).start()
while server.server_process is None:
    time.sleep(0.01)
temporary.start()
assert SubprocessASGIServer() is server
print(server.server_process.pid, flush=True)
time.sleep(600)
"""


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_server_of_a_killed_command_ends_too(tmp_path):
    environment = {key: value for key, value in os.environ.items() if key != "PREFECT_API_URL"}
    environment |= {"PREFECT_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = subprocess.Popen(
        [sys.executable, "-c", STARTS_ONE], env=environment, stdout=subprocess.PIPE, text=True
    )
    with command:
        server = int(command.stdout.readline())
        assert alive(server)
        command.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 30
    while alive(server):
        if time.monotonic() > deadline:
            os.kill(server, signal.SIGKILL)
            pytest.fail("the server was left")
        time.sleep(0.1)


@pytest.mark.parametrize(("url", "expected"), [(None, None), ("http://127.0.0.1:4200/api", 30)])
def test_only_a_permanent_server_has_a_heartbeat(url, expected):
    given = {PREFECT_API_URL: url, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: 30}
    with temporary_settings(given), temporary.settings():
        assert PREFECT_FLOWS_HEARTBEAT_FREQUENCY.value() == expected
