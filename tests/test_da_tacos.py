"""Reading: what a directory holds, and one performance's frames, whoever wrote the files."""

import contextlib
import io
import json
import logging
import os
import pickle
import shutil
import zlib

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trees import make_features, write_h5

from embedding.data import hdf5
from embedding.data.dataset import open_dataset
from embedding.data.frames import UnreadablePerformance, read
from embedding.data.layout import Performance

RATE = 44100 / 4096


def only(tree):
    """The only performance of a tree."""
    (performance,) = open_dataset(tree.root).performances
    return performance


def reason_of(performance):
    with pytest.raises(UnreadablePerformance) as caught:
        read(performance)
    text = str(caught.value)
    assert text == f"{performance.source} cannot be used: {caught.value.reason}"
    assert "\n" not in text
    return caught.value.reason


# --- layouts ---


@pytest.mark.parametrize("layout", ["single", "features", "acoss"])
@pytest.mark.parametrize("turned", [False, True])
def test_every_layout_and_orientation_gives_the_same_frames(make_tree, layout, turned):
    tree = make_tree(layout)
    written = make_features("P_1")
    tree.add("W_1", "P_1", crema=written["crema"].T if turned else written["crema"])
    performance = only(tree)
    assert (performance.track_id, performance.work_id) == ("P_1", "W_1")
    frames = read(performance)
    np.testing.assert_array_equal(frames.hpcp, written["hpcp"])
    np.testing.assert_array_equal(frames.crema, written["crema"])
    np.testing.assert_array_equal(frames.chroma_cens, written["chroma_cens"])
    np.testing.assert_array_equal(frames.mfcc_htk, written["mfcc_htk"].T)
    np.testing.assert_array_equal(frames.novfn, written["madmom_features/novfn"])
    np.testing.assert_array_equal(frames.snovfn, written["madmom_features/snovfn"])
    assert frames.tempo == written["madmom_features/tempos"][0, 0]
    assert (frames.size, frames.mtime_ns) == performance.stat()


def test_a_data_set_is_listed_sorted_with_its_name_subset_and_rate(tree):
    dataset = open_dataset(tree.root)
    assert dataset.name == "da-tacos_benchmark_subset"
    assert dataset.subset == "benchmark"
    assert dataset.frame_rate == RATE
    assert dataset.rejects == ()
    assert [p.track_id for p in dataset.performances] == ["P_11", "P_12", "P_21", "P_22", "P_31"]
    assert dataset.performances[0].source == "da-tacos_benchmark_subset_single_files/W_1/P_11.h5"
    assert all(file.is_file() for p in dataset.performances for file in p.files)


def test_the_folder_with_the_files_may_be_given_itself(tree):
    inner = open_dataset(tree.root / f"{tree.stem}_single_files")
    assert inner.name == "da-tacos_benchmark_subset"
    assert inner.subset == "benchmark"
    assert inner.frame_rate == RATE  # said beside it
    assert inner.performances[0].source == "W_1/P_11.h5"


def test_hidden_and_foreign_files_are_no_performances(tree):
    folder = tree.root / f"{tree.stem}_single_files"
    (folder / "README.md").write_text("hello")
    (folder / ".DS_Store").write_text("")
    (folder / "W_1" / "._P_11.h5").write_bytes(b"junk")
    (folder / "W_1" / "notes.txt").write_text("")
    dataset = open_dataset(tree.root)
    assert len(dataset.performances) == 5
    assert dataset.rejects == ()


def test_two_subsets_in_one_directory_have_to_be_told_apart(make_tree):
    for subset in ("benchmark", "coveranalysis"):
        tree = make_tree("features", subset)
        tree.add("W_1", f"P_{len(subset)}")
        tree.title("W_1", f"P_{len(subset)}", perf_title=subset)
    with pytest.raises(
        ValueError, match=r"several data sets .*choose one of them, as in .*benchmark_subset"
    ):
        open_dataset(tree.root)
    dataset = open_dataset(tree.root / "da-tacos_coveranalysis_subset")
    assert dataset.subset == "coveranalysis"
    assert [p.track_id for p in dataset.performances] == ["P_13"]
    assert dataset.metadata["title"].to_list() == ["coveranalysis"]


def test_a_performance_without_one_of_its_feature_files_is_rejected(make_tree):
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


