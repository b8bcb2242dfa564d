"""What a failed request to a Qdrant server means: one sentence, without the key."""

import importlib.metadata
import json
import re
from dataclasses import dataclass
from typing import Any

import grpc
import httpx
from pydantic import ValidationError
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from search.errors import (
    CollectionGone,
    NoRoom,
    SearchError,
    ServerBusy,
    ServerRefused,
    ServerUnreachable,
)

#: gRPC's codes as HTTP statuses. Any other code is a failure of the server, 500.
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

#: Characters of a server's own words that are quoted.
MAX_QUOTED_CHARACTERS = 150

ABOUT_KEYS = re.compile(r"^forbidden:|api.?key|token|jwt|access|authoriz", re.IGNORECASE)
ABOUT_ROOM = re.compile(r"no space left|insufficient storage|disk.* full", re.IGNORECASE)
ABOUT_REPLICAS = re.compile(r"replica|shards? failed|\bpeer\b|consensus|consistency", re.IGNORECASE)
NODE = re.compile(r"https?://[^\s`'\",;)]+|\bpeer(?:_id)?[ :=]+\d+", re.IGNORECASE)


@dataclass(frozen=True)
class AskedServer:
    """The server that was asked, as the sentences describe it."""

    location: str
    has_key: bool
    grpc_port: int | None
    timeout: float

    def explain(self, error: Exception) -> tuple[SearchError, bool] | None:
        """Describe a failure, and say whether the same request may succeed later.

        Returns None if the exception is not the failure of a request.
        """
        cause = error.source if isinstance(error, ResponseHandlingException) else error
        match cause:
            case grpc.RpcError() if cause.code() is grpc.StatusCode.UNAVAILABLE:
                return self._grpc_unreachable(cause.details()), True
            case httpx.TransportError() if "CERTIFICATE_VERIFY_FAILED" in str(cause):
                return self._untrusted(cause), False
            case httpx.TimeoutException() if not isinstance(cause, httpx.ConnectTimeout):
                failure = self._failure(408, f"no answer in {self.timeout} s")
            case httpx.TransportError():
                return self._unreachable(cause), True
            case grpc.RpcError():
                name = cause.code().name
                failure = self._failure(HTTP_STATUS.get(name, 500), cause.details() or name)
            case QdrantException():  # a 429 that says when to come back
                failure = self._failure(429, str(cause))
            case UnexpectedResponse():
                failure = self._failure(cause.status_code or 500, *_read_words(cause))
            case json.JSONDecodeError() | UnicodeDecodeError():
                failure = self._not_understood("an answer is not JSON")
            # The client asserts that an answer has a result.
            case ValidationError() | AssertionError():
                failure = self._not_understood("an answer has another form")
            case _:
                return None
        return failure, isinstance(failure, ServerBusy)

    def _failure(self, status: int, words: str, from_qdrant: bool = True) -> SearchError:
        """Explain an answer, which may be that of a proxy or of another server."""
        server, quoted = f"The Qdrant server at {self.location}", _shortened(words)
        is_failing = status >= 500
        if status == 401 or (status == 403 and (ABOUT_KEYS.search(words) or not from_qdrant)):
            key = "the key in QDRANT_API_KEY" if self.has_key else "a request without a key"
            return ServerRefused(
                f"{server} refuses {key}: set QDRANT_API_KEY to a key that may do this (a "
                "read-only one to search, a full one to publish)."
            )
        if status == 403:
            return ServerRefused(
                f"{server} is locked ({quoted}): unlock it, and then do this again."
            )
        if status == 507 or ((is_failing or status == 429) and ABOUT_ROOM.search(words)):
            return NoRoom(
                f"There is no room on the Qdrant server at {self.location} ({quoted}): make room "
                "there, and then do this again."
            )
        if is_failing and ABOUT_REPLICAS.search(words):
            node = NODE.search(words)
            return ServerBusy(
                f"{server} answers {status} ({quoted}), so a node of its cluster"
                f"{f' ({node[0]})' if node else ''} seems to be away: do this again when it is "
                "back; with QDRANT_REPLICAS=3, one of three nodes may be away."
            )
        if is_failing or status in (408, 429):
            return ServerBusy(
                f"{server} answers {status} ({quoted}): do this again later; its log says more."
            )
        if not from_qdrant:
            return self._not_understood(f"an answer is {status}, {quoted}")
        if status == 404:
            return CollectionGone(f"{server} has no such collection any more.")
        return SearchError(f"{server} answers {status} ({quoted}): its log says more.")

    def _unreachable(self, words: object) -> SearchError:
        return ServerUnreachable(
            f"No Qdrant server answers at {self.location} ({_shortened(words)}): start it, or "
            "correct QDRANT_URL; without QDRANT_URL the embedded engine is used."
        )

    def _grpc_unreachable(self, words: object) -> SearchError:
        return ServerUnreachable(
            f"No Qdrant server answers by gRPC on port {self.grpc_port} of {self.location} "
            f"({_shortened(words)}): start it, or correct QDRANT_GRPC_PORT; without "
            "QDRANT_GRPC_PORT everything goes by HTTP."
        )

    def _untrusted(self, words: object) -> SearchError:
        return ServerUnreachable(
            f"This machine does not trust the certificate of {self.location} "
            f"({_shortened(words)}): set QDRANT_CA_CERT to the PEM file of the authority that "
            "signed it."
        )

    def _not_understood(self, reason: str) -> SearchError:
        return ServerUnreachable(
            f"No Qdrant server that qdrant-client {importlib.metadata.version('qdrant-client')} "
            f"understands answers at {self.location} ({reason}): correct QDRANT_URL, or look at "
            "the proxy before it and at its version."
        )


def _read_words(response: Any) -> tuple[str, bool]:
    """Return what an answer says, and whether Qdrant gave it."""
    try:
        return str(response.structured()["status"]["error"]), True
    except (ValueError, KeyError, TypeError):
        return response.reason_phrase, False


def _shortened(words: object) -> str:
    text = " ".join(str(words).split()).rstrip(".")
    if len(text) <= MAX_QUOTED_CHARACTERS:
        return text
    return f"{text[:MAX_QUOTED_CHARACTERS].rstrip()} …"
