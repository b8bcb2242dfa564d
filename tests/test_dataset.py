"""Listing: which performances a directory holds, and what is stated beside them."""

import json
import logging
import os
import shutil

import numpy as np
import pytest
from trees import FRAME_RATE, make_features, only, write_h5

from embedding.data.dataset import check_frame_rate, open_dataset
from embedding.data.frame_rate import parse_frame_rate

RATE = parse_frame_rate(FRAME_RATE)


def test_a_data_set_is_listed_sorted_with_its_name_subset_and_rate(tree):
    dataset = open_dataset(tree.root)
    assert dataset.name == "da-tacos_benchmark_subset"
    assert dataset.subset == "benchmark"
    assert dataset.frame_rate == RATE
    assert dataset.rejects == ()
    assert [p.track_id for p in dataset.performances] == ["P_11", "P_12", "P_21", "P_22", "P_31"]
    assert dataset.performances[0].source == "da-tacos_benchmark_subset_single_files/W_1/P_11.h5"
    assert all(file.is_file() for p in dataset.performances for file in p.files)


def test_the_folder_of_single_files_may_be_given_itself(tree):
    inner = open_dataset(tree.root / f"{tree.stem}_single_files")
    assert (inner.name, inner.subset) == ("da-tacos_benchmark_subset", "benchmark")
    assert inner.frame_rate == RATE  # stated beside it
    assert inner.performances[0].source == "W_1/P_11.h5"


def test_hidden_and_foreign_files_are_ignored(tree):
    folder = tree.root / f"{tree.stem}_single_files"
    for name in ("README.md", ".DS_Store", "W_1/._P_11.h5", "W_1/notes.txt"):
        (folder / name).write_text("junk")
    dataset = open_dataset(tree.root)
    assert len(dataset.performances) == 5
    assert dataset.rejects == ()


def test_one_of_two_subsets_in_a_directory_has_to_be_chosen(make_tree):
    for subset in ("benchmark", "coveranalysis"):
        tree = make_tree("features", subset)
        tree.add("W_1", f"P_{len(subset)}")
        tree.title("W_1", f"P_{len(subset)}", perf_title=subset)
    with pytest.raises(ValueError, match=r"several data sets .*choose .*benchmark_subset"):
        open_dataset(tree.root)
    dataset = open_dataset(tree.root / "da-tacos_coveranalysis_subset")
    assert dataset.subset == "coveranalysis"
    assert [p.track_id for p in dataset.performances] == ["P_13"]
    assert dataset.metadata["title"].to_list() == ["coveranalysis"]


def test_a_missing_feature_file_rejects_the_performance_and_a_missing_folder_the_set(make_tree):
    tree = make_tree("features")
    tree.add("W_1", "P_1")
    tree.add("W_1", "P_2")
    tree.path("W_1", "P_2", "crema").unlink()
    dataset = open_dataset(tree.root)
    assert [p.track_id for p in dataset.performances] == ["P_1"]
    (reject,) = dataset.rejects
    assert (reject.track_id, reject.work_id) == ("P_2", "W_1")
    assert reject.reason == "it has no crema file"
    assert reject.source == "da-tacos_benchmark_subset_*/W_1_*/P_2_*.h5"

    shutil.rmtree(tree.root / f"{tree.stem}_mfcc")
    with pytest.raises(ValueError, match=r"lacks da-tacos_benchmark_subset_mfcc: .*all five"):
        open_dataset(tree.root)


def test_the_csv_of_acoss_lists_the_performances(make_tree, caplog):
    tree = make_tree("acoss")
    tree.add("yesterday", "beatles")
    tree.add("yesterday", "not-listed")
    (tree.root / "annotations.csv").write_text(
        "work_id,track_id\nyesterday,beatles\nyesterday,lost\n../secret,p\nyesterday,../p\n"
    )
    dataset = open_dataset(tree.root)
    assert [(p.track_id, p.work_id) for p in dataset.performances] == [
        ("beatles", "yesterday"),
        ("not-listed", "yesterday"),
    ]
    assert "does not list 1 of 2 performances, for example yesterday/not-listed.h5" in caplog.text
    assert {reject.track_id: reject.reason for reject in dataset.rejects} == {
        "lost": "annotations.csv lists it, but the file is missing",
        "p": "annotations.csv lists it, but the file is missing",
        "../p": "annotations.csv lists it, but the file is missing",
    }


