"""Bounded reading of HDF5: whatever a file holds, it is read as HDF5 reads it, or rejected."""

import contextlib
import io
import shutil
import zlib

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trees import filtered, make_features, only, reason_of, write_h5

from embedding.data import hdf5
from embedding.data.frames import UnreadablePerformance, read
from embedding.data.layout import Performance


@pytest.fixture
def tree(make_tree):
    """A data set of one performance."""
    tree = make_tree()
    tree.add("W_1", "P_1")
    return tree


@pytest.fixture
def path(tree):
    """The file of that performance."""
    return tree.path("W_1", "P_1")


def replace(path, make):
    """Replace hpcp by what `make` writes into the file."""
    with h5py.File(path, "a") as file:
        del file["hpcp"]
        make(file)


@pytest.mark.parametrize(
    ("label", "work"),
    [
        (np.bytes_(b"W_1"), "W_1"),
        ("W_1", "W_1"),
        (["W_1"], "W_1"),
        (5, "5"),
        (np.float32(5), "5"),
        (np.nan, None),
        ("", None),
        (h5py.Empty("S1"), None),
        (None, None),
    ],
)
def test_a_name_may_be_bytes_or_text_or_a_number_or_absent(tree, label, work):
    path = tree.add("W_1", "P_1", label=None)
    if label is not None:
        with h5py.File(path, "a") as file:
            file.attrs["label"] = label
    assert read(only(tree)).label == work


def test_a_file_that_is_cut_short_or_not_hdf5_is_rejected(tree, path):
    whole = path.read_bytes()
    half = whole[: len(whole) // 2]
    for contents, reason in (
        (half, f"P_1.h5 ({len(half)} bytes) is an HDF5 file that is cut short or damaged"),
        (b"not HDF5 at all", "P_1.h5 (15 bytes) is not an HDF5 file"),
        (b"", "P_1.h5 is empty"),
    ):
        path.write_bytes(contents)
        assert reason_of(only(tree)) == reason


def test_damaged_data_is_rejected_with_hdf5s_reason(tree, path):
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
def test_any_file_is_read_or_rejected(tree, path, where, junk, cut):
    if not (tree.root / "whole").exists():
        shutil.copy(path, tree.root / "whole")
    contents = bytearray((tree.root / "whole").read_bytes())
    at = where % len(contents)
    contents[at : at + len(junk)] = junk
    path.write_bytes(contents[:at] if cut else contents)
    with contextlib.suppress(UnreadablePerformance):
        assert read(Performance("P_1", "W_1", (path,), "P_1.h5")).hpcp.shape[1] == 12


def test_a_link_within_the_file_is_followed_and_any_other_is_not(tree, path, tmp_path):
    written = make_features("P_1")["hpcp"]
    with h5py.File(path, "a") as file:
        file.move("hpcp", "kept/elsewhere")
        file["hpcp"] = h5py.SoftLink("/kept/elsewhere")
    np.testing.assert_array_equal(read(only(tree)).hpcp, written)

    other = str(tmp_path / "other.h5")
    write_h5(tmp_path / "other.h5", {"hpcp": written})
    with h5py.File(path, "a") as file:
        file["out"] = h5py.ExternalLink(other, "/")
    links = h5py.ExternalLink(other, "hpcp"), h5py.SoftLink("/out/hpcp"), h5py.SoftLink("/hpcp")
    for link in links:
        replace(path, lambda file, link=link: file.__setitem__("hpcp", link))
        assert reason_of(only(tree)).endswith("is a link that leads out of the file or in circles")


def external(file):
    file.create_dataset("hpcp", (60, 12), "f4", external=[("raw", 0, 2880)])


def virtual(file):
    layout = h5py.VirtualLayout((60, 12), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "hpcp", (60, 12))
    file.create_virtual_dataset("hpcp", layout)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (
            filtered(32001),
            "hpcp is compressed with blosc (HDF5 filter 32001), which is not installed here: "
            "rewrite the file with what wrote it, as in `ptrepack ",
        ),
        (filtered(307), "hpcp is compressed with bzip2 (HDF5 filter 307), which is not installed"),
        (filtered(31999), "hpcp is compressed with a filter (HDF5 filter 31999), which is not"),
        (external, "hpcp is stored outside its file"),
        (virtual, "hpcp is stored outside its file"),
        (
            lambda file: file.create_dataset("hpcp", (2**40, 12), "f4", chunks=(1024, 12)),
            "hpcp claims (1099511627776, 12) values, more than a performance has",
        ),
        (
            lambda file: file.create_dataset(
                "hpcp", (60, 12), "f4", chunks=(2**25, 12), maxshape=(None, 12)
            ),
            "hpcp has chunks of (33554432, 12) values",
        ),
        (lambda file: file.create_dataset("hpcp", (9,), h5py.string_dtype()), "hpcp holds object"),
        (
            lambda file: file.create_dataset("hpcp", (9,), h5py.vlen_dtype(np.float32)),
            "hpcp holds object",
        ),
        (
            lambda file: file.create_dataset("hpcp", (9,), np.dtype([("a", "f4"), ("b", "f4")])),
            "hpcp holds [(",
        ),
        (lambda file: file.create_group("hpcp"), "hpcp is not an array"),
    ],
)
def test_only_arrays_of_bounded_size_and_known_filters_are_read(tree, path, make, reason):
    replace(path, make)
    assert path.stat().st_size < 100_000
    assert reason_of(only(tree)).startswith(reason)


