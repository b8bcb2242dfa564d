"""The data sets in a collection, so that a publication keeps those that it does not renew.

A collection stores its recipe as its `origin`, with paths relative to the workspace:

```
{"bundle": "bundles/…", "sources": [{"data": "/songs", "features": "features/…", "vectors": "…"}]}
```
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any

import search
from flows.collection import vectors
from flows.workspace import Workspace, read_json, room_for, write_json


@dataclass(frozen=True)
class Source:
    """A data set in a collection.

    Attributes
    ----------
    data : Path or None
        The directory or table that was aggregated, or the file of another model's vectors; None if
        it is not known.
    features : Path or None
        Its feature store; another model's vectors can do without.
    vectors : Path
        Its vectors.parquet.
    """

    data: Path | None
    features: Path | None
    vectors: Path

    @property
    def name(self) -> str:
        """The path by which a user names the source."""
        return str(self.data or self.features or self.vectors)

    @property
    def is_foreign(self) -> bool:
        """Whether another model made its vectors, so that no bundle of ours can make them."""
        return self.vectors.exists() and "source" in vectors.origin(self.vectors)

    @property
    def is_there(self) -> bool:
        """Whether its data are where they were; its path may be the beginning of folders' names."""
        path = Path(self.name)
        return path.exists() or any(path.parent.glob(f"{escape(path.name)}_*"))

    @property
    def has_chroma(self) -> bool:
        """Whether its features have chroma, which a table of means lacks; also if it is unknown."""
        facts = self.features and read_json(self.features / "store.json")
        return not facts or facts.get("frame_rate") is not None

    def is_at(self, path: Path) -> bool:
        """Whether a path names this data set."""
        known = Path(self.name)
        return known == path or (known.exists() and path.exists() and known.samefile(path))

    def is_within(self, other: "Source") -> bool:
        """Whether the performances are in another data set, unchanged, as after a move or a copy.

        If the data are no longer where they were, most of the performances are enough.
        """
        try:
            known, now = vectors.read_ids(self.vectors), vectors.read_ids(other.vectors)
        except (FileNotFoundError, ValueError):
            return False  # they are told where they are needed
        same = len(known.join(now, on=["track_id", "fingerprint"], how="semi"))
        return 0 < same == len(known) or (not self.is_there and 2 * same > len(known))


@dataclass(frozen=True)
class Recipe:
    """What a collection is made of: a bundle and the sources that it embedded."""

    bundle: Path
    bundle_id: str
    sources: tuple[Source, ...]


class UnknownSources(ValueError):  # noqa: N818 - names the state of the collection
    """A collection does not say what it was made of, so its sources cannot be kept."""


def note_data(slot: Path, data: Path, workspace: Workspace) -> None:
    """Write the path of a data set into the directory of its features."""
    inside = data.is_relative_to(workspace.root)
    noted = {"data": os.path.relpath(data, slot) if inside else str(data)}
    with room_for(slot):
        slot.mkdir(parents=True, exist_ok=True)
        if read_json(slot / "data.json") != noted:
            write_json(slot / "data.json", noted)


def data_of(slot: Path) -> Path | None:
    """Read the path that `note_data` wrote; None if it is missing or damaged."""
    try:
        noted = read_json(slot / "data.json")
    except ValueError:
        return None
    if not (isinstance(noted, dict) and isinstance(noted.get("data"), str)):
        return None
    return Path(os.path.normpath(slot / noted["data"]))


def source_of(path: Path, workspace: Workspace) -> Source:
    """Return the source that a vectors.parquet was made from.

    Raises
    ------
    FileNotFoundError, ValueError
        As `vectors.origin`.
    """
    made_with = vectors.origin(path)
    features = workspace.resolve(made_with["features"]) if "features" in made_with else None
    if "source" in made_with:
        return Source(Path(made_with["source"]), features, path)
    return Source(data_of(features.parent) if features else None, features, path)


def write_origin(recipe: Recipe, workspace: Workspace) -> dict[str, Any]:
    """Return a recipe as the origin of a collection."""
    return {
        "bundle": workspace.relative(recipe.bundle),
        "sources": [
            {role: path and workspace.relative(path) for role, path in vars(source).items()}
            for source in recipe.sources
        ],
    }


