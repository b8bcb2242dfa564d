"""The tests do not use the servers and directories that the environment names."""

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent

#: A test that publishes, searches and rolls back.
TEST = "test_cli.py::test_rollback_makes_the_previous_collection_the_current_one"


def test_a_server_in_the_environment_is_not_asked(tmp_path):
    """Nothing answers there, so that a test that asked would fail."""
    environment = os.environ | {
        "QDRANT_URL": "http://127.0.0.1:9",
        "COVERS_HOME": str(tmp_path / "theirs"),
        "COVERS_COLLECTION": "theirs",
        "COVERS_ALERT_URL": "http://127.0.0.1:9",
        "COVERS_TASK_RUNNER": "unheard of",
        "PREFECT_API_URL": "http://127.0.0.1:9/api",
    }
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(TESTS / TEST)],
        cwd=TESTS.parent, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert not (tmp_path / "theirs").exists()
