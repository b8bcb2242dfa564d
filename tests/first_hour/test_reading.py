"""Data as people have them: flat, linked, listed, made by pandas, and partly unreadable."""

import json

import h5py
import numpy as np
import polars as pl
import pytest
from trees import SAMPLE, filtered, make_features, write_h5

TUNES = ("W_2971", "W_13445", "W_10292")
CAFE = "Café «1»"


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A flat folder of links to blobs: tunes, of which a list and labels say the works."""
    cache = tmp_path_factory.mktemp("hub") / "songs"
    blobs, root = cache / "blobs", cache / "snapshots" / "3f2a"
    for folder in (blobs, root):
        folder.mkdir(parents=True)
    singles = SAMPLE / "da-tacos_benchmark_subset_single_files"
    for work in TUNES:
        for path in sorted((singles / work).iterdir())[:3]:
            (blobs / path.stem).write_bytes(path.read_bytes())
            (root / path.name).symlink_to(f"../../blobs/{path.stem}")
    first = next(path for path in sorted(root.iterdir()) if labelled(path) == "W_2971")
    first.rename(root / f"{CAFE}.h5")
    with h5py.File(root / f"{CAFE}.h5", "a") as file:
        del file.attrs["track_id"], file.attrs["label"]

    with h5py.File(root / "blosc.h5", "w") as file:
        filtered(32001)(file)
    silent = {name: np.zeros_like(array) for name, array in make_features("x", 300).items()}
    write_h5(root / "silent.h5", silent | {"madmom_features/tempos": np.zeros((0, 2))})
    write_h5(root / "quiet.h5", silent)
    write_h5(root / "short.h5", make_features("y", 20))
    (root / "works list.csv").write_text(f"Path ; Work\n{CAFE};W_2971\n", encoding="utf-8")
    (root / "notes.csv").write_text("mood\nsad\n")
    (root / "dataset.json").write_text(json.dumps({"name": "songs", "frame_rate": "44100/1024"}))
    facts = {
        "perf_title": "Smile \ud83d",
        "perf_artist": float("nan"),
        "release_year": 1990.0,
        "instrumental": True,
    }
    (root / "metadata.json").write_text(json.dumps({"W_2971": {CAFE: facts}}))
    return root


def labelled(path):
    with h5py.File(path) as file:
        return file.attrs["label"].decode()


def test_what_can_be_read_of_a_flat_folder_is_searched_and_the_rest_is_named(covers, hub, tmp_path):
    home, environment = tmp_path / "covers", {"LC_ALL": "C", "COLUMNS": "500"}
    given = "--data", hub, "--frame-rate", "44100/4096", "--bundle", "pretrained"
    done = covers("pipeline", *given, home=home, env=environment)
    assert done.returncode == 0, done.stderr
    for told in (
        "notes.csv is not a list of works: its columns are mood",
        "works list.csv does not list 11 of 12 performances",
        f"the frame rate is given as 10.767 per second, but {hub} states 43.066",
        "perf_title 'Smile \ufffd' of Café «1»",
    ):
        assert told in done.stderr
    (store,) = (home / "features").glob("*/*/")
    rejects = dict(pl.read_parquet(store / "rejects.parquet")["track_id", "reason"].iter_rows())
    assert rejects.keys() == {"blosc", "silent"}
    assert "hpcp is compressed with blosc (HDF5 filter 32001)" in rejects["blosc"]
    assert "tempos is empty, as for silence: leave the file out" in rejects["silent"]
    (left_out,) = (home / "vectors").glob("*/rejects.parquet")
    reasons = dict(pl.read_parquet(left_out)["track_id", "reason"].iter_rows())
    assert "silent" in reasons["quiet"]
    assert "at least 14 s are needed" in reasons["short"]

    asked = covers("similar", CAFE, "--limit", "2", "--json", home=home, env=environment)
    assert [match["same_work"] for match in json.loads(asked.stdout)["matches"]] == [True, True]


def test_two_lists_of_the_same_files_are_not_chosen_from_by_name(covers, tmp_path):
    root = tmp_path / "songs"
    write_h5(root / "P_1.h5", make_features("P_1"))
    for name in ("a.csv", "b.csv"):
        (root / name).write_text("work_id,track_id\nW_1,P_1\n")
    done = covers("aggregate", root)
    assert (done.returncode, done.stdout) == (1, "")
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"covers: a.csv and b.csv in {root} both say what the ")
