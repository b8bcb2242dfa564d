"""Aggregating in batches gives the same store whatever the batches."""

import json
import os
import shutil

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trees import make_features

from embedding.data import aggregate, chroma, features
from embedding.data.aggregate import (
    TooManyRejects,
    aggregate_batch,
    aggregate_csv,
    assemble,
    parts,
    pending,
)
from embedding.data.dataset import open_dataset
from embedding.data.features import FEATURE_NAMES
from embedding.data.frames import read
from embedding.data.store import FeatureStore, write
from embedding.processes import processes

RATE = 44100 / 4096


def run(tree, work, *, cut=2, earlier=(), **settings):
    """Aggregate a tree as the flow does: what is pending, in batches, then assembled."""
    dataset = open_dataset(tree.root)
    to_read = pending(dataset, [*earlier, *parts(work / "parts")])
    for i in range(0, len(to_read), cut):
        aggregate_batch(to_read[i : i + cut], dataset.frame_rate, work / "parts")
    made = assemble(dataset, [*earlier, *parts(work / "parts")], work / "store", **settings)
    return made, [performance.track_id for performance in to_read]


def contents(path):
    return {file.name: file.read_bytes() for file in sorted(path.iterdir())}


def test_a_row_holds_the_means_and_facts_of_a_performance(tree, tmp_path):
    tree.title("W_1", "P_12", perf_title="Evening", release_year="1961", instrumental="Yes")
    made, _ = run(tree, tmp_path)
    dataset = open_dataset(tree.root)
    assert made.table["track_id"].to_list() == [p.track_id for p in dataset.performances]
    for i, performance in enumerate(dataset.performances):
        frames = read(performance)
        sequence = chroma.reduce(frames, dataset.frame_rate)
        np.testing.assert_array_equal(made.means[i], features.average(frames).means)
        np.testing.assert_array_equal(made.sequence(i), sequence)
        assert made.chroma_rate == chroma.CHROMA_RATE
    row = made.table.row(1, named=True)
    assert (row["track_id"], row["work_id"], row["subset"]) == ("P_12", "W_1", "benchmark")
    assert (row["frames"], row["seconds"]) == (60, 60 / RATE)
    assert row["nonfinite"] == 2 / (60 * 24 + 59 * 12 + 55 * 13 + 2 * 60)
    assert (row["size"], row["mtime_ns"]) == dataset.performances[1].stat()
    assert row["source"] == dataset.performances[1].source
    assert (row["title"], row["year"], row["instrumental"]) == ("Evening", 1961, True)
    assert (made.name, made.frame_rate) == (dataset.name, RATE)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_neither_batches_nor_order_nor_interruption_change_the_store(tree, tmp_path, data):
    reference, work = tmp_path / "reference", tmp_path / "parts"
    if not reference.exists():
        damaged = tree.path("W_2", "P_22")
        damaged.write_bytes(damaged.read_bytes()[:3000])
        part = aggregate_batch(open_dataset(tree.root).performances, RATE, tmp_path / "one")
        assemble(open_dataset(tree.root), [FeatureStore.open(part)], reference)
    dataset = open_dataset(tree.root)

    shutil.rmtree(work, ignore_errors=True)
    for interrupted in (data.draw(st.booleans()), False):
        left = data.draw(st.permutations(pending(dataset, parts(work))))
        while left:
            n = data.draw(st.integers(1, len(left)))
            aggregate_batch(left[:n], dataset.frame_rate, work)
            left = left[n:]
        if interrupted:
            shutil.rmtree(data.draw(st.sampled_from(parts(work))).path)
    made = assemble(dataset, data.draw(st.permutations(parts(work))), tmp_path / "again")
    assert contents(made.path) == contents(reference)


def test_only_new_or_changed_files_are_read(tree, tmp_path):
    first, reads = run(tree, tmp_path)
    assert len(reads) == 5
    shutil.rmtree(tmp_path / "parts")

    same, reads = run(tree, tmp_path, earlier=[first])
    assert reads == []
    assert same.fingerprint == first.fingerprint

    tree.add("W_3", "P_32")
    changed = tree.add("W_1", "P_12", hpcp=make_features("another")["hpcp"])
    os.utime(changed, ns=(1, 1))
    tree.path("W_2", "P_22").unlink()
    second, reads = run(tree, tmp_path, earlier=[same])
    assert reads == ["P_12", "P_32"]
    assert second.table["track_id"].to_list() == ["P_11", "P_12", "P_21", "P_31", "P_32"]

    undisturbed, _ = run(tree, tmp_path / "afresh")
    assert contents(undisturbed.path) == contents(second.path)


