"""Features and a bundle -> vectors.parquet -> the published collection."""

import logging
import os
from pathlib import Path

import polars as pl
from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE

from embedding import bundle as bundles
from embedding.store import FeatureStore
from flows.publish import Recipe, Source, publish
from flows.vectors import VECTORS, read
from flows.workspace import Workspace, key, make_once

logger = logging.getLogger(__name__)

#: Counted up when what stands beside the vectors changes, so that it is made anew.
VERSION = 3


@flow(name="embed", flow_run_name="embed")
def embed(
    features: Path | None = None,
    bundle: Path | None = None,
    home: Path | None = None,
    source: Path | None = None,
) -> Path:
    """Embed every performance and publish the vectors as the current collection.

    Parameters
    ----------
    features : Path, optional
        What `aggregate` made; by default the latest.
    bundle : Path, optional
        What `train` made; by default the latest. "pretrained" is the one that comes with the
        package.
    home : Path, optional
        The workspace; by default `$COVERS_HOME`.
    source : Path, optional
        The data that the features were made of, where `covers add` shall look for what is new.

    Returns
    -------
    Path
        vectors.parquet: track_id, work_id, fingerprint, vector; its metadata name the bundle and
        the features, relative to the workspace.
    """
    workspace = Workspace.at(home)
    features = features or workspace.latest("features", "store.json")
    bundle = named(bundle) if bundle else workspace.latest("bundles", "bundle.json")
    vectors = embed_features(features, bundle, workspace.root)
    publish(Recipe(bundle, (Source(source, features, vectors),)), workspace.root)
    return vectors


def named(bundle: Path) -> Path:
    """Return the directory of a bundle as a user names it: "pretrained", or a path."""
    return bundles.PRETRAINED if str(bundle) == "pretrained" else bundle.expanduser().resolve()


@task(cache_policy=NO_CACHE, retries=1)
def embed_features(features: Path, bundle: Path, home: Path) -> Path:
    """Embed what of a feature store the same bundle hasn't embedded before.

    What the encoder can't use, such as silence, is left out; rejects.parquet says what and why.
    """
    logger = get_run_logger()
    store, encoder = FeatureStore.open(features), bundles.load(bundle)
    place = Workspace(home).path("vectors", f"{encoder.id}-{key(VERSION, store.fingerprint)}")

    def make(directory: Path) -> None:
        unusable = encoder.unusable(store)
        for track_id, reason in unusable.items():
            logger.warning("left out %s: %s", track_id, reason)
        rejects = {"track_id": list(unusable), "reason": list(unusable.values())}
        schema = {"track_id": pl.String, "reason": pl.String}
        pl.DataFrame(rejects, schema=schema).write_parquet(directory / "rejects.parquet")
        usable = store.select(~store.table["track_id"].is_in(rejects["track_id"]))
        ids = usable.table.select("track_id", "work_id", "fingerprint")
        kind = pl.Array(pl.Float32, encoder.dimension)
        vectors = embedded_before(ids, kind, place)
        new = vectors["vector"].is_null()
        fresh = encoder.embed(usable.select(new.to_numpy()))
        logger.info("%d performances of %s are new or changed", len(fresh), store.name)
        made = ids.filter(new).with_columns(vector=pl.Series(fresh, dtype=kind))
        pl.concat([vectors.filter(~new), made]).sort("track_id").write_parquet(
            directory / VECTORS,
            metadata={
                "bundle": os.path.relpath(bundle, home),
                "bundle_id": encoder.id,
                "data": store.name,
                "features": os.path.relpath(features, home),
            },
        )

    made = make_once(place, make)
    logger.info(
        "%s %d performances with %s",
        "embedded" if made else "unchanged: had embedded",
        len(store),
        encoder.id,
    )
    return place / VECTORS


def embedded_before(ids: pl.DataFrame, kind: pl.Array, place: Path) -> pl.DataFrame:
    """Add the vectors that the same bundle has made of the same contents; null where it hasn't.

    A vector depends on its own performance only, so it doesn't matter what was embedded with it.
    """
    bundle_id = place.name.rpartition("-")[0]
    parts = []
    for path in place.parent.glob(f"{bundle_id}-*/{VECTORS}"):
        try:
            parts.append(read(path).select("track_id", "fingerprint", "vector"))
        except ValueError as error:
            logger.warning("not used again: %s", error)
    if not parts:
        return ids.with_columns(vector=pl.lit(None, dtype=kind))
    known = pl.concat(parts).unique(["track_id", "fingerprint"], keep="any")
    return ids.join(known, on=["track_id", "fingerprint"], how="left", maintain_order="left")
