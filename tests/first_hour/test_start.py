"""What a newcomer types first."""

import subprocess
import sys

SCRIPT = """
import numpy as np
from embedding import bundle
encoder = bundle.load("pretrained").encoder
print(encoder.embed([np.random.rand(80, 2, 12).astype("f2") for _ in range(250)]).shape)
"""


def test_before_anything_is_published_a_question_gets_one_sentence(covers):
    asked = covers("similar", "P_1")
    assert (asked.returncode, asked.stdout) == (1, "")
    assert asked.stderr.startswith("covers: ")
    assert asked.stderr.count("\n") == 1


def test_a_script_without_a_main_guard_embeds_in_several_processes(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300)
    assert (done.stdout, done.stderr, done.returncode) == ("(250, 256)\n", "", 0)