def test_a_feature_folder_that_is_missing_altogether_is_named(make_tree):
    tree = make_tree("features")
    tree.add("W_1", "P_1")
    shutil.rmtree(tree.root / f"{tree.stem}_mfcc")
    with pytest.raises(ValueError, match=r"lacks da-tacos_benchmark_subset_mfcc: .*all five"):
        open_dataset(tree.root)


def test_acoss_csv_says_what_belongs(make_tree):
    tree = make_tree("acoss")
    tree.add("yesterday", "beatles")
    tree.add("yesterday", "withdrawn")
    (tree.root / "annotations.csv").write_text(
        "work_id,track_id\nyesterday,beatles\nyesterday,lost\n../secret,p\nyesterday,../p\n"
    )
    dataset = open_dataset(tree.root)
    assert [p.track_id for p in dataset.performances] == ["beatles"]
    reasons = {reject.track_id: reject.reason for reject in dataset.rejects}
    assert reasons == {
        "lost": "annotations.csv lists it, but the file is missing",
        "p": "annotations.csv has an id that is not a plain file name",
        "../p": "annotations.csv has an id that is not a plain file name",
    }


def test_acoss_features_may_lie_in_a_folder_beside_the_csv(make_tree):
    tree = make_tree("acoss")
    tree.add("W_1", "P_1")
    (tree.root / "features").mkdir()
    (tree.root / "W_1").rename(tree.root / "features" / "W_1")
    assert only(tree).source == "features/W_1/P_1.h5"


@pytest.mark.parametrize("inside", ["nothing", "other"])
def test_a_directory_that_is_no_data_set_is_told_what_was_expected(tmp_path, inside):
    if inside == "other":
        (tmp_path / "photos").mkdir()
        (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    with pytest.raises(
        ValueError, match=r"does not hold a data set: expected .*_single_files.*work_id,track_id"
    ):
        open_dataset(tmp_path)


def test_a_missing_or_empty_data_set_is_said_to_be_so(tmp_path):
    with pytest.raises(ValueError, match=r"there is no data set at .*nowhere"):
        open_dataset(tmp_path / "nowhere")
    (tmp_path / "x_single_files" / "W_1").mkdir(parents=True)
    with pytest.raises(ValueError, match="holds no performances"):
        open_dataset(tmp_path, RATE)


# --- what lies beside the performances ---


def test_the_metadata_of_each_performance_is_read(tree):
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
    }
    assert (second["title"], second["year"], second["instrumental"]) == (None, None, True)
    assert (third["year"], third["instrumental"]) == (1975, None)


def test_metadata_may_lie_where_mirdata_puts_it(tree):
    tree.title("W_1", "P_11", perf_title="Here")
    (tree.root / "da-tacos_metadata").mkdir()
    name = f"{tree.stem}_metadata.json"
    (tree.root / name).rename(tree.root / "da-tacos_metadata" / name)
    assert open_dataset(tree.root).metadata["title"].to_list() == ["Here"]


def test_without_metadata_there_are_no_titles(tree):
    assert open_dataset(tree.root).metadata.is_empty()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "could not be read as JSON"),
        ("[]", "holds a list, where an object is expected"),
        ('{"W_1": []}', "W_1 should hold its performances by track id"),
        ('{"W_1": {"P_1": 3}}', "P_1 should hold its titles by name"),
    ],
)
def test_metadata_that_is_not_of_the_form_is_refused(tree, text, reason):
    (tree.root / "x_metadata.json").write_text(text)
    with pytest.raises(ValueError, match=rf"x_metadata\.json.* {reason}"):
        open_dataset(tree.root)


def test_the_description_may_name_the_set_and_its_subset(tree):
    (tree.root / "dataset.json").write_text(
        json.dumps({"name": "hymns", "frame_rate": 20, "subset": "coveranalysis"})
    )
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
    assert "measured a frame rate of 44100/4096" in caplog.text


def test_a_frame_rate_that_stays_open_is_asked_for(make_tree):
    tree = make_tree()
    tree.add("W_1", "P_1", onsets=None)
    (tree.root / "dataset.json").unlink()
    with pytest.raises(
        ValueError, match=r"is not stated, and .*no beats.*\"frame_rate\": \"44100/512\""
    ):
        open_dataset(tree.root)
    (tree.root / "dataset.json").write_text('{"frame_rate": "quick"}')
    with pytest.raises(ValueError, match=r"dataset\.json .*'quick' is not a frame rate"):
        open_dataset(tree.root)


