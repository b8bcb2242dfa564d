"""How far the probabilities of a collection can be trusted with its labels, without, and halved.

    COVERS_HOME=.demo/covers PYTHONPATH=tests python -m benchmarks.unlabelled

takes the collection that `make demo` publishes. It is published again, in a temporary directory,
with all labels, without any (each performance is a work of its own), and with those of half of the
works. Answers are compared with the true labels.
"""

import tempfile
from collections.abc import Collection
from pathlib import Path

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table

import search
from flows.measuring import trial
from search.copying import GIVEN, take_out

#: Matches that are aligned, as in a search.
DEPTH = 100


def without_labels(points: search.Points, hidden: Collection[str]) -> search.Points:
    """Make each performance of the hidden works a work of its own."""
    made = []
    for i, track_id in enumerate(points.track_ids):
        known = points.payloads[i]
        # Sizes of cliques are counted again.
        payload = {name: known[name] for name in GIVEN if name in known and name != "clique_size"}
        if payload["work_id"] in hidden:
            payload["work_id"] = f"of {track_id}"
        sequence = None if points.sequences is None else points.sequences[i]
        made.append(search.Point(track_id, points.vectors[i], payload, sequence))
    return search.Points(made, rate=points.rate, calibration=points.calibration)


def measure(points: search.Points, hidden: Collection[str]) -> list[float]:
    """Publish points without some labels, and compare all answers with all labels."""
    works = {
        track_id: str(p["work_id"])
        for track_id, p in zip(points.track_ids, points.payloads, strict=True)
    }
    true = works | {f"of {track_id}": work for track_id, work in works.items()}
    with (
        tempfile.TemporaryDirectory() as directory,
        trial.published(without_labels(points, hidden), "b", Path(directory)) as searcher,
    ):
        description = searcher.engine.open().description
        answers = trial.ask(searcher, points.track_ids, DEPTH)
    assert answers.names is not None
    certainties = [
        trial.certainty(
            table.with_columns(
                same_work=pl.col("query").replace(works) == pl.col("match").replace(works)
            ),
            points,
        )
        for table in (answers.distance, answers.reranked)
    ]
    names = answers.names.with_columns(pl.col("named").replace(true))
    found = trial.identified(names, points)
    return [
        description.expected_versions,
        description.expected_linked,
        *(each["calibration_error"] for each in certainties),
        float(answers.names["probability_of_none"].mean()),  # type: ignore[arg-type]
        found["none_calibration_error"],
        found["identified"],
    ]


def main() -> None:
    """Print a column for each share of the labels."""
    points = take_out(search.connect().open())
    works = sorted({str(payload["work_id"]) for payload in points.payloads})
    half = np.random.default_rng(0).permutation(works)[::2].tolist()
    columns = [measure(points, hidden) for hidden in ((), half, works)]
    rows = (
        "versions of a performance, as expected",
        "share with a version, as expected",
        "calibration error by distance",
        "calibration error by alignment",
        "probability of no work, mean",
        "calibration error of that probability",
        "right work named, or rightly none",
    )
    table = Table("", "all labels", "half", "none")
    for name, values in zip(rows, zip(*columns, strict=True), strict=True):
        table.add_row(name, *(f"{value:.3f}" for value in values))
    sizes = np.unique([str(p["work_id"]) for p in points.payloads], return_counts=True)[1]
    console = Console()
    console.print(table)
    versions, linked = (
        (sizes * (sizes - 1)).sum() / sizes.sum(),
        sizes[sizes > 1].sum() / sizes.sum(),
    )
    console.print(
        f"True: {versions:.2f} versions, {linked:.3f} have one, {1 - linked:.3f} are of no work."
    )


if __name__ == "__main__":
    main()