def test_acoss_features_may_lie_in_a_folder_beside_the_csv(make_tree):
    tree = make_tree("acoss")
    tree.add("W_1", "P_1")
    (tree.root / "features").mkdir()
    (tree.root / "W_1").rename(tree.root / "features" / "W_1")
    assert only(tree).source == "features/W_1/P_1.h5"


def test_a_directory_without_performances_is_refused(tmp_path):
    expected = r"does not hold a data set: expected .*_single_files.* WORK/TRACK.h5, or TRACK.h5"
    with pytest.raises(ValueError, match=expected):
        open_dataset(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=expected):
        open_dataset(tmp_path)
    with pytest.raises(ValueError, match=r"There is no data set at .*nowhere"):
        open_dataset(tmp_path / "nowhere")
    (tmp_path / "x_single_files" / "W_1").mkdir(parents=True)
    with pytest.raises(ValueError, match="holds no performances"):
        open_dataset(tmp_path, RATE)


@pytest.mark.parametrize("folder", ["", "da-tacos_metadata"])  # the latter is where mirdata puts it
def test_the_metadata_of_each_performance_is_read(tree, folder):
    assert open_dataset(tree.root).metadata.is_empty()
    tree.title(
        "W_1",
        "P_11",
        work_title="Trade Winds",
        work_artist="Aki Aleong",
        perf_title="Trade Winds, Trade Winds",
        perf_artist="Dodie Stevens",
        release_year="1961",
        instrumental="No",
        mb_performances={"4ce2": {"length": "175000"}},
    )
    tree.title("W_2", "P_21", perf_title=" ", release_year="ca. 1960", instrumental="Yes")
    tree.title("W_2", "P_22", release_year="1975-03-01")
    name = f"{tree.stem}_metadata.json"
    (tree.root / folder).mkdir(exist_ok=True)
    (tree.root / name).rename(tree.root / folder / name)
    first, second, third = open_dataset(tree.root).metadata.to_dicts()
    assert first == {
        "track_id": "P_11",
        "work_id": "W_1",
        "work_title": "Trade Winds",
        "work_artist": "Aki Aleong",
        "title": "Trade Winds, Trade Winds",
        "artist": "Dodie Stevens",
        "year": 1961,
        "instrumental": False,
        "recording": None,
    }
    assert (second["title"], second["year"], second["instrumental"]) == (None, None, True)
    assert (third["year"], third["instrumental"]) == (1975, None)


def test_what_pandas_writes_is_understood_and_what_cannot_be_kept_is_named(tree, caplog):
    nothing = {"work_title": float("nan"), "perf_title": "nan", "perf_artist": None}
    tree.title("W_1", "P_11", **nothing, release_year=1990.0, instrumental=True)
    tree.title("W_1", "P_12", perf_title=1999.0, release_year="1990.0", instrumental=0)
    tree.title("W_2", "P_21", perf_title="Smile \ud83d", release_year=float("inf"))
    tree.title("W_2", "P_22", perf_title="None", perf_artist=["A"], release_year="sixties")
    tree.title("W_\ud83d", "P_31", perf_title="Lost")
    found = open_dataset(tree.root).metadata
    assert found.select("track_id", "title", "artist", "year", "instrumental").rows() == [
        ("P_11", None, None, 1990, True),
        ("P_12", "1999", None, 1990, False),
        ("P_21", "Smile \ufffd", None, None, None),
        ("P_22", "None", None, None, None),
    ]
    assert found["work_title"].to_list() == [None] * 4
    assert "4 values cannot be kept as they are: " in caplog.text
    for named in (
        "perf_title 'Smile \ufffd' of P_21",
        "perf_artist \"['A']\" of P_22",
        "release_year 'sixties' of P_22",
        "the ids W_\ufffd/P_31",
    ):
        assert named in caplog.text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 100_000, "could not be read as JSON"),
        ("{", "could not be read as JSON"),
        ("[]", "holds a list, where an object is expected"),
        ('{"W_1": []}', "W_1 should hold its performances by track id"),
        ('{"W_1": {"P_1": 3}}', "P_1 should hold its titles by name"),
    ],
)
def test_malformed_metadata_is_refused(tree, text, reason):
    (tree.root / "x_metadata.json").write_text(text)
    with pytest.raises(ValueError, match=rf"x_metadata\.json.* {reason}"):
        open_dataset(tree.root)


