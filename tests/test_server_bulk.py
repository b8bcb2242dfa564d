"""Many vectors on a server: by gRPC if a port is set, in few requests, and a graph at the end."""

import json
import os
import re

import numpy as np
import pytest
from catalogue import (
    ENGINES,
    engine_of_kind,
    in_memory,
    make_points,
    points_of,
    ranking,
    vector_of,
)
from contract_stub import KEY, SHARDS, ContractStub, asked
from grpc import StatusCode
from grpc_stub import GrpcStub
from qdrant_client import models
from tunes import POINTS

from search import (
    NoRoom,
    Query,
    Searcher,
    SearchError,
    ServerBusy,
    ServerRefused,
    ServerUnreachable,
    TrackNotFound,
)
from search.engines.server.collection import HNSW_EF
from search.engines.server.server import Server
from search.errors import CollectionGone

#: Distances are all different, so that no cut is in doubt.
VARIED = points_of(
    [f"P_{i}" for i in range(60)],
    np.random.default_rng(0).normal(size=(60, 4)),
    [{"work_id": f"W_{i // 4}", "subset": "benchmark"} for i in range(60)],
)


@pytest.fixture
def grpc(stub):
    grpc = GrpcStub(stub, KEY)
    yield grpc
    grpc.close()


@pytest.fixture
def make_server(stub, tmp_path):
    made = []

    def make(key=KEY, **settings) -> Server:
        made.append(Server(stub.url, key, tmp_path / "publish.lock", **settings))
        return made[-1]

    yield make
    for server in made:
        server.close()


def test_uploads_and_queries_go_by_grpc_and_the_rest_by_http(stub, grpc, make_server):
    server, plain = make_server(grpc_port=grpc.port), make_server()
    server.publish(POINTS, "b")
    assert asked(stub, "PUT", "/points") == []
    assert grpc.calls == ["Upsert", "Upsert"]  # the points, the sequences
    where = {"year": (1955, 1985), "instrumental": [True, False], "subset": "benchmark"}
    for ask in (
        lambda searcher: searcher.similar("P_0"),
        lambda searcher: searcher.similar("P_0", rerank=True),
        lambda searcher: searcher.similar("P_0", 3, leave_out_same_work=True, where=where),
        lambda searcher: searcher.works("P_0"),
        lambda searcher: searcher.similar(Query([0, 0, 0, 0])),
        lambda searcher: searcher.similar_many(POINTS.track_ids, 5, where=where),
    ):
        by_json = ask(Searcher(plain))
        stub.requests.clear()
        assert ask(Searcher(server)) == by_json
        assert not asked(stub, "POST", "/query/batch")
    assert "QueryBatch" in grpc.calls


def test_a_query_is_one_request_and_the_first_of_a_process_three(stub, make_server):
    make_server().publish(VARIED, "b")
    searcher = Searcher(make_server())
    path = "/collections/covers/points/query/batch"
    for ask, more in (
        (lambda: searcher.similar("P_1", 5), ["/", "/collections/covers"]),
        (lambda: searcher.similar("P_1", 5), []),
        (lambda: searcher.similar("P_1", 5, where={"subset": "benchmark"}), []),
        (lambda: searcher.similar("P_1", 5, leave_out_same_work=True), []),
        (lambda: searcher.works("P_1", 5), []),
        (lambda: searcher.similar_many([f"P_{i}" for i in range(50)], 5), []),
    ):
        stub.requests.clear()
        ask()
        assert [target for _, target, _ in stub.requests] == [*more, path]


def test_what_nobody_reads_of_a_candidate_is_not_sent(stub, make_server):
    server = make_server()
    server.publish(VARIED, "b")
    (found,) = server.open().around(["P_1"], 3, ())
    stored, candidates = found
    assert stored.payload["collection"] == server.history()[0]
    assert len(candidates) == 3
    for candidate in candidates:
        assert not {"collection", "digest"} & set(candidate.payload)
        assert {"track_id", "work_id", "usual_distance", "usual_spread"} <= set(candidate.payload)


