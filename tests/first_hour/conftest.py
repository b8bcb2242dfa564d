"""The command line as a newcomer types it: in processes of its own, with the output as it is."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

COVERS = Path(sys.executable).parent / "covers"


@pytest.fixture
def covers(tmp_path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `covers` in a workspace of the test: covers("status", home=…, env={"COLUMNS": "80"})."""

    def run(
        *arguments: object, home: Path | None = None, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"COVERS_HOME": str(home or tmp_path / "home")} | (env or {})
        return subprocess.run(
            [COVERS, *map(str, arguments)],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run
