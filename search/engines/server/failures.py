"""What a failed request to a Qdrant server means: one sentence, without the key."""

import importlib.metadata
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

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
class Answer:
    """An answer that reports a failure.

    Attributes
    ----------
    status : int
        The HTTP status.
    words : str
        What the answer says.
    from_qdrant : bool
        Whether Qdrant gave the answer, and not a proxy before it or another server.
    """

    status: int
    words: str
    from_qdrant: bool = True

    @property
    def refuses_key(self) -> bool:
        """Whether the server does not accept the key."""
        about_keys = not self.from_qdrant or ABOUT_KEYS.search(self.words) is not None
        return self.status == 401 or (self.status == 403 and about_keys)

    @property
    def is_transient(self) -> bool:
        """Whether the status says that the server fails now, or is busy."""
        return self.status >= 500 or self.status in (408, 429)

    @property
    def has_no_room(self) -> bool:
        """Whether the server's disk is full."""
        return self.status == 507 or (
            (self.status >= 500 or self.status == 429) and ABOUT_ROOM.search(self.words) is not None
        )

    @property
    def misses_node(self) -> bool:
        """Whether a node of the server's cluster does not answer."""
        return self.status >= 500 and ABOUT_REPLICAS.search(self.words) is not None


class Kind(NamedTuple):
    """A kind of failure: which answers it covers, the error and its sentence."""

    covers: Callable[[Answer], bool]
    error: type[SearchError]
    sentence: str


SERVER = "The Qdrant server at {location}"
NOT_UNDERSTOOD = (
    "No Qdrant server that qdrant-client {client} understands answers at {location} ({reason}): "
    "correct QDRANT_URL, or look at the proxy before it and at its version."
)

#: The first kind that covers an answer describes it.
KINDS = (
    Kind(
        lambda answer: answer.refuses_key,
        ServerRefused,
        SERVER + " refuses {key}: set QDRANT_API_KEY to a key that may do this (a read-only one to "
        "search, a full one to publish).",
    ),
    Kind(
        lambda answer: answer.status == 403,
        ServerRefused,
        SERVER + " is locked ({words}): unlock it, and then do this again.",
    ),
    Kind(
        lambda answer: answer.has_no_room,
        NoRoom,
        "There is no room on the Qdrant server at {location} ({words}): make room there, and then "
        "do this again.",
    ),
    Kind(
        lambda answer: answer.misses_node,
        ServerBusy,
        SERVER + " answers {status} ({words}), so a node of its cluster{node} seems to be away: do "
        "this again when it is back; with QDRANT_REPLICAS=3, one of three nodes may be away.",
    ),
    Kind(
        lambda answer: answer.is_transient,
        ServerBusy,
        SERVER + " answers {status} ({words}): do this again later; its log says more.",
    ),
    Kind(
        lambda answer: not answer.from_qdrant,
        ServerUnreachable,
        NOT_UNDERSTOOD.replace("{reason}", "an answer is {status}, {words}"),
    ),
    Kind(
        lambda answer: answer.status == 404,
        CollectionGone,
        SERVER + " has no such collection any more.",
    ),
    Kind(
        lambda answer: True,
        SearchError,
        SERVER + " answers {status} ({words}): its log says more.",
    ),
)

UNREACHABLE = (
    "No Qdrant server answers at {location} ({words}): start it, or correct QDRANT_URL; without "
    "QDRANT_URL the embedded engine is used."
)
GRPC_UNREACHABLE = (
    "No Qdrant server answers by gRPC on port {grpc_port} of {location} ({words}): start it, or "
    "correct QDRANT_GRPC_PORT; without QDRANT_GRPC_PORT everything goes by HTTP."
)
UNTRUSTED = (
    "This machine does not trust the certificate of {location} ({words}): set QDRANT_CA_CERT to "
    "the PEM file of the authority that signed it."
)


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
        import grpc
        import httpx
        from pydantic import ValidationError
        from qdrant_client.common.client_exceptions import QdrantException
        from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

        cause = error.source if isinstance(error, ResponseHandlingException) else error
        match cause:
            case UnexpectedResponse():
                return self._explain_answer(_read_response(cause))
            case QdrantException():  # a 429 that says when to come back
                return self._explain_answer(Answer(429, str(cause)))
            case grpc.RpcError() if cause.code() is grpc.StatusCode.UNAVAILABLE:
                return self._unreachable(GRPC_UNREACHABLE, cause.details()), True
            case grpc.RpcError():
                name = cause.code().name
                answer = Answer(HTTP_STATUS.get(name, 500), cause.details() or name)
                return self._explain_answer(answer)
            case httpx.TimeoutException() if not isinstance(cause, httpx.ConnectTimeout):
                return self._explain_answer(Answer(408, f"no answer in {self.timeout} s"))
            case httpx.TransportError() if "CERTIFICATE_VERIFY_FAILED" in str(cause):
                return self._unreachable(UNTRUSTED, cause, shorten=False), False
            case httpx.TransportError():
                return self._unreachable(UNREACHABLE, cause), True
            case json.JSONDecodeError() | UnicodeDecodeError():
                return self._not_understood("an answer is not JSON"), False
            # The client asserts that an answer has a result.
            case ValidationError() | AssertionError():
                return self._not_understood("an answer has another form"), False
        return None

    def _explain_answer(self, answer: Answer) -> tuple[SearchError, bool]:
        kind = next(kind for kind in KINDS if kind.covers(answer))
        node = NODE.search(answer.words)
        sentence = kind.sentence.format(
            location=self.location,
            status=answer.status,
            words=_shortened(answer.words),
            key="the key in QDRANT_API_KEY" if self.has_key else "a request without a key",
            node=f" ({node[0]})" if node else "",
            client=_client_version(),
        )
        return kind.error(sentence), kind.error is ServerBusy

    def _unreachable(self, sentence: str, words: object, shorten: bool = True) -> SearchError:
        text = _shortened(str(words)) if shorten else str(words)
        return ServerUnreachable(
            sentence.format(location=self.location, grpc_port=self.grpc_port, words=text)
        )

    def _not_understood(self, reason: str) -> SearchError:
        return ServerUnreachable(
            NOT_UNDERSTOOD.format(location=self.location, client=_client_version(), reason=reason)
        )


def _client_version() -> str:
    return importlib.metadata.version("qdrant-client")


def _read_response(response: Any) -> Answer:
    status = response.status_code or 500
    try:
        return Answer(status, str(response.structured()["status"]["error"]))
    except (ValueError, KeyError, TypeError):
        return Answer(status, response.reason_phrase, from_qdrant=False)


def _shortened(words: str) -> str:
    words = " ".join(words.split()).rstrip(".")
    if len(words) <= MAX_QUOTED_CHARACTERS:
        return words
    return f"{words[:MAX_QUOTED_CHARACTERS].rstrip()} …"
