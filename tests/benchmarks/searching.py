"""Searching an embedded collection, compared with other libraries for the same task.

Each side finds the ten performances nearest to a track id, and their track ids and works. It
answers one query after another in one process.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
from qdrant_client import QdrantClient, models
from vectors import many

import search
from benchmarks.harness import Row, Runs, in_turns, seconds
from search.engines.embedded import Embedded
from search.engines.engine import Engine
from search.engines.server.server import Server
from search.point import point_id
from search.settings import COLLECTION

DIMENSION, LIMIT, QUERIES, TOGETHER = 128, 10, 1_000, 1_000

#: Name of a server's own client in the table.
OWN = "qdrant-client, the same server"

#: Queries to local mode, each of which takes as long as a hundred to the others.
LOCAL_QUERIES = 100

#: Cliques of 13 performances, and noise works.
SMALL, LARGE = (1_000, 12_000), (6_000, 22_000)

Connect: TypeAlias = Callable[[], Engine]
Size: TypeAlias = tuple[int, int]
Figures: TypeAlias = Generator[None, None, dict[str, float]]
Peer: TypeAlias = Callable[[Size], Figures]

#: Finds the numbers of the rows nearest to a row.
Nearest: TypeAlias = Callable[[np.ndarray], np.ndarray]


def measure() -> list[Row]:
    """Measure 25,000 and 100,000 performances, also on a server if QDRANT_URL names one."""
    peers: dict[str, Peer] = {name: partial(library, make) for name, make in LIBRARIES.items()}
    with tempfile.TemporaryDirectory(prefix="covers-bench-") as directory:
        # Where a process with this workspace looks for collections.
        engine = partial(Embedded, Path(directory) / "qdrant" / COLLECTION)
        engine().publish(points_of(SMALL), "bench")
        local = {"qdrant-client, local mode": local_mode}
        rows, _ = _small(engine, peers | local, {"COVERS_HOME": directory})
        engine().publish(points_of(LARGE), "bench")
        rows += _large(engine, peers)
    if os.environ.get("QDRANT_URL", "").strip():
        rows += [replace(row, what=f"server: {row.what}") for row in _of_server()]
    return rows


def _of_server() -> list[Row]:
    """Measure a server, which must be empty."""
    server = search.connect()
    if server.names():
        raise SystemExit(
            f"{server.location} holds collections, and this would drop them: let QDRANT_URL name "
            "an empty server."
        )
    try:
        server.publish(points_of(SMALL), "bench")
        rows, times = _small(search.connect, {OWN: own}, {})
        server.publish(points_of(LARGE), "bench")
        rows += _large(search.connect, {})
    finally:
        for name in server.names():
            server.drop(name)
    limit, ours = "<= 1.5 times the client's own", 1 / times[OWN]
    return [*rows, Row("25,000 x 128, a query", f"{ours:.2f}", limit=limit, met=ours <= 1.5)]


def _small(
    connect: Connect, peers: dict[str, Peer], environment: dict[str, str]
) -> tuple[list[Row], dict[str, float]]:
    """Rows of the small catalogue, and each peer's median time over ours."""
    fresh = in_turns({"ours": partial(from_nothing, environment)}, 5)["ours"]
    sides = {name: partial(peer, SMALL) for name, peer in peers.items()}
    found = in_turns({"ours": partial(ours, connect, SMALL)} | sides)
    together = in_turns({"ours": partial(many_at_once, connect, SMALL)})["ours"]
    answer, imported = fresh.figure("answer"), fresh.figure("imported")
    rate, mine = TOGETHER / together.median, found["ours"]
    quick = mine.figure("p50") <= 0.003 and mine.figure("p99") <= 0.015
    rows = [
        Row(
            "25,000 x 128, a fresh process to its first answer",
            seconds(answer),
            limit="<= 800 ms",
            met=answer <= 0.8,
        ),
        Row("`import search`", seconds(imported), limit="<= 300 ms", met=imported <= 0.3),
        *_compared("25,000 x 128", found, "p50 <= 3 ms, p99 <= 15 ms", quick),
        Row(
            f"25,000 x 128, similar_many of {TOGETHER}",
            f"{rate:.0f} queries/s",
            limit=">= 1000 queries/s",
            met=rate >= 1000,
            peak_mb=together.peak_mb,
            note=f"rounds: {', '.join(f'{TOGETHER / took:.0f}' for took in together.seconds)}",
        ),
    ]
    return rows, {name: _times(found, name)[0] for name in peers}


