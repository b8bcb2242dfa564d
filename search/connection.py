"""The way to a Qdrant server: connections by HTTP and gRPC, and what fails on it as a sentence."""

import contextlib
import importlib.metadata
import logging
import os
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlsplit

from search.errors import (
    CollectionGone,
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

#: Seconds that a snapshot may take to be made, sent, or taken in.
SNAPSHOT_TIMEOUT = 3600

#: Seconds that the server's gRPC port has to answer; a firewall may swallow what is sent there.
GRPC_WAIT = 2.0

#: Seconds to wait before an upload that failed is tried again: half a minute in all, which is a
#: server's restart.
PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)

#: What gRPC's refusals would be over HTTP.
HTTP_STATUS = {
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "INVALID_ARGUMENT": 400,
    "RESOURCE_EXHAUSTED": 429,
}


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
        Of the same host. What is many vectors goes there if it answers, else as JSON too.
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

    @property
    def client(self) -> "QdrantClient":
        """The connection of this process, made at its first use."""
        if self._connected is None or self._connected[0] != os.getpid():
            self._connected = (os.getpid(), self._connect())
        return self._connected[1]

    def _connect(self) -> "QdrantClient":
        from qdrant_client.common.version_check import is_compatible

        client = self._make_client(TIMEOUT)
        with self.asking():
            theirs = client.info().version
        ours = importlib.metadata.version("qdrant-client")
        if not is_compatible(ours, theirs):
            raise SearchError(
                f"The Qdrant server at {self.location} is version {theirs}, which qdrant-client "
                f"{ours} doesn't understand: run a server at most one minor version away."
            )
        return client

    def _make_client(self, timeout: int, **more: Any) -> "QdrantClient":
        from qdrant_client import QdrantClient

        if self._ca_cert is not None:
            more["verify"] = ssl.create_default_context(cafile=self._ca_cert)
        return QdrantClient(
            url=self._url,
            # As a plain header: given as api_key, the client warns of every http address, and
            # inside a private network http is what there is.
            headers={"api-key": self._api_key} if self._api_key else None,
            timeout=timeout,
            # It would check in a thread, and warn; we want a sentence.
            check_compatibility=False,
            **more,
        )

    @contextlib.contextmanager
    def for_snapshots(self) -> Iterator["QdrantClient"]:
        """Give a connection whose requests may take as long as a snapshot does."""
        client = self._make_client(SNAPSHOT_TIMEOUT)
        try:
            yield client
        finally:
            client.close()

    def for_many(self, name: str) -> "QdrantClient":
        """Return the connection for many vectors: by gRPC, where the server takes it."""
        if self._fast is None or self._fast[0] != os.getpid():
            self._fast = (os.getpid(), self._connect_for_many(name))
        return self._fast[1]

    def _connect_for_many(self, name: str) -> "QdrantClient":
        import grpc
        from qdrant_client import grpc as messages

        if self._grpc_port is None:
            return self.client
        options = {}
        if self._ca_cert is not None:
            options["root_certificates"] = self._ca_cert.read_bytes()
        client = self._make_client(
            TIMEOUT, prefer_grpc=True, grpc_port=self._grpc_port, grpc_options=options
        )
        # Another Qdrant may listen there: it is ours if it has the collection.
        request = messages.CollectionExistsRequest(collection_name=name)
        try:
            answer = client.grpc_collections.CollectionExists(request, timeout=GRPC_WAIT)
            if answer.result.exists:
                return client
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
        return self.client

    def close(self) -> None:
        """Close the connections of this process; asking again makes new ones."""
        for connection in (self._connected, self._fast):
            if connection is not None and connection[0] == os.getpid():
                connection[1].close()
        self._connected = self._fast = None

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        """Put what a request can fail of into a sentence, without the key."""
        import grpc
        from qdrant_client.common.client_exceptions import QdrantException
        from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

        try:
            yield
        except ResponseHandlingException as error:
            raise self._unreachable(error.source) from error
        except UnexpectedResponse as error:
            raise self._refusal(error.status_code or 500, _reason(error)) from error
        except QdrantException as error:
            raise ServerBusy(
                f"The Qdrant server at {self.location} asks to be left alone ({error}): try later."
            ) from error
        except grpc.RpcError as error:
            code, words = error.code(), error.details()
            if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                raise self._unreachable(words) from error
            raise self._refusal(HTTP_STATUS.get(code.name, 500), f"{code.name}: {words}") from error

    def _unreachable(self, why: object) -> SearchError:
        if "CERTIFICATE_VERIFY_FAILED" in str(why):
            return ServerUnreachable(
                f"This machine doesn't trust the certificate of {self.location} ({why}): set "
                "QDRANT_CA_CERT to the PEM file of the authority that signed it."
            )
        return ServerUnreachable(
            f"No Qdrant server answers at {self.location} ({why}): start it, or "
            "correct QDRANT_URL; without QDRANT_URL the embedded engine is used."
        )

    def _refusal(self, status: int, reason: str) -> SearchError:
        if status in (401, 403):
            key = "the key in QDRANT_API_KEY" if self._api_key else "a request without a key"
            return ServerRefused(
                f"The Qdrant server at {self.location} refuses {key}: set QDRANT_API_KEY to "
                "one that may do this (a read-only key to search, a full one to publish)."
            )
        if status == 404:
            return CollectionGone(
                f"The Qdrant server at {self.location} has no such collection any more."
            )
        kind = ServerBusy if status >= 500 or status == 429 else SearchError
        return kind(f"The Qdrant server at {self.location} answers {reason}: its log says more.")

    def patiently(self, ask: Callable[[], Answer]) -> Answer:
        """Ask for something that may be asked for twice, again if the server is busy or away."""
        for pause in PAUSES:
            try:
                with self.asking():
                    return ask()
            except (ServerBusy, ServerUnreachable) as error:
                logger.info("waiting %g s: %s", pause, error)
                sleep(pause)
        with self.asking():
            return ask()

    def metadata(self, name: str) -> dict[str, Any]:
        """Return what a publication noted in a collection; nothing if it isn't ours, or there."""
        try:
            with self.asking():
                metadata = self.client.get_collection(name).config.metadata or {}
        except CollectionGone:
            return {}
        return metadata if "covers" in metadata else {}

    def scroll(
        self,
        name: str,
        limit: int,
        *,
        with_payload: bool | list[str] = False,
        with_vectors: bool = False,
    ) -> Iterator[Any]:
        """Go through all points, so many a request."""
        start: Any = None
        while True:
            with self.asking():
                records, start = self.client.scroll(
                    name,
                    limit=limit,
                    offset=start,
                    with_payload=with_payload,
                    with_vectors=with_vectors,
                )
            yield from records
            if start is None:
                return

    def download(self, name: str, snapshot: str, path: Path) -> None:
        """Fetch a snapshot of a collection into a file."""
        import httpx  # which is what the client sends its requests with; it can't stream an answer

        trusted: ssl.SSLContext | bool = True
        if self._ca_cert is not None:
            trusted = ssl.create_default_context(cafile=self._ca_cert)
        host = self.client.http.client.host.rstrip("/")
        url = f"{host}/collections/{quote(name, safe='')}/snapshots/{quote(snapshot, safe='')}"
        try:
            with (
                httpx.stream(
                    "GET",
                    url,
                    headers={"api-key": self._api_key} if self._api_key else None,
                    timeout=SNAPSHOT_TIMEOUT,
                    verify=trusted,
                ) as answer,
                path.open("wb") as file,
            ):
                if answer.status_code != 200:
                    reason = f"{answer.status_code} ({answer.reason_phrase})"
                    raise self._refusal(answer.status_code, reason)
                for part in answer.iter_bytes():
                    file.write(part)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error


def _reason(error: Any) -> str:
    """The server's own words, from the body of an error response."""
    try:
        words = error.structured()["status"]["error"]
    except (ValueError, KeyError, TypeError):
        words = error.reason_phrase
    return f"{error.status_code} ({words})"
