"""What a collection was made of: it knows its sources, so that no publication loses one.

The publisher notes it in the collection, as its `origin`:

```
{"bundle": "bundles/…", "sources": [{"data": "/songs", "features": "features/…", "vectors": "…"}]}
```

Paths inside the workspace are relative to it. The workspace also notes the origins of the
collections in every place that was published to from here (served.json), because pruning must spare
what the collections of another server or deployment need.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

import search
from flows import vectors
from flows.workspace import Workspace, damaged, read_json, room_for, write_json
from search.engines.engine import Engine


@dataclass(frozen=True)
class Source:
    """A data set in a collection.

    Attributes
    ----------
    data : Path or None
        Where it is: what was aggregated, or the file of vectors that were made elsewhere. None
        where that is not known, so that it cannot be looked through again.
    features : Path or None
        What was aggregated of it; None for vectors that were brought in without.
    vectors : Path
        What was embedded.
    """

    data: Path | None
    features: Path | None
    vectors: Path

    @property
    def name(self) -> str:
        """What to call it to a user, who can name it so in turn."""
        return str(self.data or self.features or self.vectors)

    def is_at(self, path: Path) -> bool:
        """Whether this is the data set that a path names."""
        known = Path(self.name)
        return known == path or (known.exists() and path.exists() and known.samefile(path))


@dataclass(frozen=True)
class Recipe:
    """What a collection is made of.

    Attributes
    ----------
    bundle : Path
        By which everything in it was embedded.
    bundle_id : str
        The id of that bundle.
    sources : tuple of Source
        No two of the same data.
    """

    bundle: Path
    bundle_id: str
    sources: tuple[Source, ...]


class UnknownSources(ValueError):  # noqa: N818 - named for what is the matter, as `BadStore`
    """A collection does not say what it was made of, so its sources cannot be kept."""


def note_data(slot: Path, data: Path, workspace: Workspace) -> None:
    """Note in the directory of a data set's features where the data set is."""
    inside = data.is_relative_to(workspace.root)
    noted = {"data": os.path.relpath(data, slot) if inside else str(data)}
    with room_for(slot):
        slot.mkdir(parents=True, exist_ok=True)
        if read_json(slot / "data.json") != noted:
            write_json(slot / "data.json", noted)


def data_of(slot: Path) -> Path | None:
    """Return where the data set of such a directory is; None if that is not noted."""
    try:
        noted = read_json(slot / "data.json")
    except ValueError:
        return None
    if not (isinstance(noted, dict) and isinstance(noted.get("data"), str)):
        return None
    return Path(os.path.normpath(slot / noted["data"]))


