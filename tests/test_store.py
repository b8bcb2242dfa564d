"""A feature store comes back as it was written, as a whole or not at all."""

import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedding.data import store
from embedding.data.features import FEATURE_NAMES
from embedding.data.store import REJECTS, SCHEMA, BadStore, FeatureStore


def rows_of(lengths, **columns):
    """A table with one row a length, and its sequences; ids in no order."""
    rng = np.random.default_rng(len(lengths))
    ids = [f"P_{i * 7 % 101}" for i in range(len(lengths))]
    table = pl.DataFrame(
        {
            "track_id": ids,
            "work_id": [f"W_{i % 3}" for i in range(len(lengths))],
            "fingerprint": [f"content of {name}" for name in ids],
            "chroma_frames": lengths,
            **{name: rng.normal(size=len(lengths)) for name in FEATURE_NAMES},
            **columns,
        },
        schema_overrides=SCHEMA,
    )
    return table, [rng.random((n, 2, 12)).astype(np.float16) for n in lengths]


def write(path, lengths=(3, 0, 5), **columns):
    table, sequences = rows_of(list(lengths), **columns)
    return store.write(path, name="songs", table=table, sequences=sequences, frame_rate=10.0)


@settings(max_examples=20)
@given(st.lists(st.integers(0, 6), max_size=12))
def test_rows_and_sequences_are_read_back_sorted_by_track(tmp_path_factory, lengths):
    path = tmp_path_factory.mktemp("store") / "features"
    table, sequences = rows_of(lengths)
    made = write(path, lengths)
    assert len(made) == len(lengths)
    assert made.table["track_id"].is_sorted()
    assert made.means.shape == (len(lengths), 52)
    of = dict(zip(table["track_id"], sequences, strict=True))
    for i, track_id in enumerate(made.table["track_id"]):
        np.testing.assert_array_equal(made.sequence(i), of[track_id])
        expected = table.filter(track_id=track_id).select(FEATURE_NAMES).row(0)
        np.testing.assert_array_equal(made.means[i], expected)


def test_sequences_are_read_only_views_and_missing_columns_are_null(tmp_path):
    made = write(tmp_path / "s")
    assert not made.sequence(2).flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        made.sequence(2)[0] = 0
    assert made.table.schema == pl.Schema({**SCHEMA, "columns": pl.Null})
    assert made.table["title"].null_count() == 3
    assert made.rejects.schema == pl.Schema(REJECTS)


def test_the_same_rows_in_another_order_give_the_same_bytes(tmp_path):
    table, sequences = rows_of([2, 4, 1])
    facts = {"name": "songs", "frame_rate": 10.0}
    store.write(tmp_path / "a", table=table, sequences=sequences, **facts)
    store.write(tmp_path / "b", table=table.reverse(), sequences=sequences[::-1], **facts)
    for file in sorted((tmp_path / "a").iterdir()):
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_a_choice_of_rows_keeps_their_sequences(tmp_path):
    made = write(tmp_path / "s", [3, 2, 5, 1])
    chosen = made.select([2, 0])
    assert chosen.table["track_id"].to_list() == made.table["track_id"].gather([2, 0]).to_list()
    np.testing.assert_array_equal(chosen.sequence(0), made.sequence(2))
    np.testing.assert_array_equal(chosen.means, made.means[[2, 0]])
    masked = made.select(np.array([True, False, True, False]))
    assert masked.table["track_id"].to_list() == made.table["track_id"].gather([0, 2]).to_list()
    assert masked.select([True, False]).table["track_id"][0] == made.table["track_id"][0]
    assert len(made.select([])) == 0
    assert chosen.fingerprint != made.fingerprint
    with pytest.raises(ValueError, match="A mask of 2 was given for 4 performances"):
        made.select(np.array([True, False]))
    with pytest.raises(ValueError, match="between 0 and 3"):
        made.select([4])


def test_the_fingerprint_depends_on_the_contents_only(tmp_path):
    made = write(tmp_path / "s")
    elsewhere = write(tmp_path / "t", mtime_ns=[1, 2, 3], source=["a", "b", "c"], title=["T"] * 3)
    assert elsewhere.fingerprint == made.fingerprint
    assert write(tmp_path / "u", fingerprint=["x", "y", "z"]).fingerprint != made.fingerprint
    assert write(tmp_path / "v", work_id=["W_9"] * 3).fingerprint != made.fingerprint


def test_a_store_is_replaced_as_a_whole_or_not_at_all(tmp_path):
    before = write(tmp_path / "s", [4, 4])
    copy = before.sequence(1).copy()
    after = write(tmp_path / "s", [3, 0, 5])
    np.testing.assert_array_equal(before.sequence(1), copy)  # open readers keep the old files
    assert len(after) == 3
    table, sequences = rows_of([3, 0, 5])
    sequences[0] = sequences[0][:1]
    with pytest.raises(ValueError, match=r"P_0 has a chroma sequence of float16 \(1, 2, 12\)"):
        store.write(tmp_path / "s", name="", table=table, sequences=sequences, frame_rate=10.0)
    with pytest.raises(ValueError, match="Track P_1 is there twice"):
        write(tmp_path / "s", track_id=["P_1", "P_2", "P_1"])
    assert FeatureStore.open(tmp_path / "s").fingerprint == after.fingerprint
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def facts(**changes):
    def rewrite(path):
        known = json.loads((path / "store.json").read_text())
        (path / "store.json").write_text(json.dumps({**known, **changes}))

    return rewrite


def file(name, contents):
    return lambda path: (path / name).write_bytes(contents)


def chroma(array):
    return lambda path: np.save(path / "chroma.npy", array, allow_pickle=True)


def columns(change):
    def rewrite(path):
        change(pl.read_parquet(path / "features.parquet")).write_parquet(path / "features.parquet")

    return rewrite


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda s: (s / "store.json").unlink(), r"not a feature store \(store.json is missing\)"),
        (lambda s: (s / "features.parquet").unlink(), "is damaged: No such file"),
        (lambda s: (s / "chroma.npy").unlink(), "is damaged: .*No such file"),
        (file("store.json", b"{"), "is damaged"),
        (file("store.json", b"[]"), "is damaged"),
        (file("features.parquet", b"PAR1"), "is damaged"),
        (file("chroma.npy", b"\x93NUMPY\x01\x00"), "is damaged"),
        (facts(performances=4), "3 rows where store.json counts 4"),
        (facts(format=0), "has format 0, and this version reads"),
        (facts(fingerprint="f"), "not those that store.json was written"),
        (chroma(np.zeros((7, 2, 12), np.float16)), "has 7 frames, fewer than its rows need"),
        (chroma(np.zeros((8, 12), np.float16)), r"chroma.npy is float16 of shape \(8, 12\)"),
        (chroma(np.array([{}])), "is damaged"),
        (columns(lambda table: table.drop("hpcp_0")), "hpcp_0"),
        (columns(lambda table: table.cast({"tempo": pl.Float32})), "tempo is Float32, not Float64"),
    ],
)
def test_a_damaged_store_is_refused(tmp_path, damage, reason):
    made = write(tmp_path / "s")
    damage(made.path)
    with pytest.raises(BadStore, match=reason) as caught:
        FeatureStore.open(made.path)
    assert str(made.path) in str(caught.value)
    assert "\n" not in str(caught.value)
