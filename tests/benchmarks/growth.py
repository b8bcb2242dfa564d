"""How time and memory of each stage grow with the number of performances.

    PYTHONPATH=tests python -m benchmarks.growth --chart deploy/growth.png

also writes each figure to GROWTH.json, and does not measure it again. Each size is measured in a
fresh process. Times are processor seconds, which other processes change little; only a query's is
elapsed time. An exponent is the slope of a straight line through the logarithms. Only stages that
compare all pairs may exceed the exponent of n log n over the same sizes.
"""

import argparse
import contextlib
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
from rich.console import Console
from trees import Tree

import search
from benchmarks import synthetic
from benchmarks.harness import Row, Side, alone, exponent, seconds
from embedding.data import store
from embedding.data.aggregate import aggregate_batch, aggregate_csv, assemble, pending
from embedding.data.dataset import open_dataset
from embedding.data.features import FEATURE_NAMES
from embedding.encoders.autoencoder.encoder import Autoencoder, AutoencoderConfig
from embedding.encoders.autoencoder.network import AutoencoderNetwork
from embedding.encoders.scaling import Standardizer
from embedding.metrics.distances import Euclidean
from embedding.metrics.retrieval import retrieval
from embedding.metrics.separation import separation
from flows.measuring.trial import measure_search
from search.engines.embedded import Embedded

#: Dimension of the default encoder's vectors.
DIMENSION = 20

#: The sample for metrics of more than 100,000 performances, and the queries that are timed.
SAMPLE, TIMED_QUERIES = 1000, 200

#: The tolerance of slopes, because times are noisy.
SLOPE_TOLERANCE = 0.05

console = Console()


@contextlib.contextmanager
def _directory() -> Generator[Path, None, None]:
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory)


def aggregating(count: int) -> Generator[None, None, dict[str, float]]:
    """Read files of 20 seconds each."""
    with _directory() as root:
        tree = Tree(root / "data")
        works = next(synthetic.chunks(count, 1)).works.tolist()
        for number, work in enumerate(works):
            tree.add(synthetic.work_id(work), synthetic.track_id(number), frames=215)
        dataset = open_dataset(root / "data")
        yield
        to_read = pending(dataset, [])
        parts = [
            aggregate_batch(to_read[start : start + 500], dataset.frame_rate, root / "parts")
            for start in range(0, count, 500)
        ]
        assemble(dataset, [store.FeatureStore.open(part) for part in parts], root / "store")
    return {}


def _table(count: int) -> pl.DataFrame:
    works = [chunk.works for chunk in synthetic.chunks(count, 1)]
    values = np.random.default_rng(0).random((count, len(FEATURE_NAMES)), np.float32)
    return pl.DataFrame(
        {
            "work": [synthetic.work_id(work) for work in np.concatenate(works).tolist()],
            "performance": [synthetic.track_id(number) for number in range(count)],
            **dict(zip(FEATURE_NAMES, values.T, strict=True)),
        }
    )


def reading_a_table(count: int) -> Generator[None, None, dict[str, float]]:
    """Read a CSV table into a feature store."""
    with _directory() as root:
        _table(count).write_csv(root / "table.csv")
        yield
        aggregate_csv(root / "table.csv", root / "store")
    return {}


def embedding(count: int) -> Generator[None, None, dict[str, float]]:
    """Embed the 52 means with the autoencoder."""
    means = _table(count).select(FEATURE_NAMES).to_numpy()
    config = AutoencoderConfig()
    network = AutoencoderNetwork(config.sizes)
    encoder = Autoencoder(config, Standardizer.fit(means), network)
    yield
    encoder.embed(means)
    return {}


def publishing(count: int) -> Generator[None, None, dict[str, float]]:
    """Check points, publish them in the embedded engine, and time queries of them one by one."""
    chunks = list(synthetic.chunks(count, DIMENSION))
    vectors = np.concatenate([chunk.vectors for chunk in chunks])
    works = np.concatenate([chunk.works for chunk in chunks]).tolist()
    track_ids = [synthetic.track_id(number) for number in range(count)]
    payloads = [synthetic.payload(number, work) for number, work in enumerate(works)]
    with _directory() as root:
        yield
        start = time.process_time()
        engine = Embedded(root)
        engine.publish(search.Points(map(search.Point, track_ids, vectors, payloads)), "growth")
        published = time.process_time() - start
        searcher, asked = search.Searcher(engine), []
        for track_id in track_ids[:TIMED_QUERIES]:
            start = time.perf_counter()
            searcher.similar(track_id, 10)
            asked.append(time.perf_counter() - start)
    return {"processor": published, "a query": statistics.median(asked)}


def metrics(count: int, sample: int | None) -> Generator[None, None, dict[str, float]]:
    """Measure retrieval and separation, by all queries or a sample."""
    chunks = list(synthetic.chunks(count, DIMENSION))
    vectors = np.concatenate([chunk.vectors for chunk in chunks])
    works = [synthetic.work_id(w) for chunk in chunks for w in chunk.works.tolist()]
    tracks = [synthetic.track_id(number) for number in range(count)]
    yield
    distances = Euclidean(vectors)
    found = retrieval(distances, works, tracks, sample)
    apart = separation(distances, works, tracks, sample)
    return {"map": found.map, "auc": apart.auc}


def trying_out(count: int) -> Generator[None, None, dict[str, float]]:
    """Publish a trial collection and ask it what a user would, of 1,000 queries."""
    points = synthetic.points(count, DIMENSION)
    with _directory() as root:
        yield
        measure_search(points, "growth", root)
    return {}


def timed(side: Side) -> Generator[None, None, dict[str, float]]:
    """Run a side and add the processor time that it took, unless it says that itself."""
    steps = side()
    yield next(steps)
    start = time.process_time()
    try:
        next(steps)
    except StopIteration as end:
        return {"processor": time.process_time() - start, **end.value}
    raise RuntimeError(f"{side} yields twice")


