"""The way to a Qdrant server: connections by HTTP and gRPC, and what fails on it as a sentence.

Every request goes through `Connection.ask` or `Connection.ask_fast`. Either sends it again while
the server is busy or away, for a few seconds where a user waits for the answer, and for half a
minute in a publication (`search.engines.patience`). A request may so be executed twice,
since the
first answer may have been lost: whoever asks sees to it that this does no harm.
"""

import importlib.metadata
import json
import logging
import os
import re
import ssl
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from search.engines.patience import is_patient
from search.errors import (
    CollectionGone,
    NoRoom,
    SearchError,
    ServerBusy,
    ServerRefused,
    ServerUnreachable,
)

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")

#: Points in one request, up or down.
BATCH = 512

#: Seconds that a request may take; a batch is confirmed only when it is applied.
TIMEOUT = 60

#: Seconds that the server's gRPC port has to answer; a firewall may swallow what is sent there.
GRPC_WAIT = 2.0

#: A gRPC channel looks for a server that went away at least every second; by itself it would wait
#: up to two minutes.
RECONNECTING = {"grpc.initial_reconnect_backoff_ms": 200, "grpc.max_reconnect_backoff_ms": 1000}

#: Seconds between the tries of a request: 2.5 s in all, for a user waits ...
PAUSES = (0.1, 0.2, 0.4, 0.8, 1.0)

#: ... and half a minute in a publication, which is a server's restart.
PATIENT_PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)

#: What gRPC's refusals would be over HTTP; others are failures of the server, 500.
HTTP_STATUS = {
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "INVALID_ARGUMENT": 400,
    "ALREADY_EXISTS": 409,
    "DEADLINE_EXCEEDED": 408,
    "RESOURCE_EXHAUSTED": 429,
    "UNIMPLEMENTED": 501,
}

#: Characters of a server's own words that go into a sentence.
WORDS = 150

ABOUT_KEYS = re.compile(r"^forbidden:|api.?key|token|jwt|access|authoriz", re.IGNORECASE)
ABOUT_ROOM = re.compile(r"no space left|insufficient storage|disk.* full", re.IGNORECASE)
ABOUT_REPLICAS = re.compile(r"replica|shards? failed|\bpeer\b|consensus|consistency", re.IGNORECASE)
NODE = re.compile(r"https?://[^\s`'\",;)]+|\bpeer(?:_id)?[ :=]+\d+", re.IGNORECASE)


