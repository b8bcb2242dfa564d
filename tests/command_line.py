"""The command line, run in the process of a test."""

import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import pytest

from flows.cli.commands import main


def covers(*arguments: object) -> tuple[int, str, str]:
    """Run a command: exit code, stdout, stderr."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["covers", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
    return int(stopped.value.code or 0), out.getvalue(), err.getvalue()


def covers_json(*arguments: object) -> Any:
    """Run a command that succeeds, with --json: what it prints."""
    code, out, err = covers(*arguments, "--json")
    assert code == 0, err
    return json.loads(out)