def nothing() -> Generator[None, None, dict[str, float]]:
    """Import what the others do."""
    yield
    return {}


@dataclass(frozen=True)
class Stage:
    """What is measured at several sizes; `pairs` where all are compared with all."""

    name: str
    side: Callable[..., Generator[None, None, dict[str, float]]]
    sizes: tuple[int, ...]
    pairs: bool = False


TO_MILLION = (1_000, 10_000, 100_000, 1_000_000)

STAGES = (
    Stage("aggregating files", aggregating, (1_000, 3_000, 10_000)),
    Stage("reading a table", reading_a_table, TO_MILLION),
    Stage("embedding", embedding, TO_MILLION),
    # Past 32 MB of vectors it quantizes them, which the last two sizes both do.
    Stage("publishing", publishing, (1_000, 10_000, 100_000, 500_000, 1_000_000)),
    Stage("a query", publishing, ()),  # measured with it
    Stage("exact metrics", partial(metrics, sample=None), (1_000, 10_000, 30_000, 100_000), True),
    Stage("sampled metrics", partial(metrics, sample=SAMPLE), (10_000, 100_000, 1_000_000)),
    Stage("asking 1,000 queries", trying_out, (1_000, 10_000, 100_000)),
)


@dataclass(frozen=True)
class Point:
    """What a stage took at one size: seconds of processors, MB beyond what its imports take."""

    stage: str
    size: int
    seconds: float
    mb: float
    figures: dict[str, float]


def points(kept: Path, stages: tuple[Stage, ...] = STAGES) -> list[Point]:
    """Measure what isn't kept yet."""
    found = [Point(**each) for each in json.loads(kept.read_text())] if kept.exists() else []
    done = {(point.stage, point.size) for point in found}
    bare = alone(nothing)[2]
    for stage in stages:
        for size in stage.sizes:
            if (stage.name, size) in done:
                continue
            waited, _, peak, figures = alone(partial(timed, partial(stage.side, size)))
            figures["waited"] = waited
            made = [Point(stage.name, size, figures.pop("processor"), peak - bare, figures)]
            if "a query" in figures:
                made.append(Point("a query", size, figures["a query"], peak - bare, {}))
            found += made
            kept.write_text(json.dumps([asdict(point) for point in found], indent=1))
            console.print(*made)
    return found


def rows(found: list[Point]) -> list[Row]:
    """Fit exponents, and say whether they are those of n log n at most."""
    made = []
    for stage in STAGES:
        mine = sorted((point for point in found if point.stage == stage.name), key=lambda p: p.size)
        if len(mine) < 2:
            continue
        sizes = [point.size for point in mine]
        time_slope = exponent(sizes, [point.seconds for point in mine])
        memory_slope = exponent(sizes, [max(point.mb, 1.0) for point in mine])
        last = exponent(sizes[-2:], [point.seconds for point in mine[-2:]])
        limit = exponent(sizes, [size * math.log(size) for size in sizes])
        each = ", ".join(f"{point.size:,}: {seconds(point.seconds)}" for point in mine)
        made.append(
            Row(
                f"{stage.name}, {sizes[0]:,} to {sizes[-1]:,}",
                f"n^{time_slope:.2f}",
                limit="all pairs" if stage.pairs else f"<= n log n (n^{limit:.2f})",
                met=None if stage.pairs else max(time_slope, last) <= limit + SLOPE_TOLERANCE,
                peak_mb=mine[-1].mb,
                note=f"{each}; between the last two n^{last:.2f}; memory n^{memory_slope:.2f}",
            )
        )
    return made


def measure() -> list[Row]:
    """Measure every stage at every size."""
    with _directory() as directory:
        return rows(points(directory / "growth.json"))


def draw(found: list[Point], path: Path) -> None:
    """Draw time and memory over size, both logarithmic, a line a stage."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for number, stage in enumerate(STAGES):
        mine = sorted((point for point in found if point.stage == stage.name), key=lambda p: p.size)
        if not mine:
            continue
        sizes, took = [point.size for point in mine], [point.seconds for point in mine]
        memory = [max(point.mb, 1.0) for point in mine]
        style = {"marker": "osv^Dx*P"[number], "color": f"C{number}", "markersize": 5}
        name = f"{stage.name}\ntime n^{exponent(sizes, took):.2f}"
        if stage.name != "a query":  # a part of publishing
            name += f", memory n^{exponent(sizes, memory):.2f}"
            right.loglog(sizes, memory, **style)
        left.loglog(sizes, took, label=name, **style)
    ends = np.array([1_000, 1_000_000])
    for axes, label in ((left, "processor seconds"), (right, "MB beyond what the imports take")):
        reference = ends * np.log(ends)
        reference *= 2 * axes.get_ylim()[0] / reference[0]
        axes.plot(ends, reference, "--", color="0.6", label="n log n")
        axes.set(xlabel="performances", ylabel=label)
        axes.grid(visible=True, which="major", color="0.9")
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*left.get_legend_handles_labels(), loc="outside right", fontsize=8, frameon=False)
    figure.savefig(path, dpi=100)


def main() -> None:
    """Measure, print and draw."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("GROWTH.json"))
    parser.add_argument("--chart", type=Path, default=Path("growth.png"))
    parser.add_argument("--stages", nargs="*", help="only these", default=None)
    asked = parser.parse_args()
    wanted = [stage for stage in STAGES if asked.stages is None or stage.name in asked.stages]
    found = points(asked.out, tuple(wanted))
    for row in rows(found):
        console.print(row)
    draw(found, asked.chart)


if __name__ == "__main__":
    main()
