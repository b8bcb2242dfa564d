"""What a collection costs on a server, measured with the same engine in this process.

    PYTHONPATH=tests python -m benchmarks.scaling --points 25000 100000 --dimensions 20 256

builds synthetic catalogues as `search.engines.server.server` sets collections up, and queries
them. Each figure is written to SCALING.json at once and is not measured again; deploy/SCALING.md
says what the figures mean for larger catalogues.
"""

import argparse
import json
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Generator
from functools import partial
from pathlib import Path

import numpy as np
import qdrant_edge as edge
from rich.console import Console

from benchmarks import synthetic
from benchmarks.harness import alone
from search.engines.embedded.collection import INDEX_TYPES
from search.engines.server.collection import HNSW_EF, OVERSAMPLING
from search.engines.server.writing import HNSW_EF_CONSTRUCT, HNSW_M
from search.fields import FIELDS
from search.point import point_id

#: Queries, and matches of each.
QUERIES, NEAREST = 300, 10

#: Type of a component in memory, whether there is a graph, and the factor of oversampling.
WAYS = {
    "exact": ("float32", False, 1.0),
    "exact, int8": ("int8", False, OVERSAMPLING),
    "exact, binary": ("binary", False, 2 * OVERSAMPLING),
    "graph": ("float32", True, 1.0),
    "graph, int8": ("int8", True, OVERSAMPLING),
    "graph, binary": ("binary", True, 2 * OVERSAMPLING),
}

#: What each file of a collection holds; all others count as payload and its indexes.
FILES = {
    "matrix.dat": "vectors",
    "quantized.data": "quantized",
    "links_compressed.bin": "graph",
    "id_tracker.mappings": "ids",
    "id_tracker.versions": "ids",
}

console = Console()


def _config(dimension: int, way: str) -> edge.EdgeConfig:
    """As `Server.build` and `Server._index` set a collection up."""
    component, graph, _ = WAYS[way]
    quantization = {
        "float32": None,
        "int8": edge.ScalarQuantizationConfig(edge.ScalarType.Int8, quantile=0.99, always_ram=True),
        "binary": edge.BinaryQuantizationConfig(always_ram=True),
    }[component]
    return edge.EdgeConfig(
        vectors=edge.EdgeVectorParams(
            size=dimension, distance=edge.Distance.Euclid, on_disk=quantization is not None
        ),
        hnsw_config=edge.HnswIndexConfig(
            m=HNSW_M if graph else 0, ef_construct=HNSW_EF_CONSTRUCT, full_scan_threshold=10_000
        ),
        quantization_config=quantization,
        optimizers=edge.EdgeOptimizersConfig(default_segment_number=1, indexing_threshold=1),
        wal_enabled=False,
    )


def upload(place: Path, points: int, dimension: int) -> Generator[None, None, dict[str, float]]:
    """Write all points into a plain collection with the server's indexes."""
    yield
    shard = edge.EdgeShard.create(str(place), _config(dimension, "exact"))
    index_types = {**INDEX_TYPES, float: edge.PayloadSchemaType.Float}
    for field, kind in FIELDS.items():
        shard.update(edge.UpdateOperation.create_field_index(field, index_types[kind]))
    for chunk in synthetic.chunks(points, dimension):
        numbers = range(chunk.start, chunk.start + len(chunk.works))
        rows = zip(numbers, chunk.works.tolist(), chunk.vectors.tolist(), strict=True)
        made = [
            edge.Point(point_id(synthetic.track_id(number)), vector, synthetic.stored(number, work))
            for number, work, vector in rows
        ]
        for start in range(0, len(made), 1000):
            shard.update(edge.UpdateOperation.upsert_points(made[start : start + 1000]))
    shard.optimize()
    shard.flush()
    shard.close()
    return {}


def optimize(place: Path, dimension: int, way: str) -> Generator[None, None, dict[str, float]]:
    """Quantize and link what was uploaded."""
    yield
    shard = edge.EdgeShard.load(str(place), _config(dimension, way))
    shard.optimize()
    shard.flush()
    segments = shard.info().segments_count
    shard.close()
    return {"segments": segments}


def nearest(points: int, dimension: int) -> list[set[str]]:
    """Find the nearest others of the first performances, by comparing all."""
    queries: np.ndarray | None = None
    best = np.empty((QUERIES, 0), np.float32)
    ids = np.empty((QUERIES, 0), np.intp)
    for chunk in synthetic.chunks(points, dimension):
        if queries is None:
            queries = chunk.vectors[:QUERIES]
        distances = (chunk.vectors**2).sum(axis=1) - 2 * queries @ chunk.vectors.T
        numbers = np.broadcast_to(chunk.start + np.arange(len(chunk.works)), distances.shape)
        best, ids = np.hstack([best, distances]), np.hstack([ids, numbers])
        # The query itself is the nearest of all.
        first = np.argpartition(best, NEAREST, axis=1)[:, : NEAREST + 1]
        best, ids = np.take_along_axis(best, first, 1), np.take_along_axis(ids, first, 1)
    return [
        {synthetic.track_id(number) for number in row if number != query}
        for query, row in enumerate(ids.tolist())
    ]


