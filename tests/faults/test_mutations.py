"""A file with any bytes is read as finite numbers or refused in a sentence."""

import contextlib
import io
import json
import os
import pickle
import resource
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from fresh import in_fresh_process
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from published import copy
from trees import Tree, make_features, write_h5

import search
from embedding import bundle as bundles
from embedding.data import chroma
from embedding.data.dataset import open_dataset
from embedding.data.features import FEATURE_NAMES, average
from embedding.data.frames import read
from embedding.data.layout import Performance
from embedding.data.store import FeatureStore
from embedding.data.table import read_table
from flows.collection import vectors
from flows.collection.points import points_of_recipe
from flows.collection.served import current
from flows.collection.sources import Recipe
from flows.embed import embedded_before
from flows.measuring.calibrate import fit
from flows.retention import prune
from flows.workspace import Workspace

#: Bytes by which damaged files may increase the memory of a process.
MEMORY = 2**30

#: Damages to a file's content `c`, given an offset, a number of bytes, and junk.
DAMAGES: dict[str, Callable[[bytes, int, int, bytes], bytes]] = {
    "cut off": lambda c, at, size, junk: c[:at],
    "lost": lambda c, at, size, junk: c[:at] + c[at + size :],
    "zeroed": lambda c, at, size, junk: c[:at] + bytes(len(c[at : at + size])) + c[at + size :],
    "twice": lambda c, at, size, junk: c[: at + size] + c[at:],
    "moved": lambda c, at, size, junk: c[at : at + size] + c[:at] + c[at + size :],
    "overwritten": lambda c, at, size, junk: c[:at] + junk + c[at + len(junk) :],
    "inserted": lambda c, at, size, junk: c[:at] + junk + c[at:],
    "a bit": lambda c, at, size, junk: (
        c[:at] + bytes(byte ^ 1 << size % 8 for byte in c[at : at + 1]) + c[at + 1 :]
    ),
}


@st.composite
def damaged(draw, content: bytes) -> bytes:
    """A file with one to three damages, near its ends as often as in the middle."""
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(-(2**24), 2**24)) % (len(content) + 1)
        size, junk = draw(st.integers(1, 4096)), draw(st.binary(min_size=1, max_size=16))
        content = DAMAGES[draw(st.sampled_from(sorted(DAMAGES)))](content, at, size, junk)
    return content


def read_performance(path: Path) -> list[np.ndarray]:
    frames = read(Performance("P_00", "W_0", (path,), path.name))
    return [average(frames).means, chroma.reduce(frames, 10.0)]


def list_data(path: Path) -> list[float]:
    dataset = open_dataset(path.parent)
    return [dataset.frame_rate, len(dataset.performances)]


def read_csv(path: Path) -> np.ndarray:
    return read_table(path)[0].select(FEATURE_NAMES).to_numpy()


def recipe_of(home: Path) -> Recipe:
    found = current(search.connect(home=home), Workspace(home))
    assert found is not None
    return found


def read_features(path: Path) -> list[np.ndarray]:
    """As `embed` and `publish` do."""
    store = FeatureStore.open(path.parent)
    recipe = recipe_of(path.parents[3])
    return [bundles.load(recipe.bundle).embed(store), points_of_recipe(recipe).vectors]


def read_bundle(path: Path) -> list[np.ndarray]:
    """As `embed` and `calibrate` do."""
    recipe = recipe_of(path.parents[2])
    bundle = bundles.load(path.parent)
    store = FeatureStore.open(recipe.sources[0].features)
    fit(bundle, store)
    curve = bundle.training.loss_curve.select("train", "validation").to_numpy()
    return [bundle.embed(store), bundle.training.validation["vector"].to_numpy(), curve]


def read_calibration(path: Path) -> np.ndarray:
    """As `publish` does."""
    return points_of_recipe(recipe_of(path.parents[2])).vectors


