"""A loopback stand-in for a Qdrant server, for the few requests that our engine makes of one.

Each request body is validated by the client's own models, then answered by the client's local mode.
So the real client, its sockets, keys, retries and errors run. What Qdrant itself makes of the
requests is left to the tests marked `server`.
"""

import json
import re
import ssl
import threading
import warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pydantic_core import to_jsonable_python
from qdrant_client import QdrantClient
from qdrant_client.http import models

#: The POST requests that a read-only key may make.
READS = re.compile(r"(/points|/query|/query/batch|/count|/scroll|/facet|/pairs|/offsets)$")

#: Requests that are answered when they are applied, and not before.
WAITED_FOR = re.compile(r"PUT .*/points$|/points/(payload/)?delete$|/points/batch$")

#: The keys of the stand-in that most tests use.
KEY, READ_ONLY_KEY = "full-s3cret", "read-0nly-s3cret"


class Listening(ThreadingHTTPServer):
    """Accept as many connections at a time as there are indexes to make; the default is 5."""

    request_queue_size = 64
    daemon_threads = True


class BusyError(Exception):
    """Answered by 503."""


class ContractStub:
    """Serves on a free port of 127.0.0.1 until closed; `requests` lists what was asked."""

    def __init__(
        self,
        api_key: str | None = None,
        read_only_key: str | None = None,
        version: str = "1.19.0",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.local = QdrantClient(":memory:")
        self.keys = {api_key, read_only_key} - {None}
        self.read_only_key = read_only_key
        self.version = version
        self.requests: list[tuple[str, str, Any]] = []
        self.fail_next = 0  # the number of requests to answer by 503
        self.lock = threading.Lock()
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                size = int(self.headers.get("Content-Length") or 0)
                sent = self.rfile.read(size)
                status, content = stub.answer(
                    self.command, self.path, sent, self.headers.get("api-key")
                )
                body = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = answer  # noqa: N815

            def log_message(self, *args: object) -> None:
                pass

        self.http = Listening(("127.0.0.1", 0), Handler)
        if tls is not None:
            self.http.socket = tls.wrap_socket(self.http.socket, server_side=True)
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.local.close()

    def answer(self, method: str, target: str, body: bytes, key: str | None) -> tuple[int, Any]:
        path, query = urlsplit(target).path, parse_qs(urlsplit(target).query)
        with self.lock, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that local mode has no payload indexes
            self.requests.append((method, target, json.loads(body) if body else None))
            if path == "/":
                return 200, {"title": "contract stub", "version": self.version}
            if self.keys and key not in self.keys:
                return 401, {"status": {"error": "Must provide an API key or an Authorization"}}
            reads = method == "GET" or (method == "POST" and READS.search(path))
            if key is not None and key == self.read_only_key and not reads:
                return 403, {"status": {"error": "Forbidden: Global manage access is required"}}
            if self.fail_next:
                self.fail_next -= 1
                return 503, {"status": {"error": "not now"}}
            try:
                result = self.route(method, path, body, query)
            except BusyError as error:
                return 503, {"status": {"error": str(error)}}
            except LookupError:
                raise
            except ValueError as error:  # which is what local mode raises, and pydantic
                status = 404 if "not found" in str(error) else 400
                status = 409 if "already exists" in str(error) else status
                return status, {"status": {"error": str(error)}}
            return 200, {"result": result, "status": "ok", "time": 0.0}

    def route(self, method: str, path: str, body: bytes, query: dict[str, list[str]]) -> Any:
        """Answer a request by JSON's values."""
        if WAITED_FOR.search(f"{method} {path}"):
            assert query["wait"] == ["true"]
        if path == "/aliases":
            answer = self.local.get_aliases()
        elif path == "/collections":
            answer = self.local.get_collections()
        elif path == "/collections/aliases":
            asked = models.ChangeAliasesOperation.model_validate_json(body)
            answer = self.local.update_collection_aliases(asked.actions)
        else:
            name, rest = re.fullmatch(r"/collections/([^/]+)(.*)", path).groups()
            answer = self._of_collection(f"{method} {rest}", name, body)
        return to_jsonable_python(answer)

    def _of_collection(self, operation: str, name: str, body: bytes) -> Any:
        local = self.local
        if operation == "GET ":
            return local.get_collection(name)
        if operation == "GET /exists":
            aliases = [alias.alias_name for alias in local.get_aliases().aliases]
            return {"exists": local.collection_exists(name) or name in aliases}
        if operation == "DELETE ":
            return local.collection_exists(name) and local.delete_collection(name)
        if operation not in MODELS:
            raise ValueError(f"{operation} {name} is not in the contract")
        asked = MODELS[operation].model_validate_json(body)
        match operation:
            case "PUT ":
                config = {"hnsw_config": asked.hnsw_config, "metadata": asked.metadata}
                return local.create_collection(name, asked.vectors, **config)
            case "PATCH ":
                return local.update_collection(name, metadata=asked.metadata or {})
            case "PUT /index":
                return local.create_payload_index(name, asked.field_name, asked.field_schema)
            case "PUT /points":
                return local.upsert(name, asked.points)
            case "POST /points":
                return local.retrieve(name, asked.ids, asked.with_payload, asked.with_vector)
            case "POST /points/delete":
                return local.delete(name, asked)
            case "POST /points/payload/delete":
                there = local.retrieve(name, asked.points, with_payload=False)
                if len(there) < len(asked.points):  # which local mode lets pass
                    raise ValueError("No point with such an id")
                return local.delete_payload(name, asked.keys, asked.points)
            case "POST /points/batch":
                return local.batch_update_points(name, asked.operations)
            case "POST /points/count":
                return local.count(name, asked.filter, exact=asked.exact)
            case "POST /points/scroll":
                limit, vectors = asked.limit or 10, asked.with_vector or False
                given = asked.order_by, asked.offset, asked.with_payload, vectors
                records, following = local.scroll(name, asked.filter, limit, *given)
                return {"points": records, "next_page_offset": following}
            case "POST /facet":
                return local.facet(name, asked.key, asked.filter, asked.limit or 10)
            case "POST /points/search/matrix/pairs":
                sizes = asked.limit or 3, asked.sample or 10
                return local.search_matrix_pairs(name, asked.filter, *sizes)
            case "POST /points/search/matrix/offsets":
                sizes = asked.limit or 3, asked.sample or 10
                return local.search_matrix_offsets(name, asked.filter, *sizes)
            case "POST /points/query":
                return local.query_batch_points(name, [asked])[0]
        return local.query_batch_points(name, asked.searches)


#: The models of requests, by method and path in a collection.
MODELS = {
    "PUT ": models.CreateCollection,
    "PATCH ": models.UpdateCollection,
    "PUT /index": models.CreateFieldIndex,
    "PUT /points": models.PointsList,
    "POST /points": models.PointRequest,
    "POST /points/delete": models.PointIdsList,
    "POST /points/payload/delete": models.DeletePayload,
    "POST /points/batch": models.UpdateOperations,
    "POST /points/count": models.CountRequest,
    "POST /points/scroll": models.ScrollRequest,
    "POST /facet": models.FacetRequest,
    "POST /points/search/matrix/pairs": models.SearchMatrixRequest,
    "POST /points/search/matrix/offsets": models.SearchMatrixRequest,
    "POST /points/query": models.QueryRequest,
    "POST /points/query/batch": models.QueryRequestBatch,
}


def asked(stub: ContractStub, method: str, ending: str) -> list:
    return [
        body
        for asked_method, target, body in stub.requests
        if asked_method == method and target.split("?")[0].endswith(ending)
    ]


#: What a server answers if nodes of its cluster are down.
SHARDS = (
    "Service internal error: 2 out of 3 shards failed to apply operation. First error captured: "
    + "Failed to connect to http://10.0.0.3:6335/, " * 9
)
