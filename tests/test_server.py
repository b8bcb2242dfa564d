"""The engine behind QDRANT_URL: what it asks of a server, and what it says when that goes wrong.

The server is a `ContractStub`. What a real one can be asked too is in test_search.py and
test_publish.py, marked `server`.
"""

import socket
import ssl
import traceback

import pytest
from catalogue import make_points
from certificates import make_certificate
from contract_stub import KEY, READ_ONLY_KEY, SHARDS, BusyError, ContractStub, asked
from grpc_stub import GrpcStub
from qdrant_client import models

import search
from search import (
    DamagedCollection,
    NoCollection,
    NoRoom,
    PublishError,
    Searcher,
    SearchError,
    ServerBusy,
    ServerRefused,
    ServerUnreachable,
)
from search.engines.server.connection import PATIENT_PAUSES, PAUSES
from search.engines.server.server import Server
from search.fields import FIELDS


@pytest.fixture
def server(own):
    return own


@pytest.fixture
def slept(monkeypatch):
    """The pauses that were made, without making them."""
    slept = []
    monkeypatch.setattr("search.engines.server.connection.sleep", slept.append)
    return slept


@pytest.fixture
def intercept(stub, monkeypatch):
    """Call a function before the stand-in answers requests of a method and an end of a path."""
    route = stub.route

    def set_up(method, ending, before):
        def routed(asked_method, path, body, query):
            if asked_method == method and path.endswith(ending):
                before()
            return route(asked_method, path, body, query)

        monkeypatch.setattr(stub, "route", routed)

    return set_up


def test_points_go_up_in_batches_that_are_waited_for_and_are_counted_exactly(stub, server):
    server.publish(make_points(1100), "b")
    assert sorted(len(body["points"]) for body in asked(stub, "PUT", "/points")) == [76, 512, 512]
    # The stub asserts that each of them says wait=true.
    assert asked(stub, "POST", "/count") == [{"exact": True}]
    assert len(Searcher(server).similar("P_1", 2000)) == 1099


def test_a_collection_has_one_unnamed_euclidean_vector_and_an_index_on_each_field(stub, server):
    name = server.publish(make_points(12), "b").name
    (made,) = asked(stub, "PUT", f"/collections/{name}")
    assert made["vectors"]["size"] == 4
    assert made["vectors"]["distance"] == "Euclid"
    indexed = {body["field_name"]: body["field_schema"] for body in asked(stub, "PUT", "/index")}
    kinds = {str: "keyword", int: "integer", bool: "bool", float: "float"}
    on_disk = {key: {"type": "keyword", "on_disk": True} for key in ("words", "recording")}
    assert indexed == {field: kinds[kind] for field, kind in FIELDS.items()} | on_disk


def test_the_alias_moves_in_one_request(stub, server):
    first = server.publish(make_points(12, seed=1), "a")
    second = server.publish(make_points(12, seed=2), "b")
    server.rollback()
    create = [
        {"create_alias": {"collection_name": name, "alias_name": "covers"}}
        for name in (first.name, second.name, first.name)
    ]
    delete = {"delete_alias": {"alias_name": "covers"}}
    assert [body["actions"] for body in asked(stub, "POST", "/collections/aliases")] == [
        [create[0]],
        [delete, create[1]],
        [delete, create[2]],
    ]


def test_other_collections_on_the_server_are_left_alone(stub, server):
    for theirs in ("covers-of-books", "art"):
        stub.local.create_collection(theirs, vectors_config={})
    for seed in range(3):
        server.publish(make_points(12, seed=seed), "b", keep=1)
    there = {found.name for found in stub.local.get_collections().collections}
    assert there == {"covers-of-books", "art", *server.history()}
    assert server.names() == server.history()
    looked_at = {target for method, target, _ in stub.requests if method == "GET"}
    assert "/collections/art" not in looked_at


@pytest.mark.parametrize("alias", [True, False])
def test_an_alias_or_collection_of_somebody_else_under_our_name_is_refused(stub, server, alias):
    theirs = "theirs" if alias else "covers"
    stub.local.create_collection(theirs, vectors_config={})
    if alias:
        create = models.CreateAlias(collection_name=theirs, alias_name="covers")
        stub.local.update_collection_aliases([models.CreateAliasOperation(create_alias=create)])
    said = r"'covers' on the Qdrant server at .* of somebody else: set COVERS_COLLECTION"
    for ask in (
        lambda: server.publish(make_points(12), "b"),
        lambda: Searcher(server).similar("P_1"),
        lambda: Searcher(server).status(),
        lambda: server.serve([theirs]),
    ):
        with pytest.raises(SearchError, match=said):
            ask()
    assert [found.name for found in stub.local.get_collections().collections] == [theirs]


