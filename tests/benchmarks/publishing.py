"""Publishing to the embedded engine: written, read back, and switched to."""

import tempfile
from collections.abc import Generator
from functools import partial
from pathlib import Path

from benchmarks.harness import Row, in_turns, seconds
from benchmarks.searching import DIMENSION, LARGE, SMALL, points_of
from search.engines.embedded import Embedded


def measure() -> list[Row]:
    """Publish 25,000 and 100,000 performances."""
    small = in_turns({"ours": partial(ours, SMALL)})["ours"]
    large = in_turns({"ours": partial(ours, LARGE)}, rounds=1)["ours"]
    return [
        Row(
            f"25,000 x {DIMENSION}",
            seconds(small.median),
            limit="<= 8 s",
            met=small.median <= 8,
            peak_mb=small.peak_mb,
        ),
        Row(
            f"100,000 x {DIMENSION}",
            seconds(large.median),
            peak_mb=large.peak_mb,
            note="above 32 MB of vectors, one byte per component is stored too, but no graph",
        ),
    ]


def ours(size: tuple[int, int]) -> Generator[None, None, None]:
    """What `covers embed` does once it has vectors."""
    points = points_of(size)
    with tempfile.TemporaryDirectory(prefix="covers-bench-") as directory:
        yield
        Embedded(Path(directory) / "qdrant").publish(points, "bench")