def _large(connect: Connect, peers: dict[str, Peer]) -> list[Row]:
    sides = {name: partial(peer, LARGE) for name, peer in peers.items()}
    found = in_turns({"ours": partial(ours, connect, LARGE)} | sides, rounds=1)
    mine = found["ours"]
    good = mine.figure("recall") >= 0.99 and mine.figure("p50") <= 0.005
    return _compared("100,000 x 128", found, "recall@10 >= 0.99, p50 <= 5 ms", good)


def _times(found: dict[str, Runs], name: str) -> tuple[float, str]:
    """A peer's p50 over ours: the median of the rounds, and its text."""
    pairs = zip(found[name].figures["p50"], found["ours"].figures["p50"], strict=True)
    ratios = sorted(theirs / ours for theirs, ours in pairs)
    median = statistics.median(ratios)
    spread = f" ({ratios[0]:.2g}-{ratios[-1]:.2g})" if len(ratios) > 1 else ""
    return median, f"{median:.2g}{spread} of p50"


def _compared(what: str, found: dict[str, Runs], limit: str, met: bool) -> list[Row]:
    what, mine = f"{what}, a query", found["ours"]
    peers = [name for name in found if name != "ours"]
    return [
        Row(what, _words(mine), limit=limit, met=met, peak_mb=mine.peak_mb),
        *(Row(what, "", name, _words(found[name]), _times(found, name)[1]) for name in peers),
    ]


def _words(runs: Runs) -> str:
    p50, p99 = seconds(runs.figure("p50")), seconds(runs.figure("p99"))
    return f"p50 {p50}, p99 {p99}, recall {runs.figure('recall'):.3f}"


def catalogue(size: Size) -> tuple[np.ndarray, list[str], list[str]]:
    cliques, noise = size
    return many(cliques, 13, noise, DIMENSION, spread=0.8)


def points_of(size: Size) -> search.Points:
    rows, works, tracks = catalogue(size)
    payloads = [
        {"work_id": work, "title": f"Title of {track}", "artist": f"Artist {track[-2:]}"}
        for work, track in zip(works, tracks, strict=True)
    ]
    return search.Points(map(search.Point, tracks, rows, payloads))


def _timed(
    rows: np.ndarray,
    ask: Callable[[int], object],
    tracks_of: Callable[[object], list[str]],
    tracks: list[str],
    count: int = QUERIES,
) -> dict[str, float]:
    """Ask one by one; the answers are compared with the exact ones afterwards."""
    asked = _asked(rows, count)
    for query in asked[:20]:
        ask(int(query))
    took, answers = [], []
    for query in asked:
        start = time.perf_counter()
        answers.append(ask(int(query)))
        took.append(time.perf_counter() - start)
    names = np.array(tracks)
    right = 0
    for query, answer in zip(asked, answers, strict=True):
        distance = ((rows - rows[query]) ** 2).sum(axis=1)
        distance[query] = np.inf
        nearest = names[np.argpartition(distance, LIMIT)[:LIMIT]]
        right += len(set(nearest) & set(tracks_of(answer)))
    return {
        "p50": float(np.quantile(took, 0.5)),
        "p99": float(np.quantile(took, 0.99)),
        "recall": right / (LIMIT * count),
    }


def _asked(rows: np.ndarray, count: int) -> np.ndarray:
    return np.random.default_rng(1).choice(len(rows), count, replace=False)


def ours(connect: Connect, size: Size) -> Figures:
    """`Searcher.similar`."""
    rows, _, tracks = catalogue(size)
    searcher = search.Searcher(connect())
    searcher.similar(tracks[0])
    yield
    return _timed(
        rows,
        lambda query: searcher.similar(tracks[query], LIMIT),
        lambda answer: [match.track_id for match in answer],
        tracks,
    )


def many_at_once(connect: Connect, size: Size) -> Generator[None, None, None]:
    """`Searcher.similar_many`."""
    rows, _, tracks = catalogue(size)
    searcher = search.Searcher(connect())
    queries = [tracks[query] for query in _asked(rows, TOGETHER)]
    searcher.similar_many(queries[:10])
    yield
    searcher.similar_many(queries, LIMIT)