def test_a_name_that_somebody_else_has_is_not_used(stub, server):
    wanted = make_points(12).describe("b", "covers").name
    stub.local.create_collection(wanted, vectors_config={})
    stub.local.create_collection(f"{wanted}-2-sequences", vectors_config={})
    assert server.publish(make_points(12), "b").name == f"{wanted}-3"
    server.drop(wanted)
    assert server.is_taken(wanted)


def test_searching_needs_a_read_only_key_and_publishing_a_full_one(stub, server, tmp_path):
    server.publish(make_points(12), "b")
    reader = Server(stub.url, READ_ONLY_KEY, tmp_path / "publish.lock")
    searcher = Searcher(reader)
    assert searcher.similar("P_1", where={"year": search.between(1950, None)})
    assert searcher.works("P_1")
    assert searcher.similar_many(["P_1", "P_2"])
    assert searcher.status().current.points == 12
    with pytest.raises(search.TrackNotFound, match="did you mean P_1"):
        searcher.similar("p_1")
    with pytest.raises(ServerRefused, match=r"refuses the key in QDRANT_API_KEY: .* a full one"):
        reader.publish(make_points(13), "b")
    assert searcher.status().current.points == 12
    reader.close()


@pytest.mark.parametrize("key", [None, "wrong-s3cret"])
def test_a_missing_or_wrong_key_is_reported_and_never_shown(stub, tmp_path, key):
    server = Server(stub.url, key, tmp_path / "publish.lock")
    words = "refuses the key in QDRANT_API_KEY" if key else "refuses a request without a key"
    with pytest.raises(ServerRefused, match=f"{stub.url} {words}: set QDRANT_API_KEY") as raised:
        Searcher(server).similar("P_1")
    shown = f"{server!r} {raised.value} {raised.value.__cause__!r} {raised.value.__cause__}"
    assert "s3cret" not in shown
    server.close()


def test_a_server_that_is_not_there_is_named_without_its_password(tmp_path, slept):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Server(f"http://user:s3cret@127.0.0.1:{port}", None, tmp_path / "publish.lock")
    words = rf"No Qdrant server answers at http://127\.0\.0\.1:{port} .* correct QDRANT_URL"
    for ask in (
        lambda: Searcher(server).similar("P_1"),
        lambda: Searcher(server).status(),
        lambda: server.publish(make_points(12), "b"),
    ):
        with pytest.raises(ServerUnreachable, match=words) as raised:
            ask()
        assert "s3cret" not in str(raised.value)


def test_a_searcher_waits_a_little_for_a_server_and_a_publication_long(stub, server, slept):
    server.publish(make_points(12), "b")
    searcher = Searcher(server)
    answer = searcher.similar("P_1")
    for pauses, ask in (
        (PAUSES, lambda: searcher.similar("P_1")),
        (PATIENT_PAUSES, lambda: server.publish(make_points(12), "b")),
    ):
        stub.fail_next = len(pauses)
        ask()
        assert slept == list(pauses)
        stub.fail_next = 99
        slept.clear()
        with pytest.raises(ServerBusy, match=rf"{stub.url} answers 503 \(not now\): do this again"):
            ask()
        assert slept == list(pauses)
        stub.fail_next = 0
        slept.clear()
    assert searcher.similar("P_1") == answer
    assert sum(PAUSES) == pytest.approx(2.5)
    assert 30 < sum(PATIENT_PAUSES) < 35


def test_a_user_who_waited_for_a_time_out_does_not_wait_for_another(
    stub, server, slept, monkeypatch
):
    server.publish(make_points(12), "b")
    clock = iter(range(0, 1000, 60))
    monkeypatch.setattr("search.engines.server.connection.monotonic", lambda: next(clock))
    stub.fail_next = 99
    with pytest.raises(ServerBusy):
        server.history()
    assert slept == []


