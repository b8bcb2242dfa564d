"""The connection to a Qdrant server.

Every request goes through `Connection.ask` or `Connection.ask_fast`. Both repeat a request while
the server is busy or away: for a few seconds if a user waits for the answer, and for half a minute
in a publication (see `search.engines.patience`). A request may therefore be executed twice, because
the first answer may have been lost. Callers make sure that this does no harm.
"""

import importlib.metadata
import logging
import os
import ssl
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from search.engines.patience import is_patient
from search.engines.server.failures import AskedServer
from search.errors import CollectionGone, SearchError

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")

#: Points in one request, in either direction.
BATCH_POINTS = 512

#: Seconds that a request may take. A batch is confirmed only when it is applied.
TIMEOUT = 60

#: A gRPC channel looks for a server that went away at least every second. Its own default is to
#: wait up to two minutes.
RECONNECTING = {"grpc.initial_reconnect_backoff_ms": 200, "grpc.max_reconnect_backoff_ms": 1000}

#: Seconds between the attempts of a request: 2.5 s in all, because a user waits ...
PAUSES = (0.1, 0.2, 0.4, 0.8, 1.0)

#: ... and half a minute in a publication, which is as long as a server takes to restart.
PATIENT_PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)


class Connection:
    """A Qdrant server, as this process reaches it.

    Threads may share a connection. A forked child makes its own.

    Parameters
    ----------
    url : str
        Such as http://localhost:6333.
    api_key : str or None
        A read-only key is enough for searching.
    grpc_port : int, optional
        Port of the same host for queries and uploads. Without it they go by HTTP, as JSON.
    ca_cert : Path, optional
        PEM file of the authority that signed the server's certificate, instead of the well-known
        authorities.
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
        #: By process, and whether it uses gRPC.
        self._clients: dict[tuple[int, bool], QdrantClient] = {}

    @property
    def location(self) -> str:
        """The URL, without a user and password."""
        parts = urlsplit(self._url)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()

    def ask(self, request: Callable[["QdrantClient"], Answer]) -> Answer:
        """Send a request by HTTP.

        Parameters
        ----------
        request : callable
            Sends the request with the client that it is given. It may be called several times.

        Raises
        ------
        SearchError
            Of the kind that tells what failed.
        """
        return self._try(lambda: request(self._client()))

    def ask_fast(self, request: Callable[["QdrantClient"], Answer]) -> Answer:
        """Send a request by gRPC if a port is set, and by HTTP otherwise; see `ask`."""
        return self._try(lambda: request(self._client(fast=self._grpc_port is not None)))

    def _try(self, request: Callable[[], Answer]) -> Answer:
        patient = is_patient()
        pauses = PATIENT_PAUSES if patient else PAUSES
        remaining, end = iter(pauses), monotonic() + sum(pauses)
        server = AskedServer(self.location, self._api_key is not None, self._grpc_port, TIMEOUT)
        while True:
            try:
                return request()
            except SearchError:
                raise
            except Exception as error:
                explained = server.explain(error)
                if explained is None:
                    raise
                failure, is_transient = explained
                pause = next(remaining, None)
                # A user who has waited for a time-out does not wait for another one.
                is_late = not patient and monotonic() > end
                if pause is None or is_late or not is_transient:
                    raise failure from error
            logger.info("waiting %g s: %s", pause, failure)
            sleep(pause)

    def _client(self, fast: bool = False) -> "QdrantClient":
        """Return a client of this process, made at its first use."""
        key = os.getpid(), fast
        if key not in self._clients:
            self._clients[key] = self._connect_by_grpc() if fast else self._connect()
        return self._clients[key]

    def _connect(self) -> "QdrantClient":
        from qdrant_client.common.version_check import is_compatible

        client = self._make_client()
        theirs = client.info().version
        ours = importlib.metadata.version("qdrant-client")
        if not is_compatible(ours, theirs):
            raise SearchError(
                f"The Qdrant server at {self.location} is version {theirs}, which qdrant-client "
                f"{ours} does not understand: run a server at most one minor version away."
            )
        return client

    def _connect_by_grpc(self) -> "QdrantClient":
        self._client()  # checks the version
        options: dict[str, Any] = dict(RECONNECTING)
        if self._ca_cert is not None:
            options["root_certificates"] = self._ca_cert.read_bytes()
        return self._make_client(prefer_grpc=True, grpc_port=self._grpc_port, grpc_options=options)

    def _make_client(self, **more: Any) -> "QdrantClient":
        from qdrant_client import QdrantClient

        return QdrantClient(
            url=self._url,
            # As a plain header: if it is given as api_key, the client warns about every http
            # address, and inside a private network http is what there is.
            headers={"api-key": self._api_key} if self._api_key else None,
            timeout=TIMEOUT,
            verify=self._certificates,
            # The client would check in a thread and warn; `_connect` raises an error instead.
            check_compatibility=False,
            **more,
        )

    @cached_property
    def _certificates(self) -> ssl.SSLContext:
        """The trusted certificates, parsed once; none if nothing is encrypted."""
        if self._ca_cert is not None:
            return ssl.create_default_context(cafile=self._ca_cert)
        if self._url.startswith("https://"):
            import httpx  # the client sends its requests with it

            return httpx.create_ssl_context()
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    def close(self) -> None:
        """Close the connections of this process; the next request makes new ones."""
        for (process, _), client in self._clients.items():
            if process == os.getpid():
                client.close()
        self._clients.clear()

    def metadata(self, name: str) -> dict[str, Any] | None:
        """Return the metadata of the collection of a name or alias; None if there is none."""
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
