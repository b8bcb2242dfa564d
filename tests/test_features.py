"""A row has 52 means over finite values."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from embedding.data.dataset import open_dataset
from embedding.data.features import ARRAYS, FEATURE_NAMES, average
from embedding.data.frames import Frames, read
from embedding.data.table import read_table

SHARED = Path(__file__).resolve().parents[2] / "shared"


def frames_of(length=20, **changes):
    rng = np.random.default_rng(length)
    made = Frames(
        hpcp=rng.random((length, 12)),
        crema=rng.random((length, 12)),
        chroma_cens=rng.random((length, 12)),
        mfcc_htk=rng.normal(size=(length, 13)),
        novfn=rng.random(length),
        snovfn=rng.random(length),
        tempo=120.0,
        fingerprint="",
        size=0,
        mtime_ns=0,
    )
    return replace(made, **changes)


def test_the_real_performance_has_the_golden_row():
    golden = SHARED / "golden" / "P_547131_mean52.json"
    if not golden.is_file():
        pytest.skip(f"NOT CHECKED against real Da-TACOS: there is no {golden}")
    expected = json.loads(golden.read_text())["features"]
    dataset = open_dataset(SHARED / "data" / "da-tacos-real", 44100 / 512)
    (performance,) = dataset.performances
    row = average(read(performance)).means
    np.testing.assert_allclose(row, [expected[name] for name in FEATURE_NAMES], rtol=1e-6, atol=0)


def test_the_52_columns_are_the_prototypes_in_its_order():
    assert len(FEATURE_NAMES) == len(set(FEATURE_NAMES)) == 52
    assert FEATURE_NAMES[::12] == (
        "chroma_cens_0",
        "crema_0",
        "hpcp_0",
        "mfcc_htk_0",
        "mfcc_htk_12",
    )
    assert FEATURE_NAMES[49:] == ("novfn", "snovfn", "tempo")


def test_each_column_is_the_mean_of_its_coefficient_in_double_precision():
    # 20,000 float32 terms of 0.1: a float32 sum is off in the fourth digit.
    hpcp = np.full((20_000, 12), 0.1, dtype=np.float32)
    frames = frames_of(hpcp=hpcp, novfn=np.array([np.inf, -np.inf, 1.0, 3.0]))
    row = dict(zip(FEATURE_NAMES, average(frames).means, strict=True))
    assert row["crema_7"] == pytest.approx(frames.crema[:, 7].mean(), rel=1e-12)
    assert row["mfcc_htk_12"] == pytest.approx(frames.mfcc_htk[:, 12].mean(), rel=1e-12)
    assert row["hpcp_0"] == pytest.approx(float(np.float32(0.1)), rel=1e-12)
    assert (row["novfn"], row["tempo"]) == (2.0, 120.0)


@given(
    arrays.arrays(
        np.float32,
        st.tuples(st.integers(1, 30), st.just(13)),
        elements=st.one_of(
            st.floats(-1e3, 1e3, width=32), st.sampled_from([np.nan, np.inf, -np.inf])
        ),
    )
)
def test_a_mean_is_over_the_finite_values_of_its_coefficient(mfcc):
    frames = frames_of(mfcc_htk=mfcc)
    finite = np.isfinite(mfcc)
    if not finite.any(axis=0).all():
        with pytest.raises(ValueError, match="mfcc_htk has no finite value"):
            average(frames)
        return
    everything = sum(getattr(frames, name).size for name in ARRAYS)
    assert average(frames).nonfinite == pytest.approx((~finite).sum() / everything)
    expected = [
        column[ok].mean() for column, ok in zip(mfcc.T.astype(float), finite.T, strict=True)
    ]
    np.testing.assert_allclose(average(frames).means[36:49], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"hpcp": np.full((9, 12), np.nan)}, "^hpcp has no finite value in 9 frames"),
        ({"novfn": np.full(9, np.inf)}, "^novfn has no finite value in 9 frames"),
        ({"crema": np.full((9, 12), 1e308)}, "crema has values too large to average"),
        ({"tempo": np.nan}, "tempo is nan"),
    ],
)
def test_a_feature_without_a_mean_is_named(changes, reason):
    with pytest.raises(ValueError, match=reason):
        average(frames_of(**changes))


def table(**columns):
    values = {name: [float(i), i + 0.25] for i, name in enumerate(FEATURE_NAMES)}
    return pl.DataFrame(
        {"work": ["W_2", "W_1"], "performance": ["P_2", "P_1"], **values, **columns}
    )


def test_the_prototypes_table_is_read_whatever_its_column_order(tmp_path):
    written = table(performance=["P_2.h5", "P_1.h5"], notes=["a", "b"])
    path = tmp_path / "benchmark.csv"
    written.select(reversed(written.columns)).write_csv(path)
    content, rejects = read_table(path)
    assert rejects == {}
    assert content["track_id"].to_list() == ["P_1", "P_2"]
    assert content["work_id"].to_list() == ["W_1", "W_2"]
    np.testing.assert_array_equal(content.select(FEATURE_NAMES).row(1), np.arange(52.0))
    assert content["fingerprint"].n_unique() == 2


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"performance": ["P_1", "P_1"]}, "row 3 repeats performance P_1"),
        ({"performance": ["P_1.h5", "P_1"]}, "row 3 repeats performance P_1"),
        ({"performance": ["P_1", ""]}, "row 3 has no performance: name it, or delete the row"),
    ],
)
def test_a_bad_table_is_refused_with_its_row(tmp_path, columns, reason):
    table(**columns).write_csv(tmp_path / "table.csv")
    with pytest.raises(ValueError, match=reason):
        read_table(tmp_path / "table.csv")


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"crema_3": ["0.5", "much"]}, "row 3 has much in column crema_3"),
        ({"tempo": [120.0, None], "work": ["", ""]}, "row 3 has nothing in column tempo"),
        ({"novfn": [0.1, np.inf]}, "row 3 has inf in column novfn"),
        ({"novfn": [0.1, np.nan]}, "row 3 has NaN in column novfn"),
    ],
)
def test_a_row_with_a_cell_that_is_not_a_number_is_rejected_alone(tmp_path, columns, reason):
    table(**columns).write_csv(tmp_path / "table.csv")
    content, rejects = read_table(tmp_path / "table.csv")
    assert content["track_id"].to_list() == ["P_2"]
    assert content["work_id"].to_list() == ["P_2" if "work" in columns else "W_2"]
    assert rejects == {"P_1": f"{reason}, where a finite number is expected: correct the table"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            table().drop("crema_0", "tempo").write_csv(),
            r"no column crema_0, tempo \(2 of 54",
        ),
        (table().head(0).write_csv(), "no rows"),
        ("", "could not be read as a CSV table"),
        (None, "could not be read"),
    ],
)
def test_a_file_that_is_not_the_table_is_refused(tmp_path, text, reason):
    if text is not None:
        (tmp_path / "table.csv").write_text(text)
    with pytest.raises(ValueError, match=rf"table\.csv .*{reason}"):
        read_table(tmp_path / "table.csv")