def read_origin(described: search.Description, workspace: Workspace) -> Recipe:
    """Return the recipe of a collection.

    Raises
    ------
    UnknownSources
        If it has none that this version can read.
    """
    origin = described.origin or {}
    try:
        sources = tuple(
            Source(
                source["data"] and workspace.resolve(source["data"]),
                source["features"] and workspace.resolve(source["features"]),
                workspace.resolve(source["vectors"]),
            )
            for source in origin["sources"]
        )
        return Recipe(workspace.resolve(origin["bundle"]), described.bundle, sources)
    except (KeyError, TypeError, AttributeError) as error:
        raise UnknownSources(
            f"{described.name} does not say what it was made of, so its performances cannot be "
            "kept: publish without them, with `--only`."
        ) from error


@dataclass(frozen=True)
class Merged:
    """The sources of the next collection, and those of the current one that are not renewed.

    `moved` has the names of those whose performances another source now has, and its name.
    """

    sources: list[Source]
    kept: list[Source]
    left_out: list[Source]
    moved: dict[str, str]


def merge(
    current: Sequence[Source],
    renewed: Sequence[Source],
    *,
    only: bool = False,
    leave_out: Sequence[Path] = (),
) -> Merged:
    """Replace or add sources of a collection, and keep the others except those to leave out.

    A source whose performances are in a renewed one is not kept beside it: the data set has moved.

    Raises
    ------
    ValueError
        If a path to leave out is not among the others, or nothing is left.
    """
    by_name = {Path(source.name): source for source in renewed}
    merged = Merged([], [], [], {})
    for source in current:
        if name := next((name for name in by_name if source.is_at(name)), None):
            merged.sources.append(by_name.pop(name))
        elif only or any(map(source.is_at, leave_out)):
            merged.left_out.append(source)
        elif place := next((each.name for each in renewed if source.is_within(each)), None):
            merged.moved[source.name] = place
        else:
            merged.kept.append(source)
            merged.sources.append(source)
    merged.sources.extend(by_name.values())
    for path in leave_out:
        if not any(source.is_at(path) for source in merged.left_out):
            others = ", ".join(source.name for source in merged.kept + merged.left_out) or "none"
            raise ValueError(
                f"{path} cannot be left out, because it is not among the other sources of the "
                f"collection ({others}): `covers status` shows their names."
            )
    if not merged.sources:
        raise ValueError(
            f"Without {', '.join(map(str, leave_out))} nothing would be left to search: publish "
            "something else first."
        )
    return merged


def check_kept(kept: Sequence[Source], *, same_bundle: bool, inputs: str | None) -> None:
    """Check that sources of the current collection can go into the next one.

    `same_bundle` and `inputs` are about the next collection: whether its bundle is the current one,
    and what its encoder takes; None if its vectors are made elsewhere.

    Raises
    ------
    ValueError
        If a source cannot, with its name.
    """
    for source in kept:
        without = "publish without it, with `--only` or `covers publish --leave-out`"
        foreign = source.is_foreign
        why = None
        if same_bundle:
            pass
        elif foreign:
            why = "its vectors were made elsewhere and cannot be made with another bundle"
        elif inputs is None:
            why = "the new vectors were made elsewhere, by a model that is not here to embed it"
        elif inputs == "chroma" and not source.has_chroma:
            why = "it is a table of means, and the new bundle needs chroma"
        if why is not None:
            raise ValueError(
                f"The collection's source {source.name} cannot be kept, because {why}: {without}."
            )
        store = source.features
        if not foreign and (store is None or not (store / "store.json").is_file()):
            again = "covers publish" if store is None else "covers add"
            renew = "" if source.data is None else f"renew it with `{again} {source.data}`, or "
            raise ValueError(
                f"The collection's source {source.name} cannot be kept, because "
                f"{store or source.vectors} is missing: {renew}{without}."
            )


def check_bundle(bundle: Path) -> None:
    """Raise FileNotFoundError if a bundle is missing, before anything is embedded with it."""
    if not (bundle / "bundle.json").is_file():
        raise FileNotFoundError(
            f"The bundle {bundle} is missing, so nothing can be published with it: embed with "
            "another one, as `covers pipeline --data DIR` does."
        )
