"""Every request of a publication fails once, in each way there is, while somebody searches."""

import contextlib
import itertools
import threading
import time

import numpy as np
import pytest
from catalogue import (
    QDRANT_API_KEY,
    QDRANT_CA_CERT,
    engine_of_kind,
    in_memory,
    ranking,
    vector_of,
)
from failing_proxy import KINDS, FailingProxy

from search import NoRoom, Point, Points, Searcher, copy
from search.engines.embedded import Embedded
from search.engines.server.connection import Connection
from search.engines.server.server import Server

COUNT, ASKED = 12, "P_07"


def make_version(seed: int, changed: float = 0.0) -> Points:
    """Performances with sequences; by `changed`, one of them is another."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(COUNT, 4))
    vectors[3] += changed
    return Points(
        (
            Point(
                f"P_{i:02}",
                vectors[i],
                {"work_id": f"W_{i // 4}", "title": f"Version {seed}"},
                rng.random((5, 2, 12)).astype(np.float16),
                background=[0.5, 1.0],
            )
            for i in range(COUNT)
        ),
        rate=5.0,
    )


VERSIONS = [make_version(seed) for seed in range(3)]
CHANGED = [make_version(0, 0.0), make_version(0, 0.01)]
CONTENT = {
    points.describe("b", "covers").content: [
        name for _, name in ranking(points, vector_of(points, ASKED)) if name != ASKED
    ]
    for points in (*VERSIONS, *CHANGED)
}


class Readers:
    """A thread that asks in a loop, on a connection that doesn't fail; `wrong` is what it saw."""

    def __init__(self, engine: Server) -> None:
        self.answers, self.wrong = 0, []
        self._engine, self._stop = engine, threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def _ask(self) -> None:
        searcher = Searcher(self._engine)
        while not self._stop.is_set():
            try:
                found = [match.track_id for match in searcher.similar(ASKED, COUNT)]
                if found not in CONTENT.values():
                    self.wrong.append(found)
            except Exception as error:
                self.wrong.append(error)
            self.answers += 1
            time.sleep(0.03)

    def __enter__(self) -> "Readers":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


@pytest.fixture(params=["stub", pytest.param("server", marks=pytest.mark.server)])
def direct(request, tmp_path):
    """A server, and on it what is published first."""
    with engine_of_kind(request.param, tmp_path) as direct:
        yield direct


@pytest.fixture
def is_real(request):
    """Whether the server is a real one, which takes seconds for what the stand-in does at once."""
    return request.node.callspec.params["direct"] == "server"


@pytest.fixture
def proxy(direct, is_real):
    proxy = FailingProxy(direct.location, QDRANT_CA_CERT, delay=10 if is_real else 1)
    yield proxy
    proxy.close()


@pytest.fixture(autouse=True)
def _hurried(proxy, is_real, monkeypatch):
    """Pauses and time-outs are short, and a few fields indexed: fifteen requests are alike."""
    monkeypatch.setattr(
        "search.engines.server.writing.FIELDS", dict.fromkeys(("work_id", "title", "subset"), str)
    )
    monkeypatch.setattr("search.engines.server.connection.PAUSES", (0.01, 1.0, 1.0))
    monkeypatch.setattr("search.engines.server.connection.PATIENT_PAUSES", (0.01,) * 6)
    make_client = Connection._make_client

    def make_hurried(self, **more):
        client = make_client(self, **more)
        if self.location == proxy.url:
            client.http.client._client.timeout = 5 if is_real else 0.3
        return client

    monkeypatch.setattr(Connection, "_make_client", make_hurried)


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """Other engines, each with a version to copy."""
    engines = [Embedded(tmp_path_factory.mktemp("elsewhere")) for _ in VERSIONS]
    for points, engine in zip(VERSIONS, engines, strict=True):
        engine.publish(points, "b")
    return engines


# Each is what is done at a turn, and gives the content that is current afterwards.


def publication(engine: Server, turn: int, elsewhere: list[Embedded]) -> str:
    return engine.publish(VERSIONS[turn % 3], "b").content


def unchanged(engine: Server, turn: int, elsewhere: list[Embedded]) -> str:
    return engine.publish(VERSIONS[1], "b", origin={"turn": turn}).content


def change(engine: Server, turn: int, elsewhere: list[Embedded]) -> str:
    return engine.publish(CHANGED[turn % 2], "b").content


def copying_to(engine: Server, turn: int, elsewhere: list[Embedded]) -> str:
    return copy(elsewhere[turn % 3], engine).content


def copying_from(engine: Server, turn: int, elsewhere: list[Embedded]) -> str:
    with in_memory() as directory:
        return copy(engine, Embedded(directory)).content


def rolling_back(engine: Server, turn: int, elsewhere: list[Embedded]) -> str:
    # Until it is where this turn goes: one that failed at its end has gone there.
    wanted = VERSIONS[turn % 2].describe("b", "covers").content
    if engine.describe(engine.history()[0]).content != wanted:
        engine.rollback()
    return wanted


def annotation(engine: Server, turn: int, elsewhere: list[Embedded]) -> str:
    engine.annotate({f"P_{i:02}": {"nearest_cover": turn + 1} for i in range(COUNT)}, "b")
    return engine.describe(engine.history()[0]).content


#: The rest differ from these two in nothing that an act would notice.
FEW = ("reset", "507")


@pytest.mark.parametrize(
    ("act", "kinds"),
    [
        (publication, KINDS),
        (unchanged, KINDS),
        (change, FEW),
        (copying_to, FEW),
        (copying_from, FEW),
        (rolling_back, FEW),
        (annotation, FEW),
    ],
)
def test_whichever_request_fails_a_publication_completes_or_changes_nothing(
    direct, is_real, proxy, elsewhere, tmp_path, count, act, kinds, monkeypatch
):
    monkeypatch.setattr("search.engines.server.server.CHANGED_SHARE", 100 if act is change else 0)
    turns = itertools.count(2)
    for points in CHANGED[:1] if act is change else VERSIONS[:2]:
        direct.publish(points, "b")

    def current() -> str:
        return direct.connection.metadata(direct.collection)["covers"]["content"]

    completed = told = 0
    with Readers(direct) as readers:
        for kind in FEW if is_real else kinds:
            engine = Server(
                proxy.url, QDRANT_API_KEY, tmp_path / "publish.lock", collection=direct.collection
            )
            # The first one twice: the first request of all asks for the server's version.
            for number in itertools.chain([0], itertools.count()):
                turn, before, after = next(turns), current(), None
                proxy.fail_at(number, kind)
                with contextlib.suppress(*[NoRoom] if kind == "507" else ()):
                    after = act(engine, turn, elsewhere)
                if not proxy.failed:
                    break
                if after:
                    completed += 1
                    assert current() == after or act is copying_from
                else:
                    told += 1
                    # In the middle of a change, a collection is of neither content.
                    assert current() in (("", *CONTENT) if act is change else (before,))
                    after = act(engine, turn, elsewhere)
                    assert current() == after or act is copying_from
            engine.close()
        assert direct.open(direct.history()[0]).count() == COUNT
    assert readers.wrong == []
    assert readers.answers > 10
    count("requests of a publication that fail once", "passed over", completed)
    count("requests of a publication that fail once", "told, and then done", told)
    count("searches meanwhile", "answered from one version", readers.answers)
