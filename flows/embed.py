"""A feature store and a bundle -> vectors.parquet."""

import logging
from pathlib import Path

import polars as pl
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

from embedding import bundle as bundles
from embedding.data.atomic import whole_file
from embedding.data.store import FeatureStore
from flows import alert
from flows.collection.vectors import VECTORS, origin, read
from flows.rejects import REJECTS, unusable, warn
from flows.workspace import Workspace, claimed, data_name

logger = logging.getLogger(__name__)

#: Increased when the files of a result change.
VERSION = 4


def _run_name() -> str:
    features, bundle = (flow_run.parameters.get(name) for name in ("features", "bundle"))
    try:
        name = bundles.head(bundle).id if bundle else "the latest bundle"
    except ValueError:  # the flow says what is wrong
        name = Path(bundle).name
    return f"embed {data_name(features)} with {name}"


@alert.flow("embed", _run_name)
def embed(
    features: Path | None = None, bundle: Path | None = None, home: Path | None = None
) -> Path:
    """Embed every performance of a feature store. `publish` lets searchers see the vectors.

    Parameters
    ----------
    features : Path, optional
        A feature store; by default the latest.
    bundle : Path, optional
        A bundle; by default the latest. "pretrained" is the bundle that comes with the package.
    home : Path, optional
        The workspace; by default `$COVERS_HOME`.

    Returns
    -------
    Path
        vectors.parquet: track_id, work_id, fingerprint, vector. Its metadata name the bundle and
        the features, relative to the workspace.
    """
    workspace = Workspace.at(home)
    with workspace.used():
        features = features or workspace.latest("features")
        bundle = named(bundle) if bundle else workspace.latest("bundle")
        vectors = embed_features(features, bundle, workspace.root)
        workspace.note(vectors=vectors)
    return vectors


def named(bundle: Path) -> Path:
    """Return the directory of a bundle that a user names: "pretrained", or a path."""
    return bundles.directory_of(bundle).resolve()


@task(cache_policy=NO_CACHE)
def embed_features(features: Path, bundle: Path, home: Path) -> Path:
    """Embed the performances that the same bundle has not embedded before.

    Performances that the encoder cannot use, such as silence, are listed in rejects.parquet.
    """
    workspace = Workspace(home)
    store, encoder = FeatureStore.open(features), bundles.load(bundle)
    made_with = {
        "bundle": workspace.relative(bundle),
        "bundle_id": encoder.id,
        "data": store.name,
        "features": workspace.relative(features),
    }

    def make(directory: Path) -> None:
        reasons = encoder.unusable(store)
        rejects = {"track_id": list(reasons), "reason": list(reasons.values())}
        schema = {"track_id": pl.String, "reason": pl.String}
        pl.DataFrame(rejects, schema=schema).write_parquet(directory / REJECTS)
        usable = store.select(~store.table["track_id"].is_in(rejects["track_id"]))
        ids = usable.table.select("track_id", "work_id", "fingerprint")
        kind = pl.Array(pl.Float32, encoder.dimension)
        vectors = embedded_before(ids, kind, workspace, encoder.id)
        new = vectors["vector"].is_null()
        fresh = encoder.embed(usable.select(new.to_numpy()))
        logger.info("%d performances of %s are new or changed", len(fresh), store.name)
        made = ids.filter(new).with_columns(vector=pl.Series(fresh, dtype=kind))
        table = pl.concat([vectors.filter(~new), made]).sort("track_id")
        table.write_parquet(directory / VECTORS, metadata=made_with)

    place = workspace.result("vectors", encoder.id, (VERSION, store.fingerprint), make)
    _renew_origin(place, made_with)
    warn(unusable(features, place / VECTORS))
    return place / VECTORS


def _renew_origin(place: Path, made_with: dict[str, str]) -> None:
    """Write the newest of equal feature stores into the metadata of vectors.

    It has the titles as they are now, and the data set may have moved.
    """
    with claimed(place):
        path = place / VECTORS
        if {name: origin(path).get(name) for name in made_with} != made_with:
            with whole_file(path) as scratch:
                read(path).write_parquet(scratch, metadata=made_with)


def embedded_before(
    ids: pl.DataFrame, kind: pl.Array, workspace: Workspace, bundle_id: str
) -> pl.DataFrame:
    """Add the vectors that the same bundle has made of the same contents, or null.

    A vector depends on its own performance only. The newest files are read first, until no vector
    is missing.
    """
    found = ids.with_columns(vector=pl.lit(None, dtype=kind))
    earlier = workspace.root.glob(f"vectors/{bundle_id}-*/{VECTORS}")
    for path in sorted(earlier, key=lambda path: path.stat().st_mtime_ns, reverse=True):
        if not found["vector"].null_count():
            break
        try:
            known = read(path).select("track_id", "fingerprint", before="vector")
            known = known.cast({"before": kind})
        except (ValueError, pl.exceptions.PolarsError) as error:
            logger.warning("not used again: %s", error)
            continue
        found = found.join(
            known, on=["track_id", "fingerprint"], how="left", maintain_order="left"
        ).select(*ids.columns, pl.coalesce("vector", "before").alias("vector"))
    return found