def test_dataset_json_may_name_the_set_and_its_subset(tree):
    facts = {"name": "hymns", "frame_rate": 20, "subset": "coveranalysis"}
    (tree.root / "dataset.json").write_text(json.dumps(facts))
    dataset = open_dataset(tree.root)
    assert (dataset.name, dataset.subset, dataset.frame_rate) == ("hymns", "coveranalysis", 20.0)


def test_the_frame_rate_is_given_or_stated_or_implied_or_measured(tree, caplog):
    facts = tree.root / "dataset.json"
    assert open_dataset(tree.root, 50.0).frame_rate == 50.0
    assert open_dataset(tree.root).frame_rate == RATE

    facts.unlink()
    provenance = tree.root / "provenance.json"
    provenance.write_text(json.dumps({"P_11": {"T": 5513, "sec": 64.0}}))
    assert open_dataset(tree.root).frame_rate == 44100 / 512

    provenance.unlink()
    for work_id, track_id in (("W_1", "P_11"), ("W_1", "P_12"), ("W_2", "P_21")):
        onsets = np.round(np.arange(20) * 60 / 100 * RATE).astype(int)
        tree.add(work_id, track_id, tempos=np.array([[100.0, 1.0]]), onsets=onsets)
    shutil.rmtree(tree.path("W_2", "P_22").parent.parent / "W_3")
    tree.path("W_2", "P_22").write_bytes(b"damaged, so it has no vote")
    with caplog.at_level(logging.WARNING):
        assert open_dataset(tree.root).frame_rate == RATE
    assert f"the frame rate of {tree.root} is 44100/4096 = 10.767 per second" in caplog.text


@pytest.mark.parametrize("factor", [0.25, 0.5, 0.75, 1, 1.4, 2, 4])
def test_a_stated_frame_rate_is_measured_too_and_a_contradiction_is_told(make_tree, caplog, factor):
    tree = make_tree()
    onsets = np.round(np.arange(20) * 60 / 100 * RATE).astype(int)
    tree.add("W_1", "P_1", tempos=np.array([[100.0, 1.0]]), onsets=onsets)
    dataset = open_dataset(tree.root, factor * RATE)
    assert (f"is given as {factor * RATE:.3f} per second" in caplog.text) == (factor != 1)
    check_frame_rate(dataset)
    told = f"is stated as {factor * RATE:.3f} per second, but it is 44100/4096 = 10.767 per second"
    assert (told in caplog.text) == (factor in (0.25, 0.5, 2, 4))


def test_an_unknown_frame_rate_is_asked_for(make_tree):
    tree = make_tree()
    tree.add("W_1", "P_1", onsets=None)
    (tree.root / "dataset.json").unlink()
    with pytest.raises(ValueError, match=r"is not stated, and .*no beats.*\"44100/512\""):
        open_dataset(tree.root)
    (tree.root / "dataset.json").write_text('{"frame_rate": "quick"}')
    with pytest.raises(ValueError, match=r"dataset\.json .*'quick' is not a frame rate"):
        open_dataset(tree.root)


