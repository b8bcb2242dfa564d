"""Searching while collections come and go, and while a server does."""

import contextlib
import multiprocessing
import socket
import threading
import time
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from catalogue import (
    QDRANT_API_KEY,
    engine_of_kind,
    in_memory,
    make_points,
    ranking,
    vector_of,
    version,
)

from search import Searcher, ServerUnreachable
from search.engines.embedded import Embedded
from search.engines.server.server import Server

VERSIONS, READERS, PUBLICATIONS = 3, 4, 45


def search_until(stop, home: Path, answers) -> None:
    """Search in a loop, in a process of its own; tell which version answered, or what was wrong."""
    searcher = Searcher(Embedded(home))
    expected = []
    for number in range(VERSIONS):
        points = version(number)
        nearest = [name for _, name in ranking(points, vector_of(points, "P_7"))]
        expected.append([name for name in nearest if name != "P_7"])
    while not stop.is_set():
        try:
            one = [match.track_id for match in searcher.similar("P_7", 1000)]
            batch = searcher.similar_many(["P_7", "P_7"], 1000)
        except Exception as error:
            answers.put(repr(error))
        else:
            whole = one in expected and batch[0] == batch[1]
            answers.put(expected.index(one) if whole else f"half a collection: {one}")


def test_processes_search_while_another_publishes_and_see_no_fault_and_no_half_collection(count):
    processes = multiprocessing.get_context("spawn")
    stop, answers = processes.Event(), processes.Queue()
    seen: Counter[int] = Counter()

    def take() -> int:
        answer = answers.get(timeout=60)
        assert answer in range(VERSIONS)
        seen[answer] += 1
        return answer

    with in_memory() as directory:
        engine = Embedded(directory / "qdrant")
        engine.publish(version(0), "b")
        readers = [
            processes.Process(
                target=search_until, args=(stop, engine.directory, answers), daemon=True
            )
            for _ in range(READERS)
        ]
        for reader in readers:
            reader.start()
        for number in range(PUBLICATIONS):
            while take() != number % VERSIONS:  # until a reader sees the new one
                pass
            engine.publish(version((number + 1) % VERSIONS), "b", keep=1)
        stop.set()
        while any(reader.is_alive() for reader in readers) or not answers.empty():
            if answers.empty():
                time.sleep(0.01)
            else:
                take()
        assert [reader.exitcode for reader in readers] == [0] * READERS
    count("publications under 4 searching processes", "seen", PUBLICATIONS)
    count("searches meanwhile", "answered from one version", 2 * seen.total())


class Line:
    """A line to a server that can be cut, and put back on the same port."""

    def __init__(self, url: str) -> None:
        self.to = (urlsplit(url).hostname, urlsplit(url).port)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.carried = 0  # bytes to the server
        self.ends: list[socket.socket] = []

    def connect(self) -> None:
        listening = socket.create_server(("127.0.0.1", self.port))
        self.ends.append(listening)
        threading.Thread(target=self._accept, args=(listening,), daemon=True).start()

    def cut(self) -> None:
        for end in self.ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self, listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                self.ends.append(near := listening.accept()[0])
                self.ends.append(far := socket.create_connection(self.to))
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    def _carry(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(2**16):
                other.sendall(data)
                if other.getpeername() == self.to:
                    self.carried += len(data)
            other.shutdown(socket.SHUT_RDWR)


@pytest.fixture(params=["stub", pytest.param("server", marks=pytest.mark.server)])
def line(request, tmp_path):
    """A line to a server, not connected yet, and an engine at its end."""
    with engine_of_kind(request.param, tmp_path) as direct:
        line = Line(direct.location)
        engine = Server(
            line.url, QDRANT_API_KEY, tmp_path / "publish.lock", collection=direct.collection
        )
        yield line, engine
        line.cut()
        engine.close()


def test_a_server_may_be_down_at_first_and_go_away_in_the_middle(line, count, caplog, monkeypatch):
    monkeypatch.setattr("search.engines.server.connection.PATIENT_PAUSES", (0.5, 1.0, 2.0))
    line, engine = line
    searcher = Searcher(engine)
    for ask in (lambda: engine.publish(make_points(12), "b"), lambda: searcher.similar("P_1")):
        with pytest.raises(ServerUnreachable, match=f"No Qdrant server answers at {line.url}"):
            ask()
    line.connect()
    engine.publish(make_points(12), "b")
    answer = searcher.similar("P_1")

    # In the middle of an upload, for a second.
    carried = line.carried

    def interrupt() -> None:
        while line.carried < carried + 200_000:
            time.sleep(0.001)
        line.cut()
        time.sleep(1)
        line.connect()

    interruption = threading.Thread(target=interrupt)
    interruption.start()
    points = make_points(6000, seed=1)
    with caplog.at_level("INFO", "search.engines.server.connection"):
        published = engine.publish(points, "b")
    interruption.join()
    assert "waiting 0.5 s: No Qdrant server answers" in caplog.text
    assert published.points == engine.open().count() == 6000
    assert {one.payload["track_id"] for one in engine.open().everything()} == set(points.track_ids)

    # While one searches; and publishing fails for good, which changes nothing.
    engine.rollback()
    line.cut()
    with pytest.raises(ServerUnreachable, match="start it, or correct QDRANT_URL"):
        searcher.similar("P_1")
    with pytest.raises(ServerUnreachable):
        engine.publish(make_points(13), "b")
    line.connect()
    assert searcher.similar("P_1") == answer
    count("a server down at first, in an upload, in a search", "told, and gone on from", 5)
