"""The options that several commands share, and how their values are read."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from embedding.encoders.registry import ENCODERS

Home = Annotated[Path | None, typer.Option(help="The workspace; by default $COVERS_HOME.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]
FrameRate = Annotated[
    str | None,
    typer.Option(
        help="Frames per second, as a number or a fraction such as 44100/512. Needed only where "
        "the data does not give it."
    ),
]
Encoder = Annotated[
    str,
    typer.Option(
        help="; ".join(f"{name}: {summary}" for name, (_, summary) in ENCODERS.items()) + "."
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="A JSON file with the encoder's config, where it differs from the defaults.",
        exists=True,
        dir_okay=False,
    ),
]
Bundle = Annotated[
    Path | None,
    typer.Option(help="Use this bundle instead of training one. `pretrained` comes with covers."),
]
TrainingData = Annotated[
    Path | None,
    typer.Option(
        "--train",
        help="Features to train on. By default, a share of the works in --data is used for "
        "training, and only the other works are measured.",
    ),
]
Seed = Annotated[int, typer.Option(help="Seed of everything random, such as the initial weights.")]
Sample = Annotated[
    int | None,
    typer.Option(
        help="Number of random queries to measure with. By default all; required for more than "
        "100,000 performances.",
        min=1,
    ),
]
Only = Annotated[
    bool, typer.Option("--only", help="Remove all other data sets from the collection.")
]
Features = Annotated[
    Path | None, typer.Argument(help="A result of `covers aggregate`; by default the latest.")
]
Vectors = Annotated[Path | None, typer.Argument(help="A vectors.parquet; by default the latest.")]
TrackId = Annotated[str, typer.Argument(help="The track id of a performance in the collection.")]
OtherTrackId = Annotated[str, typer.Argument(help="The track id of another performance.")]
Limit = Annotated[int, typer.Option(help="Maximum number of results.", min=1)]
OtherWorks = Annotated[
    bool, typer.Option("--other-works", help="Leave out performances of the same work.")
]
Where = Annotated[
    list[str] | None,
    typer.Option(
        help="Filter by a field: key=value, key=a,b (any of these) or key=1960..1990 (a range; "
        "either end may be omitted). Repeat the option to combine filters."
    ),
]


def read_config(path: Path | None) -> dict[str, Any] | None:
    """Read the file given with --config."""
    if path is None:
        return None
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}.") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path} must contain a JSON object with the encoder's config.")
    return config


def read_frame_rate(text: str | None) -> float | None:
    """Read the value of --frame-rate."""
    if text is None:
        return None
    from embedding.data.frame_rate import parse_frame_rate

    return parse_frame_rate(text)


def read_filter(texts: Sequence[str] | None) -> dict[str, Any] | None:
    """Read the values of --where."""
    if not texts:
        return None
    return {key: _condition(value) for key, value in read_pairs(texts, "--where")}


def read_pairs(texts: Iterable[str], option: str) -> Iterator[tuple[str, str]]:
    """Split the values of an option at their first equals sign."""
    for text in texts:
        key, _, value = (part.strip() for part in text.partition("="))
        if not (key and value):
            raise ValueError(f"{option} {text!r} is not of the form key=value.")
        yield key, value


def _condition(text: str) -> Any:
    low, dots, high = text.partition("..")
    if dots:
        from search import between

        return between(*(_range_end(end) for end in (low, high)))
    values = [_value(part.strip()) for part in text.split(",")]
    return values if len(values) > 1 else values[0]


def _value(text: str) -> str | int | bool:
    if text.lower() in ("yes", "true"):
        return True
    if text.lower() in ("no", "false"):
        return False
    return int(text) if text.lstrip("-").isdigit() else text


def _range_end(text: str) -> Any:
    """A number; what is not a number is refused where the filter is checked."""
    if not text:
        return None
    try:
        return float(text) if "." in text else _value(text)
    except ValueError:
        return text