def source_of(path: Path, workspace: Workspace) -> Source:
    """Return what a vectors.parquet says it was made from.

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


def is_made_elsewhere(source: Source) -> bool:
    """Whether its vectors were brought in, so that no bundle of ours can make them again."""
    return source.vectors.exists() and "source" in vectors.origin(source.vectors)


def write_origin(recipe: Recipe, workspace: Workspace) -> dict[str, Any]:
    """Write a recipe as the origin of a collection."""
    return {
        "bundle": workspace.relative(recipe.bundle),
        "sources": [
            {
                name: None if path is None else workspace.relative(path)
                for name, path in vars(source).items()
            }
            for source in recipe.sources
        ],
    }


def read_origin(described: search.Description, workspace: Workspace) -> Recipe:
    """Read the recipe of a collection.

    Raises
    ------
    UnknownSources
        If it has none, or none that this version wrote.
    """

    def path(text: str | None) -> Path | None:
        return None if text is None else workspace.resolve(text)

    origin = described.origin
    try:
        if origin is None:
            raise KeyError("origin")
        sources = [
            Source(path(one["data"]), path(one["features"]), workspace.resolve(one["vectors"]))
            for one in origin["sources"]
        ]
        return Recipe(workspace.resolve(origin["bundle"]), described.bundle, tuple(sources))
    except (KeyError, TypeError, AttributeError) as error:
        raise UnknownSources(
            f"{described.name} does not say what it was made of, so its performances cannot be "
            "kept beside others: publish without them with `--only`."
        ) from error


def current(engine: Engine, workspace: Workspace) -> Recipe | None:
    """Return the recipe of the current collection; None where nothing is published.

    Raises
    ------
    UnknownSources
        As `read_origin`, or if the collection is damaged.
    SearchError
        If the engine cannot be asked.
    """
    history = engine.history()
    if not history:
        return None
    try:
        described = engine.describe(history[0])
    except search.DamagedCollection as error:
        raise UnknownSources(
            f"It is not known what the current collection was made of ({error}): go back with "
            "`covers rollback`, or publish without its performances with `--only`."
        ) from error
    return read_origin(described, workspace)


@dataclass(frozen=True)
class Merged:
    """The sources of the next collection, and what becomes of those of the current one.

    Attributes
    ----------
    sources : tuple of Source
        All of the next collection, in the order of the current one.
    kept, left_out : tuple of Source
        Those of the current collection that are not renewed.
    """

    sources: tuple[Source, ...]
    kept: tuple[Source, ...]
    left_out: tuple[Source, ...]


def merge(
    standing: Sequence[Source],
    renewed: Sequence[Source],
    *,
    only: bool = False,
    leave_out: Sequence[Path] = (),
) -> Merged:
    """Renew some sources of a collection, or add them, and keep the others.

    Parameters
    ----------
    standing : sequence of Source
        Those of the current collection.
    renewed : sequence of Source
        What takes the place of those of the same data, or joins them.
    only : bool
        Leave out all others.
    leave_out : sequence of Path
        Leave out these others.

    Raises
    ------
    ValueError
        If one to leave out is not among the others, or nothing is left.
    """
    by_name = {Path(one.name): one for one in renewed}

    def renewal(source: Source) -> Path | None:
        return next((name for name in by_name if source.is_at(name)), None)

    others = [one for one in standing if renewal(one) is None]
    unwanted = list(others) if only else []
    for path in leave_out:
        named = [one for one in others if one.is_at(path)]
        if not named:
            names = ", ".join(one.name for one in others) or "none"
            raise ValueError(
                f"{path} cannot be left out, because it is not among the other sources of the "
                f"collection ({names}): `covers status` shows their names."
            )
        unwanted += named
    sources: list[Source] = []
    for one in standing:
        name = renewal(one)
        if name is not None:
            sources.append(by_name.pop(name))
        elif one not in unwanted:
            sources.append(one)
    sources += by_name.values()
    if not sources:
        raise ValueError(
            f"Without {', '.join(map(str, leave_out))} nothing would be left to search: publish "
            "something else first."
        )
    kept = tuple(one for one in others if one not in unwanted)
    return Merged(tuple(sources), kept, tuple(unwanted))


def check_kept(kept: Sequence[Source], *, same_bundle: bool, can_embed: bool = True) -> None:
    """Check that sources of the current collection can go into the next one.

    Parameters
    ----------
    kept : sequence of Source
        The sources.
    same_bundle : bool
        Whether the next collection is of the same bundle as the current one.
    can_embed : bool
        Whether the bundle of the next collection can embed features.

    Raises
    ------
    ValueError
        If one of them cannot; it is named.
    """
    for one in kept:
        without = "publish without it, with `--only` or `covers publish --leave-out`"
        elsewhere = is_made_elsewhere(one)
        if not same_bundle and (elsewhere or not can_embed):
            why = "its vectors were made elsewhere and cannot be made with another bundle"
            if not elsewhere:
                why = "the new vectors were made elsewhere, by a model that is not here to embed it"
            raise ValueError(
                f"The collection's source {one.name} cannot be kept, because {why}: {without}."
            )
        if not elsewhere and (one.features is None or not (one.features / "store.json").is_file()):
            missing = one.features or one.vectors
            again = "covers publish" if one.features is None else "covers add"
            renew = "" if one.data is None else f"renew it with `{again} {one.data}`, or "
            raise ValueError(
                f"The collection's source {one.name} cannot be kept, because {missing} is missing: "
                f"{renew}{without}."
            )


def check_bundle(bundle: Path) -> None:
    """Check that a bundle is there, before anything is embedded or published with it.

    Raises
    ------
    FileNotFoundError
        If it is missing.
    """
    if not (bundle / "bundle.json").is_file():
        raise FileNotFoundError(
            f"The bundle {bundle} is missing, so nothing can be published with it: embed with "
            "another one, as `covers pipeline --data DIR` does."
        )


def served(engine: Engine, workspace: Workspace) -> dict[str, dict[str, Any]]:
    """Return the origins of all collections that are served of this workspace.

    Returns
    -------
    dict of str to dict
        By place, a mapping of the names of collections to their origins. The engine is asked for
        its own; of other places it is known what was noted there last.

    Raises
    ------
    SearchError
        If the engine cannot be asked.
    ValueError
        If served.json is damaged.
    """
    path = workspace.root / "served.json"
    noted = read_json(path) or {}
    if not (isinstance(noted, dict) and all(isinstance(one, dict) for one in noted.values())):
        raise damaged(path)
    place = f"{engine.collection} in {engine.location}".replace(f"{workspace.root}{os.sep}", "")
    known = noted.get(place, {})
    history = engine.history()
    if history:  # a server that lost everything is to be filled again
        noted[place] = {name: _origin(name, engine, known) for name in history}
    return noted


def _origin(name: str, engine: Engine, known: dict[str, Any]) -> Any:
    try:
        return engine.describe(name).origin
    except search.DamagedCollection:
        return known.get(name)


def note_served(engine: Engine, workspace: Workspace) -> None:
    """Note what the collections in an engine are made of."""
    path = workspace.root / "served.json"
    with room_for(path), FileLock(workspace.root / ".served.lock"):
        write_json(path, served(engine, workspace))