# --- what must not be opened ---


def test_a_link_out_of_the_root_is_rejected_and_one_within_is_not(tree, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    write_h5(outside / "P_90.h5", make_features("P_90"), label="W_1", track_id="P_90")
    folder = tree.path("W_1", "P_11").parent
    (folder / "P_90.h5").symlink_to(outside / "P_90.h5")
    (folder.parent / "W_9").symlink_to(outside)
    (folder / "P_91.h5").symlink_to(tree.path("W_1", "P_12"))
    (folder / "P_92.h5").symlink_to(tmp_path / "nothing")
    dataset = open_dataset(tree.root)
    assert [(r.work_id, r.track_id, r.reason) for r in dataset.rejects] == [
        ("W_1", "P_90", "P_90.h5 is a link that leaves data"),
        ("W_9", "P_90", "P_90.h5 is a link that leaves data"),
        ("W_1", "P_92", "P_92.h5 is a link that leaves data"),
    ]
    assert "P_91" in [p.track_id for p in dataset.performances]


def test_a_linked_data_folder_is_asked_for_by_its_own_place(tree, tmp_path):
    moved = tmp_path / "elsewhere"
    inner = tree.root / f"{tree.stem}_single_files"
    inner.rename(moved)
    inner.symlink_to(moved)
    with pytest.raises(ValueError, match=r"is a link that leaves .*give the directory it leads to"):
        open_dataset(tree.root)


def test_a_pipe_is_rejected_rather_than_waited_for(tree):
    os.mkfifo(tree.path("W_1", "P_90"))
    (reject,) = open_dataset(tree.root).rejects
    assert reject.reason == "P_90.h5 is not a regular file"


# --- duplicates ---


def test_a_copy_that_its_own_label_contradicts_leaves_the_right_one(tree):
    copy = tree.path("W_2", "P_11")
    shutil.copy(tree.path("W_1", "P_11"), copy)
    dataset = open_dataset(tree.root)
    assert [p.work_id for p in dataset.performances if p.track_id == "P_11"] == ["W_1"]
    (reject,) = dataset.rejects
    assert reject.work_id == "W_2"
    assert reject.reason == ("duplicate track id: P_11 lies under W_1 and W_2, and belongs to W_1")


def test_where_nothing_tells_the_right_work_no_copy_is_kept(tree):
    tree.add("W_2", "P_11")
    dataset = open_dataset(tree.root)
    assert "P_11" not in [p.track_id for p in dataset.performances]
    assert [(r.track_id, r.work_id) for r in dataset.rejects] == [("P_11", "W_1"), ("P_11", "W_2")]
    assert {r.reason for r in dataset.rejects} == {
        "duplicate track id: P_11 lies under W_1 and W_2"
    }


def test_the_metadata_tells_the_right_work(tree):
    tree.add("W_2", "P_11")
    tree.title("W_2", "P_11", perf_title="Mine")
    dataset = open_dataset(tree.root)
    assert [p.work_id for p in dataset.performances if p.track_id == "P_11"] == ["W_2"]
    assert [r.work_id for r in dataset.rejects] == ["W_1"]


# --- what is wrong with a file ---


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"hpcp": None}, "it has no hpcp"),
        ({"tempos": None, "crema": None}, "it has no crema, madmom_features/tempos"),
        ({"crema": np.ones((60, 11))}, "crema has shape (60, 11), expected 12 on one side"),
        ({"mfcc_htk": np.ones((12, 60))}, "mfcc_htk has shape (12, 60), expected 13 on one side"),
        ({"hpcp": np.ones(60)}, "hpcp has shape (60,), expected 12 on one side"),
        (
            {"novfn": np.ones((60, 2))},
            "madmom_features/novfn has shape (60, 2), expected (frames,)",
        ),
        ({"tempos": np.ones((0, 2))}, "madmom_features/tempos has shape (0, 2), expected (k, 2)"),
        ({"tempos": np.ones(2)}, "madmom_features/tempos has shape (2,), expected (k, 2)"),
        ({"hpcp": np.ones((0, 12))}, "hpcp has no frames"),
        ({"crema": np.ones((12, 7))}, "crema has 7 frames where hpcp has 60"),
        ({"snovfn": np.ones(400)}, "madmom_features/snovfn has 400 frames where hpcp has 60"),
        ({"hpcp": np.full((60, 12), b"0.5")}, "hpcp holds |S3, not numbers"),
        ({"hpcp": np.ones((60, 12), complex)}, "hpcp holds complex128, not numbers"),
        ({"hpcp": np.ones((60, 12), bool)}, "hpcp holds bool, not numbers"),
        ({"label": "W_9"}, "its label is W_9, which contradicts its place under W_1"),
        ({"label": 5}, "its label is 5, which contradicts its place under W_1"),
        ({"track_id": "P_9"}, "its track_id is P_9, which contradicts its place under P_1"),
        ({"label": "W" * 5000}, "its label is longer than any name"),
    ],
)
@pytest.mark.parametrize("layout", ["single", "features"])
def test_a_performance_that_cannot_be_used_says_why(make_tree, layout, changes, reason):
    tree = make_tree(layout)
    tree.add("W_1", "P_1", **changes)
    assert reason_of(only(tree)) == reason