def read_vectors(path: Path) -> np.ndarray:
    """As `embed`, `publish` and `evaluate` do."""
    vectors.origin(path)
    known = vectors.read(path)
    bundle_id, workspace = path.parent.name.rpartition("-")[0], Workspace(path.parents[2])
    embedded_before(known.select(vectors.IDS), known["vector"].dtype, workspace, bundle_id)
    return points_of_recipe(recipe_of(path.parents[2])).vectors


def look_for_unneeded(path: Path) -> list[float]:
    """As `gc` does."""
    home = next(above for above in path.parents if (above / "bundles").exists())
    return [len(prune(Workspace(home), dry_run=True))]


def ask(path: Path) -> list[float]:
    """As the commands that search do."""
    while path.name != "qdrant":
        path = path.parent
    searcher = search.Searcher(search.connect(home=path.parent))
    searcher.status()
    with pytest.MonkeyPatch.context() as patch:
        # Nobody replaces the collection while it is opened.
        patch.setattr("search.engines.embedded.engine.MAX_ATTEMPTS", 1)
        found = searcher.similar("P_00", 5, rerank=True)
        named = searcher.identify("P_00")
    return [
        named.probability_of_none,
        *(match.distance for match in found),
        *(match.probability for match in found),
    ]


#: By its name in the table of counts: where the file is, the share of inputs, and what reads it.
READERS: dict[str, tuple[str, int, Callable[[Path], object]]] = {
    "a performance's HDF5": ("one/P_00.h5", 30, read_performance),
    "metadata.json": ("home/data/da-tacos_benchmark_subset_metadata.json", 4, list_data),
    "dataset.json": ("home/data/dataset.json", 4, list_data),
    "provenance.json": ("acoss/provenance.json", 4, list_data),
    "annotations.csv": ("acoss/annotations.csv", 4, list_data),
    "the prototype's CSV": ("one/table.csv", 6, read_csv),
    "features.parquet": ("home/features/*/*/features.parquet", 6, read_features),
    "rejects.parquet": ("home/features/*/*/rejects.parquet", 3, read_features),
    "chroma.npy": ("home/features/*/*/chroma.npy", 4, read_features),
    "store.json": ("home/features/*/*/store.json", 3, read_features),
    "bundle.json": ("home/bundles/*/bundle.json", 3, read_bundle),
    "weights.safetensors": ("home/bundles/*/weights.safetensors", 4, read_bundle),
    "works.parquet": ("home/bundles/*/works.parquet", 3, read_bundle),
    "validation.parquet": ("home/bundles/*/validation.parquet", 3, read_bundle),
    "loss_curve.csv": ("home/bundles/*/loss_curve.csv", 2, read_bundle),
    "calibration.json": ("home/bundles/*/calibration.json", 3, read_calibration),
    "vectors.parquet": ("home/vectors/*/vectors.parquet", 6, read_vectors),
    "latest.json": ("home/latest.json", 1, look_for_unneeded),
    "served.json": ("home/served.json", 2, look_for_unneeded),
    "CURRENT": ("home/qdrant/covers/CURRENT", 2, ask),
    "collection.json": ("home/qdrant/covers/covers-*/collection.json", 3, ask),
    "frames.npy": ("home/qdrant/covers/covers-*/sequences/frames.npy", 2, ask),
    "starts.npy": ("home/qdrant/covers/covers-*/sequences/starts.npy", 2, ask),
    "ids.npy": ("home/qdrant/covers/covers-*/sequences/ids.npy", 1, ask),
    "background.npy": ("home/qdrant/covers/covers-*/sequences/background.npy", 1, ask),
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory, small_workspace):
    root = tmp_path_factory.mktemp("whole")
    (root / "home").mkdir()
    copy(small_workspace, root / "home")
    write_h5(root / "one" / "P_00.h5", make_features("P_00"), label="W_0", track_id="P_00")
    acoss = Tree(root / "acoss", "acoss")
    for track_id in ("P_1", "P_2"):
        acoss.add("W_1", track_id)
    (acoss.root / "dataset.json").unlink()
    lengths = {"P_1": {"T": 60, "sec": 5.57}, "P_2": {"T": 60, "sec": 5.57}}
    (acoss.root / "provenance.json").write_text(json.dumps(lengths))
    (features,) = root.glob("home/features/*/*/features.parquet")
    ids = pl.col("work_id").alias("work"), pl.col("track_id").alias("performance")
    pl.read_parquet(features).select(*ids, *FEATURE_NAMES).head(5).write_csv(root / "one/table.csv")
    return root


