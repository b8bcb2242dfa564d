"""Join vectors with what feature stores know of their performances: titles and chroma."""

from collections.abc import Iterator

import polars as pl

import search
from embedding.data.chroma import CHROMA_RATE
from embedding.data.store import FeatureStore
from flows.collection.sources import Recipe
from flows.collection.vectors import BROUGHT, read
from flows.measuring.calibrate import read_calibration


def points_of_recipe(recipe: Recipe) -> search.Points:
    """Return the points of all sources.

    Raises
    ------
    ValueError
        If a performance is in two of them.
    """
    points: list[search.Point] = []
    owners: dict[str, str] = {}
    for source in recipe.sources:
        store = None if source.features is None else FeatureStore.open(source.features)
        for point in _points(read(source.vectors), store, complete=not source.is_foreign):
            owner = owners.setdefault(point.track_id, source.name)
            if owner != source.name:
                raise ValueError(
                    f"Performance {point.track_id} is in {owner} and in {source.name}: take it out "
                    "of one of them, or publish without one of them, with `--only` or `covers "
                    "publish --leave-out`."
                )
            points.append(point)
    return search.Points(points, rate=CHROMA_RATE, calibration=read_calibration(recipe.bundle))


def points_of(
    vectors: pl.DataFrame,
    store: FeatureStore | None,
    calibration: search.Calibration | None,
    *,
    complete: bool = True,
) -> search.Points:
    """Return the points of one source, whose store must have every performance if `complete`.

    Titles that come with the vectors are used before those of the store.
    """
    points = _points(vectors, store, complete)
    return search.Points(points, rate=CHROMA_RATE, calibration=calibration)


def _points(
    vectors: pl.DataFrame, store: FeatureStore | None, complete: bool
) -> Iterator[search.Point]:
    rows: dict[str, int] = {}
    if store is not None:
        rows = {track_id: row for row, track_id in enumerate(store.table["track_id"])}
        strangers = sorted(set(vectors["track_id"]) - set(rows))
        if strangers and complete:
            raise ValueError(
                f"There are vectors of {strangers[0]}, which {store.path} doesn't hold, so they "
                "are damaged or of other features: delete them, and run the same again."
            )
    matrix = vectors["vector"].to_numpy()
    payloads = titled(vectors.drop("vector", "fingerprint", strict=False), store).to_dicts()
    for vector, payload in zip(matrix, payloads, strict=True):
        track_id = payload.pop("track_id")
        row = rows.get(track_id)
        sequence = None if store is None or row is None else store.sequence(row)
        yield search.Point(track_id, vector, payload, sequence)


def titled(table: pl.DataFrame, store: FeatureStore | None) -> pl.DataFrame:
    """Add the titles of a store to the rows of performances; titles that they have come first.

    They come from the store, and not with our vectors, so that a corrected title arrives.
    """
    if store is None:
        return table
    brought = [name for name in BROUGHT if name in table.columns]
    known = store.table.select("track_id", *BROUGHT)
    table = table.join(known, on="track_id", how="left", maintain_order="left", suffix=" known")
    table = table.with_columns(pl.coalesce(name, f"{name} known") for name in brought)
    return table.drop(f"{name} known" for name in brought)
