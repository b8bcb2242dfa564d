"""Join vectors with what feature stores know of their performances: titles, columns and chroma."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import polars as pl

import search
from embedding.data.chroma import CHROMA_RATE
from embedding.data.columns import kinds_of, settle, told
from embedding.data.store import FeatureStore
from flows.collection.sources import Recipe
from flows.collection.vectors import FIELDS, IDS, TAKEN, read
from flows.measuring.calibrate import read_calibration

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Titled:
    """The vectors of one source with what is known of its performances, and its store."""

    table: pl.DataFrame
    left_out: dict[str, str]  # own columns, and why
    store: FeatureStore | None


def points_of_recipe(recipe: Recipe) -> search.Points:
    """Return the points of all sources, and log which own columns they have.

    Raises
    ------
    ValueError
        If a performance is in two of them.
    """
    sources = []
    owners: dict[str, str] = {}
    for source in recipe.sources:
        store = None if source.features is None else FeatureStore.open(source.features)
        vectors = read(source.vectors)
        if not source.is_foreign:
            _check_complete(vectors, store)
        for track_id in vectors["track_id"]:
            owner = owners.setdefault(track_id, source.name)
            if owner != source.name:
                raise ValueError(
                    f"Performance {track_id} is in {owner} and in {source.name}: take it out "
                    "of one of them, or publish without one of them, with `--only` or `covers "
                    "publish --leave-out`."
                )
        sources.append(Titled(*titled(vectors, store), store))
    points, line = _points(sources, read_calibration(recipe.bundle))
    if line:
        logger.info("the collection has %s", line)
    return points


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
    if complete:
        _check_complete(vectors, store)
    return _points([Titled(*titled(vectors, store), store)], calibration)[0]


def _points(
    sources: Sequence[Titled], calibration: search.Calibration | None
) -> tuple[search.Points, str]:
    tables, left_out = settle([source.table for source in sources], FIELDS, TAKEN)
    for source in sources:
        left_out |= source.left_out
    columns = kinds_of(tables[0], FIELDS)
    points = (
        point
        for source, table in zip(sources, tables, strict=True)
        for point in _points_of_source(table, source.store)
    )
    made = search.Points(points, rate=CHROMA_RATE, calibration=calibration, columns=columns)
    return made, told(columns, left_out)


def _points_of_source(table: pl.DataFrame, store: FeatureStore | None) -> Iterator[search.Point]:
    rows: dict[str, int] = {}
    if store is not None:
        rows = {track_id: row for row, track_id in enumerate(store.table["track_id"])}
    matrix = table["vector"].to_numpy()
    payloads = table.drop("vector", "fingerprint", strict=False).to_dicts()
    for vector, payload in zip(matrix, payloads, strict=True):
        track_id = payload.pop("track_id")
        row = rows.get(track_id)
        sequence = None if store is None or row is None else store.sequence(row)
        yield search.Point(track_id, vector, payload, sequence)


def _check_complete(vectors: pl.DataFrame, store: FeatureStore | None) -> None:
    if store is None:
        return
    strangers = sorted(set(vectors["track_id"]) - set(store.table["track_id"]))
    if strangers:
        raise ValueError(
            f"There are vectors of {strangers[0]}, which {store.path} doesn't hold, so they "
            "are damaged or of other features: delete them, and run the same again."
        )


def titled(table: pl.DataFrame, store: FeatureStore | None) -> tuple[pl.DataFrame, dict[str, str]]:
    """Add what a store says of performances to their rows; what these say already comes first.

    Returns the table, and own columns that are left out, with the reason. What our vectors lack
    comes from the store, so that a corrected title arrives.
    """
    if store is None:
        return table, {}
    (table, known), left_out = settle([table, store.facts], FIELDS, IDS)
    brought = [name for name in known.columns if name in table.columns and name != "track_id"]
    table = table.join(known, on="track_id", how="left", maintain_order="left", suffix=" known")
    table = table.with_columns(pl.coalesce(name, f"{name} known") for name in brought)
    return table.drop(f"{name} known" for name in brought), left_out
