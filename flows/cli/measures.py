"""Commands that measure: each runs one flow."""

from pathlib import Path
from typing import Annotated

import typer

from flows.cli import options, tables
from flows.cli.printing import show
from flows.cli.running import checking, run_flow


def evaluate(
    vectors: options.Vectors = None,
    sample: options.Sample = None,
    home: options.Home = None,
    as_json: options.AsJson = False,
) -> None:
    """Measure retrieval and the separation of cliques, on works that the encoder has not seen.

    Example: covers evaluate --sample 10000
    """
    checking(home).check_result(vectors, "vectors", home)
    result = run_flow("evaluate", vectors, home, sample)
    show(result, as_json, tables.show_evaluation)


def cluster(
    features: options.Features = None,
    smallest: Annotated[int, typer.Option(help="Smallest number of clusters.", min=2)] = 2,
    largest: Annotated[int, typer.Option(help="Largest number of clusters.", min=2)] = 12,
    seed: options.Seed = 0,
    home: options.Home = None,
    as_json: options.AsJson = False,
) -> None:
    """Run K-Means for several numbers of clusters, and compare the clusters with the cliques.

    Example: covers cluster --largest 20
    """
    checking(home).check_result(features, "features", home)
    result = run_flow("cluster", features, smallest, largest, seed, home)
    show(result, as_json, tables.show_clusters)


def compare(
    data: Annotated[
        Path, typer.Option(help="Features to measure with: a directory or a CSV table.")
    ],
    train: options.TrainingData = None,
    seeds: Annotated[int, typer.Option(help="Number of times to train each encoder.", min=1)] = 3,
    frame_rate: options.FrameRate = None,
    home: options.Home = None,
    as_json: options.AsJson = False,
) -> None:
    """Measure every encoder, and measures from the literature, on the same performances.

    Example: covers compare --data da-tacos/benchmark --train da-tacos/coveranalysis
    """
    rate = options.read_frame_rate(frame_rate)
    checking(home).check_data(data, train, frame_rate=rate)
    result = run_flow("compare", data, train, seeds, frame_rate=rate, home=home)
    show(result, as_json, tables.show_comparison)
