"""The engine behind QDRANT_URL: what it asks of a server, and what it says when that goes wrong.

The server is a `ContractStub`; whatever a real one can be asked as well is in test_search.py and
test_publish.py, marked `server`.
"""

import socket
import ssl
import traceback

import pytest
from catalogue import make_points
from certificates import make_certificate
from contract_stub import BusyError, ContractStub
from grpc_stub import GrpcStub

import search
from search import (
    NoCollection,
    PublishError,
    Searcher,
    SearchError,
    ServerRefused,
    ServerUnreachable,
    publish,
)
from search.connection import PAUSES
from search.fields import FIELDS
from search.server import ALIAS, Server

KEY, READ_ONLY = "full-s3cret", "read-0nly-s3cret"


@pytest.fixture
def stub():
    stub = ContractStub(KEY, READ_ONLY)
    yield stub
    stub.close()


@pytest.fixture
def server(stub, tmp_path):
    server = Server(stub.url, KEY, tmp_path / "publish.lock")
    yield server
    server.connection.client.close()


def asked(stub: ContractStub, method: str, ending: str) -> list:
    return [
        body
        for asked_method, target, body in stub.requests
        if asked_method == method and target.split("?")[0].endswith(ending)
    ]


def test_points_go_up_in_batches_that_are_waited_for_and_are_counted_exactly(stub, server):
    publish(make_points(1100), "b", server)
    assert sorted(len(body["points"]) for body in asked(stub, "PUT", "/points")) == [76, 512, 512]
    # That each of them says wait=true is asserted by the stub.
    assert asked(stub, "POST", "/count") == [{"exact": True}]
    assert len(Searcher(server).similar("P_1", 2000)) == 1099


def test_a_collection_has_one_unnamed_euclidean_vector_and_an_index_on_each_field(stub, server):
    name = publish(make_points(12), "b", server).name
    (made,) = asked(stub, "PUT", f"/collections/{name}")
    assert made["vectors"]["size"] == 4
    assert made["vectors"]["distance"] == "Euclid"
    indexed = {body["field_name"]: body["field_schema"] for body in asked(stub, "PUT", "/index")}
    kinds = {str: "keyword", int: "integer", bool: "bool", float: "float"}
    assert indexed == {field: kinds[kind] for field, kind in FIELDS.items()}


def test_the_alias_moves_in_one_request(stub, server):
    first = publish(make_points(12, seed=1), "a", server)
    second = publish(make_points(12, seed=2), "b", server)
    search.rollback(server)
    create = [
        {"create_alias": {"collection_name": name, "alias_name": ALIAS}}
        for name in (first.name, second.name, first.name)
    ]
    delete = {"delete_alias": {"alias_name": ALIAS}}
    assert [body["actions"] for body in asked(stub, "POST", "/collections/aliases")] == [
        [create[0]],
        [delete, create[1]],
        [delete, create[2]],
    ]


def test_other_collections_on_the_server_are_left_alone(stub, server):
    for theirs in ("covers-of-books", "art"):
        stub.local.create_collection(theirs, vectors_config={})
    for seed in range(3):
        publish(make_points(12, seed=seed), "b", server, keep=1)
    there = {found.name for found in stub.local.get_collections().collections}
    assert there == {"covers-of-books", "art", *server.history()}
    assert server.names() == server.history()


def test_searching_needs_a_read_only_key_and_publishing_a_full_one(stub, server, tmp_path):
    publish(make_points(12), "b", server)
    reader = Server(stub.url, READ_ONLY, tmp_path / "publish.lock")
    searcher = Searcher(reader)
    assert searcher.similar("P_1", where={"year": (1950, None)})
    assert searcher.works("P_1")
    assert searcher.similar_many(["P_1", "P_2"])
    assert searcher.status().current.points == 12
    with pytest.raises(search.TrackNotFound, match="did you mean P_1"):
        searcher.similar("p_1")
    with pytest.raises(ServerRefused, match=r"refuses the key in QDRANT_API_KEY: .* a full one"):
        publish(make_points(13), "b", reader)
    assert searcher.status().current.points == 12
    reader.connection.client.close()


