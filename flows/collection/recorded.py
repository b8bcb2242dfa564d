"""What a user names on the command line: performances of the collection, or recordings."""

import os
from collections.abc import Sequence
from pathlib import Path

import search
from embedding import bundle as bundles
from embedding.audio import recordings
from embedding.data import layout
from flows.collection.served import current
from flows.collection.sources import UnknownSources
from flows.workspace import Workspace


def queries(
    searcher: search.Searcher, names: Sequence[str], home: Path | None
) -> list[str | search.Query]:
    """Return a query for each name: a track id of the collection, or the path of a recording.

    A track id comes first, so that files in the current directory change no answer. Equal names
    give the same query.

    Raises
    ------
    ValueError
        If a recording is missing or cannot be used, or the bundle of the collection cannot embed
        it.
    SearchError
        If the engine does not answer.
    """
    different = [*dict.fromkeys(names)]
    stored = searcher.engine.open().performances(different)
    unknown = [name for name, found in zip(different, stored, strict=True) if found is None]
    files = [name for name in unknown if os.path.isfile(name)]  # noqa: PTH113
    for name in unknown:
        if name not in files and name.lower().endswith(recordings.SUFFIXES):
            raise ValueError(
                f"There is no file {name}, and no performance of the collection has this id: "
                "correct the path."
            )
        if name in files and name.lower().endswith(layout.SUFFIXES):
            raise ValueError(
                f"{name} holds features, and a question takes a recording: embed it from Python, "
                "and ask with a search.Query."
            )
    if not files:
        return list(names)
    from embedding.performance import embed

    bundle = _bundle(searcher, Workspace.at(home), files[0])
    made = {name: search.Query(*embed(name, bundle), name=name) for name in files}
    return [made.get(name, name) for name in names]


def _bundle(searcher: search.Searcher, workspace: Workspace, name: str) -> bundles.Bundle:
    """Load the bundle of the current collection; raise ValueError if it cannot embed."""
    why = f"{name} cannot be embedded, because"
    try:
        recipe = current(searcher.engine, workspace)
    except UnknownSources as error:
        raise ValueError(
            f"{why} the collection does not say which bundle made its vectors: publish it again "
            "with `covers pipeline --data DIR`."
        ) from error
    if recipe is None:
        raise search.NoCollection(f"{why} nothing is published: run `covers pipeline --data DIR`.")
    if not (recipe.bundle / "bundle.json").is_file():
        raise ValueError(
            f"{why} the bundle of the collection is not at {recipe.bundle}: name the workspace "
            "that the collection was published from with --home."
        )
    bundle = bundles.load(recipe.bundle)
    if bundle.is_imported:
        raise ValueError(
            f"{why} the vectors of the collection were made elsewhere, by {bundle.id}: make its "
            "vector there, and ask from Python with a search.Query."
        )
    if bundle.id != recipe.bundle_id:
        raise ValueError(
            f"{why} the collection was made with {recipe.bundle_id}, and {recipe.bundle} now holds "
            f"{bundle.id}: publish again with `covers pipeline --data DIR`."
        )
    return bundle
