"""Asking an embedded collection, beside the libraries one would take instead.

Every side is asked for the ten nearest of a performance that is named by its track id, one query
after another in one process, and has to say of which track and work they are.
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

import numpy as np
from qdrant_client import models
from vectors import many

import search
from benchmarks.harness import Row, Runs, in_turns, seconds
from search.engines.embedded import Embedded
from search.engines.engine import Engine
from search.engines.server.server import Server
from search.point import point_id
from search.settings import COLLECTION

DIMENSION, LIMIT, QUERIES, TOGETHER = 128, 10, 1_000, 1_000

#: What a server's own client is called in the table.
OWN = "qdrant-client, the same server"

#: Queries to local mode, each of which takes as long as a hundred to the others.
LOCAL = 100

#: (cliques, noise works), of 13 performances a clique.
SMALL, LARGE = (1_000, 12_000), (6_000, 22_000)

Ask = Callable[[int], object]
Connect = Callable[[], Engine]


def measure() -> list[Row]:
    """Measure 25,000 and 100,000 performances, of the server too if QDRANT_URL names one."""
    peers = {
        "faiss, flat": faiss_flat,
        "faiss, HNSW": faiss_hnsw,
        "hnswlib": hnswlib_graph,
        "numpy, exact": plain,
    }
    with tempfile.TemporaryDirectory(prefix="covers-bench-") as directory:
        homes = {}
        for name, size in (("small", SMALL), ("large", LARGE)):
            homes[name] = Path(directory) / name
            Embedded(_collections(homes[name])).publish(_points(size), "bench")
        connects = {name: partial(Embedded, _collections(home)) for name, home in homes.items()}
        fresh = in_turns({"ours": partial(from_nothing, {"COVERS_HOME": str(homes["small"])})}, 5)
        small = in_turns(
            {
                "ours": partial(ours, connects["small"], SMALL),
                **{name: partial(peer, SMALL) for name, peer in peers.items()},
                "qdrant-client, local mode": partial(local_mode, SMALL),
            }
        )
        together = in_turns({"ours": partial(many_at_once, connects["small"], SMALL)})
        large = in_turns(
            {
                "ours": partial(ours, connects["large"], LARGE),
                **{name: partial(peer, LARGE) for name, peer in peers.items()},
            },
            rounds=1,
        )
    rows = _rows(fresh["ours"], small, together["ours"], large)
    if os.environ.get("QDRANT_URL", "").strip():
        rows += [replace(row, what=f"server: {row.what}") for row in _of_server()]
    return rows


def _collections(home: Path) -> Path:
    """Where a process that has this workspace looks for them."""
    return home / "qdrant" / COLLECTION


def _of_server() -> list[Row]:
    """The same of a server, which must hold nothing that could be lost."""
    server = search.connect()
    if server.names():
        raise SystemExit(
            f"{server.location} holds collections, and this would drop them: let QDRANT_URL name "
            "an empty server."
        )
    try:
        server.publish(_points(SMALL), "bench")
        fresh = in_turns({"ours": partial(from_nothing, {})}, 5)
        small = in_turns({"ours": partial(ours, search.connect, SMALL), OWN: partial(own, SMALL)})
        together = in_turns({"ours": partial(many_at_once, search.connect, SMALL)})
        server.publish(_points(LARGE), "bench")
        large = in_turns({"ours": partial(ours, search.connect, LARGE)})
    finally:
        for name in server.names():
            server.drop(name)
    rows = _rows(fresh["ours"], small, together["ours"], large)
    pairs = zip(small["ours"].figures["p50"], small[OWN].figures["p50"], strict=True)
    times = statistics.median(mine / theirs for mine, theirs in pairs)
    limit = "<= 1.5 times the client's own"
    return [*rows, Row("25,000 x 128, a query", f"{times:.2f}", limit=limit, met=times <= 1.5)]


def _rows(fresh: Runs, small: dict[str, Runs], together: Runs, large: dict[str, Runs]) -> list[Row]:
    return [
        Row(
            "25,000 x 128, a fresh process to its first answer",
            seconds(fresh.figure("answer")),
            limit="<= 800 ms",
            met=fresh.figure("answer") <= 0.8,
        ),
        Row(
            "`import search`",
            seconds(fresh.figure("imported")),
            limit="<= 300 ms",
            met=fresh.figure("imported") <= 0.3,
        ),
        *_compared("25,000 x 128", small, "p50 <= 3 ms, p99 <= 15 ms", _quick),
        Row(
            f"25,000 x 128, similar_many of {TOGETHER}",
            f"{TOGETHER / together.median:.0f} queries/s",
            limit=">= 1000 queries/s",
            met=TOGETHER / together.median >= 1000,
            peak_mb=together.peak_mb,
            note=f"rounds: {', '.join(f'{TOGETHER / each:.0f}' for each in together.seconds)}",
        ),
        *_compared("100,000 x 128", large, "recall@10 >= 0.99, p50 <= 5 ms", _found),
    ]


def _quick(runs: Runs) -> bool:
    return runs.figure("p50") <= 0.003 and runs.figure("p99") <= 0.015


def _found(runs: Runs) -> bool:
    return runs.figure("recall") >= 0.99 and runs.figure("p50") <= 0.005


def _compared(
    what: str, found: dict[str, Runs], limit: str, enough: Callable[[Runs], bool]
) -> list[Row]:
    mine = found["ours"]
    rows = [
        Row(f"{what}, a query", _words(mine), limit=limit, met=enough(mine), peak_mb=mine.peak_mb)
    ]
    for name, runs in found.items():
        if name != "ours":
            pairs = zip(runs.figures["p50"], mine.figures["p50"], strict=True)
            each = sorted(theirs / ours for theirs, ours in pairs)
            spread = f" ({each[0]:.2g}-{each[-1]:.2g})" if len(each) > 1 else ""
            times = f"{statistics.median(each):.2g}{spread} of p50"
            rows.append(Row(f"{what}, a query", "", name, _words(runs), times))
    return rows


def _words(runs: Runs) -> str:
    p50, p99 = seconds(runs.figure("p50")), seconds(runs.figure("p99"))
    return f"p50 {p50}, p99 {p99}, recall {runs.figure('recall'):.3f}"


def _catalogue(size: tuple[int, int]) -> tuple[np.ndarray, list[str], list[str]]:
    cliques, noise = size
    return many(cliques, 13, noise, DIMENSION, spread=0.8)


def _points(size: tuple[int, int]) -> search.Points:
    rows, works, tracks = _catalogue(size)
    payloads = [
        {"work_id": work, "title": f"Title of {track}", "artist": f"Artist {track[-2:]}"}
        for work, track in zip(works, tracks, strict=True)
    ]
    return search.Points(map(search.Point, tracks, rows, payloads))


def _asked(rows: np.ndarray, count: int) -> np.ndarray:
    return np.random.default_rng(1).choice(len(rows), count, replace=False)


def _timed(
    rows: np.ndarray,
    ask: Ask,
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


def ours(connect: Connect, size: tuple[int, int]) -> Generator[None, None, dict[str, float]]:
    """`Searcher.similar`."""
    rows, _, tracks = _catalogue(size)
    searcher = search.Searcher(connect())
    searcher.similar(tracks[0])
    yield
    return _timed(
        rows,
        lambda query: searcher.similar(tracks[query], LIMIT),
        lambda answer: [match.track_id for match in answer],
        tracks,
    )


def many_at_once(connect: Connect, size: tuple[int, int]) -> Generator[None, None, None]:
    """`Searcher.similar_many`."""
    rows, _, tracks = _catalogue(size)
    searcher = search.Searcher(connect())
    wanted = [tracks[query] for query in _asked(rows, TOGETHER)]
    searcher.similar_many(wanted[:10])
    yield
    searcher.similar_many(wanted, LIMIT)


def from_nothing(settings: dict[str, str]) -> Generator[None, None, dict[str, float]]:
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


def own(size: tuple[int, int]) -> Generator[None, None, dict[str, float]]:
    """The client's own query by id, by gRPC if QDRANT_GRPC_PORT is set, as ours."""
    server = search.connect()
    assert isinstance(server, Server)
    rows, _, tracks = _catalogue(size)

    def ask(query: int) -> list[str]:
        answer = server.connection.ask_fast(
            lambda client: client.query_points(
                server.collection,
                query=str(point_id(tracks[query])),
                limit=LIMIT,
                search_params=models.SearchParams(exact=True),
                with_payload=True,
            )
        )
        return [point.payload["track_id"] for point in answer.points]

    yield
    return _timed(rows, ask, lambda answer: answer, tracks)


