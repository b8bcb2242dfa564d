"""Malicious input is refused: HDF5 that would fill the memory, names that are paths."""

import json
import resource
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
from fresh import in_fresh_process
from trees import FRAME_RATE, make_features

from embedding.data.dataset import open_dataset
from embedding.data.frames import UnreadablePerformance, read
from embedding.data.layout import Performance
from embedding.data.store import FeatureStore
from flows.aggregate import aggregate


def deflated(file: h5py.File, times: int) -> None:
    """An array of 3 kB whose one chunk inflates to 2 GiB."""
    space, made = h5py.h5s.create_simple((60, 12)), h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    made.set_chunk((60, 12))
    zeros = zlib.compressobj(9)
    first, more = (zeros.compress(bytes(2**20)) + zeros.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    bomb = first + 2047 * more
    for _ in range(times):
        made.set_filter(h5py.h5z.FILTER_DEFLATE, 0, (9,))
    for _ in range(times - 1):
        bomb = zlib.compress(bomb, 9)
    h5py.h5d.create(file.id, b"hpcp", h5py.h5t.NATIVE_FLOAT, space, made).write_direct_chunk(
        (0, 0), bomb
    )


def text_of_any_length(file: h5py.File) -> None:
    file["hpcp"] = make_features("P_1")["hpcp"]
    file.attrs.create("label", "W" * 2**26, dtype=h5py.string_dtype())


def references(file: h5py.File) -> None:
    file.create_dataset("hpcp", (60, 12), h5py.ref_dtype)
    file["hpcp"][0, 0] = file.ref


def regions(file: h5py.File) -> None:
    file.create_dataset("hpcp", (60, 12), h5py.regionref_dtype)


def a_type(file: h5py.File) -> None:
    file["hpcp"] = np.dtype("f4")


BOMBS = {
    "inflating to 2 GiB": (lambda file: deflated(file, 1), "compressed bytes in one chunk"),
    "inflating twice": (lambda file: deflated(file, 2), "hpcp is compressed 2 times over"),
    "a label of 64 MiB": (text_of_any_length, "its label is longer than any name"),
    "object references": (references, "hpcp holds object, not numbers"),
    "region references": (regions, "hpcp holds object, not numbers"),
    "a type": (a_type, "hpcp is not an array"),
}


def read_it(path: Path) -> tuple[str, int]:
    """Return why a file is rejected, and the memory that it took."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UnreadablePerformance) as rejected:
        read(Performance("P_1", "W_1", (path,), path.name))
    taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return rejected.value.reason, 1024 * taken


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_rejected_in_little_memory(make_tree, small_workspace, bomb, count):
    path = make_tree().add("W_1", "P_1", hpcp=None, label=None)
    make, reason = BOMBS[bomb]
    with h5py.File(path, "a") as file:
        make(file)
    why, taken = in_fresh_process(read_it, path)
    assert reason in why
    assert len(why) < 1000
    assert taken < 2**29
    count("HDF5 bombs", "rejected, in less than 512 MiB")


NAMES = ["../../out", "/tmp/out", "a/b", "..", ".hidden", "nul\0", "new\nline", "x" * 300, 5, ["a"]]


@pytest.mark.parametrize("name", NAMES)
def test_a_data_set_whose_name_is_a_path_is_refused(tree, name, count):
    description = {"name": name, "frame_rate": FRAME_RATE}
    (tree.root / "dataset.json").write_text(json.dumps(description))
    with pytest.raises(ValueError, match="cannot be the name of a directory: write another name"):
        open_dataset(tree.root)
    count("names that are paths", "refused")


def test_ids_and_titles_that_are_paths_are_only_text(make_tree, tmp_path, prefect_server, count):
    """All files that are made lie in the workspace."""
    tree = make_tree("acoss")
    for i in range(4):
        tree.add("W_1", f"P_{i}")
    hostile = ["../../P_0", "/etc/passwd", "W_1/../P_1", "P_1\0"]
    rows = [("W_1", f"P_{i}") for i in range(4)] + [("..", each) for each in hostile]
    lines = "".join(f'"{work}","{track}"\n' for work, track in rows)
    (tree.root / "annotations.csv").write_text(f"work_id,track_id\n{lines}")
    tree.title("W_1", "P_1", work_title="../../out", perf_title="/etc/passwd")
    home, before = tmp_path / "home", set(tmp_path.rglob("*"))
    store = FeatureStore.open(aggregate(tree.root, home=home))
    assert store.table["track_id"].to_list() == [f"P_{i}" for i in range(4)]
    assert sorted(store.rejects["track_id"]) == sorted(hostile)
    assert all(path.is_relative_to(home) for path in set(tmp_path.rglob("*")) - before)
    count("names that are paths", "refused", len(hostile))