def ask(
    place: Path, points: int, dimension: int, way: str, right: list[set[str]]
) -> Generator[None, None, dict[str, float]]:
    """Query the nearest performances one at a time, with their payloads."""
    queries = next(synthetic.chunks(points, dimension)).vectors[:QUERIES].tolist()
    _, graph, oversampling = WAYS[way]
    again = edge.QuantizationSearchParams(rescore=True, oversampling=oversampling)
    params = edge.SearchParams(
        hnsw_ef=HNSW_EF if graph else None, exact=way == "exact", quantization=again
    )
    before = _memory()
    shard = edge.EdgeShard.load(str(place))
    found: list[set[str]] = []
    seconds: list[float] = []
    yield
    for _ in range(2):  # the first pass brings pages into memory
        found, seconds = [], []
        processor = time.process_time()
        for number, query in enumerate(queries):
            start = time.perf_counter()
            request = edge.QueryRequest(
                NEAREST + 1, query=edge.Query.Nearest(query), params=params, with_payload=True
            )
            answer = shard.query(request)
            seconds.append(time.perf_counter() - start)
            ids = [point.payload["track_id"] for point in answer]
            found.append({each for each in ids if each != synthetic.track_id(number)})
        processor = time.process_time() - processor
    after = _memory()
    shard.close()
    hits = [len(a & b) for a, b in zip(found, right, strict=True)]
    p50, p99 = np.percentile(seconds, [50, 99]).tolist()
    return {
        "recall": sum(hits) / (NEAREST * QUERIES),
        "p50_ms": 1e3 * p50,
        "p99_ms": 1e3 * p99,
        "processor_ms": 1e3 * processor / QUERIES,
        "own_mb": after["RssAnon"] - before["RssAnon"],
        "mapped_mb": after["RssFile"] - before["RssFile"],
    }


def _memory() -> dict[str, float]:
    """Resident memory of this process in MB: its own, and pages of files."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    fields = dict(line.split(":\t", 1) for line in lines if line.startswith("Rss"))
    return {name: int(value.split()[0]) * 1024 / 1e6 for name, value in fields.items()}


def _disk(place: Path) -> dict[str, float]:
    """MB on the disk without holes, by what files hold."""
    sizes: Counter[str] = Counter()
    for path in place.rglob("*"):
        if path.is_file():
            sizes[FILES.get(path.name, "payload")] += path.stat().st_blocks * 512
    return {f"disk_{name}_mb": size / 1e6 for name, size in sizes.items()}


def measure(points: int, dimension: int, ways: list[str], scratch: Path, out: Path) -> None:
    """Measure what is not measured yet of a catalogue."""
    rows = json.loads(out.read_text(encoding="utf-8")) if out.exists() else []
    done = {(row["points"], row["dimension"], row["way"]) for row in rows}
    left = [way for way in ways if (points, dimension, way) not in done]
    if not left:
        return
    right = nearest(points, dimension)
    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        plain, place = Path(directory) / "plain", Path(directory) / "way"
        uploading, _, upload_peak, _ = alone(partial(upload, plain, points, dimension))
        for way in left:
            # Most files consist mostly of holes, which shutil would fill.
            subprocess.run(["cp", "-r", "--sparse=always", plain, place], check=True)
            building, _, peak, figures = alone(partial(optimize, place, dimension, way))
            *_, answers = alone(partial(ask, place, points, dimension, way, right))
            row = {
                "points": points,
                "dimension": dimension,
                "way": way,
                "upload_s": uploading,
                "upload_peak_mb": upload_peak,
                "build_s": building,
                "build_peak_mb": peak,
                **figures,
                **answers,
                **_disk(place),
            }
            shutil.rmtree(place)
            rows.append(row)
            out.write_text(json.dumps(rows, indent=1), encoding="utf-8")
            console.print(row)


def main() -> None:
    """Measure every way at every size."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--points", type=int, nargs="+", default=[25_000, 100_000, 1_000_000])
    parser.add_argument("--dimensions", type=int, nargs="+", default=[20, 256])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), metavar="WAY")
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--out", type=Path, default=Path("SCALING.json"))
    options = parser.parse_args()
    for points in options.points:
        for dimension in options.dimensions:
            measure(points, dimension, options.ways, options.scratch, options.out)


if __name__ == "__main__":
    main()
