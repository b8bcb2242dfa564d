"""Commands that prepare data and publish it: each runs one flow."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from embedding.audio.libraries import check_installed
from flows.cli import options, tables
from flows.cli.printing import say, show
from flows.cli.running import asking, checking, run_flow

#: Songs to try covers with. They are in a checkout only, because they are large.
SAMPLE = Path(__file__).resolve().parent.parent.parent / "sample"
DEMO_QUERY = "P_249990"

#: Recordings that are not in the collection: of a work that is in it, and of one that is not.
RECORDINGS = SAMPLE / "recordings"
DEMO_RECORDINGS = ("devils_dream_flute.opus", "flowers_of_edinburgh_fiddle.opus")


def pipeline(
    data: Annotated[
        Path,
        typer.Option(
            help="What to publish: a directory of features or recordings, or a CSV table."
        ),
    ],
    train: options.TrainingData = None,
    encoder: options.Encoder = "autoencoder",
    config: options.ConfigFile = None,
    bundle: options.Bundle = None,
    frame_rate: options.FrameRate = None,
    seed: options.Seed = 0,
    sample: options.Sample = None,
    only: options.Only = False,
    home: options.Home = None,
    as_json: options.AsJson = False,
) -> None:
    """Aggregate, train, embed, publish and evaluate. Steps whose inputs are unchanged are skipped.

    Other data sets stay in the collection. They are embedded again if the encoder changes.

    Example: covers pipeline --data da-tacos/benchmark --train da-tacos/coveranalysis
    """
    settings, rate = options.read_config(config), options.read_frame_rate(frame_rate)
    checks = checking(home)
    inputs = checks.check_encoder(encoder, settings, bundle, train)
    checks.check_data(data, train, frame_rate=rate, inputs=inputs)
    result = run_flow(
        "pipeline",
        data,
        train,
        encoder,
        settings,
        bundle,
        frame_rate=rate,
        seed=seed,
        home=home,
        sample=sample,
        only=only,
    )
    show(result, as_json, tables.show_evaluation)


def extract(
    recordings: Annotated[Path, typer.Argument(help="A folder of recordings.")],
    to: Annotated[Path, typer.Option(help="The directory for the features.")],
    home: options.Home = None,
    as_json: options.AsJson = False,
) -> None:
    """Compute features from recordings: WAV, FLAC, MP3, OGG, Opus, M4A and more.

    Only new and changed recordings are analysed. `covers pipeline --data RECORDINGS` does this too.

    Example: covers extract recordings --to features
    """
    checking(home).check_recordings(recordings)
    result = run_flow("extract", recordings, to, home)
    show(result, as_json, tables.show_extraction)


def aggregate(
    data: Annotated[
        Path, typer.Argument(help="A directory of features or recordings, or a CSV table.")
    ],
    frame_rate: options.FrameRate = None,
    home: options.Home = None,
    as_json: options.AsJson = False,
) -> None:
    """Read features: one row of means and one chroma sequence per performance.

    Example: covers aggregate da-tacos/benchmark
    """
    rate = options.read_frame_rate(frame_rate)
    checking(home).check_data(data, frame_rate=rate)
    features = run_flow("aggregate", data, frame_rate=rate, home=home)
    from flows.rejects import unreadable

    result = {"features": features, "rejected": unreadable(features)}
    show(result, as_json, tables.show_features)


def train(
    features: options.Features = None,
    encoder: options.Encoder = "autoencoder",
    config: options.ConfigFile = None,
    hold_out: Annotated[
        float, typer.Option(help="Share of the works to keep out of training.", min=0, max=0.9)
    ] = 0.0,
    composed_works: Annotated[
        int | None,
        typer.Option(
            help="Works that a program composes, for the version encoder to learn from too.", min=0
        ),
    ] = None,
    seed: options.Seed = 0,
    home: options.Home = None,
    as_json: options.AsJson = False,
) -> None:
    """Train an encoder on aggregated features. The result is a bundle.

    Example: covers train --encoder version --hold-out 0.2
    """
    settings, checks = options.read_config(config), checking(home)
    if composed_works is not None:
        settings = {**(settings or {}), "composed_works": composed_works}
    checks.check_encoder(encoder, settings)
    checks.check_result(features, "training", home)
    bundle = run_flow("train", features, encoder, settings, hold_out, seed, home)
    show({"bundle": bundle}, as_json, tables.show_paths)


def embed(
    features: options.Features = None,
    bundle: Annotated[
        Path | None, typer.Argument(help="A result of `covers train`; by default the latest.")
    ] = None,
    home: options.Home = None,
    as_json: options.AsJson = False,
) -> None:
    """Compute a vector for every performance. `covers publish` makes the vectors searchable."""
    checks = checking(home)
    from embedding import bundle as bundles

    checks.check_result(features, "features", home)
    if bundle is None:
        checks.check_result(None, "bundle", home)
    else:
        bundles.head(bundle)
    vectors = run_flow("embed", features, bundle, home)
    show({"vectors": vectors}, as_json, tables.show_paths)


def publish(
    vectors: Annotated[
        Path | None,
        typer.Argument(
            help="A vectors.parquet from `covers embed` or from any other model; by default the "
            "latest."
        ),
    ] = None,
    only: options.Only = False,
    leave_out: Annotated[
        list[Path] | None,
        typer.Option(
            help="Remove this data set from the collection (named as in `covers status`). May be "
            "repeated. Without VECTORS, nothing else changes."
        ),
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option(
            help="With vectors from another model: a result of `covers aggregate` for the same "
            "performances, which makes reranking possible."
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Name of the other model; by default the name of the file.")
    ] = None,
    home: options.Home = None,
    as_json: options.AsJson = False,
) -> None:
    """Make vectors searchable. They replace their own data set; other data sets stay.

    Vectors from another model need the columns track_id, work_id and vector. The columns title,
    artist, work_title, work_artist, year, instrumental, recording and subset are optional. Up to
    32 further columns, such as isrc or owner, go into the collection under their own names.

    Example: covers publish clews.parquet --model clews
    """
    checks = checking(home)
    if vectors is not None or not leave_out:
        checks.check_result(vectors, "vectors", home)
    given = None if vectors is None else [vectors]
    result = run_flow("publish", given, only, leave_out, features=features, model=model, home=home)
    show(result, as_json, tables.show_publication)


def add(
    data: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Directories of features, CSV tables or published files of vectors; by default "
            "everything in the collection."
        ),
    ] = None,
    frame_rate: options.FrameRate = None,
    home: options.Home = None,
    as_json: options.AsJson = False,
) -> None:
    """Add data to the collection, or bring the collection up to date with its data. Trains nothing.

    Only new and changed performances are read and embedded. Deleted ones disappear.

    Example: covers add new-songs
    """
    rate, checks = options.read_frame_rate(frame_rate), checking(home)
    for path in data or []:
        if path.suffix == ".parquet":
            checks.check_result(path, "vectors", home)
        else:
            checks.check_data(path, frame_rate=rate)
    result = run_flow("add", data, rate, home)
    show(result, as_json, tables.show_addition)


def demo() -> None:
    """Run the pipeline on the sample songs of the checkout, search them, identify recordings."""
    if not SAMPLE.is_dir():
        raise FileNotFoundError(
            f"The sample songs are not at {SAMPLE}, because they are not part of the installed "
            "package: run `make demo` in a checkout of the repository."
        )
    import search
    from search import settings

    checking(None)
    result = run_flow("pipeline", SAMPLE, bundle=Path("pretrained"))
    clusters = run_flow("cluster", Path(result["paths"]["features"]))
    result["paths"]["plots"] += clusters["paths"]["plots"]
    console = Console()
    console.rule(f"covers similar {DEMO_QUERY} --limit 5 --rerank")
    tables.show_matches({"matches": search.similar(DEMO_QUERY, 5, rerank=True)})
    console.rule("covers evaluate")
    tables.show_evaluation(result)
    _identify_recordings(console)
    say("To ask more, type:")
    say(f". {_short(Path(sys.prefix) / 'bin' / 'activate')}")
    say(f"covers similar {DEMO_QUERY} --home {_short(settings.home())}")


def _identify_recordings(console: Console) -> None:
    try:
        check_installed()
    except ValueError as error:
        say(f"Identifying recordings is left out. {error}")
        return
    for name in DEMO_RECORDINGS:
        path = str(_short(RECORDINGS / name))
        console.rule(f"covers identify {path} --limit 3")
        asked, (recording,) = asking(None, path)
        tables.show_identification(asked.identify(recording, 3))


def _short(path: Path) -> Path:
    """Return a path as it is typed in the current directory."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