def _library(
    size: tuple[int, int], make: Callable[[np.ndarray], Callable[[np.ndarray], np.ndarray]]
) -> Generator[None, None, dict[str, float]]:
    """A library that knows numbers only, with what turns track ids into them and back."""
    rows, works, tracks = _catalogue(size)
    row_of = {track: i for i, track in enumerate(tracks)}
    nearest = make(rows)

    def ask(query: int) -> list[tuple[str, str]]:
        here = row_of[tracks[query]]
        found = nearest(rows[here : here + 1])
        return [(tracks[i], works[i]) for i in found if i != here][:LIMIT]

    yield
    return _timed(rows, ask, lambda answer: [track for track, _ in answer], tracks)


def faiss_flat(size: tuple[int, int]) -> Generator[None, None, dict[str, float]]:
    """faiss, comparing with every vector."""

    def make(rows: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        import faiss

        index = faiss.IndexFlatL2(rows.shape[1])
        index.add(rows)
        return lambda row: index.search(row, LIMIT + 1)[1][0]

    return _library(size, make)


def faiss_hnsw(size: tuple[int, int]) -> Generator[None, None, dict[str, float]]:
    """faiss, by a graph of 32 links a point, searched 128 wide."""

    def make(rows: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        import faiss

        index = faiss.IndexHNSWFlat(rows.shape[1], 32)
        index.hnsw.efConstruction, index.hnsw.efSearch = 200, 128
        index.add(rows)
        return lambda row: index.search(row, LIMIT + 1)[1][0]

    return _library(size, make)


def hnswlib_graph(size: tuple[int, int]) -> Generator[None, None, dict[str, float]]:
    """hnswlib, by the same kind of graph."""

    def make(rows: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        import hnswlib

        index = hnswlib.Index("l2", rows.shape[1])
        index.init_index(len(rows), ef_construction=200, M=32, random_seed=0)
        index.add_items(rows)
        index.set_ef(128)
        return lambda row: index.knn_query(row, LIMIT + 1)[0][0]

    return _library(size, make)


def plain(size: tuple[int, int]) -> Generator[None, None, dict[str, float]]:
    """numpy: all distances, and a partition of them."""

    def make(rows: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        squares = (rows**2).sum(axis=1)

        def nearest(row: np.ndarray) -> np.ndarray:
            distance = squares - 2 * (rows @ row[0])
            first = np.argpartition(distance, LIMIT + 1)[: LIMIT + 1]
            return first[np.argsort(distance[first])]

        return nearest

    return _library(size, make)


def local_mode(size: tuple[int, int]) -> Generator[None, None, dict[str, float]]:
    """qdrant-client without a server: the same interface, in Python."""
    from qdrant_client import QdrantClient, models

    rows, works, tracks = _catalogue(size)
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

    measured = _timed(rows, ask, lambda answer: answer, tracks, LOCAL)
    client.close()
    shutil.rmtree(folder)
    return measured
