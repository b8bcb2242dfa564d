"""Small feature stores to train on: five hidden causes, seen through 52 columns and some noise."""

import numpy as np
import polars as pl

from embedding import store
from embedding.features import FEATURE_NAMES
from embedding.store import FeatureStore


def make_table(works: int = 15, each: int = 3, seed: int = 0, **columns) -> pl.DataFrame:
    """Features of very different size, as the real ones: chroma near 0.3, tempo near 120."""
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


def make_store(path, table: pl.DataFrame | None = None, **made) -> FeatureStore:
    return store.write(
        path,
        name="songs",
        table=make_table(**made) if table is None else table,
        sequences=[],
        frame_rate=None,
        chroma_rate=None,
    )
