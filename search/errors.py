"""The known failures of a search: each says in one sentence what is wrong and what to do next."""

# ruff: noqa: N818 -- TrackNotFound and its kin say what happened, which is what a caller reads.


class SearchError(Exception):
    """Something a caller or an operator can put right; the message is one sentence."""


class InvalidPoints(SearchError, ValueError):
    """Points that must not go into a collection."""


class InvalidQuery(SearchError, ValueError):
    """A question that can't be asked: a limit, a filter or a vector out of range."""


class TrackNotFound(SearchError, LookupError):
    """A track id that the collection doesn't hold."""


class NoCollection(SearchError, LookupError):
    """Nothing is published."""


class DamagedCollection(SearchError, RuntimeError):
    """A published collection can't be read."""


class PublishError(SearchError, RuntimeError):
    """A collection was not published, or not rolled back; the one that was current still is."""


class NoRoom(PublishError):
    """The disk, or the server, is too full for a new collection."""


class ServerUnreachable(SearchError, ConnectionError):
    """No Qdrant server answers at QDRANT_URL."""


class ServerRefused(SearchError, PermissionError):
    """The Qdrant server doesn't accept the API key for what was asked."""


class CollectionGone(SearchError, LookupError):
    """The collection was pruned or changed while it was searched: open it anew and ask again."""


class ServerBusy(SearchError, RuntimeError):
    """The Qdrant server fails at the moment, or asks for a pause: the same may succeed later."""
