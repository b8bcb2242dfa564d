"""What the README promises after `make demo`, in the workspace that the demo has made."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def run(*arguments: str) -> str:
    """Run Python as a user does in the checkout; what it prints."""
    environment = {name: text for name, text in os.environ.items() if name[:6] != "COVERS"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_first_python_block_runs_as_it_stands():
    block = re.search(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)[1]
    *matches, likely, work = run("-c", block).splitlines()
    assert len(matches) == 10
    # As the table above the block says.
    assert [line.split()[1] for line in matches[:2]] == ["P_196674", "P_239199"]
    assert all(float(line.split()[0]) > 0.99 for line in [*matches[:2], likely])
    assert work.startswith("Work(")
    assert "Devils Dream" in work


def test_the_script_to_start_from_runs():
    shown = run("docs/explore.py")
    assert "Devils Dream" in shown
    assert "of the nearest performances have the same work" in shown
