"""The connection to a Qdrant server.

Every request goes through `Connection.ask`, which repeats it while the server is busy or away: for
a few seconds if a user waits for the answer, and for half a minute in a publication (see
`search.engines.patience`). A request may therefore be executed twice, because the first answer may
have been lost. Callers make sure that this does no harm.
"""

import importlib.metadata
import logging
import os
import ssl
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from time import monotonic, sleep
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
from qdrant_client import QdrantClient
from qdrant_client.common.version_check import is_compatible

from search.engines.patience import is_patient
from search.engines.server.failures import AskedServer
from search.errors import CollectionGone, SearchError

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

    Threads may share a connection. A forked child makes its own. The parameters are the settings of
    `search.settings`: without a port for gRPC, everything goes by HTTP.
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

    def ask(self, request: Callable[[QdrantClient], Answer], *, fast: bool = False) -> Answer:
        """Send a request, by gRPC if it should be `fast` and a port is set.

        The request is called with a client, several times if need be. Failures are raised as the
        `SearchError` that tells what failed.
        """
        patient = is_patient()
        pauses = PATIENT_PAUSES if patient else PAUSES
        remaining, end = iter(pauses), monotonic() + sum(pauses)
        server = AskedServer(self.location, self._api_key is not None, self._grpc_port, TIMEOUT)
        while True:
            try:
                return request(self._client(fast and self._grpc_port is not None))
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

    def _client(self, by_grpc: bool) -> QdrantClient:
        """Return a client of this process, made at its first use."""
        key = os.getpid(), by_grpc
        if key not in self._clients:
            if by_grpc:
                self._client(False)  # checks the version
                options: dict[str, Any] = dict(RECONNECTING)
                if self._ca_cert is not None:
                    options["root_certificates"] = self._ca_cert.read_bytes()
                client = self._make_client(
                    prefer_grpc=True, grpc_port=self._grpc_port, grpc_options=options
                )
            else:
                client = self._make_client()
                self._check_version(client)
            self._clients[key] = client
        return self._clients[key]

    def _make_client(self, **more: Any) -> QdrantClient:
        return QdrantClient(
            url=self._url,
            # As a plain header: if it is given as api_key, the client warns about every http
            # address, and inside a private network http is what there is.
            headers={"api-key": self._api_key} if self._api_key else None,
            timeout=TIMEOUT,
            verify=self._certificates,
            # The client would check in a thread and warn; `_check_version` raises an error.
            check_compatibility=False,
            **more,
        )

    def _check_version(self, client: QdrantClient) -> None:
        theirs, ours = client.info().version, importlib.metadata.version("qdrant-client")
        if not is_compatible(ours, theirs):
            raise SearchError(
                f"The Qdrant server at {self.location} is version {theirs}, which qdrant-client "
                f"{ours} does not understand: run a server at most one minor version away."
            )

    @cached_property
    def _certificates(self) -> ssl.SSLContext:
        """The trusted certificates, parsed once; none if nothing is encrypted."""
        if self._ca_cert is not None:
            return ssl.create_default_context(cafile=self._ca_cert)
        if self._url.startswith("https://"):
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

    def count(self, name: str) -> int:
        """Count the points of a collection, exactly."""
        return self.ask(lambda client: client.count(name, exact=True)).count

    def scroll(self, name: str, limit: int, **parts: Any) -> Iterator[Any]:
        """Yield all points, `limit` per request, with the wanted parts."""
        start: Any = None
        while True:
            records, start = self.ask(
                lambda client, offset=start: client.scroll(  # type: ignore[misc]
                    name, limit=limit, offset=offset, **parts
                )
            )
            yield from records
            if start is None:
                return
