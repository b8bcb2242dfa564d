"""What is asked about: a performance of the collection, by its track id, or any other, as a Query.

What publishing measures of a performance is measured here of a `Query`, against performances of the
collection. So the probabilities of its matches are calibrated as those of all other matches are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from search.engines.collection import Collection, Sequences, Stored
from search.errors import InvalidQuery
from search.point import Frames, Vectors
from search.points import USUAL_DISTANCE, USUAL_SPREAD
from search.suggestions import unknown_track
from search.versions import calibration, reranking

#: Share of the longest distance that the same performance may seem to be away from itself, because
#: the last digits of a vector depend on what is embedded with it.
EQUAL_SHARE = 1e-5

#: Sequences that are read at once, to find references.
BATCH_SEQUENCES = reranking.MAX_REFERENCES


@dataclass(frozen=True, eq=False)
class Query:
    """A performance that need not be in the collection.

    `embedding.performance.embed` makes both arrays of a recording.

    Attributes
    ----------
    vector : array_like, shape=(d,)
        Finite numbers, made by the bundle of the collection.
    sequence : array_like, shape=(F, 2, 12), optional
        HPCP and CREMA over time, at the rate of the collection. Only with it can the performance be
        aligned.
    name : str
        What answers and errors call it.
    """

    vector: npt.ArrayLike
    sequence: npt.ArrayLike | None = None
    name: str = "the query"

    def __str__(self) -> str:
        return self.name


def look_up(collection: Collection, asked: Sequence[str | Query]) -> list[Stored]:
    """Return what the collection holds of performances, and what it would hold of queries.

    A query gets no track id and no work.

    Raises
    ------
    TrackNotFound
        If the collection has no performance of an id.
    InvalidQuery
        If an id is not a text, or a vector cannot be compared.
    """
    ids = [each for each in asked if not isinstance(each, Query)]
    check_ids(ids)
    stored = iter(collection.performances(ids) if ids else ())
    queries = [each for each in asked if isinstance(each, Query)]
    measured = iter(_measured(collection, queries) if queries else ())
    found = []
    for each in asked:
        performance = next(measured) if isinstance(each, Query) else next(stored)
        if performance is None:
            raise unknown_track(collection, str(each))
        found.append(performance)
    return found


def check_ids(track_ids: Sequence[object]) -> None:
    """Raise InvalidQuery if an id is not a text."""
    for track_id in track_ids:
        if not isinstance(track_id, str):
            raise InvalidQuery(
                f"A track id is a text, and {track_id!r} is not: write it in quotes, or ask with a "
                "search.Query."
            )


def stored_sequences(collection: Collection) -> Sequences:
    """Return the sequences of a collection; raise InvalidQuery if it has none."""
    if collection.sequences is None:
        raise InvalidQuery(
            f"Reranking aligns chroma sequences, and {collection.description.name} holds none: "
            "publish performances that have chroma, or ask without rerank."
        )
    return collection.sequences


def sequences_of(collection: Collection, asked: Sequence[str | Query]) -> list[Frames]:
    """Return the sequence of each, shape=(F, 2, 12), which may be empty.

    Raises InvalidQuery if the collection has none, or that of a query has another shape.
    """
    # They are read together, because that is one request to a server.
    ids = [each for each in asked if isinstance(each, str)]
    stored = iter(stored_sequences(collection).of(ids))
    return [_sequence(each) if isinstance(each, Query) else next(stored) for each in asked]


def backgrounds_of(collection: Collection, asked: Sequence[str | Query]) -> Vectors:
    """Return the background of each, shape=(n, 2); see `search.versions.reranking.backgrounds`."""
    ids = [each for each in asked if isinstance(each, str)]
    stored = iter(stored_sequences(collection).backgrounds(ids))
    return np.array(
        [
            _background(collection, _sequence(each)) if isinstance(each, Query) else next(stored)
            for each in asked
        ],
        np.float32,
    )


def _measured(collection: Collection, queries: Sequence[Query]) -> list[Stored]:
    """Measure the usual distance of each query to performances of the collection."""
    vectors = [_vector(query, collection) for query in queries]
    sample = islice(collection.everything(), calibration.MAX_REFERENCES)
    references = np.stack([stored.vector for stored in sample]).astype(np.float64)
    found = []
    for vector in vectors:
        distances = np.linalg.norm(references - vector, axis=1)
        # What is as good as equal is probably the query itself.
        distances = distances[distances > EQUAL_SHARE * distances.max()]
        mean, spread = calibration.usual_of(distances[None], len(distances))[0].tolist()
        found.append(Stored(vector, {USUAL_DISTANCE: mean, USUAL_SPREAD: spread}))
    return found


def _background(collection: Collection, sequence: Frames) -> Vectors:
    """Measure a background against the performances that publishing measures it against."""
    sequences, references = stored_sequences(collection), list[Frames]()
    wanted = reranking.MAX_REFERENCES
    # They are sorted by point id, as for publishing. Where few have a sequence, the search for
    # those few must end.
    ids = collection.values("track_id", calibration.MAX_REFERENCES)
    for start in range(0, len(ids), BATCH_SEQUENCES):
        found = sequences.of(ids[start : start + BATCH_SEQUENCES])
        references += [each for each in found if len(each)]
        if len(references) >= wanted:
            break
    # What is equal is probably the query itself.
    others = [each for each in references[:wanted] if not np.array_equal(each, sequence)]
    known = np.zeros((len(others) + 1, 2), np.float32)
    known[-1] = np.nan
    measured: Vectors = reranking.backgrounds([*others, sequence], sequences.rate, known)
    return np.asarray(measured[-1])


def _vector(query: Query, collection: Collection) -> Vectors:
    try:
        with np.errstate(over="ignore"):  # a number that float32 cannot hold becomes infinite
            array = np.asarray(query.vector, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise InvalidQuery(f"A vector is a list of numbers, and this is not: {error}.") from error
    description = collection.description
    if array.shape != (description.dimension,):
        raise InvalidQuery(
            f"A vector of shape {array.shape} cannot be compared with {description.name}, whose "
            f"vectors have {description.dimension} components: embed it with the bundle "
            f"{description.bundle}."
        )
    if not np.isfinite(array).all():
        component = int(np.argmin(np.isfinite(array)))
        raise InvalidQuery(
            f"The vector is not finite, because its component {component} is {array[component]}: "
            "embed the performance again."
        )
    return array


def _sequence(query: Query) -> Frames:
    nothing = np.empty((0, 2, 12))
    sequence: npt.NDArray[Any] = np.asarray(nothing if query.sequence is None else query.sequence)
    if sequence.ndim != 3 or sequence.shape[1:] != (2, 12) or sequence.dtype.kind not in "fiu":
        raise InvalidQuery(
            f"The sequence of {query} has the shape {sequence.shape} and the type "
            f"{sequence.dtype}, where it must have numbers of the shape (frames, 2, 12)."
        )
    frames: Frames = sequence.astype(np.float16, copy=False)
    if not np.isfinite(frames).all():
        raise InvalidQuery(f"The sequence of {query} is not finite: embed the performance again.")
    return frames
