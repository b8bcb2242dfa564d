"""The engine behind QDRANT_URL: a Qdrant server, with an alias for the current collection.

Searchers find the current collection by an alias, which moves in one request. A query goes to the
alias and takes one request. Each point of the answer names its collection. If that is not the
collection whose facts (description and mean background) are known, the facts are read and the query
is repeated. The metadata of a collection hold its deployment and the collections that were current
before it. Collections without the mark of the deployment are left alone. A read-only API key is
enough for searching.

The size of a collection decides how it is searched, and how it is set up when it is published:

- Up to `EXACT_BYTES` (32 MB) of vectors are searched exhaustively. This is exact, takes some
  milliseconds, and needs no graph.
- More vectors are found by a graph (HNSW), which is several times faster.
- Above `QUANTIZED_BYTES` (1 GB), memory is what a server runs out of. Then one byte per component
  stays in memory and the vectors are on the disk; four times the wanted number of candidates is
  compared again by the vectors. Qdrant's binary quantization, one bit per component, is meant for
  1024 components or more, and these vectors have a quarter of that.

The graph is built once, when all points are there, and not repeatedly while they arrive.

If little of the current collection differs from what is published, the collection is changed in
place (see `search.engines.server.changing`), and its facts are written last. What is computed from
all performances (usual distances, backgrounds of those that stay, the mean background, the graph)
stays as it was built, so only `CHANGED_SHARE` of the collection may change before it is built anew.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

from qdrant_client import QdrantClient, models

from search.engines.comparing import Results
from search.engines.engine import Engine
from search.engines.sequences import mean_background
from search.engines.server import companion, writing
from search.engines.server.changing import apply, find_difference
from search.engines.server.collection import ServerCollection
from search.engines.server.connection import Connection
from search.engines.server.facts import Facts
from search.errors import CollectionGone, DamagedCollection, NoCollection, SearchError
from search.fields import MEANINGS
from search.points import Description, Points, is_exact
from search.settings import COLLECTION

#: Seconds after which a searcher reads the facts of the current collection again. Every answer says
#: whether the collection is still the current one.
FACTS_SECONDS = 30.0

#: Above this many bytes of vectors, one byte per component stays in memory, and the vectors do not.
QUANTIZED_BYTES = 2**30

#: A collection is changed in place until more than a tenth of the performances that it was built
#: with has been written or deleted since. For a mean over all of them to be off by a tenth of a
#: standard deviation, the mean of that tenth would have to differ by a whole one.
CHANGED_SHARE = 0.1


class Server(Engine):
    """Collections on a Qdrant server.

    Threads may share a `Server`. A forked child makes its own connections. The parameters are the
    settings of `search.settings`. The `lock` lets only one publisher of a workspace publish at a
    time. It does not keep publishers on several machines apart, so let one pipeline publish to a
    server.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None,
        lock: Path,
        *,
        collection: str = COLLECTION,
        grpc_port: int | None = None,
        ca_cert: Path | None = None,
        shards: int | None = None,
        replicas: int | None = None,
    ) -> None:
        self.connection = Connection(url, api_key, grpc_port, ca_cert)
        self.lock = lock
        self.collection = collection
        self._shards, self._replicas = shards, replicas
        #: The facts of the current collection, and when they were read.
        self._known: tuple[float, Facts] | None = None

    def __repr__(self) -> str:
        return f"Server({self.location!r})"

    @property
    def location(self) -> str:
        """The URL, without a user and password."""
        return self.connection.location

    def close(self) -> None:
        """Close the connections of this process; the next request makes new ones."""
        self.connection.close()

    def names(self) -> list[str]:
        """Return the names of the collections that have the mark."""
        return sorted(self._ours())

    def unfinished(self) -> list[str]:
        """Return the names of collections whose metadata lack what `serve` notes."""
        return sorted(name for name, noted in self._ours().items() if "previous" not in noted)

    def _ours(self) -> dict[str, dict[str, Any]]:
        """Read the metadata of the collections that have the mark, by name."""
        listed = self.connection.ask(lambda client: client.get_collections()).collections
        read = {
            each.name: self._metadata_of(each.name)
            for each in listed
            if each.name.startswith(f"{self.collection}-")
            and not each.name.endswith(companion.SUFFIX)
        }
        return {name: metadata for name, metadata in read.items() if metadata is not None}

    def _metadata_of(self, name: str) -> dict[str, Any] | None:
        """Read the metadata of a collection; None if there is none, or it is not ours."""
        metadata = self.connection.metadata(name)
        return metadata if metadata is not None and self._is_ours(metadata) else None

    def _is_ours(self, metadata: Mapping[str, Any]) -> bool:
        return metadata.get("deployment") == self.collection

    def is_taken(self, name: str) -> bool:
        """Whether a collection or alias has this name, or the name for its sequences."""
        return any(
            self.connection.ask(lambda client, each=each: client.collection_exists(each))  # type: ignore[misc]
            for each in (name, companion.companion(name))
        )

    def history(self) -> list[str]:
        """Follow the alias, and read which collections before it still exist."""
        if (metadata := self._metadata_of_current()) is None:
            return []
        before = metadata.get("previous", ())
        earlier = [name for name in before if self._metadata_of(name) is not None]
        return [metadata["covers"]["name"], *earlier]

    def _metadata_of_current(self) -> dict[str, Any] | None:
        """Read the metadata of the collection that the alias points to; None without an alias."""
        metadata = self.connection.metadata(self.collection)
        if metadata is not None and not self._is_ours(metadata):
            raise SearchError(
                f"{self.collection!r} on the Qdrant server at {self.location} is a collection or "
                "alias of somebody else: set COVERS_COLLECTION to a name that is free there."
            )
        return metadata

    def _facts(self, name: str) -> Facts:
        metadata = self._metadata_of(name)
        if metadata is None:
            raise CollectionGone(
                f"The Qdrant server at {self.location} has no collection {name} any more."
            )
        return self._read_facts(name, metadata)

    def _read_facts(self, name: str, metadata: dict[str, Any]) -> Facts:
        try:
            return Facts.from_metadata(metadata)
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedCollection(
                f"The metadata of {name} on the Qdrant server at {self.location} are not what this "
                "version understands: publish again."
            ) from error

    def serve(self, history: Sequence[str]) -> None:
        """Note what was current before, then move the alias in one request."""
        name, *previous = history
        self._metadata_of_current()  # refuses an alias of somebody else
        self.connection.ask(
            lambda client: client.update_collection(name, metadata={"previous": previous})
        )
        alias = self.collection
        create = models.CreateAlias(collection_name=name, alias_name=alias)
        delete = models.DeleteAlias(alias_name=alias)

        def move(client: QdrantClient) -> None:
            there = {each.alias_name for each in client.get_aliases().aliases}
            steps: list[Any] = [models.CreateAliasOperation(create_alias=create)]
            if alias in there:
                steps.insert(0, models.DeleteAliasOperation(delete_alias=delete))
            client.update_collection_aliases(steps)

        self.connection.ask(move)
        self._known = None

    def describe(self, name: str) -> Description:
        """Read a collection's metadata."""
        return self._facts(name).description

    def build(self, description: Description, points: Points) -> None:
        """Create a collection under its own name, which no alias points to yet, and fill it."""
        name, beside = description.name, companion.companion(description.name)
        backgrounds = None if points.sequences is None else points.backgrounds()
        mean = 0.0 if backgrounds is None else mean_background(backgrounds)
        quantized = description.points * description.dimension * 4 > QUANTIZED_BYTES
        facts = Facts(description, mean, built=len(points))
        self._create(
            name,
            vectors_config=models.VectorParams(
                size=points.dimension, distance=models.Distance.EUCLID, on_disk=quantized
            ),
            hnsw_config=models.HnswConfigDiff(m=0),  # no graph, or not yet
            strict_mode_config=strict_mode(description.points),
            metadata={**facts.as_metadata(), "fields": MEANINGS | _told(description)},
        )
        # Before the points, so that the graph is built for filters.
        writing.index_fields(self.connection, description)
        rows = range(len(points))
        writing.upload_points(self.connection, description, points, rows)
        if backgrounds is not None:
            metadata = {"sequences of": name, "rate": description.rate}
            self._create(beside, vectors_config={}, metadata=metadata)
            writing.upload_sequences(self.connection, beside, points, rows, backgrounds)
        if not is_exact(description.points, description.dimension):
            writing.build_graph(self.connection, description, quantized)

    def _create(self, name: str, *, metadata: dict[str, Any], **config: Any) -> None:
        """Create a collection with our mark, under a free name."""
        marked = {"deployment": self.collection, **metadata}
        majority = None if self._replicas is None else self._replicas // 2 + 1
        try:
            self.connection.ask(
                lambda client: client.create_collection(
                    name,
                    metadata=marked,
                    on_disk_payload=True,  # the indexes for filters are in memory nevertheless
                    shard_number=self._shards,
                    replication_factor=self._replicas,
                    # More than half. Of three replicas, one may be on a node that is down, and is
                    # sent what it missed before it answers again. Of two, both have to confirm.
                    write_consistency_factor=majority,
                    **config,
                )
            )
        except SearchError as error:
            if type(error) is not SearchError:
                raise
            # If the answer to the first try was lost, the second try is told that it exists.
            there = self.connection.metadata(name) or {}
            if any(there.get(key) != text for key, text in marked.items() if type(text) is str):
                raise

    def change(self, description: Description, points: Points) -> list[int] | None:
        """Write the performances that differ, unless they are too many."""
        name = description.name
        facts = self._facts(name)
        difference = find_difference(self.connection, name, points)
        if difference is None:
            return None
        changed = facts.changed + len(difference)
        if changed > CHANGED_SHARE * facts.built:
            return None
        limits = strict_mode(max(difference.held, len(points)))
        before = replace(facts.description, content="")
        self._note(replace(facts, description=before, changed=changed), limits)
        apply(self.connection, description, points, difference)
        self._note(replace(facts, description=description, changed=changed), limits)
        return difference.rows

    def note(self, description: Description) -> None:
        """Replace the description in the metadata."""
        self._note(replace(self._facts(description.name), description=description))

    def _note(self, facts: Facts, limits: Any = None) -> None:
        """Write the facts of a collection into its metadata."""
        self.connection.ask(
            lambda client: client.update_collection(
                facts.description.name,
                metadata=facts.as_metadata(),
                strict_mode_config=limits,
            )
        )
        self._known = None

    def write_results(self, name: str, results: Results) -> None:
        """Set payload fields where they are."""
        writing.write_results(self.connection, name, results)

    def drop(self, name: str) -> None:
        """Delete the collection of the sequences and then the collection, if they are ours."""
        for each in (companion.companion(name), name):
            if self._metadata_of(each) is not None:
                with contextlib.suppress(CollectionGone):
                    self.connection.ask(
                        lambda client, each=each: client.delete_collection(each)  # type: ignore[misc]
                    )

    def open(self, name: str | None = None) -> ServerCollection:
        """Open a collection by its name, by default the one that the alias points to."""
        if name is not None:
            return ServerCollection(self.connection, self._facts(name), name, lambda: name)
        known = self._known
        if known is None or monotonic() > known[0] + FACTS_SECONDS:
            known = self._renew()
        return ServerCollection(
            self.connection,
            known[1],
            self.collection,
            lambda: self._renew()[1].description.name,
        )

    def _renew(self) -> tuple[float, Facts]:
        """Read the facts of the current collection again."""
        self._known = None
        if (metadata := self._metadata_of_current()) is None:
            raise NoCollection(
                f"There is no collection {self.collection!r} on the Qdrant server at "
                f"{self.location} yet: make one with `covers pipeline --data DIR`."
            )
        self._known = known = monotonic(), self._read_facts(self.collection, metadata)
        return known


def _told(description: Description) -> dict[str, str]:
    """Explain the columns of the publisher to a person who opens the collection in a dashboard."""
    return {name: f"brought by the publisher: {kind}" for name, kind in description.columns.items()}


def strict_mode(points: int) -> Any:
    """Forbid other clients of the server requests that would hold it up."""
    return models.StrictModeConfig(
        enabled=True,
        # A search asks for all points if ties or `leave_out_same_work` demand it. The dashboard
        # asks for several neighbours of each point that it draws, and both numbers are multiplied:
        # 5000 points by 20, for example. Its first picture is of 2000 points by 15.
        max_query_limit=max(100_000, points),
        # Every field has an index.
        unindexed_filtering_retrieve=False,
        unindexed_filtering_update=False,
    )
