"""Reading arrays from HDF5 files of unknown origin. The only module that imports h5py.

No link is followed out of the file, nothing is trusted before it is checked, and the size of what
is read or inflated is bounded.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from isal import isal_zlib

from embedding.errors import first_line

#: About four hours of features at 44100/512 frames per second, longer than any performance.
MAX_FILE_BYTES = 2**28
MAX_ELEMENTS = 2**24
MAX_NAME_BYTES = 4096

#: A chunk may inflate to 1032 times its size. Compressed chunks of real performances have 40 kB.
MAX_CHUNK_BYTES = 2**20

#: Soft links that may lead to one another.
MAX_LINKS = 8

#: H5LT_FILE_IMAGE_DONT_COPY and H5LT_FILE_IMAGE_DONT_RELEASE: HDF5 reads our bytes in place and
#: does not free them. They outlive the file, which is opened for reading only.
BORROW_IMAGE = 0x2 | 0x4

#: Every HDF5 file has these bytes at its start, or at 512, 1024, 2048, …
SIGNATURE = b"\x89HDF\r\n\x1a\n"

#: Registered filters that people meet, because PyTables or hdf5plugin write them.
FILTERS = {
    4: "szip",
    305: "lzo",
    307: "bzip2",
    32000: "lzf",
    32001: "blosc",
    32004: "lz4",
    32008: "bitshuffle",
    32013: "zfp",
    32015: "zstd",
    32026: "blosc2",
}


class WrongContentsError(ValueError):
    """The contents of a file cannot be used; the text says why."""


class Contents(NamedTuple):
    """What was read from one file."""

    arrays: dict[str, np.ndarray]  # by name; missing arrays are left out
    attributes: dict[str, str]  # of the root, by name; missing or empty ones are left out
    image: bytes  # the whole file
    mtime_ns: int  # when it was read


def read_arrays(path: Path, names: Iterable[str], attributes: Iterable[str]) -> Contents:
    """Read those of the named arrays, and of the attributes of the root, that a file holds.

    Raises
    ------
    WrongContentsError
        If the contents are not HDF5, damaged, too large, not numbers, or compressed in a way that
        this HDF5 cannot undo; or if an attribute is not a name.
    OSError
        If the file system fails.
    """
    with path.open("rb") as stream:
        facts = os.fstat(stream.fileno())
        if facts.st_size > MAX_FILE_BYTES:
            raise WrongContentsError(
                f"{path.name} has {facts.st_size} bytes, more than {MAX_FILE_BYTES}"
            )
        image = stream.read(facts.st_size)
    try:
        opened = h5py.h5f.open_file_image(image, flags=BORROW_IMAGE)
    except ValueError as error:  # without a reason
        raise WrongContentsError(f"{path.name} {_not_opened(image)}") from error
    arrays, texts = {}, {}
    try:
        with h5py.File(opened) as file:
            for name in attributes:
                if (text := _attribute(file, name)) is not None:
                    texts[name] = text
            for name in names:
                if (member := _member(file, name)) is not None:
                    arrays[name] = _array(member, name, memoryview(image))
    except (WrongContentsError, MemoryError):
        raise
    except Exception as error:  # h5py raises any kind of error for a damaged file
        cause = first_line(error).strip("'\"")
        raise WrongContentsError(f"{path.name} is damaged: {cause}") from error
    return Contents(arrays, texts, image, facts.st_mtime_ns)


def _not_opened(image: bytes) -> str:
    """Say why HDF5 did not open a file, without its contents, which may be nobody's business."""
    if not image:
        return "is empty"
    starts = [0, *(2**n for n in range(9, len(image).bit_length()))]
    if any(image.startswith(SIGNATURE, at) for at in starts):
        return f"({len(image)} bytes) is an HDF5 file that is cut short or damaged"
    return f"({len(image)} bytes) is not an HDF5 file"


def _attribute(file: h5py.File, name: str) -> str | None:
    """Return an attribute of the root as text; None if it is missing or empty."""
    if name not in file.attrs:
        return None
    too_long = f"its {name} is longer than any name"
    stored = file.attrs.get_id(name)
    if stored.get_space().get_simple_extent_type() == h5py.h5s.NULL:
        return None
    if stored.get_storage_size() > MAX_NAME_BYTES:
        raise WrongContentsError(too_long)
    value = file.attrs[name]  # bytes, unicode or a number; by some writers, an array of one
    if isinstance(value, np.ndarray | np.generic):
        if value.size != 1:
            raise WrongContentsError(f"its {name} is an array of {value.size}, not a name")
        value = value.item()
    if value != value:  # a NaN, which is how pandas says nothing
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    try:
        text = value.decode() if isinstance(value, bytes) else str(value)
        text.encode()
    except UnicodeError as error:
        raise WrongContentsError(f"its {name} is not UTF-8 text") from error
    if len(text) > MAX_NAME_BYTES:  # a variable length does not count in the storage size
        raise WrongContentsError(too_long)
    return text.strip() or None


