"""The options that several commands share, and how their values are read."""

import contextlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
Query = Annotated[
    str,
    typer.Argument(
        help="The track id of a performance in the collection, or else the path of a recording. "
        "Write -- before one that begins with two dashes."
    ),
]
OtherQuery = Annotated[str, typer.Argument(help="The track id or path of another performance.")]
Limit = Annotated[int, typer.Option(help="Maximum number of results.", min=1)]
Rerank = Annotated[
    bool, typer.Option("--rerank", help="Align the nearest 100, and order them by the alignment.")
]
OtherWorks = Annotated[
    bool, typer.Option("--other-works", help="Leave out performances of the same work.")
]
Where = Annotated[
    list[str] | None,
    typer.Option(
        help="Filter by a field: artist=NAME (the whole text), artist~WORDS (all of these words), "
        "year=1960..1990 (a range; either end may be omitted), instrumental=yes, or a column of "
        "your own, such as isrc=GBAYE0601498. Repeat the option to narrow the answer, or with the "
        "same field for any of several values."
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


def read_filter(texts: Sequence[str] | None, fields: Mapping[str, type]) -> list[dict[str, Any]]:
    """Read the values of --where. Several values of one field are alternatives."""
    from search.fields import between, contains, named

    values: dict[str, list[object]] = {}
    others: list[dict[str, Any]] = []
    for text in texts or ():
        parts = re.fullmatch(r"\s*([^=~]+?)\s*([=~])\s*(.*\S)\s*", text, re.DOTALL)
        if parts is None:
            raise ValueError(f"--where {text!r} is not of the form field=value or field~words.")
        field, sign, wanted = parts.groups()
        field = named(field, fields)
        kind = fields[field]
        low, dots, high = wanted.partition("..")
        if sign == "~":
            others.append({field: contains(wanted)})
        elif dots and kind in (int, float):
            others.append(
                {field: between(*(_value(kind, end) if end else None for end in (low, high)))}
            )
        else:
            values.setdefault(field, []).append(_value(kind, wanted))
    return [*others, *({field: wanted} for field, wanted in values.items())]


def _value(kind: type, text: str) -> Any:
    """Read a value of a field; what is not of its type is refused where the filter is checked."""
    if kind is bool:
        return {"yes": True, "true": True, "no": False, "false": False}.get(text.lower(), text)
    for read in () if kind is str else (int, float):
        with contextlib.suppress(ValueError):
            return read(text)
    return text


def read_pairs(texts: Iterable[str], option: str) -> Iterator[tuple[str, str]]:
    """Split the values of an option at their first equals sign."""
    for text in texts:
        key, _, value = (part.strip() for part in text.partition("="))
        if not (key and value):
            raise ValueError(f"{option} {text!r} is not of the form key=value.")
        yield key, value
