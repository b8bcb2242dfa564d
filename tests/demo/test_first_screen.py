"""README's first screen, in the workspace that `make demo` has made; `make demo-test` runs both."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_first_python_block_runs_as_it_stands():
    block = re.search(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)[1]
    environment = {name: text for name, text in os.environ.items() if name[:6] != "COVERS"}
    done = subprocess.run(
        [sys.executable, "-c", block], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    *matches, likely, work = done.stdout.splitlines()
    assert len(matches) == 10
    # As the table above the block says.
    assert [line.split()[1] for line in matches[:2]] == ["P_196674", "P_239199"]
    assert all(float(line.split()[0]) > 0.99 for line in [*matches[:2], likely])
    assert work.startswith("Work(")
    assert "Devils Dream" in work
