"""Search a collection of performances for versions of the same work.

>>> import search
>>> search.similar("P_135582", limit=3)  # doctest: +SKIP
"""

from search.alignment import Alignment, Stretch
from search.collection import Description, Points
from search.errors import (
    DamagedCollection,
    InvalidPoints,
    InvalidQuery,
    NoCollection,
    PublishError,
    SearchError,
    ServerRefused,
    ServerUnreachable,
    TrackNotFound,
)
from search.publishing import Status, publish, rollback
from search.query import (
    Match,
    Searcher,
    connect,
    distance,
    similar,
    similar_many,
    similar_to,
    status,
    works,
)

__all__ = [
    "Alignment",
    "DamagedCollection",
    "Description",
    "InvalidPoints",
    "InvalidQuery",
    "Match",
    "NoCollection",
    "Points",
    "PublishError",
    "SearchError",
    "Searcher",
    "ServerRefused",
    "ServerUnreachable",
    "Status",
    "Stretch",
    "TrackNotFound",
    "connect",
    "distance",
    "publish",
    "rollback",
    "similar",
    "similar_many",
    "similar_to",
    "status",
    "works",
]