def test_the_facts_of_a_collection_are_read_again_from_time_to_time(stub, make_server, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("search.engines.server.server.monotonic", lambda: clock[0])
    make_server().publish(VARIED, "b")
    searcher = Searcher(make_server())
    read = []
    for clock[0] in (0, 10, 29, 31, 60, 62):
        stub.requests.clear()
        searcher.similar("P_1")
        read.append(len(asked(stub, "GET", "/collections/covers")))
    assert read == [1, 0, 0, 1, 0, 1]


@pytest.mark.parametrize(
    "ask",
    [
        lambda searcher: searcher.similar("P_1", 100),
        lambda searcher: searcher.similar(Query([0, 0, 0, 0]), 100),
        lambda searcher: searcher.distance("P_1", "P_2"),
        lambda searcher: [one.payload for one in searcher.engine.open().everything()],
        lambda searcher: searcher.engine.open().digests(["P_1", "P_2"]),
        lambda searcher: searcher.engine.open().count(),
        lambda searcher: searcher.similar("P_15", 100),  # which only the new one has
    ],
)
def test_another_publisher_s_collection_is_seen_at_the_next_question(make_server, ask):
    make_server().publish(make_points(12, seed=1), "a")
    searcher = Searcher(make_server())
    searcher.similar("P_1")
    make_server().publish(make_points(16, seed=2), "b")
    for _ in range(2):
        expected = ask(Searcher(make_server()))
        try:
            found = ask(searcher)
        except CollectionGone:  # which searchers handle
            found = ask(searcher)
        assert found == expected


def test_unknown_ids_among_many_are_told_apart(make_server):
    server = make_server()
    server.publish(make_points(12), "b")
    collection = server.open()
    found = collection.around(["P_1", "nobody", "P_1", "P_2", "none"], 3, ())
    assert [one and one[0].payload["track_id"] for one in found] == [
        "P_1", None, "P_1", "P_2", None,
    ]  # fmt: skip
    assert found[0][1] == found[2][1]
    assert collection.around(["nobody"], 3, ()) == [None]
    assert collection.digests(["P_1", "nobody"])[1] is None
    with pytest.raises(TrackNotFound, match="'P_99'"):
        Searcher(server).similar_many(["P_1", "P_99"])


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork")
def test_a_forked_child_asks_by_connections_of_its_own(grpc, make_server):
    server = make_server(grpc_port=grpc.port)
    server.publish(make_points(12), "b")
    searcher = Searcher(server)
    answer = searcher.similar("P_1")
    child = os.fork()
    if child == 0:
        os._exit(0 if searcher.similar("P_1") == answer else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert searcher.similar("P_1") == answer


def test_an_upload_by_grpc_is_tried_again_and_its_failures_are_sentences(
    stub, grpc, make_server, monkeypatch
):
    slept = []
    monkeypatch.setattr("search.engines.server.connection.sleep", slept.append)
    server = make_server(grpc_port=grpc.port)
    grpc.fail_next = 2
    server.publish(make_points(12), "b")
    assert slept == [0.5, 1.0]
    grpc.fail_next = 99
    with pytest.raises(ServerUnreachable, match=f"{stub.url} \\(not now\\): .* QDRANT_GRPC_PORT"):
        server.publish(make_points(13), "b")
    grpc.key = "another"
    with pytest.raises(ServerRefused, match="refuses the key in QDRANT_API_KEY") as raised:
        Searcher(server).similar_many([f"P_{i % 12}" for i in range(32)])
    assert "s3cret" not in f"{raised.value} {raised.value.__cause__}"


@pytest.mark.parametrize(
    ("code", "said", "error", "words"),
    [
        ("UNAVAILABLE", "not now", ServerUnreachable, r"No Qdrant server answers .* \(not now\)"),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", ServerBusy, "answers 408 .*this again later"),
        ("RESOURCE_EXHAUSTED", "Rate limiting exceeded", ServerBusy, "answers 429"),
        ("RESOURCE_EXHAUSTED", "No space left on device", NoRoom, "There is no room on the Qdrant"),
        (
            "INTERNAL",
            SHARDS,
            ServerBusy,
            r"node of its cluster \(http://10.0.0.3:6335/\) seems",
        ),
        ("PERMISSION_DENIED", "Forbidden: Write access", ServerRefused, "QDRANT_API_KEY"),
    ],
)
def test_a_failure_by_grpc_is_the_same_sentence_as_by_http(
    grpc, make_server, monkeypatch, code, said, error, words
):
    monkeypatch.setattr("search.engines.server.connection.sleep", lambda seconds: None)
    server = make_server(grpc_port=grpc.port)
    server.publish(make_points(12), "b")
    grpc.failure = getattr(StatusCode, code), said
    for ask in (
        lambda: Searcher(server).similar("P_1"),
        lambda: server.publish(make_points(12, seed=1), "b"),
    ):
        grpc.fail_next = 99
        with pytest.raises(error, match=words) as raised:
            ask()
        assert len(str(raised.value)) < 420
        grpc.fail_next = 1
        if error in (ServerUnreachable, ServerBusy):
            ask()


def made(stub: ContractStub, name: str) -> models.CreateCollection:
    (body,) = asked(stub, "PUT", f"/collections/{name}")
    return models.CreateCollection.model_validate(body)


def indexed(stub: ContractStub, name: str) -> list[models.UpdateCollection]:
    """The requests that have a graph built."""
    bodies = [body for body in asked(stub, "PATCH", name) if "hnsw_config" in body]
    return [models.UpdateCollection.model_validate(body) for body in bodies]


def search_parameters(stub: ContractStub) -> dict:
    _, query = asked(stub, "POST", "/query/batch")[0]["searches"]
    return query["params"]


def test_a_small_collection_is_searched_exactly_and_has_no_graph(stub, make_server):
    name = make_server().publish(make_points(12), "b").name
    assert made(stub, name).hnsw_config.m == 0
    assert indexed(stub, name) == []
    Searcher(make_server()).similar("P_1")
    assert search_parameters(stub) == {"exact": True}


@pytest.fixture
def large(monkeypatch):
    """Every collection counts as too large to search exactly, and its graph is soon built."""
    monkeypatch.setattr("search.points.EXACT_BYTES", 0)
    monkeypatch.setattr("search.engines.server.writing.POLL_SECONDS", 0.001)


def test_a_larger_collection_gets_its_graph_when_all_points_are_there(stub, make_server, large):
    name = make_server().publish(make_points(1100), "b").name
    assert made(stub, name).hnsw_config.m == 0
    steps = [
        method
        for method, _, body in stub.requests
        if method == "PUT" or (method == "PATCH" and "hnsw_config" in body)
    ]
    assert (steps[-1], steps.count("PATCH")) == ("PATCH", 1)
    (change,) = indexed(stub, name)
    assert (change.hnsw_config.m, change.hnsw_config.ef_construct) == (24, 200)
    assert change.quantization_config is None
    Searcher(make_server()).similar("P_1")
    rescored = {"rescore": True, "oversampling": 4.0}
    assert search_parameters(stub) == {"hnsw_ef": HNSW_EF, "quantization": rescored}


def test_a_very_large_collection_keeps_one_byte_per_component_in_memory(
    stub, make_server, large, monkeypatch
):
    monkeypatch.setattr("search.engines.server.server.QUANTIZED_BYTES", 0)
    name = make_server().publish(make_points(12), "b").name
    assert made(stub, name).vectors.on_disk is True
    (change,) = indexed(stub, name)
    config = change.quantization_config.scalar
    assert (config.type, config.always_ram, config.quantile) == ("int8", True, 0.99)


@pytest.mark.parametrize("kind", ENGINES)
def test_what_is_not_searched_exactly_is_found_at_its_exact_distance(large, monkeypatch, kind):
    # Without the patches this takes a collection of a gigabyte.
    monkeypatch.setattr("search.engines.server.server.QUANTIZED_BYTES", 0)
    vectors = np.random.default_rng(0).normal(size=(2000, 16)).astype(np.float32)
    track_ids = [f"P_{i:04d}" for i in range(2000)]
    points = points_of(track_ids, vectors, [{"work_id": f"W_{i % 500}"} for i in range(2000)])
    with in_memory() as directory, engine_of_kind(kind, directory) as engine:
        engine.publish(points, "b")
        found = Searcher(engine).similar_many(track_ids[:50], 10)
    shared = []
    for track_id, matches in zip(track_ids, found, strict=False):
        distance_to = {name: away for away, name in ranking(points, vector_of(points, track_id))}
        exact = [distance_to[match.track_id] for match in matches]
        assert [match.distance for match in matches] == pytest.approx(exact, 1e-5)
        shared.append(len({*list(distance_to)[1:11]} & {match.track_id for match in matches}))
    assert np.mean(shared) > 9.5


def statuses(stub: ContractStub, monkeypatch, *wanted: str) -> None:
    """Give the collection these statuses, one after the other, while it is indexed."""
    route = stub.route
    left = list(wanted)
    indexing = []

    def pretend(method, path, body, query):
        answer = route(method, path, body, query)
        if method == "PATCH" and b"hnsw_config" in body:
            indexing.append(True)
        if method == "GET" and path.startswith("/collections/") and indexing and left:
            answer["status"] = left.pop(0) if len(left) > 1 else left[0]
        return answer

    monkeypatch.setattr(stub, "route", pretend)


def test_the_alias_moves_only_when_the_graph_is_complete(stub, make_server, large, monkeypatch):
    statuses(stub, monkeypatch, "green", "yellow", "yellow", "grey", "yellow", "green", "green")
    name = make_server().publish(make_points(12), "b").name
    looks = [
        target
        for method, target, _ in stub.requests
        if (method, target) == ("GET", f"/collections/{name}")
    ]
    assert len(looks) >= 7
    nudges = [b for b in asked(stub, "PATCH", name) if b.get("optimizers_config") == {}]
    assert len(nudges) == 1  # at grey
    asks = [target for _, target, _ in stub.requests]
    assert asks.index("/collections/aliases") > asks.index(f"/collections/{name}")


def test_a_graph_that_is_never_complete_or_fails_is_reported_and_not_published(
    stub, make_server, large, monkeypatch
):
    server = make_server()
    statuses(stub, monkeypatch, "yellow")
    clock = iter(range(0, 10**6, 200))
    with monkeypatch.context() as patch:
        patch.setattr("search.engines.server.writing.monotonic", lambda: next(clock))
        with pytest.raises(SearchError, match=r"has not indexed covers-b-\w+ after 600 s: see in"):
            server.publish(make_points(12), "b")
    statuses(stub, monkeypatch, "red")
    with pytest.raises(SearchError, match=r"failed to index covers-b-\w+ \("):
        server.publish(make_points(12), "b")
    assert server.history() == []


def test_a_cluster_gets_the_shards_and_replicas_of_the_settings(stub, make_server):
    name = make_server(shards=6, replicas=3).publish(POINTS, "b").name
    for each in (name, f"{name}-sequences"):
        body = made(stub, each)
        assert (body.shard_number, body.replication_factor) == (6, 3)
        assert body.write_consistency_factor == 2  # one of three nodes may be down
        assert body.on_disk_payload is True
    name = make_server().publish(make_points(12), "b").name
    assert "shard_number" not in asked(stub, "PUT", f"/collections/{name}")[0]


def test_strict_mode_allows_every_request_that_we_make(stub, make_server):
    points = make_points(1100, clique=1100)
    server = make_server()
    strict = made(stub, server.publish(points, "b").name).strict_mode_config
    assert strict.enabled
    assert strict.search_allow_exact is None  # so exact searches are allowed
    assert strict.unindexed_filtering_retrieve is False
    indexed = {body["field_name"] for body in asked(stub, "PUT", "/index")}
    Searcher(server).similar("P_1", 10_000)
    Searcher(server).similar("P_1", leave_out_same_work=True, where={"subset": "benchmark"})
    for body in asked(stub, "POST", "/query/batch"):
        for query in body["searches"]:
            assert query["limit"] <= strict.max_query_limit
        assert set(re.findall(r'"key": "(\w+)"', json.dumps(body))) <= indexed


def test_metadata_says_what_a_collection_is_in_words_and_exactly(stub, make_server):
    points = make_points(12)
    points.vectors += np.float32(0.1)
    found = make_server().publish(points, "b")
    metadata = made(stub, found.name).metadata
    assert (metadata["covers"]["bundle"], metadata["covers"]["points"]) == ("b", 12)
    assert json.loads(metadata["exactly"])["description"]["versions"] == found.versions