def _member(group: h5py.Group, name: str, links: int = MAX_LINKS) -> Any:
    """Return what a path leads to, or None; follow at most `links` soft links in a row."""
    here: Any = group.file["/"] if name.startswith("/") else group
    for part in name.strip("/").split("/"):
        if not isinstance(here, h5py.Group) or not here.id.links.exists(part.encode()):
            return None
        kind = here.id.links.get_info(part.encode()).type
        if kind == h5py.h5l.TYPE_SOFT and links > 0:
            here = _member(here, here.id.links.get_val(part.encode()).decode(), links - 1)
        elif kind == h5py.h5l.TYPE_HARD:
            here = here[part]
        else:
            raise WrongContentsError(f"{name} is a link that leads out of the file or in circles")
    return here


def _array(dataset: Any, name: str, image: memoryview) -> np.ndarray:
    if not isinstance(dataset, h5py.Dataset):
        raise WrongContentsError(f"{name} is not an array")
    if dataset.dtype.kind not in "fiu":
        raise WrongContentsError(f"{name} holds {dataset.dtype}, not numbers")
    _check_filters(dataset, name)
    # HDF5 allocates both, however little the file holds.
    for claim, shape in (("claims", dataset.shape), ("has chunks of", dataset.chunks or ())):
        if shape is None or math.prod(shape) > MAX_ELEMENTS:
            raise WrongContentsError(f"{name} {claim} {shape} values, more than a performance has")
    if dataset.is_virtual or dataset.external:
        raise WrongContentsError(f"{name} is stored outside its file")
    array = inflated(dataset, image)
    if array is None:
        _check_compression(dataset, name)
        array = np.asarray(dataset[()])
    return array


def _filters(dataset: h5py.Dataset) -> list[int]:
    """Return HDF5's numbers of the filters that a chunk is written through, in order."""
    plist = dataset.id.get_create_plist()
    return [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]


def inflated(dataset: h5py.Dataset, image: memoryview) -> np.ndarray | None:
    """Read a dataset that is shuffled and deflated by rows, as in Da-TACOS; None for any other.

    Inflating takes most of the time of reading, and ISA-L needs two thirds of the time of the zlib
    in HDF5. HDF5 says where in the image of the file the chunks are.
    """
    shape, dtype, chunks = dataset.shape, dataset.dtype, dataset.chunks
    if (
        _filters(dataset) != [h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE]
        or chunks[1:] != shape[1:]
        or dtype.itemsize not in (4, 8)
        # HDF5 would convert the values, or counts bytes from elsewhere than the start of the file.
        or dataset.id.get_type() != h5py.h5t.py_create(dtype)
        or dataset.file.userblock_size
    ):
        return None
    found: list[Any] = []
    dataset.id.chunk_iter(found.append)
    starts = [chunk.chunk_offset[0] for chunk in found]
    if sorted(starts) != list(range(0, shape[0], chunks[0])) or not found:
        return None  # some chunks were never written
    if any(chunk.filter_mask for chunk in found):
        return None  # some chunks are not compressed
    from embedding.data.shuffle import interleave  # loads numba, which takes longer than a file

    array = np.empty(shape, dtype)
    numbers = array.reshape(-1).view(np.uint8).reshape(-1, dtype.itemsize)
    row = math.prod(shape[1:])
    expected = math.prod(chunks) * dtype.itemsize
    for start, chunk in zip(starts, found, strict=True):
        inflate = isal_zlib.decompressobj()
        packed = image[chunk.byte_offset : chunk.byte_offset + chunk.size]
        shuffled = inflate.decompress(packed, expected)
        if len(shuffled) != expected or not inflate.eof:
            raise WrongContentsError(f"a chunk of {dataset.name} does not inflate to its size")
        rows = numbers[start * row : (start + chunks[0]) * row]  # the last chunk is cut off
        interleave(np.frombuffer(shuffled, np.uint8).reshape(dtype.itemsize, -1), rows)
    return array


def _check_filters(dataset: h5py.Dataset, name: str) -> None:
    """Name a filter that this HDF5 lacks, because HDF5 itself would speak of a missing folder."""
    for number in _filters(dataset):
        if not h5py.h5z.filter_avail(number):
            raise WrongContentsError(
                f"{name} is compressed with {FILTERS.get(number, 'a filter')} (HDF5 filter "
                f"{number}), which is not installed here: rewrite the file with what wrote it, as "
                "in `ptrepack --complib zlib --complevel 5 OLD:/ NEW:/` (PyTables) or `h5repack "
                "-f GZIP=5 OLD NEW`"
            )


def _check_compression(dataset: h5py.Dataset, name: str) -> None:
    """Bound what HDF5 inflates, which does not depend on the size that a chunk claims."""
    harmless = (h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32)
    compressors = [number for number in _filters(dataset) if number not in harmless]
    if len(compressors) > 1:
        raise WrongContentsError(f"{name} is compressed {len(compressors)} times over")
    if not compressors:
        return

    def too_large(chunk: Any) -> int | None:
        return chunk.size if chunk.size > MAX_CHUNK_BYTES else None

    if (size := dataset.id.chunk_iter(too_large)) is not None:
        raise WrongContentsError(f"{name} holds {size} compressed bytes in one chunk")