def read_damaged(kind: str, root: Path, inputs: int) -> tuple[Counter[str], int]:
    """Read `inputs` damaged versions of a file; return the outcomes and the memory in kilobytes."""
    pattern, _, reader = READERS[kind]
    (path,) = root.glob(pattern)
    content = path.read_bytes()
    assert np.isfinite(np.concatenate([np.ravel(each) for each in reader(path)])).all()
    outcomes: Counter[str] = Counter()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    # The process that calls this has not read conftest.py.
    every = list(HealthCheck)

    @settings(max_examples=inputs, deadline=None, derandomize=True, suppress_health_check=every)
    @given(damaged(content))
    def read_one(damaged: bytes) -> None:
        path.unlink()  # a new file, because the old one may be mapped
        path.write_bytes(damaged)
        try:
            read = reader(path)
        except (ValueError, OSError, RuntimeError, search.SearchError) as error:
            words = str(error)
            outcomes["refused"] += 1
        else:
            assert all(np.isfinite(each).all() for each in read)
            words = "read as finite numbers"
            outcomes["read"] += 1
        assert "\n" not in words
        assert len(words.split()) > 3

    read_one()
    return outcomes, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before


@pytest.mark.parametrize("kind", READERS)
def test_whatever_a_file_holds_it_is_read_as_finite_numbers_or_refused(
    kind, whole, tmp_path, count
):
    copy(whole, tmp_path)
    inputs = 10_000 * READERS[kind][1] // 100
    outcomes, kilobytes = in_fresh_process(read_damaged, kind, tmp_path, inputs)
    assert outcomes.total() >= inputs
    assert kilobytes < MEMORY / 1024
    for outcome, times in outcomes.items():
        count(f"damaged {kind}", outcome, times)


class Bomb:
    """An object that makes a directory when it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self):
        return os.mkdir, (str(self.place),)


def read_bombs(root: Path) -> int:
    """Replace each file by pickles that would run code, and read them; return their number."""
    went_off = root / "went off"
    pickled = pickle.dumps(Bomb(went_off))
    array, weights = io.BytesIO(), io.BytesIO()
    np.save(array, np.array([Bomb(went_off)], object), allow_pickle=True)
    torch.save(Bomb(went_off), weights)
    hdf5 = root / "bomb.h5"
    members = dict.fromkeys(("hpcp", "crema", "chroma_cens", "mfcc_htk"), np.void(pickled))
    write_h5(hdf5, members | {"madmom_features/tempos": np.void(pickled)}, label=np.void(pickled))
    tries = 0
    for pattern, _, reader in READERS.values():
        (path,) = root.glob(pattern)
        whole = path.read_bytes()
        for bomb in (pickled, array.getvalue(), weights.getvalue(), hdf5.read_bytes()):
            path.unlink()
            path.write_bytes(bomb)
            with contextlib.suppress(ValueError, OSError, RuntimeError, search.SearchError):
                reader(path)
            assert not went_off.exists(), path
            tries += 1
        path.write_bytes(whole)
    pickle.loads(pickled)
    assert went_off.exists()
    return tries


def test_no_file_of_the_data_or_the_workspace_can_run_code(whole, tmp_path, count):
    copy(whole, tmp_path)
    count("pickles in place of a file", "not run", in_fresh_process(read_bombs, tmp_path))
