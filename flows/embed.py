"""Features and a bundle -> vectors.parquet -> the published collection."""

import os
from pathlib import Path

import polars as pl
from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE

import search
from embedding import bundle as bundles
from embedding.store import METADATA, FeatureStore
from flows.calibrate import read_calibration
from flows.workspace import Workspace, key, make_once

VECTORS = "vectors.parquet"

#: Counted up when what stands beside the vectors changes, so that it is made anew.
VERSION = 2


@flow(name="embed", flow_run_name="embed")
def embed(
    features: Path | None = None, bundle: Path | None = None, home: Path | None = None
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

    Returns
    -------
    Path
        vectors.parquet: track_id, work_id, vector; its metadata name the bundle and the features,
        relative to the workspace.
    """
    workspace = Workspace.at(home)
    features = features or workspace.latest("features", "store.json")
    bundle = named(bundle) if bundle else workspace.latest("bundles", "bundle.json")
    vectors = embed_features(features, bundle, workspace.root)
    publish_vectors(vectors, features, bundle, workspace.root)
    return vectors


def named(bundle: Path) -> Path:
    """Return the directory of a bundle as a user names it: "pretrained", or a path."""
    return bundles.PRETRAINED if str(bundle) == "pretrained" else bundle.expanduser().resolve()


@task(cache_policy=NO_CACHE, retries=1)
def embed_features(features: Path, bundle: Path, home: Path) -> Path:
    """Embed a feature store, unless the same bundle has embedded the same features before.

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
        vectors = encoder.embed(usable)
        usable.table.select(
            "track_id",
            "work_id",
            vector=pl.Series(vectors, dtype=pl.Array(pl.Float32, vectors.shape[1])),
        ).write_parquet(
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


@task(cache_policy=NO_CACHE, retries=3, retry_delay_seconds=[1, 5, 20])
def publish_vectors(vectors: Path, features: Path, bundle: Path, home: Path) -> search.Description:
    """Publish vectors with what the features know of each performance.

    Publishing the same content again changes nothing, so a retry is harmless.
    """
    logger = get_run_logger()
    made_with = pl.read_parquet_metadata(vectors)["bundle_id"]
    points = points_of(
        pl.read_parquet(vectors), FeatureStore.open(features), read_calibration(bundle)
    )
    published = search.publish(points, made_with, search.connect(home))
    logger.info("serving %s: %d performances", published.name, published.points)
    return published


def points_of(
    vectors: pl.DataFrame, store: FeatureStore, calibration: search.Calibration | None
) -> search.Points:
    """Join vectors with what a store knows of their performances: titles, and the chroma.

    Parameters
    ----------
    vectors : pl.DataFrame
        Rows of a vectors.parquet.
    store : FeatureStore
        Holds their performances.
    calibration : Calibration or None
        Of the bundle that made them.
    """
    known = store.table.select("track_id", *METADATA, "subset")
    # The vectors' own order and works; titles are looked up so that a corrected one arrives.
    table = vectors.join(known, on="track_id", how="left", maintain_order="left")
    row = {track_id: i for i, track_id in enumerate(store.table["track_id"])}
    return search.Points(
        track_ids=table["track_id"].to_list(),
        vectors=table["vector"].to_numpy(),
        payloads=table.drop("track_id", "vector").to_dicts(),
        sequences=[store.sequence(row[track_id]) for track_id in table["track_id"]],
        rate=store.chroma_rate,
        calibration=calibration,
    )