def test_lengths_may_differ_by_a_tenth_or_fifty_frames(make_tree):
    tree = make_tree()
    for frames, apart in ((60, 50), (1000, 100)):
        tree.add("W_1", "P_1", frames=frames, novfn=np.ones(frames - apart))
        assert len(read(only(tree)).novfn) == frames - apart
        tree.add("W_1", "P_1", frames=frames, novfn=np.ones(frames - apart - 1))
        assert "novfn has" in reason_of(only(tree))


@pytest.mark.parametrize("label", [np.bytes_(b"W_1"), "W_1", None])
def test_a_name_may_be_bytes_or_text_or_absent(make_tree, label):
    tree = make_tree()
    path = tree.add("W_1", "P_1", label=None)
    if label is not None:
        with h5py.File(path, "a") as file:
            file.attrs["label"] = label
    assert read(only(tree)).size == path.stat().st_size


def test_a_file_that_is_cut_short_or_something_else_is_named(make_tree):
    tree = make_tree()
    path = tree.add("W_1", "P_1")
    whole = path.read_bytes()
    for contents in (whole[: len(whole) // 2], b"", b"not HDF5 at all"):
        path.write_bytes(contents)
        assert reason_of(only(tree)) == (
            f"P_1.h5 ({len(contents)} bytes) is not an HDF5 file, or is cut short"
        )


def test_damaged_data_is_rejected_by_hdf5s_own_word(make_tree):
    tree = make_tree()
    path = tree.add("W_1", "P_1")
    with h5py.File(path) as file:
        start = file["hpcp"].id.get_chunk_info(0).byte_offset
    contents = bytearray(path.read_bytes())
    contents[start : start + 50] = bytes(50)
    path.write_bytes(contents)
    assert reason_of(only(tree)).startswith("P_1.h5 is damaged: ")


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(0), st.binary(min_size=1, max_size=40), st.booleans())
def test_whatever_a_file_holds_it_is_read_or_rejected(make_tree, where, junk, cut):
    tree = make_tree()
    path = tree.path("W_1", "P_1")
    if not path.exists():
        tree.add("W_1", "P_1")
        shutil.copy(path, tree.root / "whole")
    contents = bytearray((tree.root / "whole").read_bytes())
    at = where % len(contents)
    contents[at : at + len(junk)] = junk
    path.write_bytes(contents[:at] if cut else contents)
    with contextlib.suppress(UnreadablePerformance):
        assert read(Performance("P_1", "W_1", (path,), "P_1.h5")).hpcp.shape[1] == 12


def test_a_file_that_is_gone_may_come_back(make_tree):
    tree = make_tree()
    path = tree.add("W_1", "P_1")
    performance = only(tree)
    path.unlink()
    with pytest.raises(UnreadablePerformance, match="No such file") as caught:
        read(performance)
    assert not caught.value.lasting
    assert performance.stat() == (-1, -1)


def test_a_reject_travels_between_processes():
    error = UnreadablePerformance("P_1", "W_1/P_1.h5", "it has no hpcp", lasting=False)
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.reason, copy.lasting) == (str(error), error.reason, False)


