"""The time to aggregate performances of three minutes into means and chroma sequences.

The files have the shapes, chunks and filters (shuffle, then gzip 9) of real Da-TACOS, and about its
compression ratio. Each is put together from compressed chunks of a dozen performances, since
compressing hundreds of files would take longer than the measurement.
"""

import multiprocessing
import os
import statistics
import tempfile
import zlib
from collections.abc import Generator, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing.synchronize import Barrier
from pathlib import Path

import h5py
import numpy as np

from benchmarks.harness import Row, Runs, in_turns, ratio, seconds
from embedding.data.aggregate import aggregate_batch, assemble, pending
from embedding.data.dataset import open_dataset
from embedding.data.frames import DATASETS, TEMPOS, read
from embedding.data.layout import Performance
from embedding.data.store import FeatureStore

#: Frames and frames per second of a real performance.
FRAMES, FRAME_RATE = 15_227, 44_100 / 512

#: Its chunks.
CHUNKS = {
    "chroma_cens": (682, 12),
    "crema": (1, FRAMES - 1),
    "hpcp": (1365, 12),
    "mfcc_htk": (1, FRAMES - 44),
    "madmom_features/novfn": (8192,),
    "madmom_features/snovfn": (8192,),
}

DISTINCT = 12
FILES, FEW = 480, 120
CORES = len(os.sched_getaffinity(0))


def measure() -> list[Row]:
    """Compare with the prototype's way, and with inflating alone."""
    with tempfile.TemporaryDirectory(prefix="covers-bench-") as directory:
        folder = Path(directory)
        for count in (FEW, FILES):
            make_files(folder / str(count), count)
        whole, few = folder / str(FILES), folder / str(FEW)
        found = in_turns(
            {
                "ours": partial(ours, whole),
                "prototype": partial(prototype, whole),
                "inflating": partial(inflating, whole),
                "few": partial(ours, few),
            }
        )
    return _rows(found)


def _rows(found: dict[str, Runs]) -> list[Row]:
    mine = found["ours"]
    faster, words = ratio(found["prototype"], mine)
    merely = [a / b for a, b in zip(mine.seconds, found["inflating"].seconds, strict=True)]
    peak, before = mine.peak_mb, found["few"].peak_mb
    return [
        Row(
            f"{FILES} performances of 3 minutes, {CORES} cores",
            f"{seconds(mine.median / FILES)} each",
            "the prototype's way",
            f"{seconds(found['prototype'].median / FILES)} each",
            words,
            ">= 4x",
            faster >= 4,
            peak,
            "zlib inflates a file in "
            f"{seconds(CORES * found['inflating'].median / FILES)} of a core",
        ),
        Row(
            "the same",
            f"{seconds(mine.median / FILES)} each",
            f"zlib inflating the chunks, {CORES} cores",
            f"{seconds(found['inflating'].median / FILES)} each",
            f"{statistics.median(merely):.2f} of it ({min(merely):.2f}-{max(merely):.2f})",
            "<= 1.5 of it",
            statistics.median(merely) <= 1.5,
        ),
        Row(
            "memory of all processes",
            f"{peak:.0f} MB for {FILES} files",
            "",
            f"{before:.0f} MB for {FEW}",
            limit="< 600 MB, flat",
            met=peak < 600 and peak < 1.1 * before,
        ),
    ]


def make_files(folder: Path, count: int) -> None:
    """Write a data set of `count` performances, two per work."""
    made = [_arrays(seed) for seed in range(DISTINCT)]
    packed = [{name: _compress(a, CHUNKS[name]) for name, a in each.items()} for each in made]
    rng = np.random.default_rng(52)
    for i in range(count):
        path = folder / "da-tacos_benchmark_subset_single_files" / f"W_{i // 2}" / f"P_{i}.h5"
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(path, "w") as file:
            file.attrs["label"], file.attrs["track_id"] = f"W_{i // 2}", f"P_{i}"
            file[TEMPOS] = np.array([[rng.uniform(60, 180), 0.7], [90.0, 0.3]])
            for name, like in made[0].items():
                dataset = file.create_dataset(
                    name, like.shape, like.dtype, chunks=CHUNKS[name], compression=9, shuffle=True
                )
                source = packed[rng.integers(DISTINCT)][name]
                for offset, chunk in source:
                    dataset.id.write_direct_chunk(offset, chunk)
    (folder / "dataset.json").write_text('{"frame_rate": "44100/512"}')