def test_an_upload_that_keeps_failing_is_not_published(server, slept, intercept):
    old = server.publish(make_points(12), "b")
    why = BusyError("the disk is slow")

    def falter():
        raise why

    intercept("PUT", "/points", falter)
    with pytest.raises(ServerBusy, match=r"answers 503 \(the disk is slow\)"):
        server.publish(make_points(14, seed=2), "b")
    assert slept == list(PATIENT_PAUSES)
    why = ValueError("such points can't be")
    with pytest.raises(SearchError, match=r"answers 400 \(such points can't be\)"):
        server.publish(make_points(14, seed=2), "b")
    assert slept == list(PATIENT_PAUSES)  # asking again wouldn't help
    assert server.history() == server.names() == [old.name]
    assert len(Searcher(server).similar("P_1", 100)) == 11


ANSWERS = {
    "wrong key": (401, b"Invalid API key or JWT", ServerRefused, "refuses the key in QDRANT_API"),
    "read-only key": (403, "Forbidden: Global manage access is required", ServerRefused, "a full"),
    "a proxy's page": (403, b"<html>", ServerRefused, "refuses the key"),
    "locked": (403, "Write operations are forbidden", ServerRefused, r"locked \(Write .*unlock"),
    "time-out": (408, "Timeout: it took 60 s", ServerBusy, "answers 408 .*do this again later"),
    "too many": (429, "Rate limiting exceeded", ServerBusy, "answers 429 "),
    "a node is down": (500, SHARDS, ServerBusy,
                       r"a node of its cluster \(http://10.0.0.3:6335/\) .* QDRANT_REPLICAS=3, "),
    "no room": (507, "Disk is full", NoRoom, r"no room on the Qdrant server .* make room there"),
    "no room, as 500": (500, "Service internal error: No space left on device", NoRoom, "no room"),
    "a gateway": (502, b"<html>", ServerBusy, r"answers 502 \(Bad Gateway\)"),
    "another server": (404, b"<html>", ServerUnreachable, r"No Qdrant server that .* 404.* proxy"),
    "a page": (200, b"<html>", ServerUnreachable, r"not JSON\): correct QDRANT_URL, or"),
    "no text": (200, b"\xff\xfe{}", ServerUnreachable, "not JSON"),
    "another form": (200, b'{"result": 5}', ServerUnreachable, "has another form"),
    "nothing": (200, b"{}", ServerUnreachable, "has another form"),
}  # fmt: skip


@pytest.mark.parametrize("kind", ANSWERS)
def test_every_failing_answer_of_a_server_becomes_one_sentence(
    stub, server, slept, monkeypatch, kind
):
    status, said, error, words = ANSWERS[kind]
    monkeypatch.setattr("search.engines.server.collection.BATCH_POINTS", 5)
    server.publish(make_points(12), "b")
    everything = server.open().everything()
    next(everything)
    searcher = Searcher(server)
    body = said if isinstance(said, bytes) else {"status": {"error": said}}
    monkeypatch.setattr(stub, "answer", lambda *args: (status, body))
    for ask in (
        lambda: list(everything),
        lambda: searcher.similar("P_1"),
        lambda: searcher.status(),
        lambda: searcher.distance("P_1", "P_2"),
        lambda: server.publish(make_points(13), "b"),
        lambda: Searcher(Server(stub.url, KEY, server.lock)).similar("P_1"),
    ):
        with pytest.raises(error, match=words) as raised:
            ask()
        assert str(raised.value).count("\n") == 0
        assert len(str(raised.value)) < 420


def test_another_version_of_the_server_is_refused(tmp_path):
    stub = ContractStub(version="1.12.3")
    server = Server(stub.url, None, tmp_path / "publish.lock")
    with pytest.raises(SearchError, match=r"is version 1\.12\.3, which qdrant-client 1\.\d+"):
        Searcher(server).similar("P_1")
    stub.close()


def test_a_collection_pruned_between_two_requests_is_asked_again_as_the_new_one(
    stub, server, intercept, tmp_path
):
    server.publish(make_points(12, seed=1), "old")
    publisher = Server(stub.url, KEY, tmp_path / "publish.lock")
    new = [make_points(20, seed=2)]

    def overtake():
        if new:
            points = new.pop()
            stub.lock.release()
            publisher.publish(points, "new", keep=1)
            stub.lock.acquire()

    searcher = Searcher(server)
    assert len(searcher.similar("P_1", 100)) == 11
    intercept("POST", "/query/batch", overtake)
    assert len(searcher.similar("P_1", 100)) == 19
    publisher.close()


