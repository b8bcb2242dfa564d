"""Fresh processes for code that may end its process; they are forks, so they start fast."""

import multiprocessing
import multiprocessing.forkserver
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.cli.commands import main

PROCESSES = multiprocessing.get_context("forkserver")

#: Imported once, before a fork: what takes seconds. `frozen` comes last.
PRELOADED = [
    "embedding.data.shuffle",
    "embedding.training",
    "flows.add",
    "flows.cli.commands",
    "flows.pipeline",
    "hypothesis",
    "search.versions.recurrence",
    "frozen",
]


def warm_up(prefect_api: str) -> None:
    """Start the process that is forked, with what the command line imports."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_API_URL", prefect_api)
        patch.setenv("PREFECT_LOGGING_HANDLERS_CONSOLE_CLASS", "flows.cli.console.ConsoleHandler")
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        PROCESSES.set_forkserver_preload(PRELOADED)
        multiprocessing.forkserver.ensure_running()


def in_fresh_process(function: Callable[..., Any], *given: Any) -> Any:
    """Call a function in another process and return its result; fail if the process dies."""
    here, there = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=_answer, args=(there, function, given))
    process.start()
    there.close()
    try:
        answer, trace = here.recv()
    except EOFError:
        process.join()
        pytest.fail(f"{function.__name__} ended its process: exit code {process.exitcode}")
    process.join()
    assert trace is None, trace
    return answer


def _answer(there: Any, function: Callable[..., Any], given: tuple[Any, ...]) -> None:
    try:
        there.send((function(*given), None))
    except BaseException:
        there.send((None, traceback.format_exc()))


def command(*arguments: object, log: Path) -> tuple[int, str]:
    """Run the command line in a fork of a fresh process; return exit code and output."""
    return ended(begin(*arguments, log=log), log)


def begin(*arguments: object, log: Path) -> int:
    """Start the command line; return the id of its process."""
    child = os.fork()
    if child == 0:
        with log.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        sys.argv = ["covers", *map(str, arguments)]
        code = 99
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return child


def ended(child: int, log: Path) -> tuple[int, str]:
    """Wait for a process to end; return exit code and output."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), log.read_text()


def sentence(said: str) -> str:
    """Return the one sentence that a failed command printed; fail if there is a traceback."""
    assert "Traceback" not in said, said
    assert "panicked" not in said, said
    told = said[said.index("covers: ") :]
    assert told.count("\n") == 1, said
    return told.removeprefix("covers: ").strip()
