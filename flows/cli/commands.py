"""`covers`: a thin command line over the flows and `search`."""

import json
import os
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from embedding.encoders.registry import ENCODERS
from flows.cli import tables

if TYPE_CHECKING:
    from search import Searcher

# Flows bring Prefect and torch, which take seconds to import: each command imports what it runs,
# and only when its arguments are known to be right.

SAMPLE = Path(__file__).resolve().parent.parent.parent / "sample"

app = typer.Typer(
    name="covers",
    help=__doc__,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Home = Annotated[
    Path | None, typer.Option(help="Workspace; by default $COVERS_HOME.", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]
Rate = Annotated[
    str | None,
    typer.Option(
        help="Frames a second, as a number or a fraction like 44100/512, where the data "
        "doesn't say it itself.",
        show_default=False,
    ),
]
Encoder = Annotated[
    str,
    typer.Option(
        help="; ".join(f"{name}: {summary}" for name, (_, summary) in ENCODERS.items()) + "."
    ),
]
Settings = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="JSON file of encoder settings that differ from the defaults.",
        exists=True,
        dir_okay=False,
        show_default=False,
    ),
]
Seed = Annotated[int, typer.Option(help="Of the split, the initial weights and the batches.")]
Sample = Annotated[
    int | None,
    typer.Option(
        help="How many queries, drawn at random, to measure by; all by default, but past 100,000 "
        "performances that has to be chosen.",
        min=1,
        show_default=False,
    ),
]
Limit = Annotated[int, typer.Option(help="How many to list.", min=1)]
Only = Annotated[
    bool, typer.Option("--only", help="Leave out everything else that the collection holds.")
]
Where = Annotated[
    list[str] | None,
    typer.Option(
        help="Keep what matches: key=value, key=a,b (either) or key=1960..1990 (a range, open "
        "where an end is left out). Repeat for several conditions.",
        show_default=False,
    ),
]


