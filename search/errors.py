"""The known failures of a search: each message says what is wrong and what to do next."""

# ruff: noqa: N818 -- names like TrackNotFound say what happened, which is what a caller reads.


class SearchError(Exception):
    """A failure that a caller or an operator can correct; the message is one sentence."""


class InvalidPoints(SearchError, ValueError):
    """The points can't be published."""


class InvalidQuery(SearchError, ValueError):
    """The limit, filter, vector or track id of a query is not valid."""


class TrackNotFound(SearchError, LookupError):
    """The collection has no performance with this track id."""


class NoCollection(SearchError, LookupError):
    """Nothing is published."""


class DamagedCollection(SearchError, RuntimeError):
    """A published collection can't be read."""


class PublishError(SearchError, RuntimeError):
    """A collection was not published or rolled back; the current collection did not change."""


class NoRoom(PublishError):
    """The disk or the server has no room for a new collection."""


class ServerUnreachable(SearchError, ConnectionError):
    """No Qdrant server answers at the URL."""


class ServerRefused(SearchError, PermissionError):
    """The Qdrant server does not accept the API key for this request."""


class CollectionGone(SearchError, LookupError):
    """The collection was dropped or changed during a search: open it again and repeat the query."""


class ServerBusy(SearchError, RuntimeError):
    """The Qdrant server fails now, or asks for a pause: the same request may succeed later."""
