"""The rows of the comparison: measures from the literature, and encoders."""

from collections.abc import Callable
from dataclasses import dataclass

from embedding.bundle import PRETRAINED_NAME
from embedding.encoders.registry import ENCODERS
from embedding.metrics import peers
from embedding.metrics.distances import Distances, Euclidean


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes
    ----------
    name : str
    distances : callable
        Computes distances from a feature store or, with an encoder, from vectors.
    encoder : str or None
        The encoder that is trained for the row, or "pretrained".
    reranked : bool
        Whether the nearest performances are aligned.
    part : str or None
        The part of the vectors that is measured (`Encoder.parts`); None for all components.
    """

    name: str
    distances: Callable[..., Distances]
    encoder: str | None = None
    reranked: bool = False
    part: str | None = None


#: Sorted by what they know, from nothing to everything. If an encoder names parts of its vectors,
#: `compare` adds a row for each.
ROWS = (
    Row("chance", peers.chance),
    Row("track length", peers.track_length),
    Row("raw means", peers.raw_means),
    Row("K-Means", peers.same_cluster, "means"),
    Row("OTI mean chroma", peers.mean_chroma),
    Row("2DFTM", peers.fourier_magnitudes),
    Row("SiMPle", peers.simple),
    Row("Qmax", peers.qmax),
    Row("Dmax", peers.dmax),
    *(
        row
        for name in (*ENCODERS, PRETRAINED_NAME)
        for row in (Row(name, Euclidean, name), Row(f"{name}, re-ranked", Euclidean, name, True))
    ),
)