def test_collections_that_are_replaced_all_the_time_are_given_up_on(server, intercept):
    server.publish(make_points(12), "b")

    def gone():
        raise ValueError("Collection x not found")

    intercept("POST", "/query/batch", gone)
    with pytest.raises(SearchError, match="replaced faster than they can be searched"):
        Searcher(server).similar("P_1")


def test_the_environment_selects_the_server(stub, monkeypatch, tmp_path):
    monkeypatch.setenv("COVERS_HOME", str(tmp_path))
    monkeypatch.setenv("QDRANT_URL", stub.url)
    monkeypatch.setenv("QDRANT_API_KEY", READ_ONLY_KEY)
    with pytest.raises(NoCollection, match=f"no collection 'covers' on .* {stub.url} yet"):
        search.similar("P_1")
    assert search.status().location == stub.url
    monkeypatch.setenv("QDRANT_API_KEY", KEY)
    search.connect().publish(make_points(12), "b")
    assert len(search.similar("P_1", 100)) == 11
    with pytest.raises(PublishError, match="no other collection"):
        search.connect().rollback()


@pytest.fixture
def certified(tmp_path):
    """A server with a certificate that only `ca.pem` vouches for."""
    key, certificate = make_certificate()
    (tmp_path / "ca.pem").write_bytes(certificate)
    (tmp_path / "key.pem").write_bytes(key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "ca.pem", tmp_path / "key.pem")
    stub = ContractStub(KEY, READ_ONLY_KEY, tls=context)
    stub.http.handle_error = lambda *args: None  # that a client hangs up is the test
    grpc = GrpcStub(stub, KEY, (key, certificate))
    yield stub, grpc
    grpc.close()
    stub.close()


def test_an_own_authority_vouches_for_the_server_on_both_its_ports(
    certified, monkeypatch, tmp_path
):
    stub, grpc = certified
    monkeypatch.setenv("COVERS_HOME", str(tmp_path))
    monkeypatch.setenv("QDRANT_URL", stub.url)
    monkeypatch.setenv("QDRANT_API_KEY", KEY)
    monkeypatch.setenv("QDRANT_GRPC_PORT", str(grpc.port))
    stranger = search.connect()
    with pytest.raises(ServerUnreachable, match=r"does not trust .* set QDRANT_CA_CERT") as raised:
        stranger.publish(make_points(12), "b")
    assert "s3cret" not in str(raised.value)
    assert stub.requests == []  # and so the key wasn't sent
    monkeypatch.setenv("QDRANT_CA_CERT", str(tmp_path / "ca.pem"))
    server = search.connect()
    server.publish(make_points(12), "b")
    assert grpc.calls == ["Upsert"]
    assert len(Searcher(server).similar("P_1", 20)) == 11
    server.close()
    stranger.close()


def test_no_secret_is_shown_whatever_is_printed(stub, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("search.engines.server.connection.sleep", lambda seconds: None)
    url = stub.url.replace("http://", "http://user:pass-s3cret@")
    server = Server(url, READ_ONLY_KEY, tmp_path / "publish.lock")
    with caplog.at_level("DEBUG"):
        for ask in (
            lambda: server.publish(make_points(12), "b"),
            lambda: Searcher(server).similar("P_1"),
        ):
            with pytest.raises((SearchError, ValueError)) as raised:
                ask()
            assert "s3cret" not in "".join(traceback.format_exception(raised.value))
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("search")]
    assert "s3cret" not in f"{server!r} {server.location} {ours}"
    server.close()


def test_a_collection_whose_metadata_are_not_understood_is_replaced_by_the_next(server):
    name = server.publish(make_points(12), "b").name
    server.connection.ask(lambda client: client.update_collection(name, metadata={"exactly": "{"}))
    with pytest.raises(DamagedCollection, match="are not what this version understands"):
        Searcher(server).similar("P_1")
    assert server.publish(make_points(12), "b").name == f"{name}-2"
    assert server.names() == [f"{name}-2"]
    assert len(Searcher(server).similar("P_1", 100)) == 11