# --- hostile files ---


def test_a_link_within_the_file_is_followed_and_one_out_of_it_is_not(make_tree, tmp_path):
    tree = make_tree()
    path = tree.add("W_1", "P_1")
    written = make_features("P_1")["hpcp"]
    with h5py.File(path, "a") as file:
        file.move("hpcp", "kept/elsewhere")
        file["hpcp"] = h5py.SoftLink("/kept/elsewhere")
    np.testing.assert_array_equal(read(only(tree)).hpcp, written)

    write_h5(tmp_path / "other.h5", {"hpcp": written})
    with h5py.File(path, "a") as file:
        del file["hpcp"]
        file["hpcp"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "hpcp")
    assert reason_of(only(tree)) == "hpcp is a link that leads out of the file or in circles"
    with h5py.File(path, "a") as file:
        del file["hpcp"]
        file["out"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/")
        file["hpcp"] = h5py.SoftLink("/out/hpcp")
    assert "leads out of the file" in reason_of(only(tree))
    with h5py.File(path, "a") as file:
        del file["hpcp"]
        file["hpcp"] = h5py.SoftLink("/hpcp")
    assert "in circles" in reason_of(only(tree))


def test_data_stored_in_another_file_is_refused(make_tree, tmp_path):
    tree = make_tree()
    path = tree.add("W_1", "P_1", hpcp=None)
    (tmp_path / "raw").write_bytes(bytes(60 * 12 * 4))
    with h5py.File(path, "a") as file:
        file.create_dataset("hpcp", (60, 12), "f4", external=[(str(tmp_path / "raw"), 0, 2880)])
    assert reason_of(only(tree)) == "hpcp is stored outside its file"

    write_h5(tmp_path / "other.h5", {"hpcp": make_features("P_1")["hpcp"]})
    layout = h5py.VirtualLayout((60, 12), "f4")
    layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "hpcp", (60, 12))
    with h5py.File(path, "a") as file:
        del file["hpcp"]
        file.create_virtual_dataset("hpcp", layout)
    assert reason_of(only(tree)) == "hpcp is stored outside its file"


def test_a_small_file_cannot_claim_a_huge_array(make_tree):
    tree = make_tree()
    path = tree.add("W_1", "P_1", hpcp=None)
    with h5py.File(path, "a") as file:
        file.create_dataset("hpcp", (2**40, 12), "f4", chunks=(1024, 12))
    assert path.stat().st_size < 100_000
    assert reason_of(only(tree)) == (
        "hpcp claims (1099511627776, 12) values, more than a performance has"
    )
    with h5py.File(path, "a") as file:
        del file["hpcp"]
        file.create_dataset("hpcp", (60, 12), "f4", chunks=(2**25, 12), maxshape=(None, 12))
    assert "hpcp claims (33554432, 12) values" in reason_of(only(tree))


def test_text_of_any_length_and_nested_types_are_refused(make_tree):
    tree = make_tree()
    path = tree.add("W_1", "P_1", hpcp=None)
    kinds = {
        "object": h5py.string_dtype(),
        "object ": h5py.vlen_dtype(np.float32),
        "[(": np.dtype([("a", "f4"), ("b", "f4")]),
    }
    for shown, kind in kinds.items():
        with h5py.File(path, "a") as file:
            file.pop("hpcp", None)
            file.create_dataset("hpcp", (60, 12), kind)
        assert reason_of(only(tree)).startswith(f"hpcp holds {shown.strip()}")
    with h5py.File(path, "a") as file:
        del file["hpcp"]
        file.create_group("hpcp")
    assert reason_of(only(tree)) == "hpcp is not an array"


def test_a_file_beyond_all_measure_is_not_read_into_memory(make_tree, monkeypatch):
    tree = make_tree()
    path = tree.add("W_1", "P_1")
    monkeypatch.setattr(hdf5, "MAX_FILE_BYTES", 1000)
    assert reason_of(only(tree)) == f"P_1.h5 has {path.stat().st_size} bytes, more than 1000"


# --- 12 x 12 ---


def short_song(rng):
    """Thirteen frames of one changing chord: HPCP starts at A, CREMA at C, three semitones up."""
    chord = np.repeat(rng.random((4, 12)), 4, axis=0)[:13]
    noise = rng.normal(0, 0.02, (2, 13, 12))
    return chord + noise[0], np.roll(chord, -3, axis=1)[:12] + noise[1][:12]


