"""Search a collection of performances for versions of the same work.

>>> import search
>>> [match.track_id for match in search.similar("P_1", limit=3)]
['P_10', 'P_37', 'P_9']
"""

from search.asked import Query
from search.connecting import connect
from search.copying import copy
from search.engines.engine import Engine, Status
from search.errors import (
    DamagedCollection,
    InvalidPoints,
    InvalidQuery,
    NoCollection,
    NoRoom,
    PublishError,
    SearchError,
    ServerBusy,
    ServerRefused,
    ServerUnreachable,
    TrackNotFound,
)
from search.fields import between, contains, none_of
from search.matches import Duplicate, DuplicateGroup, Identification, Match, Work
from search.point import Point
from search.points import Description, Points
from search.query import (
    distance,
    duplicates,
    identify,
    same_work,
    similar,
    similar_many,
    status,
    works,
)
from search.searcher import Searcher
from search.versions.alignment import Alignment, Stretch
from search.versions.calibration import Calibration

__all__ = [
    "Alignment",
    "Calibration",
    "DamagedCollection",
    "Description",
    "Duplicate",
    "DuplicateGroup",
    "Engine",
    "Identification",
    "InvalidPoints",
    "InvalidQuery",
    "Match",
    "NoCollection",
    "NoRoom",
    "Point",
    "Points",
    "PublishError",
    "Query",
    "SearchError",
    "Searcher",
    "ServerBusy",
    "ServerRefused",
    "ServerUnreachable",
    "Status",
    "Stretch",
    "TrackNotFound",
    "Work",
    "between",
    "connect",
    "contains",
    "copy",
    "distance",
    "duplicates",
    "identify",
    "none_of",
    "same_work",
    "similar",
    "similar_many",
    "status",
    "works",
]