def test_links_out_of_the_root_and_pipes_are_rejected(tree, tmp_path):
    outside = tmp_path / "outside"
    write_h5(outside / "P_90.h5", make_features("P_90"), label="W_1", track_id="P_90")
    folder = tree.path("W_1", "P_11").parent
    (folder / "P_90.h5").symlink_to(outside / "P_90.h5")
    (folder.parent / "W_9").symlink_to(outside)
    (folder / "P_91.h5").symlink_to(tree.path("W_1", "P_12"))  # within the root
    (folder / "P_92.h5").symlink_to(tmp_path / "nothing")
    os.mkfifo(folder / "P_93.h5")
    dataset = open_dataset(tree.root)
    assert [(r.work_id, r.track_id, r.reason.partition(": ")[0]) for r in dataset.rejects] == [
        ("W_1", "P_90", "P_90.h5 is a link that leaves data"),
        ("W_9", "P_90", "P_90.h5 is a link that leaves data"),
        ("W_1", "P_92", "P_92.h5 is a link that leaves data"),
        ("W_1", "P_93", "P_93.h5 is not a regular file"),
    ]
    assert "P_91" in [p.track_id for p in dataset.performances]


def test_links_into_the_blobs_beside_the_data_are_followed_as_hubs_make_them(tree, tmp_path):
    cache = tmp_path / "hub" / "datasets--mine"
    (cache / "blobs").mkdir(parents=True)
    snapshot = cache / "snapshots" / "3f2a"
    shutil.copytree(tree.root, snapshot)
    for number, file in enumerate(sorted(snapshot.rglob("*.*"))):
        if file.is_file():
            file.rename(cache / "blobs" / f"{number:064x}")
            file.symlink_to(os.path.relpath(cache / "blobs" / f"{number:064x}", file.parent))
    dataset = open_dataset(snapshot)
    assert (len(dataset.performances), dataset.rejects, dataset.frame_rate) == (5, (), RATE)

    file = dataset.performances[0].files[0]
    for elsewhere in (tmp_path / "secret.h5", cache / "blobs" / "deeper" / "secret.h5"):
        elsewhere.parent.mkdir(exist_ok=True)
        shutil.copy(file.resolve(), elsewhere)
        file.unlink()
        file.symlink_to(elsewhere)
        (reject,) = open_dataset(snapshot).rejects
        assert reject.reason == (
            f"{file.name} is a link that leaves 3f2a: copy the file there (links may only leave "
            "into a folder named blobs beside it)"
        )


def test_facts_behind_a_link_that_leaves_are_ignored(tree, tmp_path, caplog):
    (tmp_path / "private.json").write_text('{"W_1": {"P_11": {"perf_title": "Private"}}}')
    (tree.root / "x_metadata.json").symlink_to(tmp_path / "private.json")
    assert open_dataset(tree.root).metadata.is_empty()
    assert "x_metadata.json is a link that leaves its directory" in caplog.text


def test_a_data_folder_that_is_a_link_is_refused(tree, tmp_path):
    inner = tree.root / f"{tree.stem}_single_files"
    inner.rename(tmp_path / "elsewhere")
    inner.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"is a link that leaves .*give the directory it leads to"):
        open_dataset(tree.root)


@pytest.mark.parametrize("evidence", ["label", "metadata", None])
def test_of_two_copies_the_one_whose_work_is_confirmed_is_used(tree, evidence):
    right = {"label": "W_1", "metadata": "W_2", None: None}[evidence]
    if evidence == "label":
        shutil.copy(tree.path("W_1", "P_11"), tree.path("W_2", "P_11"))
    else:
        tree.add("W_2", "P_11")
    if evidence == "metadata":
        tree.title("W_2", "P_11", perf_title="Mine")
    dataset = open_dataset(tree.root)
    used = [p.work_id for p in dataset.performances if p.track_id == "P_11"]
    assert used == ([right] if right else [])
    assert [r.work_id for r in dataset.rejects] == [w for w in ("W_1", "W_2") if w != right]
    ending = f", and belongs to {right}" if right else ""
    for reject in dataset.rejects:
        assert reject.reason == f"duplicate track id: P_11 lies under W_1 and W_2{ending}"
