"""Data that changes, moves or is damaged, as a newcomer meets it."""

import json

import numpy as np
import pytest
from feature_stores import write_csv
from trees import Tree

WORKS = 12


@pytest.fixture(scope="module")
def disks(tmp_path_factory):
    """A directory with a data set, of which a file is damaged, and the workspace of its own."""
    root = tmp_path_factory.mktemp("disks")
    tree = Tree(root / "old" / "songs")
    for work in range(WORKS):
        chords = np.random.default_rng(work).random((60, 12), np.float32)
        for performance in range(2):
            tree.add(f"W_{work}", f"P_{work}_{performance}", hpcp=chords)
    tree.title("W_0", "P_0_0", perf_title="Helo", isrc="000123", plays=7)
    tree.path("W_11", "P_11_1").write_bytes(b"\x89HDF\r\n\x1a\n and no more")
    return root


def test_data_is_damaged_corrected_relabelled_and_moved(covers, disks):
    home, old, new = disks / "home", disks / "old", disks / "new"
    tree = Tree(old / "songs")
    damaged = tree.path("W_11", "P_11_1")

    made = covers("pipeline", "--data", tree.root, "--encoder", "means", home=home)
    assert made.returncode == 0, made.stderr
    [said] = [line for line in made.stdout.splitlines() if line.startswith("Left out: ")]
    assert said.startswith(f"Left out: {damaged}: ")
    assert f"left out {damaged}: " in made.stderr
    assert "the collection has own columns: isrc (text), plays (whole number)" in made.stderr
    asked = covers("similar", "P_0_1", "--where", "isrc=000123", "--json", home=home)
    (match,) = json.loads(asked.stdout)["matches"]
    assert match["columns"] == {"isrc": "000123", "plays": 7}
    assert "Encoder: means, from --encoder means (" in made.stdout
    assert "Covers are found better with --bundle pretrained" in made.stdout
    uncalibrated = covers("similar", "P_0_0", "--rerank", home=home).stdout.split("\n")[0]
    assert {"score", "key"} <= set(uncalibrated.split())
    assert "likely" not in uncalibrated

    tree.title("W_0", "P_0_0", perf_title="Hello", isrc="000124", plays=7)
    right = tree.path("W_5", "P_4_1")
    tree.path("W_4", "P_4_1").rename(right)
    old.rename(new)
    lost = covers("add", home=home)
    assert (lost.returncode, lost.stdout) == (1, "")
    assert lost.stderr.splitlines()[-1].startswith(f"covers: There is no data set at {tree.root}")
    assert "`covers add DIR`" in lost.stderr

    added = covers("add", new / "songs", "--json", home=home)
    assert added.returncode == 0, added.stderr
    result = json.loads(added.stdout)
    names = ("added", "changed", "relabelled", "retitled", "withdrawn")
    assert [result[name] for name in names] == [0, 0, 1, 1, 0]
    assert result["tracks"]["relabelled"] == ["P_4_1"]
    assert result["tracks"]["retitled"] == ["P_0_0"]
    assert result["moved"] == {str(tree.root): str(new / "songs")}
    assert [reject["track_id"] for reject in result["rejected"]] == ["P_11_1"]
    assert f"left out {new}" in added.stderr


def test_an_encoder_of_chroma_and_a_table_of_means_are_refused_before_any_work(covers, tmp_path):
    table = write_csv(tmp_path / "means.csv")
    refused = covers("pipeline", "--data", table, "--bundle", "pretrained")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith(f"covers: {table} is a table of means, ")
    assert refused.stderr.count("\n") == 1
    assert not list(tmp_path.glob("home/*/*"))
