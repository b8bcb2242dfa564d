"""A loopback stand-in for the few requests `search.engines.server.server` makes of a Qdrant server.

It is no Qdrant: each request body is validated by the client's own models, then answered by the
client's local mode. So the real client, its sockets, keys, retries and errors run, and what the
server itself would make of the requests is left to the tests marked `server`.
"""

import json
import re
import ssl
import threading
import warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from qdrant_client import QdrantClient
from qdrant_client.http import models

READING = {"GET", "POST"}

#: The keys of the stand-in that most tests use.
KEY, READ_ONLY_KEY = "full-s3cret", "read-0nly-s3cret"


class Listening(ThreadingHTTPServer):
    """Takes as many connections at a time as there are indexes to make; 5 by itself."""

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
        self.fail_next = 0  # so many requests are answered by 503
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
            reads = method == "GET" or path.endswith(
                (
                    "/points",
                    "/query",
                    "/query/batch",
                    "/count",
                    "/scroll",
                    "/facet",
                    "/pairs",
                    "/offsets",
                )
            )
            if key is not None and key == self.read_only_key and not (method in READING and reads):
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
        if (method, path) == ("GET", "/collections"):
            return dump(self.local.get_collections())
        if (method, path) == ("GET", "/aliases"):
            return dump(self.local.get_aliases())
        if (method, path) == ("POST", "/collections/aliases"):
            asked = models.ChangeAliasesOperation.model_validate_json(body)
            return self.local.update_collection_aliases(asked.actions)
        name, rest = re.fullmatch(r"/collections/([^/]+)(.*)", path).groups()
        operation = f"{method} {rest}"
        if operation == "GET ":
            return dump(self.local.get_collection(name))
        if operation == "GET /exists":
            aliases = [alias.alias_name for alias in self.local.get_aliases().aliases]
            return {"exists": self.local.collection_exists(name) or name in aliases}
        if operation == "DELETE ":
            found = self.local.collection_exists(name)
            self.local.delete_collection(name)
            return found
        if operation == "PUT ":
            asked = models.CreateCollection.model_validate_json(body)
            return self.local.create_collection(
                name,
                vectors_config=asked.vectors,
                hnsw_config=asked.hnsw_config,
                metadata=asked.metadata,
            )
        if operation == "PATCH ":
            asked = models.UpdateCollection.model_validate_json(body)
            return self.local.update_collection(name, metadata=asked.metadata or {})
        if operation == "PUT /index":
            asked = models.CreateFieldIndex.model_validate_json(body)
            return dump(self.local.create_payload_index(name, asked.field_name, asked.field_schema))
        if operation == "PUT /points":
            asked = models.PointsList.model_validate_json(body)
            assert query["wait"] == ["true"]
            return dump(self.local.upsert(name, asked.points))
        if operation == "POST /points/delete":
            asked = models.PointIdsList.model_validate_json(body)
            assert query["wait"] == ["true"]
            return dump(self.local.delete(name, asked))
        if operation == "POST /points/payload/delete":
            asked = models.DeletePayload.model_validate_json(body)
            assert query["wait"] == ["true"]
            there = self.local.retrieve(name, asked.points, with_payload=False)
            if len(there) < len(asked.points):  # which local mode lets pass
                raise ValueError("No point with such an id")
            return dump(self.local.delete_payload(name, asked.keys, asked.points))
        if operation == "POST /points":
            asked = models.PointRequest.model_validate_json(body)
            records = self.local.retrieve(
                name, asked.ids, with_payload=asked.with_payload, with_vectors=asked.with_vector
            )
            return [dump(record) for record in records]
        if operation == "POST /points/count":
            asked = models.CountRequest.model_validate_json(body)
            return dump(self.local.count(name, asked.filter, exact=asked.exact))
        if operation == "POST /points/scroll":
            asked = models.ScrollRequest.model_validate_json(body)
            records, following = self.local.scroll(
                name,
                scroll_filter=asked.filter,
                limit=asked.limit or 10,
                order_by=asked.order_by,
                offset=asked.offset,
                with_payload=asked.with_payload,
                with_vectors=asked.with_vector or False,
            )
            return {"points": [dump(record) for record in records], "next_page_offset": following}
        if operation == "POST /points/batch":
            asked = models.UpdateOperations.model_validate_json(body)
            assert query["wait"] == ["true"]
            return [dump(each) for each in self.local.batch_update_points(name, asked.operations)]
        if operation == "POST /facet":
            asked = models.FacetRequest.model_validate_json(body)
            return dump(self.local.facet(name, asked.key, asked.filter, asked.limit or 10))
        if operation in ("POST /points/search/matrix/pairs", "POST /points/search/matrix/offsets"):
            asked = models.SearchMatrixRequest.model_validate_json(body)
            kind = operation.rpartition("/")[2]
            search = getattr(self.local, f"search_matrix_{kind}")
            return dump(search(name, asked.filter, asked.limit or 3, asked.sample or 10))
        if operation == "POST /points/query":
            asked = models.QueryRequest.model_validate_json(body)
            return dump(self.local.query_batch_points(name, [asked])[0])
        if operation == "POST /points/query/batch":
            asked = models.QueryRequestBatch.model_validate_json(body)
            return [dump(found) for found in self.local.query_batch_points(name, asked.searches)]
        raise ValueError(f"{method} {path} is not in the contract")


def dump(model: Any) -> Any:
    return json.loads(model.model_dump_json())


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
