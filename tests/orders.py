"""Run operations that change what searchers see, and compare with a model of what they should see.

The pipeline publishes a.csv, and b.csv is added. Each gets another version before it is read, so
that every publication is different.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from feature_stores import write_csv

import search
from embedding import bundle as bundles
from embedding.bundle import Bundle
from embedding.data.aggregate import aggregate_csv
from embedding.data.store import FeatureStore
from flows.add import add
from flows.aggregate import aggregate
from flows.collection.served import current as current_recipe
from flows.embed import embed
from flows.pipeline import pipeline
from flows.publish import publish
from flows.retention import prune
from flows.workspace import Workspace

OPERATIONS = ("pipeline", "add", "publish", "embed", "copy", "rollback", "gc")

#: The number of versions that a data set alternates between.
VERSIONS = 3


def every_order_of(length: int, operations: tuple[str, ...] = OPERATIONS) -> list[str]:
    """A de Bruijn sequence: every sequence of `length` operations occurs in it once."""
    count = len(operations)
    word, walk = [0] * count * length, []

    def extend(t: int, p: int) -> None:
        if t > length:
            if length % p == 0:
                walk.extend(word[1 : p + 1])
            return
        word[t] = word[t - p]
        extend(t + 1, p)
        for letter in range(word[t - p] + 1, count):
            word[t] = letter
            extend(t + 1, t)

    extend(1, 1)
    return [operations[i] for i in [*walk, *walk[: length - 1]]]


@dataclass(frozen=True)
class Publication:
    """The version of each data set in a collection, and the bundle that embedded all of them."""

    versions: dict[str, int]
    bundle: Bundle = field(compare=False)


@dataclass
class Model:
    """A workspace, and what should be in it."""

    root: Path
    versions: dict[str, int] = field(default_factory=lambda: {"a": 0, "b": 0})
    history: list[Publication] = field(default_factory=list)
    backup: Publication | None = None
    latest: tuple[int, Bundle] | None = None
    refused: int = 0

    def __post_init__(self) -> None:
        self.home = self.root / "home"
        self.engine = search.connect(home=self.home)
        self.stores: dict[tuple[str, int], FeatureStore] = {}
        self.contents: dict[tuple[str, int, str], dict[str, tuple[str, bytes]]] = {}
        for name in "ab":
            self.write(name)
        self.pipeline()
        self.add()

    def write(self, name: str) -> None:
        """Write the next version of a data set."""
        version = self.versions[name] = (self.versions[name] + 1) % VERSIONS
        works = (20 if name == "a" else 3) + version
        table = write_csv(self.home / f"{name}.csv", works, seed=ord(name) + version)
        if (name, version) not in self.stores:
            self.stores[name, version] = aggregate_csv(table, self.root / name / str(version))

    def content(self, one: Publication) -> dict[str, tuple[str, bytes]]:
        """The work and the vector of each performance, as embedded without any flow."""
        found: dict[str, tuple[str, bytes]] = {}
        for name, version in one.versions.items():
            known = (name, version, one.bundle.id)
            if known not in self.contents:
                store = self.stores[name, version]
                rows = store.table.select("track_id", "work_id").iter_rows()
                embedded = zip(rows, one.bundle.embed(store), strict=True)
                self.contents[known] = {
                    track_id: (work_id, vector.tobytes())
                    for (track_id, work_id), vector in embedded
                }
            found |= self.contents[known]
        return found

    def check(self) -> None:
        """Searchers see the current publication only, and the one before is complete too."""
        names = self.engine.history()
        assert len(names) == len(self.history[:2])
        for name, expected in zip(names, self.history, strict=False):
            stored = list(self.engine.open(name).everything())
            assert {each.payload["collection"] for each in stored} == {name}
            assert {each.payload["bundle"] for each in stored} == {expected.bundle.id}
            seen = {each.payload["track_id"]: (each.payload["work_id"], each.vector.tobytes())
                    for each in stored}  # fmt: skip
            assert seen == self.content(expected)
        current = current_recipe(self.engine, Workspace(self.home))
        assert {Path(one.name).stem for one in current.sources} == set(self.history[0].versions)

    def served(self, one: Publication) -> None:
        """Make a publication the current one. A kept collection is not built again."""
        content = self.content(one)
        others = [each for each in self.history if self.content(each) != content]
        self.history = [one, *others][:2]

    def run(self, operation: str) -> None:
        """Run an operation on the workspace and the model, and compare."""
        getattr(self, operation)()
        self.check()

    def try_to(self, work: Callable[[], dict]) -> dict | None:
        """Run what keeps other sources. If one was pruned, the error names it: leave them out."""
        current = current_recipe(self.engine, Workspace(self.home))
        needed = [current.bundle, *(one.features for one in current.sources)]
        missing = [str(path) for path in needed if not path.exists()]
        try:
            return work()
        except (ValueError, OSError) as error:
            said = str(error)
        assert any(path in said for path in missing), said
        self.check()
        self.refused += 1
        self.published_a(
            pipeline(self.home / "a.csv", encoder="means", home=self.home, only=True), {}
        )
        return None

    def published_a(self, result: dict, kept: dict[str, int]) -> None:
        assert result["published"]
        assert {Path(name).stem for name in result["kept"]} == set(kept) - {"a"}
        bundle = bundles.load(Path(result["paths"]["bundle"]))
        self.latest = self.versions["a"], bundle
        self.served(Publication(kept | {"a": self.versions["a"]}, bundle))

    def pipeline(self) -> None:
        self.write("a")

        def work() -> dict:
            return pipeline(self.home / "a.csv", encoder="means", home=self.home)

        if not self.history:
            self.published_a(work(), {})
        elif (result := self.try_to(work)) is not None:
            self.published_a(result, self.history[0].versions)

    def add(self) -> None:
        self.write("b")
        known = self.history[0].versions
        data = None if "b" in known else [self.home / "b.csv"]
        if self.try_to(lambda: add(data, home=self.home)) is not None:
            new = self.versions if data is None else known | {"b": self.versions["b"]}
            self.served(Publication(dict(new), self.history[0].bundle))

    def publish(self) -> None:
        if self.try_to(lambda: publish(home=self.home)) is not None:
            version, bundle = self.latest
            self.served(Publication(self.history[0].versions | {"a": version}, bundle))

    def embed(self) -> None:
        self.write("a")
        aggregate(self.home / "a.csv", home=self.home)
        embed(home=self.home)
        self.latest = self.versions["a"], self.latest[1]

    def copy(self) -> None:
        """Copy the backup back, and make a new backup of what was current."""
        elsewhere = search.connect(self.root / "elsewhere")
        aside = search.connect(self.root / "aside")
        current, backup = self.history[0], self.backup
        search.copy(self.engine, aside)
        if backup is not None:
            search.copy(elsewhere, self.engine)
            self.served(backup)
        search.copy(aside, elsewhere)
        self.backup = current

    def rollback(self) -> None:
        if len(self.history) < 2:
            with pytest.raises(search.PublishError, match="no other collection"):
                self.engine.rollback()
            return
        self.engine.rollback()
        self.history.reverse()

    def gc(self) -> None:
        prune(Workspace(self.home))
        assert prune(Workspace(self.home)) == []