def test_a_reject_is_remembered_until_its_file_changes(tree, tmp_path):
    path = tree.add("W_1", "P_12", hpcp=None)
    first, _ = run(tree, tmp_path)
    assert first.rejects.select("track_id", "work_id", "source", "reason").rows() == [
        ("P_12", "W_1", f"{tree.stem}_single_files/W_1/P_12.h5", "it has no hpcp")
    ]
    second, reads = run(tree, tmp_path / "next", earlier=[first])
    assert reads == []
    assert contents(second.path) == contents(first.path)

    tree.add("W_1", "P_12")
    os.utime(path, ns=(1, 1))
    third, reads = run(tree, tmp_path, earlier=[second])
    assert reads == ["P_12"]
    assert third.rejects.is_empty()
    assert len(third) == 5


def test_a_file_that_was_out_of_reach_is_tried_again(tree, tmp_path):
    dataset = open_dataset(tree.root)
    path = tree.path("W_1", "P_12")
    path.rename(path.with_suffix(".away"))
    part = FeatureStore.open(aggregate_batch(dataset.performances, RATE, tmp_path / "parts"))
    assert part.rejects["reason"].to_list() == ["a file cannot be read (No such file or directory)"]
    path.with_suffix(".away").rename(path)

    # The rest of this run counts it as rejected; the next one reads it.
    made = assemble(dataset, [part], tmp_path / "store")
    assert made.rejects["track_id"].to_list() == ["P_12"]
    again, reads = run(tree, tmp_path, earlier=[made])
    assert reads == ["P_12"]
    assert len(again) == 5
    assert again.rejects.is_empty()


def test_every_reject_has_a_reason_and_the_run_goes_on(tree, tmp_path):
    tree.add("W_4", "P_42", novfn=np.full(60, np.nan))
    tree.add("W_4", "P_43", tempos=np.array([[np.nan, 1.0]]))
    cut = tree.add("W_4", "P_44")
    cut.write_bytes(cut.read_bytes()[:4000])
    tree.add("W_4", "P_31")  # lies under W_3 too
    made, _ = run(tree, tmp_path)
    assert made.table["track_id"].to_list() == ["P_11", "P_12", "P_21", "P_22"]
    assert made.rejects.select("track_id", "work_id", "reason").rows() == [
        ("P_31", "W_3", "duplicate track id: P_31 lies under W_3 and W_4"),
        ("P_31", "W_4", "duplicate track id: P_31 lies under W_3 and W_4"),
        ("P_42", "W_4", "novfn has no finite value in 60 frames"),
        (
            "P_43",
            "W_4",
            "tempo is nan, which is not a number of beats per minute: correct it, or leave the "
            "file out",
        ),
        ("P_44", "W_4", "P_44.h5 (4000 bytes) is an HDF5 file that is cut short or damaged"),
    ]


def test_too_many_rejects_stop_the_run_and_are_listed(tree, tmp_path, monkeypatch):
    for track in ("P_41", "P_42"):
        tree.add("W_4", track, hpcp=None)
    assert len(run(tree, tmp_path, max_reject_share=0.01)[0]) == 5  # a few are harmless
    monkeypatch.setattr(aggregate, "MAX_HARMLESS_REJECTS", 1)
    shutil.rmtree(tmp_path / "store")
    listing = tmp_path / "store.rejects.csv"
    for share, text in ((0.05, "2 of 7 .* rejected, more than 5%"), (0, ".*more than 0%")):
        with pytest.raises(TooManyRejects, match=text) as e:
            run(tree, tmp_path, max_reject_share=share)
        assert f"all are listed in {listing}, the first being " in str(e.value)
        assert "P_41.h5: it has no hpcp; " in str(e.value)
        assert pl.read_csv(listing)["track_id"].to_list() == ["P_41", "P_42"]
        assert not (tmp_path / "store").exists()

    made, reads = run(tree, tmp_path, max_reject_share=0.3)
    assert reads == []  # the failed runs' parts are used
    assert len(made) == 5
    assert not listing.exists()
    for performance in open_dataset(tree.root).performances:
        tree.add(performance.work_id, performance.track_id, hpcp=None)
    with pytest.raises(TooManyRejects, match=r"7 of 7 .* rejected, which leaves none"):
        run(tree, tmp_path / "all", max_reject_share=1)
    with pytest.raises(ValueError, match="max_reject_share is 5, expected a share"):
        run(tree, tmp_path, max_reject_share=5)