class Connection:
    """One Qdrant server, as this process reaches it.

    Safe to share between threads; a forked child makes its own connections.

    Parameters
    ----------
    url : str
        Like http://localhost:6333.
    api_key : str or None
        A read-only one is enough for searching.
    grpc_port : int, optional
        Of the same host. Queries and uploads go there if it answers, else as JSON like the rest.
    ca_cert : Path, optional
        PEM file of the authority that signed the server's certificate, instead of those known.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None,
        grpc_port: int | None = None,
        ca_cert: Path | None = None,
    ) -> None:
        self._url = url
        self._api_key = api_key
        self._grpc_port = grpc_port
        self._ca_cert = ca_cert
        self._connected: tuple[int, QdrantClient] | None = None
        self._fast: tuple[int, QdrantClient] | None = None

    @property
    def location(self) -> str:
        """The URL, without the user and password it may carry."""
        parts = urlsplit(self._url)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()

    def ask(self, request: Callable[["QdrantClient"], Answer]) -> Answer:
        """Send a request by HTTP.

        Parameters
        ----------
        request : callable
            Asks the client that it is given, and may do so again.

        Raises
        ------
        SearchError
            The kind that tells what failed.
        """
        return self._try(lambda: request(self._by_http()))

    def ask_fast(self, request: Callable[["QdrantClient"], Answer], name: str) -> Answer:
        """Send a request by gRPC, if the server answers there, and else by HTTP.

        Parameters
        ----------
        request, SearchError
            As for `ask`.
        name : str
            Of a collection that the server has. By that the gRPC port is known to be its own.
        """
        return self._try(lambda: request(self._by_grpc(name)))

    def _try(self, request: Callable[[], Answer]) -> Answer:
        patient = is_patient()
        pauses = PATIENT_PAUSES if patient else PAUSES
        left, end = iter(pauses), monotonic() + sum(pauses)
        while True:
            try:
                return request()
            except SearchError:
                raise
            except Exception as error:
                told, may_pass = self._tell(error)
                if told is None:
                    raise
                pause = next(left, None)
                # A user who has waited for a time-out doesn't wait for another one.
                late = not patient and monotonic() > end
                if pause is None or late or not may_pass:
                    raise told from error
            logger.info("waiting %g s: %s", pause, told)
            sleep(pause)

    def _by_http(self) -> "QdrantClient":
        """Return the connection of this process, made at its first use."""
        if self._connected is None or self._connected[0] != os.getpid():
            self._connected = (os.getpid(), self._connect())
        return self._connected[1]

    def _by_grpc(self, name: str) -> "QdrantClient":
        """Return the connection by gRPC; where there is none, that by HTTP."""
        if self._fast is None or self._fast[0] != os.getpid():
            self._fast = (os.getpid(), self._connect_by_grpc(name))
        return self._fast[1]

    def _connect(self) -> "QdrantClient":
        from qdrant_client.common.version_check import is_compatible

        client = self._make_client()
        theirs = client.info().version
        ours = importlib.metadata.version("qdrant-client")
        if not is_compatible(ours, theirs):
            raise SearchError(
                f"The Qdrant server at {self.location} is version {theirs}, which qdrant-client "
                f"{ours} doesn't understand: run a server at most one minor version away."
            )
        return client

    def _connect_by_grpc(self, name: str) -> "QdrantClient":
        import grpc
        from qdrant_client import grpc as messages

        by_http = self._by_http()
        if self._grpc_port is None:
            return by_http
        options: dict[str, Any] = dict(RECONNECTING)
        if self._ca_cert is not None:
            options["root_certificates"] = self._ca_cert.read_bytes()
        client = self._make_client(
            prefer_grpc=True, grpc_port=self._grpc_port, grpc_options=options
        )
        # Another Qdrant may listen there: it is ours if it has the collection.
        request = messages.CollectionExistsRequest(collection_name=name)
        try:
            answer = client.grpc_collections.CollectionExists(request, timeout=GRPC_WAIT)
            if answer.result.exists:
                return client
            if not by_http.collection_exists(name):
                raise self._gone()  # which says nothing of the port
            why = f"it has no {name}"
        except grpc.RpcError as error:
            why = error.code().name.lower().replace("_", " ")
        client.close()
        logger.info(
            "port %d of %s doesn't answer as its gRPC port (%s), so vectors travel as JSON",
            self._grpc_port,
            urlsplit(self._url).hostname,
            why,
        )
        return by_http

    def _make_client(self, **more: Any) -> "QdrantClient":
        from qdrant_client import QdrantClient

        return QdrantClient(
            url=self._url,
            # As a plain header: given as api_key, the client warns of every http address, and
            # inside a private network http is what there is.
            headers={"api-key": self._api_key} if self._api_key else None,
            timeout=TIMEOUT,
            verify=self._certificates,
            # It would check in a thread, and warn; we want a sentence.
            check_compatibility=False,
            **more,
        )

    @cached_property
    def _certificates(self) -> ssl.SSLContext:
        """Those that are trusted, parsed once; none where nothing is encrypted."""
        if self._ca_cert is not None:
            return ssl.create_default_context(cafile=self._ca_cert)
        if self._url.startswith("https://"):
            import httpx  # which is what the client sends its requests with

            return httpx.create_ssl_context()
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    def close(self) -> None:
        """Close the connections of this process; asking again makes new ones."""
        for connection in (self._connected, self._fast):
            if connection is not None and connection[0] == os.getpid():
                connection[1].close()
        self._connected = self._fast = None

    def metadata(self, name: str) -> dict[str, Any] | None:
        """Return what was noted in a collection, named by itself or an alias; None without one."""
        try:
            found = self.ask(lambda client: client.get_collection(name))
        except CollectionGone:
            return None
        return found.config.metadata or {}

    def scroll(
        self,
        name: str,
        limit: int,
        *,
        with_payload: bool | list[str] = False,
        with_vectors: bool = False,
    ) -> Iterator[Any]:
        """Yield all points, `limit` per request."""
        start: Any = None
        while True:
            records, start = self.ask(
                lambda client, offset=start: client.scroll(  # type: ignore[misc]
                    name,
                    limit=limit,
                    offset=offset,
                    with_payload=with_payload,
                    with_vectors=with_vectors,
                )
            )
            yield from records
            if start is None:
                return

    def _tell(self, error: Exception) -> tuple[SearchError | None, bool]:
        """Put a failure into a sentence, without the key, and say whether it may pass by itself.

        None for what isn't a failure of a request.
        """
        import grpc
        import httpx
        from pydantic import ValidationError
        from qdrant_client.common.client_exceptions import QdrantException
        from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

        cause = error.source if isinstance(error, ResponseHandlingException) else error
        match cause:
            case UnexpectedResponse():
                return self._tell_status(cause.status_code or 500, *_words(cause))
            case QdrantException():  # a 429 that says when to come back
                return self._tell_status(429, str(cause))
            case grpc.RpcError() if cause.code() is not grpc.StatusCode.UNAVAILABLE:
                status = HTTP_STATUS.get(cause.code().name, 500)
                return self._tell_status(status, cause.details() or cause.code().name)
            case grpc.RpcError():
                return self._unreachable(cause.details()), True
            case httpx.TimeoutException() if not isinstance(cause, httpx.ConnectTimeout):
                return self._tell_status(408, f"no answer in {TIMEOUT} s")
            case httpx.TransportError() if "CERTIFICATE_VERIFY_FAILED" in str(cause):
                return self._untrusted(cause), False
            case httpx.TransportError():
                return self._unreachable(cause), True
            case json.JSONDecodeError() | UnicodeDecodeError():
                return self._not_understood("an answer is not JSON"), False
            # The client asserts that an answer has a result.
            case ValidationError() | AssertionError():
                return self._not_understood("an answer has another form"), False
        return None, False

    def _tell_status(
        self, status: int, words: str, from_qdrant: bool = True
    ) -> tuple[SearchError, bool]:
        here, said = f"The Qdrant server at {self.location}", _shortened(words)
        answers = f"{here} answers {status} ({said})"
        if status == 401 or (status == 403 and (not from_qdrant or ABOUT_KEYS.search(words))):
            key = "the key in QDRANT_API_KEY" if self._api_key else "a request without a key"
            return ServerRefused(
                f"{here} refuses {key}: set QDRANT_API_KEY to one that may do this (a read-only "
                "key to search, a full one to publish)."
            ), False
        if status == 403:
            return ServerRefused(
                f"{here} is locked ({said}): unlock it, and then do this again."
            ), False
        if status == 507 or ((status >= 500 or status == 429) and ABOUT_ROOM.search(words)):
            return NoRoom(
                f"There is no room on the Qdrant server at {self.location} ({said}): make room "
                "there, and then do this again."
            ), False
        if status >= 500 and ABOUT_REPLICAS.search(words):
            return ServerBusy(
                f"{answers}, so a node of its cluster{_node(words)} seems to be away: do this "
                "again when it is back; with QDRANT_REPLICAS=3 one of three may be away."
            ), True
        if status >= 500 or status in (408, 429):
            return ServerBusy(f"{answers}: do this again later; its log says more."), True
        if not from_qdrant:
            return self._not_understood(f"an answer is {status}, {said}"), False
        if status == 404:
            return self._gone(), False
        return SearchError(f"{answers}: its log says more."), False

    def _gone(self) -> SearchError:
        return CollectionGone(
            f"The Qdrant server at {self.location} has no such collection any more."
        )

    def _unreachable(self, why: object) -> SearchError:
        return ServerUnreachable(
            f"No Qdrant server answers at {self.location} ({_shortened(str(why))}): start it, or "
            "correct QDRANT_URL; without QDRANT_URL the embedded engine is used."
        )

    def _untrusted(self, why: object) -> SearchError:
        return ServerUnreachable(
            f"This machine doesn't trust the certificate of {self.location} ({why}): set "
            "QDRANT_CA_CERT to the PEM file of the authority that signed it."
        )

    def _not_understood(self, why: str) -> SearchError:
        ours = importlib.metadata.version("qdrant-client")
        return ServerUnreachable(
            f"No Qdrant server that qdrant-client {ours} understands answers at {self.location} "
            f"({why}): correct QDRANT_URL, or look at the proxy before it and at its version."
        )


def _words(error: Any) -> tuple[str, bool]:
    """Return what an error response says, and whether it is Qdrant that says it."""
    try:
        return str(error.structured()["status"]["error"]), True
    except (ValueError, KeyError, TypeError):
        return error.reason_phrase, False


def _shortened(words: str) -> str:
    words = " ".join(words.split()).rstrip(".")
    return words if len(words) <= WORDS else f"{words[:WORDS].rstrip()} …"


def _node(words: str) -> str:
    """Return the node that a server complains of, in brackets, if it names one."""
    found = NODE.search(words)
    return f" ({found[0]})" if found else ""