@pytest.mark.parametrize("key", [None, "wrong-s3cret"])
def test_a_missing_or_wrong_key_is_said_and_never_shown(stub, tmp_path, key):
    server = Server(stub.url, key, tmp_path / "publish.lock")
    words = "refuses the key in QDRANT_API_KEY" if key else "refuses a request without a key"
    with pytest.raises(ServerRefused, match=f"{stub.url} {words}: set QDRANT_API_KEY") as raised:
        Searcher(server).similar("P_1")
    shown = f"{server!r} {raised.value} {raised.value.__cause__!r} {raised.value.__cause__}"
    assert "s3cret" not in shown
    server.connection.client.close()


def test_a_server_that_is_not_there_is_named_without_its_password(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Server(f"http://user:s3cret@127.0.0.1:{port}", None, tmp_path / "publish.lock")
    words = rf"No Qdrant server answers at http://127\.0\.0\.1:{port} .* correct QDRANT_URL"
    for ask in (
        lambda: Searcher(server).similar("P_1"),
        lambda: Searcher(server).status(),
        lambda: publish(make_points(12), "b", server),
    ):
        with pytest.raises(ServerUnreachable, match=words) as raised:
            ask()
        assert "s3cret" not in str(raised.value)


def test_a_server_that_goes_away_and_comes_back_is_found_again(stub, server):
    publish(make_points(12), "b", server)
    searcher = Searcher(server)
    answer = searcher.similar("P_1")
    stub.fail_next = 1
    with pytest.raises(SearchError, match=rf"{stub.url} answers 503 \(not now\)"):
        searcher.similar("P_1")
    assert searcher.similar("P_1") == answer


def test_an_upload_is_tried_again_later_and_one_that_fails_for_good_is_not_published(
    stub, server, monkeypatch
):
    old = publish(make_points(12), "b", server)
    slept = []
    monkeypatch.setattr("search.connection.sleep", slept.append)
    route = stub.route
    fail = {"times": 2, "why": BusyError("the disk is slow")}

    def falter(method, path, body, query):
        if path.endswith("/points") and method == "PUT" and fail["times"]:
            fail["times"] -= 1
            raise fail["why"]
        return route(method, path, body, query)

    monkeypatch.setattr(stub, "route", falter)
    assert publish(make_points(13, seed=1), "b", server).points == 13
    assert slept == [0.5, 1.0]
    fail["times"] = 99
    with pytest.raises(SearchError, match=r"answers 503 \(the disk is slow\)"):
        publish(make_points(14, seed=2), "b", server)
    assert slept[2:] == list(PAUSES)
    fail["why"] = ValueError("such points can't be")
    with pytest.raises(SearchError, match=r"answers 400 \(such points can't be\)"):
        publish(make_points(14, seed=2), "b", server)
    assert len(slept) == 2 + len(PAUSES)  # asking again wouldn't help
    assert server.history()[1:] == [old.name]
    assert len(Searcher(server).similar("P_1", 100)) == 12


def test_another_version_of_the_server_is_refused(tmp_path):
    stub = ContractStub(version="1.12.3")
    server = Server(stub.url, None, tmp_path / "publish.lock")
    with pytest.raises(SearchError, match=r"is version 1\.12\.3, which qdrant-client 1\.\d+"):
        Searcher(server).similar("P_1")
    stub.close()


def test_what_is_no_qdrant_is_said(tmp_path):
    class Other(ContractStub):
        def answer(self, *args):
            return 200, ["something else"]

    stub = Other()
    server = Server(stub.url, None, tmp_path / "publish.lock")
    with pytest.raises(ServerUnreachable, match="No Qdrant server answers at"):
        Searcher(server).similar("P_1")
    stub.close()


def test_a_collection_pruned_between_two_requests_is_asked_again_as_the_new_one(
    stub, server, monkeypatch, tmp_path
):
    publish(make_points(12, seed=1), "old", server)
    publisher = Server(stub.url, KEY, tmp_path / "publish.lock")
    new = make_points(20, seed=2)
    route = stub.route

    def overtake(method, path, body, query):
        if path.endswith("/query/batch"):
            monkeypatch.setattr(stub, "route", route)
            stub.lock.release()
            publish(new, "new", publisher, keep=1)
            stub.lock.acquire()
        return route(method, path, body, query)

    searcher = Searcher(server)
    assert len(searcher.similar("P_1", 100)) == 11
    monkeypatch.setattr(stub, "route", overtake)
    assert len(searcher.similar("P_1", 100)) == 19
    publisher.connection.client.close()


def test_collections_that_are_replaced_all_the_time_are_given_up_on(stub, server, monkeypatch):
    publish(make_points(12), "b", server)
    route = stub.route

    def gone(method, path, body, query):
        if path.endswith("/query/batch"):
            raise ValueError("Collection x not found")
        return route(method, path, body, query)

    monkeypatch.setattr(stub, "route", gone)
    with pytest.raises(SearchError, match="replaced faster than they can be searched"):
        Searcher(server).similar("P_1")


def test_the_environment_selects_the_server(stub, monkeypatch, tmp_path):
    monkeypatch.setenv("COVERS_HOME", str(tmp_path))
    monkeypatch.setenv("QDRANT_URL", stub.url)
    monkeypatch.setenv("QDRANT_API_KEY", READ_ONLY)
    with pytest.raises(NoCollection, match=f"no collection 'covers' on .* {stub.url} yet"):
        search.similar("P_1")
    assert search.status().location == stub.url
    monkeypatch.setenv("QDRANT_API_KEY", KEY)
    publish(make_points(12), "b", search.connect())
    assert len(search.similar("P_1", 100)) == 11
    with pytest.raises(PublishError, match="no earlier collection"):
        search.rollback(search.connect())


@pytest.fixture
def certified(tmp_path):
    """A server with a certificate that only `ca.pem` vouches for."""
    key, certificate = make_certificate()
    (tmp_path / "ca.pem").write_bytes(certificate)
    (tmp_path / "key.pem").write_bytes(key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "ca.pem", tmp_path / "key.pem")
    stub = ContractStub(KEY, READ_ONLY, tls=context)
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
    with pytest.raises(ServerUnreachable, match=r"doesn't trust .* set QDRANT_CA_CERT") as raised:
        publish(make_points(12), "b", stranger)
    assert "s3cret" not in str(raised.value)
    assert stub.requests == []  # and so the key wasn't sent
    monkeypatch.setenv("QDRANT_CA_CERT", str(tmp_path / "ca.pem"))
    server = search.connect()
    publish(make_points(12), "b", server)
    assert grpc.calls == ["CollectionExists", "Upsert"]
    assert len(Searcher(server).similar("P_1", 20)) == 11
    server.close()
    stranger.close()


def test_no_secret_is_shown_whatever_is_printed(stub, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("search.connection.sleep", lambda seconds: None)
    url = stub.url.replace("http://", "http://user:pass-s3cret@")
    server = Server(url, READ_ONLY, tmp_path / "publish.lock", grpc_port=9)
    with caplog.at_level("DEBUG"):
        for ask in (
            lambda: publish(make_points(12), "b", server),
            lambda: server._upload("covers-x", [range(1)], lambda i: {}),
            lambda: Searcher(server).similar("P_1"),
        ):
            with pytest.raises((SearchError, ValueError)) as raised:
                ask()
            assert "s3cret" not in "".join(traceback.format_exception(raised.value))
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("search")]
    assert "s3cret" not in f"{server!r} {server.location} {ours}"
    server.close()
