"""Small feature stores to train on: 52 columns made of five hidden causes and some noise.

A work is a sequence of chords; each performance plays them in a key of its own and adds noise.
"""

import zlib
from pathlib import Path

import numpy as np
import polars as pl

from embedding.data import store
from embedding.data.features import FEATURE_NAMES
from embedding.data.store import FeatureStore
from embedding.encoders.encoder import Samples

#: A version encoder that trains in a second.
TINY = {
    "projection_dimension": 12,
    "network_dimension": 4,
    "channels": 4,
    "wide_channels": 6,
    "hidden": 8,
    "crop": 32,
    "works": 6,
    "min_steps": 2,
    "epochs": 1,
    "tempos": (0.9,),
}

#: Leaves 5 of 12 works to validate on.
SEED = 2

#: Configurations of all encoders that train in a second.
QUICK = {
    "autoencoder": {"sizes": (52, 16, 4), "batch_size": 8, "max_epochs": 1},
    "conv-autoencoder": {"channels": 4, "code": 2, "dimension": 10, "steps": 2, "epochs": 1},
    "descriptors": {"dimension": 12, "tempos": (0.9,)},
    "means": {},
    "version": TINY,
}


def make_table(works: int = 15, each: int = 3, seed: int = 0, **columns) -> pl.DataFrame:
    """Features of very different size, as real ones are: chroma near 0.3, tempo near 120."""
    rng = np.random.default_rng(seed)
    count = works * each
    causes = rng.normal(size=(count, 5))
    seen = causes @ rng.normal(size=(5, 52)) + 0.3 * rng.normal(size=(count, 52))
    values = dict(zip(FEATURE_NAMES, (0.3 + 0.05 * seen).T, strict=True))
    values["tempo"] = 120 + 500 * (values["tempo"] - 0.3)
    return pl.DataFrame(
        {
            "track_id": [f"P_{i:03d}" for i in range(count)],
            "work_id": [f"W_{i // each}" for i in range(count)],
            "fingerprint": [f"content {i} of {seed}" for i in range(count)],
            **values,
            **columns,
        }
    )


def make_sequence(work_id: str, fingerprint: str, frames: int = 90) -> np.ndarray:
    """Chroma of a performance whose file has this fingerprint, shape=(frames, 2, 12)."""
    work, own = (
        np.random.default_rng(zlib.crc32(each.encode())) for each in (work_id, fingerprint)
    )
    chords = work.random((frames // 6 + 1, 12)) ** 3
    chroma = np.roll(np.repeat(chords, 6, axis=0)[:frames], own.integers(12), axis=1)
    noisy = np.stack([chroma, chroma**2], axis=1) + 0.1 * own.random((frames, 2, 12))
    return np.clip(noisy, 0, 1).astype(np.float16)


def make_store(
    path, table: pl.DataFrame | None = None, *, sequences=None, frame_rate=44100 / 4096, **made
) -> FeatureStore:
    """Write a store; sequences, if not made here, are in the table's order."""
    table = make_table(**made) if table is None else table
    if sequences is None:
        rows = table.select("work_id", "fingerprint").iter_rows()
        sequences = [make_sequence(*row) for row in rows]
    lengths = pl.Series([len(each) for each in sequences], dtype=pl.Int64)
    return store.write(
        path,
        name="songs",
        table=table.with_columns(chroma_frames=lengths),
        sequences=sequences,
        frame_rate=frame_rate,
    )


def samples_of(store: FeatureStore, kind: str) -> Samples:
    """What an encoder that reads "means" or "chroma" is fitted to."""
    return Samples(store.inputs(kind), np.array(store.table["work_id"].to_list()))


def write_csv(path: Path, works: int = 20, each: int = 2, seed: int = 0, work: str = "W_") -> Path:
    """Write a.csv, which is read in no time and has no chroma: P_a000, … of W_0, …"""
    table = make_table(works, each, seed).with_columns(
        pl.col("work_id").str.replace("W_", work),
        pl.col("track_id").str.replace("P_", f"P_{path.stem}"),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {"work_id": "work", "track_id": "performance"}
    table.rename(columns).select("work", "performance", *FEATURE_NAMES).write_csv(path)
    return path