def test_corrected_titles_need_no_reading_and_another_frame_rate_needs_all(tree, tmp_path):
    tree.title("W_1", "P_11", perf_title="Mornign")
    first, _ = run(tree, tmp_path)
    tree.title("W_1", "P_11", perf_title="Morning")
    second, reads = run(tree, tmp_path, earlier=[first])
    assert reads == []
    assert second.table["title"][0] == "Morning"
    assert second.fingerprint == first.fingerprint

    (tree.root / "dataset.json").write_text(json.dumps({"frame_rate": 20}))
    third, reads = run(tree, tmp_path, earlier=[second])
    assert len(reads) == 5
    assert third.table["seconds"][0] == 3.0
    assert third.fingerprint != first.fingerprint


def test_a_damaged_part_is_read_again_before_the_store_is_assembled(tree, tmp_path, caplog):
    dataset = open_dataset(tree.root)
    for performance in dataset.performances:
        aggregate_batch([performance], RATE, tmp_path / "parts")
    broken = parts(tmp_path / "parts")[2]
    (broken.path / "features.parquet").write_bytes(b"")
    with pytest.raises(ValueError, match="1 of 5 performances have not been read "):
        assemble(dataset, parts(tmp_path / "parts"), tmp_path / "store")
    made, reads = run(tree, tmp_path)
    assert reads == broken.table["track_id"].to_list()
    assert len(made) == 5
    assert f"ignored: {broken.path} is damaged" in caplog.text


def test_a_batch_is_read_in_another_process_and_may_be_empty(tree, tmp_path):
    with processes(1) as pool:
        for performances in (open_dataset(tree.root).performances, ()):
            part = pool.submit(aggregate_batch, performances, RATE, tmp_path).result()
            found = FeatureStore.open(part).table["track_id"].to_list()
            assert found == [performance.track_id for performance in performances]


def test_of_two_rows_for_one_file_the_same_is_used_in_any_order(tree, tmp_path):
    first, _ = run(tree, tmp_path)
    others = [
        write(
            tmp_path / name,
            name=name,
            table=first.table.with_columns(fingerprint=pl.lit(name), tempo=pl.lit(value)),
            sequences=[first.sequence(i) for i in range(5)],
            frame_rate=first.frame_rate,
        )
        for name, value in (("a", 1.0), ("b", 2.0))
    ]
    dataset = open_dataset(tree.root)
    for stores in (others, others[::-1]):
        assert assemble(dataset, stores, tmp_path / "store").table["tempo"].to_list() == [1.0] * 5


def test_the_prototypes_table_becomes_a_store_without_chroma(tmp_path):
    rng = np.random.default_rng(0)
    values = dict(zip(FEATURE_NAMES, rng.normal(size=(52, 2)), strict=True))
    csv = tmp_path / "benchmark.csv"
    pl.DataFrame({"work": ["W_2", "W_1"], "performance": ["P_2.h5", "P_1.h5"], **values}).write_csv(
        csv
    )
    made = aggregate_csv(csv, tmp_path / "store")
    assert made.table["track_id"].to_list() == ["P_1", "P_2"]
    np.testing.assert_array_equal(made.means[0], [values[name][1] for name in FEATURE_NAMES])
    assert made.sequence(0).shape == (0, 2, 12)
    assert (made.name, made.frame_rate, made.chroma_rate) == ("benchmark", None, None)
    assert made.table["subset"].to_list() == ["benchmark"] * 2
    for column in ("frames", "seconds", "nonfinite", "title", "year", "size"):
        assert made.table[column].null_count() == 2


def test_a_row_with_an_empty_cell_is_a_reject_of_a_table_and_an_id_may_be_long(tmp_path):
    ids = ["x" * 260, "P_1", "P_2"]
    values = {name: [0.5, 0.25, None] for name in FEATURE_NAMES}
    table = pl.DataFrame({"work": ["W_1", "W_1", "W_2"], "performance": ids, **values})
    table.write_csv(tmp_path / "means.csv")
    made = aggregate_csv(tmp_path / "means.csv", tmp_path / "store")
    assert made.table["track_id"].to_list() == ["P_1", "x" * 260]
    assert made.rejects["track_id", "source", "reason"].rows() == [
        (
            "P_2",
            "means.csv",
            "row 4 has nothing in column chroma_cens_0, where a finite number is expected: "
            "correct the table",
        )
    ]
    with pytest.raises(TooManyRejects, match=r"1 of 3 .* more than 0%"):
        aggregate_csv(tmp_path / "means.csv", tmp_path / "strict", max_reject_share=0)