@app.command()
def pipeline(
    data: Annotated[Path, typer.Option(help="Features to publish: a directory, or a CSV table.")],
    train: Annotated[
        Path | None,
        typer.Option(
            help="Features to train on. Without it, a share of the data's works is trained on "
            "and only the others are measured.",
            show_default=False,
        ),
    ] = None,
    encoder: Encoder = "autoencoder",
    config: Settings = None,
    bundle: Annotated[
        Path | None,
        typer.Option(
            help="Use this bundle, and train none; `pretrained` is the one that comes with covers.",
            show_default=False,
        ),
    ] = None,
    frame_rate: Rate = None,
    seed: Seed = 0,
    sample: Sample = None,
    only: Only = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Aggregate, train, embed, publish and evaluate, skipping what hasn't changed.

    Other data sets stay in the collection, and are embedded again if the encoder is another one.

    Example: covers pipeline --data da-tacos/benchmark --train da-tacos/coveranalysis
    """
    result = _run(
        "pipeline",
        data,
        train,
        encoder,
        _config(config),
        bundle,
        frame_rate=_rate(frame_rate),
        seed=seed,
        home=home,
        sample=sample,
        only=only,
    )
    tables.show_result(result, as_json)


@app.command()
def aggregate(
    data: Annotated[Path, typer.Argument(help="A directory of features, or a CSV table.")],
    frame_rate: Rate = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Read features into one row and one chroma sequence a performance."""
    features = _run("aggregate", data, frame_rate=_rate(frame_rate), home=home)
    tables.show_path("features", features, as_json)


@app.command()
def train(
    features: Annotated[
        Path | None,
        typer.Argument(help="What `covers aggregate` made; by default the latest to train on."),
    ] = None,
    encoder: Encoder = "autoencoder",
    config: Settings = None,
    hold_out: Annotated[
        float, typer.Option(help="Share of the works to keep from training.", min=0, max=0.9)
    ] = 0.0,
    seed: Seed = 0,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Train an encoder on aggregated features: the result is a bundle."""
    bundle = _run("train", features, encoder, _config(config), hold_out, seed, home)
    tables.show_path("bundle", bundle, as_json)


@app.command()
def embed(
    features: Annotated[
        Path | None, typer.Argument(help="What `covers aggregate` made; by default the latest.")
    ] = None,
    bundle: Annotated[
        Path | None, typer.Argument(help="What `covers train` made; by default the latest.")
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Embed every performance with a bundle; `covers publish` lets searchers see the vectors."""
    tables.show_path("vectors", _run("embed", features, bundle, home), as_json)


@app.command()
def publish(
    vectors: Annotated[
        Path | None,
        typer.Argument(
            help="A vectors.parquet, of `covers embed` or of any model; by default the latest."
        ),
    ] = None,
    only: Only = False,
    leave_out: Annotated[
        list[Path] | None,
        typer.Option(
            help="A data set that the collection shall hold no longer, as `covers status` names "
            "it. Repeat for several. Without VECTORS, nothing else changes.",
            show_default=False,
        ),
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option(
            help="What `covers aggregate` made of the same performances, for vectors of another "
            "model: to re-rank with.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="The name of the other model; by default the file's.", show_default=False
        ),
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Let searchers see vectors: they renew their data set in the collection, the others stay.

    Example: covers publish clews.parquet, with columns track_id, work_id and vector, and any of
    title, artist, work_title, work_artist, year, instrumental and subset
    """
    named = None if vectors is None else [vectors]
    result = _run("publish", named, only, leave_out, features=features, model=model, home=home)
    tables.show_publication(result, as_json)


@app.command()
def evaluate(
    vectors: Annotated[
        Path | None, typer.Argument(help="A vectors.parquet; by default the latest.")
    ] = None,
    sample: Sample = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Measure retrieval and clique separation on the works the encoder hasn't seen."""
    tables.show_result(_run("evaluate", vectors, home, sample), as_json)


@app.command()
def add(
    data: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Directories of features, CSV tables, or files of vectors that were published; by "
            "default all that it holds."
        ),
    ] = None,
    frame_rate: Rate = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Bring the collection up to date with its data, or add data to it, without training.

    Only what is new or changed is read and embedded; what is withdrawn disappears.
    """
    result = _run("add", data, _rate(frame_rate), home)
    if as_json:
        tables.print_json(result)
    else:
        tables.show_table(["", "performances"], list(result.items())[:4])
        tables.show_path("collection", result["collection"], as_json)


@app.command()
def cluster(
    features: Annotated[
        Path | None, typer.Argument(help="What `covers aggregate` made; by default the latest.")
    ] = None,
    smallest: Annotated[int, typer.Option(help="Smallest number of clusters.", min=2)] = 2,
    largest: Annotated[int, typer.Option(help="Largest number of clusters.", min=2)] = 12,
    seed: Seed = 0,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Run K-Means over a range of k, and see how little clusters say of cliques."""
    result = _run("cluster", features, smallest, largest, seed, home)
    if as_json:
        tables.print_json(result)
        return
    tables.show_table(
        ["k", "inertia", "silhouette"],
        ([row["k"], row["inertia"], row["silhouette"]] for row in result["curve"]),
    )
    tables.show_table(["measure", "value"], result["metrics"].items())
    tables.show_paths(result["paths"])


@app.command()
def compare(
    data: Annotated[
        Path, typer.Option(help="Features to measure on: a directory, or a CSV table.")
    ],
    train: Annotated[
        Path | None,
        typer.Option(
            help="Features to train on. Without it, a share of the data's works is trained on "
            "and only the others are measured.",
            show_default=False,
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(help="How many times to train each encoder.", min=1)] = 3,
    frame_rate: Rate = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Measure every encoder and the measures of the literature side by side.

    Example: covers compare --data da-tacos/benchmark --train da-tacos/coveranalysis
    """
    result = _run("measuring.compare", data, train, seeds, frame_rate=_rate(frame_rate), home=home)
    tables.show_comparison(result, as_json)


@app.command()
def similar(
    track_id: Annotated[str, typer.Argument(help="A performance in the collection.")],
    limit: Limit = 10,
    rerank: Annotated[
        bool,
        typer.Option("--rerank", help="Align the nearest 100, put the best first, and say how."),
    ] = False,
    other_works: Annotated[
        bool, typer.Option("--other-works", help="Leave out performances of the same work.")
    ] = False,
    where: Where = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """List the performances nearest to one.

    Example: covers similar P_135582 --where instrumental=yes --where year=1950..1980
    """
    found = _searcher(home).similar(
        track_id, limit, rerank=rerank, leave_out_same_work=other_works, where=_where(where)
    )
    tables.show_matches(track_id, found, as_json)


@app.command()
def works(
    track_id: Annotated[str, typer.Argument(help="A performance in the collection.")],
    limit: Limit = 10,
    other_works: Annotated[
        bool, typer.Option("--other-works", help="Leave out the performance's own work.")
    ] = False,
    where: Where = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """List the works nearest to a performance, by the best performance of each."""
    found = _searcher(home).works(
        track_id, limit, leave_out_same_work=other_works, where=_where(where)
    )
    tables.show_matches(track_id, found, as_json)


@app.command()
def identify(
    track_id: Annotated[str, typer.Argument(help="A performance in the collection.")],
    limit: Limit = 5,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Name the work that a performance is a version of, whatever it is labelled, or say none."""
    tables.show_identification(_searcher(home).identify(track_id, limit), as_json)


@app.command()
def same_work(
    a: Annotated[str, typer.Argument(help="A performance in the collection.")],
    b: Annotated[str, typer.Argument(help="Another one.")],
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Judge whether two performances are versions of one work."""
    tables.show_matches(a, [_searcher(home).same_work(a, b)], as_json)


@app.command()
def duplicates(
    max_pairs: Annotated[int, typer.Option(help="Maximum number of pairs.", min=1)] = 1000,
    min_probability: Annotated[
        float, typer.Option(help="Minimum probability of a pair.", min=0, max=1)
    ] = 0.5,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Find pairs that are probably of one work although they are labelled as of two.

    These are mislabelled performances and works that should be linked, the most probable first.
    """
    tables.show_duplicates(_run("duplicates", max_pairs, min_probability, home), as_json)


@app.command()
def distance(
    a: Annotated[str, typer.Argument(help="A performance in the collection.")],
    b: Annotated[str, typer.Argument(help="Another one.")],
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Print the distance between two performances."""
    value = _searcher(home).distance(a, b)
    if as_json:
        tables.print_json({"a": a, "b": b, "distance": value})
    else:
        Console().print(f"{value:.4f}")


@app.command()
def status(home: Home = None, as_json: AsJson = False) -> None:
    """Show which collection is served, what it was made from and what it can go back to."""
    tables.show_status(_searcher(home).status(), as_json)


@app.command()
def rollback(home: Home = None, as_json: AsJson = False) -> None:
    """Serve the previous collection again."""
    import search

    tables.show_path("collection", search.connect(home=home).rollback().name, as_json)


@app.command()
def copy(
    to: Annotated[
        str | None,
        typer.Option(
            help="A workspace directory, or the URL of a Qdrant server.", show_default=False
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option("--from", help="The same: bring a copy back.", show_default=False),
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Publish the current collection elsewhere, or bring a copy back: every number as it is.

    Example: covers copy --to backup, and covers copy --from backup. The other place is sent
    $COVERS_COPY_API_KEY, if it is a Qdrant server.
    """
    import search

    here = search.connect(home=home)
    if to is not None and source is None:
        copied = search.copy(here, search.connect(to))
    elif source is not None and to is None:
        copied = search.copy(search.connect(source), here)
    else:
        raise ValueError("Name one place, either --to copy to it, or --from it.")
    tables.show_path("collection", copied.name, as_json)


@app.command()
def gc(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be deleted.")
    ] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Delete results that neither a collection nor the latest run needs, as publications do too."""
    from flows.retention import prune
    from flows.workspace import Workspace

    tables.show_unneeded(prune(Workspace.at(home), dry_run=dry_run), dry_run, as_json)


@app.command()
def serve(
    data: Annotated[Path, typer.Option(help="Features to publish, as for `covers pipeline`.")],
    train: Annotated[
        Path | None, typer.Option(help="Features to train on.", show_default=False)
    ] = None,
    encoder: Encoder = "autoencoder",
    config: Settings = None,
    bundle: Annotated[
        Path | None,
        typer.Option(
            help="Use this bundle, and train none; `pretrained` is the one that comes with covers.",
            show_default=False,
        ),
    ] = None,
    schedule: Annotated[
        list[str] | None,
        typer.Option(
            help='A flow and its cron expression: pipeline="0 2 * * *" (the default). '
            "Repeat for several flows.",
            show_default=False,
        ),
    ] = None,
    sample: Sample = None,
    pool: Annotated[
        str | None,
        typer.Option(
            help="Register the flows for the workers of this work pool, and end; a missing pool "
            "is made, for `prefect worker start --type process --pool NAME`.",
            show_default=False,
        ),
    ] = None,
    home: Home = None,
) -> None:
    """Serve every flow to a Prefect server, which starts them on schedule or by hand.

    Needs PREFECT_API_URL.
    """
    from flows import serve as serving

    schedules = dict(_pairs(schedule, "--schedule")) if schedule else None
    made = serving.deployments(
        data, train, encoder, _config(config), bundle, home, schedules, sample
    )
    if pool is None:
        serving.serve(made)
    else:
        serving.deploy(made, pool)


@app.command(hidden=True)
def demo() -> None:
    """Run the pipeline on the sample, then ask it something."""
    import search

    result = _run("pipeline", SAMPLE, bundle=Path("pretrained"))
    clusters = _run("cluster", Path(result["paths"]["features"]))
    result["paths"]["plots"] += clusters["paths"]["plots"]
    query = "P_249990"
    console = Console()
    console.rule(f"covers similar {query} --limit 5 --rerank")
    tables.show_matches(query, search.similar(query, 5, rerank=True), as_json=False)
    console.rule(f"covers identify {query} --limit 3")
    tables.show_identification(search.identify(query, 3), as_json=False)
    console.rule("how good is it")
    tables.show_result(result, as_json=False)


def _run(name: str, *given: Any, **named: Any) -> Any:
    """Run a stage's flow; what fails in it is told in a sentence."""
    os.environ.setdefault(
        "PREFECT_LOGGING_HANDLERS_CONSOLE_CLASS", "flows.cli.console.ConsoleHandler"
    )
    from flows import temporary

    # Prefect's server, another process, and what the flow imports take seconds each.
    with ThreadPoolExecutor() as beside:
        started = beside.submit(copy_context().run, temporary.start)
        flow = getattr(import_module(f"flows.{name}"), name.rpartition(".")[2])
        started.result()
    with temporary.settings():
        return flow(*given, **named)


def _searcher(home: Path | None) -> "Searcher":
    import search

    return search.Searcher(search.connect(home=home))


def _config(path: Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}.") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{path} must hold a JSON object of encoder settings.")
    return settings


def _rate(text: str | None) -> float | None:
    if text is None:
        return None
    from embedding.data.frame_rate import parse_frame_rate

    return parse_frame_rate(text)


def _pairs(texts: Iterable[str], option: str) -> Iterable[tuple[str, str]]:
    for text in texts:
        key, equals, value = text.partition("=")
        if not (equals and key.strip() and value.strip()):
            raise ValueError(f"{option} {text!r} is not of the form key=value.")
        yield key.strip(), value.strip()


def _where(texts: Sequence[str] | None) -> dict[str, Any] | None:
    if not texts:
        return None
    return {key: _condition(value) for key, value in _pairs(texts, "--where")}


def _condition(text: str) -> Any:
    low, dots, high = text.partition("..")
    if dots:
        from search import between

        ends: Any = (_end(end) if end else None for end in (low, high))
        return between(*ends)
    values = [_value(part.strip()) for part in text.split(",")]
    return values if len(values) > 1 else values[0]


def _value(text: str) -> str | int | bool:
    if text.lower() in ("yes", "true"):
        return True
    if text.lower() in ("no", "false"):
        return False
    return int(text) if text.lstrip("-").isdigit() else text


def _end(text: str) -> str | int | bool | float:
    try:
        return float(text) if "." in text else _value(text)
    except ValueError:
        return text


def main() -> None:
    """Run the command line: a known failure is one sentence on stderr and exit code 1."""
    try:
        app()
    except (ValueError, LookupError, OSError, RuntimeError) as error:
        sys.stderr.write(f"covers: {error}\n")
        sys.exit(1)