@pytest.mark.parametrize("turned", [False, True])
def test_a_square_crema_is_turned_to_follow_the_other_chroma(make_tree, rng, turned):
    tree = make_tree()
    hpcp, crema = short_song(rng)
    tree.add("W_1", "P_1", frames=13, hpcp=hpcp, crema=crema.T if turned else crema)
    np.testing.assert_array_equal(read(only(tree)).crema, crema)


def test_a_square_crema_that_follows_nothing_is_rejected(make_tree, rng):
    tree = make_tree()
    tree.add("W_1", "P_1", frames=13, crema=np.full((12, 12), 0.5))
    assert reason_of(only(tree)).startswith(
        "crema is 12 x 12 and follows hpcp and chroma_cens equally well either way round"
    )


def test_a_square_crema_in_a_long_performance_has_the_wrong_length(make_tree, rng):
    tree = make_tree()
    _, crema = short_song(rng)
    tree.add("W_1", "P_1", frames=600, hpcp=np.tile(crema, (50, 1)), crema=crema)
    assert reason_of(only(tree)) == "crema has 12 frames where hpcp has 600"


NUMBERS = st.sampled_from(["<f4", ">f4", "<f8", ">f8", "<i4", "<u8"])


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=3),
    st.integers(1, 50),
    NUMBERS,
    st.integers(0, 9),
)
def test_what_is_inflated_here_is_what_hdf5_reads(shape, rows, dtype, level):
    array = np.random.default_rng(len(shape)).integers(0, 99, shape).astype(dtype)
    options = {"chunks": (min(rows, shape[0]), *shape[1:]), "shuffle": True, "compression": level}
    dataset, image = packed(array, **options)
    quick = hdf5.inflated(dataset, image)
    assert quick is not None
    assert quick.dtype == dataset.dtype
    np.testing.assert_array_equal(quick, dataset[()])
    np.testing.assert_array_equal(quick, array)


def packed(array, *, userblock=0, **options):
    """A dataset of a file in memory, with the file's bytes."""
    stream = io.BytesIO()
    with h5py.File(stream, "w", userblock_size=userblock) as file:
        file.create_dataset("x", data=array, **options)
    return h5py.File(stream)["x"], memoryview(stream.getvalue())


@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        ("f8", {}),
        ("f8", {"chunks": (10, 12), "compression": 9}),
        ("f8", {"chunks": (10, 12), "compression": 9, "shuffle": True, "fletcher32": True}),
        ("f8", {"chunks": (10, 12), "compression": "lzf", "shuffle": True}),
        ("f8", {"chunks": (10, 5), "compression": 9, "shuffle": True}),
        ("f8", {"chunks": (10, 12), "compression": 9, "shuffle": True, "userblock": 512}),
        ("f2", {"chunks": (10, 12), "compression": 9, "shuffle": True}),
    ],
)
def test_whatever_is_packed_otherwise_is_left_to_hdf5(dtype, options):
    dataset, image = packed(np.ones((60, 12), dtype), **options)
    assert hdf5.inflated(dataset, image) is None


def test_chunks_that_were_never_written_are_left_to_hdf5():
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        data = file.create_dataset(
            "x", (60, 12), "f4", chunks=(10, 12), shuffle=True, compression=9
        )
        data[:10] = 1
        data.id.write_direct_chunk((10, 0), bytes(480), filter_mask=3)
    with h5py.File(stream) as file:
        assert hdf5.inflated(file["x"], memoryview(stream.getvalue())) is None


def test_a_chunk_that_inflates_to_more_or_less_than_its_size_is_refused(make_tree):
    tree = make_tree()
    for size in (60 * 12 * 4 + 4, 60 * 12 * 4 - 4, 2**26):
        path = tree.add("W_9", "P_91")
        with h5py.File(path, "a") as file:
            del file["hpcp"]
            data = file.create_dataset(
                "hpcp", (60, 12), "f4", chunks=(60, 12), shuffle=True, compression=9
            )
            data.id.write_direct_chunk((0, 0), zlib.compress(bytes(size)))
        assert "a chunk of /hpcp does not inflate to its size" in reason_of(only(tree))
