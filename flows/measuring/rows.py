"""The rows of the comparison: measures from the literature, and encoders."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from embedding.data.store import FeatureStore
from embedding.encoders.registry import ENCODERS
from embedding.metrics import peers
from embedding.metrics.distances import DistanceMatrix, Distances, Euclidean
from flows.collection.points import points_of
from flows.measuring.calibrate import read_calibration
from flows.measuring.trial import reranked_distances


@dataclass(frozen=True)
class Row:
    """A row of the table: its name, its distances and the encoder that is trained for it.

    Distances are computed by `distances(store)` or, with an encoder, by
    `distances(store, vectors, bundle)`, where bundle is a path.
    """

    name: str
    distances: Callable[..., Distances]
    encoder: str | None = None


def of_vectors(store: FeatureStore, vectors: np.ndarray, bundle: Path) -> Euclidean:
    """Return the distances between the vectors."""
    return Euclidean(vectors)


def of_clusters(store: FeatureStore, vectors: np.ndarray, bundle: Path) -> DistanceMatrix:
    """Return 0 for two vectors in the same K-Means cluster, and 1 for others."""
    return peers.same_cluster(vectors)


def of_reranking(store: FeatureStore, vectors: np.ndarray, bundle: Path) -> DistanceMatrix:
    """Return the ranks that `search` gives after reranking."""
    rows = store.table.select("track_id", "work_id").with_columns(
        vector=pl.Series(vectors, dtype=pl.Array(pl.Float32, vectors.shape[1]))
    )
    points = points_of(rows, store, read_calibration(bundle))
    distances = reranked_distances(points, bundle.name)
    # Points are sorted by track id.
    index = {track_id: i for i, track_id in enumerate(points.track_ids)}
    return distances.reordered(np.array([index[track_id] for track_id in rows["track_id"]]))


#: Sorted by what they know, from nothing to everything.
ROWS = (
    Row("chance", peers.chance),
    Row("track length", peers.track_length),
    Row("raw means", peers.raw_means),
    Row("K-Means", of_clusters, "means"),
    Row("OTI mean chroma", peers.mean_chroma),
    Row("2DFTM", peers.fourier_magnitudes),
    Row("SiMPle", peers.simple),
    Row("Qmax", peers.qmax),
    Row("Dmax", peers.dmax),
    *(Row(name, of_vectors, name) for name in ENCODERS),
    Row("version, re-ranked", of_reranking, "version"),
)
