"""Vectors of one or several data sets -> the published collection, and what it was made of."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

import search
from embedding.descriptors import resample
from embedding.store import METADATA, FeatureStore
from flows.calibrate import read_calibration
from flows.vectors import origin, read
from flows.workspace import Workspace, room_for


@dataclass(frozen=True)
class Source:
    """A data set in the collection.

    Attributes
    ----------
    data : Path or None
        Where it lies; None where that isn't known, so that it can't be looked through again.
    features, vectors : Path
        What was made of it.
    """

    data: Path | None
    features: Path
    vectors: Path


@dataclass(frozen=True)
class Recipe:
    """What a collection was made of.

    Attributes
    ----------
    bundle : Path
        By which everything in it was embedded.
    sources : tuple of Source
        No two of the same data.
    """

    bundle: Path
    sources: tuple[Source, ...]


def may_pass(_task: Any, _run: Any, state: Any) -> bool:
    """Whether it is worth trying again: a server may come back, what is wrong stays wrong."""
    try:
        state.result()
    except (search.ServerRefused, search.NoRoom):
        return False
    except (search.ServerUnreachable, search.PublishError, OSError):
        return True
    except Exception:
        return False
    return False


@task(
    cache_policy=NO_CACHE,
    retries=3,
    retry_delay_seconds=[1, 5, 20],
    retry_condition_fn=may_pass,
)
def publish(recipe: Recipe, home: Path) -> search.Description:
    """Publish the vectors of all sources, with what their features know of each performance.

    Publishing the same content again changes nothing, so a retry is harmless.

    Raises
    ------
    ValueError
        If a performance is in two of the sources.
    """
    logger = get_run_logger()
    engine = search.connect(home)
    bundle_id = origin(recipe.sources[0].vectors)["bundle_id"]
    published = search.publish(points_of_recipe(recipe), bundle_id, engine)
    _write(recipe, published.name, home)
    for path in (home / "published").glob("*.json"):
        if path.stem not in engine.names():
            path.unlink()
    logger.info("serving %s: %d performances", published.name, published.points)
    return published


def recipe_of(name: str, home: Path) -> Recipe:
    """Return what a collection was made of.

    Raises
    ------
    FileNotFoundError
        If this workspace doesn't know.
    ValueError
        If what it knows is damaged.
    """
    path = _path(name, home)
    if not path.exists():
        raise FileNotFoundError(
            f"{home} doesn't know what {name} was made of: publish with `covers pipeline` first."
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        sources = [
            Source(
                Path(one["data"]) if one["data"] else None,
                home / one["features"],
                home / one["vectors"],
            )
            for one in content["sources"]
        ]
        return Recipe(home / content["bundle"], tuple(sources))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged: publish with `covers pipeline` again.") from error


def _path(name: str, home: Path) -> Path:
    return Workspace(home).path("published", f"{name}.json")


def _write(recipe: Recipe, name: str, home: Path) -> None:
    def relative(path: Path) -> str:
        return os.path.relpath(path, home)

    content = {
        "bundle": relative(recipe.bundle),
        "sources": [
            asdict(one)
            | {
                "data": str(one.data) if one.data else None,
                "features": relative(one.features),
                "vectors": relative(one.vectors),
            }
            for one in recipe.sources
        ],
    }
    path = _path(name, home)
    with room_for(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(".new")
        scratch.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        scratch.replace(path)


def points_of_recipe(recipe: Recipe) -> search.Points:
    """Gather the points of all sources."""
    calibration = read_calibration(recipe.bundle)
    parts = [
        points_of(read(one.vectors), FeatureStore.open(one.features), calibration)
        for one in recipe.sources
    ]
    if len(parts) == 1:
        return parts[0]
    owner: dict[str, Path] = {}
    for part, source in zip(parts, recipe.sources, strict=True):
        for track_id in part.track_ids:
            if track_id in owner:
                raise ValueError(
                    f"Performance {track_id} is in {owner[track_id]} and in "
                    f"{source.data or source.features}: take it out of one of them."
                )
            owner[track_id] = source.data or source.features
    rate = next((part.rate for part in parts if part.rate is not None), None)
    sequences = [each for part in parts for each in _sequences(part, rate)]
    return search.Points(
        track_ids=[track_id for part in parts for track_id in part.track_ids],
        vectors=np.concatenate([part.vectors for part in parts]),
        payloads=[
            {name: value for name, value in payload.items() if name != "clique_size"}
            for part in parts
            for payload in part.payloads
        ],
        sequences=sequences,
        rate=rate,
        calibration=calibration,
    )


def _sequences(part: search.Points, rate: float | None) -> list[np.ndarray]:
    """The sequences of a source at the collection's rate."""
    if part.sequences is None or part.rate is None or rate is None:
        return [np.empty((0, 2, 12), np.float16)] * len(part)
    return [resample(each, part.rate / rate).astype(np.float16) for each in part.sequences]


def points_of(
    vectors: pl.DataFrame, store: FeatureStore, calibration: search.Calibration | None
) -> search.Points:
    """Join vectors with what a store knows of their performances: titles, and the chroma.

    Parameters
    ----------
    vectors : pl.DataFrame
        Rows of a vectors.parquet: track_id, work_id, vector.
    store : FeatureStore
        Holds their performances.
    calibration : Calibration or None
        Of the bundle that made them.
    """
    known = store.table.select("track_id", *METADATA, "subset")
    # The vectors' own order and works; titles are looked up so that a corrected one arrives.
    table = vectors.select("track_id", "work_id", "vector").join(
        known, on="track_id", how="left", maintain_order="left"
    )
    row = {track_id: i for i, track_id in enumerate(store.table["track_id"])}
    if strangers := sorted(set(table["track_id"]) - set(row)):
        raise ValueError(
            f"There are vectors of {strangers[0]}, which {store.path} doesn't hold, so they are "
            "damaged or of other features: delete them, and run the same again."
        )
    return search.Points(
        track_ids=table["track_id"].to_list(),
        vectors=table["vector"].to_numpy(),
        payloads=table.drop("track_id", "vector").to_dicts(),
        sequences=[store.sequence(row[track_id]) for track_id in table["track_id"]],
        rate=store.chroma_rate,
        calibration=calibration,
    )
