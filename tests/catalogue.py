"""Small catalogues to publish and search, and brute-force rankings to compare with."""

import contextlib
import os
import tempfile
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest

from search import Point, Points
from search.engines.embedded import Embedded
from search.engines.engine import Engine

#: Kept from before any test changes the environment.
QDRANT_URL = os.environ.get("QDRANT_URL")
QDRANT_API_KEY = os.environ.get("QDRANT_API_KEY")
QDRANT_GRPC_PORT = int(os.environ.get("QDRANT_GRPC_PORT") or 0) or None
QDRANT_CA_CERT = os.environ.get("QDRANT_CA_CERT") and Path(os.environ["QDRANT_CA_CERT"])

#: Where the same tests run: in process, through the real client, and on a real server.
ENGINES = ["embedded", "stub", pytest.param("server", marks=pytest.mark.server)]


@contextlib.contextmanager
def in_memory():
    """A directory in memory, where the system has one.

    The embedded engine syncs every file, which would take most of a test's time on a disk.
    """
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as path:
        yield Path(path)


def points_of(
    track_ids, vectors, payloads, sequences=None, rate=None, calibration=None, columns=None
) -> Points:
    """Points from parallel lists."""
    sequences = [None] * len(track_ids) if sequences is None else sequences
    rows = zip(track_ids, vectors, payloads, sequences, strict=True)
    points = (Point(*row) for row in rows)
    return Points(points, rate=rate, calibration=calibration, columns=columns)


def altered(points: Points, **lists) -> Points:
    """The same points with some of the lists replaced."""
    names = ("track_ids", "vectors", "payloads", "sequences", "rate", "calibration", "columns")
    return points_of(**{name: getattr(points, name) for name in names} | lists)


def make_points(
    count: int = 60, dimension: int = 4, seed: int = 0, clique: int = 4, step: int = 1
) -> Points:
    """Performances with small whole components: distances are exact, and ties are many."""
    rng = np.random.default_rng(seed)
    vectors = rng.integers(-3, 4, (count, dimension)).astype(np.float32)
    return points_of(
        [f"P_{i * step}" for i in range(count)],
        vectors,
        [
            {
                "work_id": f"W_{i // clique}",
                "work_title": f"Work {i // clique}",
                "work_artist": f"Writer {i // clique % 5}",
                "title": f"Title {i}" if i % 3 else None,
                "artist": f"Artist {i % 7}",
                "year": 1950 + i % 40 if i % 4 else None,
                "instrumental": bool(i % 2) if i % 5 else None,
                "subset": "benchmark" if i % 2 else "coveranalysis",
            }
            for i in range(count)
        ],
    )


def ranking(points: Points, vector, keep=lambda payload: True) -> list[tuple[float, str]]:
    """Performances whose payload passes `keep`, by distance and then by track id."""
    distances = np.linalg.norm(points.vectors - np.asarray(vector, dtype=np.float64), axis=1)
    return sorted(
        (float(distance), track_id)
        for distance, track_id, payload in zip(
            distances, points.track_ids, points.payloads, strict=True
        )
        if keep(payload)
    )


def vector_of(points: Points, track_id: str) -> np.ndarray:
    return points.vectors[list(points.track_ids).index(track_id)]


def payload_of(points: Points, track_id: str) -> dict:
    return points.payloads[list(points.track_ids).index(track_id)]


@contextlib.contextmanager
def engine_of_kind(kind: str, directory: Path):
    """An empty engine: 'embedded', 'stub' or 'server'."""
    if kind == "embedded":
        yield Embedded(directory / "qdrant")
        return
    from search.engines.server.server import Server

    # A deployment of its own, so that several tests can use one server at the same time.
    lock, collection = directory / "publish.lock", f"test-{uuid4().hex[:8]}"
    if kind == "stub":
        from contract_stub import ContractStub

        stub = ContractStub()
        engine: Engine = Server(stub.url, None, lock, collection=collection)
        yield engine
        engine.close()
        stub.close()
        return
    if QDRANT_URL is None:
        pytest.skip("NOT TESTED against a Qdrant server: set QDRANT_URL to one")
    engine = Server(
        QDRANT_URL,
        QDRANT_API_KEY,
        lock,
        collection=collection,
        grpc_port=QDRANT_GRPC_PORT,
        ca_cert=QDRANT_CA_CERT,
    )
    try:
        yield engine
    finally:
        for name in engine.names():
            engine.drop(name)
        engine.close()


@contextlib.contextmanager
def empty(kind: str = "embedded"):
    """An empty engine, in memory."""
    with in_memory() as directory, engine_of_kind(kind, directory) as engine:
        yield engine


@contextlib.contextmanager
def published(points: Points, kind: str = "embedded"):
    """An engine that these points were published to."""
    with empty(kind) as engine:
        engine.publish(points, "b")
        yield engine


def content(engine) -> dict:
    """All that a collection holds, by track id."""
    collection = engine.open()
    stored_by_id = {stored.payload["track_id"]: stored for stored in collection.everything()}
    track_ids = sorted(stored_by_id)
    sequences = collection.sequences
    return {
        "description": collection.description,
        "payloads": [stored_by_id[track_id].payload for track_id in track_ids],
        "vectors": np.stack([stored_by_id[track_id].vector for track_id in track_ids]).tobytes(),
        "sequences": sequences and [frames.tobytes() for frames in sequences.of(track_ids)],
        "backgrounds": sequences and sequences.backgrounds(track_ids).tobytes(),
        "mean background": sequences and sequences.mean_background,
    }


def version(number: int) -> Points:
    """Each version has its own number of performances, all of them in its own neighbourhood."""
    points = make_points(40 + number, seed=number)
    points.vectors += 100 * number
    return points