def from_nothing(settings: dict[str, str]) -> Figures:
    """Start Python, import, open, ask, print, end."""
    ask = "import search; print(search.similar('P_0000')[0].track_id)"
    only = "import time; t = time.perf_counter(); import search; print(time.perf_counter() - t)"
    environment = {**os.environ, **settings}
    if "COVERS_HOME" in settings:
        environment.pop("QDRANT_URL", None)
    folder = Path(search.__file__).parents[1]
    run = partial(
        subprocess.run, check=True, capture_output=True, text=True, env=environment, cwd=folder
    )
    run([sys.executable, "-c", ask])
    yield
    start = time.perf_counter()
    run([sys.executable, "-c", ask])
    answer = time.perf_counter() - start
    imported = float(run([sys.executable, "-c", only]).stdout)
    return {"answer": answer, "imported": imported}


def own(size: Size) -> Figures:
    """The client's own query by id, by gRPC if QDRANT_GRPC_PORT is set, as ours."""
    server = search.connect()
    assert isinstance(server, Server)
    rows, _, tracks = catalogue(size)

    def ask(query: int) -> list[str]:
        answer = server.connection.ask(
            lambda client: client.query_points(
                server.collection,
                query=str(point_id(tracks[query])),
                limit=LIMIT,
                search_params=models.SearchParams(exact=True),
                with_payload=True,
            ),
            fast=True,
        )
        return [point.payload["track_id"] for point in answer.points]

    yield
    return _timed(rows, ask, lambda answer: answer, tracks)


def library(make: Callable[[np.ndarray], Nearest], size: Size) -> Figures:
    """A library that knows numbers only, with what turns track ids into them and back."""
    rows, works, tracks = catalogue(size)
    row_of = {track: i for i, track in enumerate(tracks)}
    nearest = make(rows)

    def ask(query: int) -> list[tuple[str, str]]:
        here = row_of[tracks[query]]
        return [(tracks[i], works[i]) for i in nearest(rows[here : here + 1]) if i != here][:LIMIT]

    yield
    return _timed(rows, ask, lambda answer: [track for track, _ in answer], tracks)


def faiss_flat(rows: np.ndarray) -> Nearest:
    """Compare with every vector."""
    import faiss

    index = faiss.IndexFlatL2(rows.shape[1])
    index.add(rows)
    return lambda row: index.search(row, LIMIT + 1)[1][0]


def faiss_hnsw(rows: np.ndarray) -> Nearest:
    """Search a graph of 32 links a point, 128 wide."""
    import faiss

    index = faiss.IndexHNSWFlat(rows.shape[1], 32)
    index.hnsw.efConstruction, index.hnsw.efSearch = 200, 128
    index.add(rows)
    return lambda row: index.search(row, LIMIT + 1)[1][0]


def hnswlib_graph(rows: np.ndarray) -> Nearest:
    """Search the same kind of graph."""
    import hnswlib

    index = hnswlib.Index("l2", rows.shape[1])
    index.init_index(len(rows), ef_construction=200, M=32, random_seed=0)
    index.add_items(rows)
    index.set_ef(128)
    return lambda row: index.knn_query(row, LIMIT + 1)[0][0]


def numpy_exact(rows: np.ndarray) -> Nearest:
    """Compute all distances, and partition them."""
    squares = (rows**2).sum(axis=1)

    def nearest(row: np.ndarray) -> np.ndarray:
        distance = squares - 2 * (rows @ row[0])
        first = np.argpartition(distance, LIMIT + 1)[: LIMIT + 1]
        return first[np.argsort(distance[first])]

    return nearest


LIBRARIES = {
    "faiss, flat": faiss_flat,
    "faiss, HNSW": faiss_hnsw,
    "hnswlib": hnswlib_graph,
    "numpy, exact": numpy_exact,
}


def local_mode(size: Size) -> Figures:
    """qdrant-client without a server: the same interface, in Python."""
    rows, works, tracks = catalogue(size)
    folder = tempfile.mkdtemp(prefix="covers-bench-")
    client = QdrantClient(path=folder)
    client.create_collection(
        "bench", models.VectorParams(size=DIMENSION, distance=models.Distance.EUCLID)
    )
    client.upload_collection(
        "bench",
        rows,
        [{"track_id": t, "work_id": w} for t, w in zip(tracks, works, strict=True)],
        range(len(rows)),
    )
    yield

    def ask(query: int) -> list[str]:
        answer = client.query_points("bench", query=query, limit=LIMIT, with_payload=True)
        return [point.payload["track_id"] for point in answer.points]

    measured = _timed(rows, ask, lambda answer: answer, tracks, LOCAL_QUERIES)
    client.close()
    shutil.rmtree(folder)
    return measured