def test_a_file_beyond_all_measure_is_not_read_into_memory(tree, path, monkeypatch):
    monkeypatch.setattr(hdf5, "MAX_FILE_BYTES", 1000)
    assert reason_of(only(tree)) == f"P_1.h5 has {path.stat().st_size} bytes, more than 1000"


def packed(array, *, userblock=0, **options):
    """A dataset of a file in memory, with the file's bytes."""
    stream = io.BytesIO()
    with h5py.File(stream, "w", userblock_size=userblock) as file:
        file.create_dataset("x", data=array, **options)
    return h5py.File(stream)["x"], memoryview(stream.getvalue())


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=3),
    st.integers(1, 50),
    st.sampled_from(["<f4", ">f4", "<f8", ">f8", "<i4", "<u8"]),
    st.integers(0, 9),
)
def test_the_fast_path_reads_the_same_arrays_as_hdf5(shape, rows, dtype, level):
    array = np.random.default_rng(len(shape)).integers(0, 99, shape).astype(dtype)
    options = {"chunks": (min(rows, shape[0]), *shape[1:]), "shuffle": True, "compression": level}
    dataset, image = packed(array, **options)
    quick = hdf5.inflated(dataset, image)
    assert quick is not None
    assert quick.dtype == dataset.dtype
    np.testing.assert_array_equal(quick, dataset[()])
    np.testing.assert_array_equal(quick, array)


SHUFFLED = {"chunks": (10, 12), "compression": 9, "shuffle": True}


@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        ("f8", {}),
        ("f8", {"chunks": (10, 12), "compression": 9}),
        ("f8", {**SHUFFLED, "fletcher32": True}),
        ("f8", {**SHUFFLED, "compression": "lzf"}),
        ("f8", {**SHUFFLED, "chunks": (10, 5)}),
        ("f8", {**SHUFFLED, "userblock": 512}),
        ("f2", SHUFFLED),
    ],
)
def test_other_filters_and_types_are_left_to_hdf5(dtype, options):
    dataset, image = packed(np.ones((60, 12), dtype), **options)
    assert hdf5.inflated(dataset, image) is None


def test_chunks_that_were_never_written_or_not_compressed_are_left_to_hdf5():
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        data = file.create_dataset("x", (60, 12), "f4", **SHUFFLED)
        data[:10] = 1
        data.id.write_direct_chunk((10, 0), bytes(480), filter_mask=3)
    with h5py.File(stream) as file:
        assert hdf5.inflated(file["x"], memoryview(stream.getvalue())) is None


@pytest.mark.parametrize("size", [60 * 12 * 4 + 4, 60 * 12 * 4 - 4, 2**26])
def test_a_chunk_that_inflates_to_more_or_less_than_its_size_is_rejected(tree, path, size):
    def make(file):
        data = file.create_dataset("hpcp", (60, 12), "f4", **{**SHUFFLED, "chunks": (60, 12)})
        data.id.write_direct_chunk((0, 0), zlib.compress(bytes(size)))

    replace(path, make)
    assert "a chunk of /hpcp does not inflate to its size" in reason_of(only(tree))