def _arrays(seed: int) -> dict[str, np.ndarray]:
    """One performance, about as compressible as a real one."""
    rng = np.random.default_rng(seed)

    def smooth(width: int, every: int) -> np.ndarray:
        knots = rng.random((FRAMES // every + 2, width))
        at = np.arange(FRAMES) / every
        low = at.astype(int)
        part = (at - low)[:, None]
        return (1 - part) * knots[low] + part * knots[low + 1]

    cens = smooth(12, 40) ** 2
    hpcp = (smooth(12, 9) * rng.random((FRAMES, 12))) ** 2
    hpcp[rng.random(hpcp.shape) < 0.12] = 0
    crema = np.repeat(smooth(12, 9)[: FRAMES // 8 + 1] ** 4, 8, axis=0)[: FRAMES - 1]
    mfcc = (20 * smooth(13, 5) - 30 + rng.normal(size=(FRAMES, 13))).astype(np.float16)
    mfcc = mfcc.astype(np.float32)[: FRAMES - 44] * np.float32(1.1)
    mfcc[0, 0] = -np.inf
    return {
        "chroma_cens": cens / np.linalg.norm(cens, axis=1, keepdims=True),
        "crema": np.ascontiguousarray(crema.T, np.float32),
        "hpcp": hpcp.astype(np.float32),
        "mfcc_htk": np.ascontiguousarray(mfcc.T),
        "madmom_features/novfn": smooth(1, 3)[:, 0] * rng.random(FRAMES),
        "madmom_features/snovfn": smooth(1, 5)[:, 0] * rng.random(FRAMES),
    }


def _compress(array: np.ndarray, chunks: tuple[int, ...]) -> list[tuple[tuple[int, ...], bytes]]:
    """Return the chunks of an array as HDF5 compresses them."""
    with h5py.File.in_memory() as file:
        data = file.create_dataset("x", data=array, chunks=chunks, compression=9, shuffle=True)
        ids = (data.id.get_chunk_info(i).chunk_offset for i in range(data.id.get_num_chunks()))
        return [(offset, data.id.read_direct_chunk(offset)[1]) for offset in ids]


@contextmanager
def _pool(folder: Path) -> Iterator[ProcessPoolExecutor]:
    """Workers that have read a file: the time they take to start does not count."""
    context = multiprocessing.get_context("spawn")
    about = (open_dataset(folder).performances[0], context.Barrier(CORES))
    with ProcessPoolExecutor(CORES, context, initializer=_start, initargs=about) as pool:
        list(pool.map(abs, range(CORES)))
        yield pool


def _start(performance: Performance, all_started: Barrier) -> None:
    read(performance)
    all_started.wait()


def _batches(things: list, size: int) -> list[list]:
    return [things[i : i + size] for i in range(0, len(things), size)]


def ours(folder: Path) -> Generator[None, None, None]:
    """Aggregate as the flow does, without Prefect."""
    with tempfile.TemporaryDirectory() as directory:
        parts = Path(directory)
        with _pool(folder) as pool:
            yield
            dataset = open_dataset(folder)
            batches = _batches(list(pending(dataset, [])), FILES // (4 * CORES))
            done = pool.map(partial(_aggregate, directory=parts), batches)
            stores = [FeatureStore.open(path) for path in done]
            assemble(dataset, stores, parts / "features")


def _aggregate(batch: list, directory: Path) -> Path:
    return aggregate_batch(batch, FRAME_RATE, directory)


def prototype(folder: Path) -> Generator[None, None, None]:
    """In one process, read whole arrays, mask values, average, and stack row on row."""
    files = sorted(folder.rglob("*.h5"))
    widths = {"chroma_cens": 12, "crema": 12, "hpcp": 12, "mfcc_htk": 13}
    yield
    table = {name: np.empty((0, width)) for name, width in widths.items()}
    numbers: dict[str, list[float]] = {"novfn": [], "snovfn": [], "tempos": []}
    for path in files:
        with h5py.File(path) as file:
            rows = {
                "chroma_cens": np.array(file["chroma_cens"]).mean(axis=0),
                "crema": np.array(file["crema"]).mean(axis=1),
                "hpcp": np.array(file["hpcp"]).mean(axis=0),
                "mfcc_htk": np.ma.masked_invalid(np.array(file["mfcc_htk"])).mean(axis=1).data,
            }
            for name in ("novfn", "snovfn"):
                numbers[name].append(np.array(file["madmom_features"][name]).mean().item())
            numbers["tempos"].append(np.array(file[TEMPOS])[0, 0].item())
        for name, row in rows.items():
            table[name] = np.vstack([table[name], row])


def inflating(folder: Path) -> Generator[None, None, None]:
    """Only read the chunks and inflate them, on all cores."""
    files = sorted(folder.rglob("*.h5"))
    with _pool(folder) as pool:
        yield
        list(pool.map(_inflate, _batches(files, FILES // (4 * CORES))))


def _inflate(files: list[Path]) -> None:
    for path in files:
        with h5py.File(path) as file:
            for name in DATASETS:
                data = file[name].id
                for i in range(data.get_num_chunks()):
                    zlib.decompress(data.read_direct_chunk(data.get_chunk_info(i).chunk_offset)[1])
