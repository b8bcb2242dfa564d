"""What the command line prints: tables for a person, or one JSON object for a machine."""

import dataclasses
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from flows.retention import Unneeded
    from search import Alignment, Identification, Match, Status

#: Columns of running text.
WORDY = {"title", "artist", "other title"}

#: Rows of a table that may be long.
SHOWN = 20


def print_json(value: Any) -> None:
    """Print one JSON object on a line."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, default=str) + "\n")


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_text, value))
    return str(value)


def show_table(
    columns: Sequence[str], rows: Iterable[Iterable[Any]], *, tight: bool = False
) -> None:
    """Print a table; where a terminal is narrow, words are cut to make room for ids and figures."""
    # Without lines between them, eight columns of figures fit into 80 characters.
    made = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False) if tight else Table()
    for column in columns:
        made.add_column(column, no_wrap=column not in WORDY)
    for row in rows:
        made.add_row(*(Text(_text(value), no_wrap=True, overflow="ellipsis") for value in row))
    Console().print(made)


def show_path(what: str, value: object, as_json: bool) -> None:
    """Print one fact by its name."""
    if as_json:
        print_json({what: str(value)})
    else:
        Console(soft_wrap=True).print(f"{what}: {value}", highlight=False)


def show_paths(paths: dict[str, Any]) -> None:
    """Print where results are, a path a line."""
    for name, value in paths.items():
        for one in value if isinstance(value, list) else [value]:
            show_path(name, one, as_json=False)


def show_result(result: dict[str, Any], as_json: bool) -> None:
    """Print what `flows.evaluate` measured."""
    if as_json:
        print_json(result)
        return
    sure = {name: f"{low:.3f} to {high:.3f}" for name, (low, high) in result["intervals"].items()}
    rows = ((name, value, sure.get(name, "")) for name, value in result["metrics"].items())
    show_table(["measure", "value", "95 %"], rows)
    if again := result.get("reranked"):
        names = ["map", "mr1", "hits@1", "hits@10", "queries"]
        show_table(["re-ranked", "value"], ((name, again[name]) for name in names))
    for kind, known in result.get("certainty", {}).items():
        figures = {name: value for name, value in known.items() if isinstance(value, float)}
        show_table([f"probability by {kind}", "value"], figures.items())
    say = Console(soft_wrap=True).print
    say(result["measured_on"]["summary"], highlight=False)
    if outliers := result.get("outliers"):
        text = f"{outliers} are suspiciously far from their versions: quality.csv begins with them."
        say(text, highlight=False)
    show_others(result)
    if not result.get("published", True):
        say(result["verdict"], highlight=False)
    show_paths(result["paths"])


def show_others(result: dict[str, Any]) -> None:
    """Say which other data sets a publication kept in the collection, and which it left out."""
    say = Console(soft_wrap=True).print
    for name, what in {"kept": "Kept in", "left_out": "Left out of"}.items():
        if names := result.get(name):
            say(f"{what} the collection: {', '.join(names)}.", highlight=False)


def show_publication(result: dict[str, Any], as_json: bool) -> None:
    """Print what `flows.publish` published."""
    if as_json:
        print_json(result)
        return
    show_table(["source"], ([name] for name in result["sources"]))
    show_others(result)
    show_path("collection", result["collection"], as_json)


def show_unneeded(found: "Sequence[Unneeded]", dry_run: bool, as_json: bool) -> None:
    """Print which results were pruned, or would be."""
    if as_json:
        results = [{"kind": one.kind, "result": str(one.path), "bytes": one.size} for one in found]
        total = sum(one.size for one in found)
        print_json({"dry_run": dry_run, "results": results, "bytes": total})
        return
    if found:
        rows = (
            (one.kind, "/".join(one.path.parts[-2:]), f"{one.size / 1e6:.1f} MB") for one in found
        )
        show_table(["kind", "result", "size"], rows)
    from flows.retention import told

    say = Console(soft_wrap=True).print
    if not found:
        say("Everything in the workspace is needed.", highlight=False)
    elif dry_run:
        say(f"`covers gc` would free {told(found)}.", highlight=False)
    else:
        say(f"Freed {told(found)}.", highlight=False)


def show_comparison(result: dict[str, Any], as_json: bool) -> None:
    """Print a table of `flows.measuring.compare`."""
    if as_json:
        print_json(result)
        return
    show_table(
        ["", "MAP (95 %)", "seeds", "MR1", "hits@1", "AUC", "dim", "s"],
        map(_compared, result["rows"]),
        tight=True,
    )
    console = Console(soft_wrap=True)
    for row in result["rows"]:
        if row["why_not"]:
            console.print(f"{row['row']} is not measured: {row['why_not']}", highlight=False)
    console.print(
        "seeds: the range of MAP over them; all else is of the median one. "
        "s: seconds to train, or to compute all distances.",
        highlight=False,
    )
    console.print(result["measured_on"]["summary"], highlight=False)
    show_paths(result["paths"])


def _compared(row: dict[str, Any]) -> Iterable[str]:
    """The cells of a row; a dash where there is nothing to say."""

    def cell(form: str, *names: str) -> str:
        values = [row[name] for name in names]
        return "-" if None in values else form.format(*values)

    interval = cell(" ({:.2f}-{:.2f})", "map_low", "map_high").strip("-")
    return (
        row["row"],
        cell("{:.2f}", "map") + interval,
        cell("{:.2f}-{:.2f}", "map_least", "map_most"),
        cell("{:.1f}", "mr1"),
        cell("{:.2f}", "hits@1"),
        cell("{:.2f}", "auc"),
        cell("{}", "dimension"),
        cell("{:.0f}", "seconds"),
    )


def show_matches(query: str, matches: "Sequence[Match]", as_json: bool) -> None:
    """Print matches: how likely they are where that is known, and how they align if they do."""
    if as_json:
        print_json({"query": query, "matches": [dataclasses.asdict(match) for match in matches]})
        return
    columns = ["track"]
    aligned = any(match.alignment for match in matches)
    sure = any(match.probability is not None for match in matches)
    columns += ["title"] if aligned else ["work", "title", "artist"]
    columns += ["likely"] * sure + ["distance"] * (not (aligned and sure)) + ["same work"]
    columns += ["key", "stretch"] * aligned
    cells = [_cells(match) for match in matches]
    show_table(
        ["", *columns],
        ([rank, *(row[column] for column in columns)] for rank, row in enumerate(cells, 1)),
    )


def _cells(match: "Match") -> dict[str, Any]:
    key, stretch = _alignment(match.alignment)
    return {
        "track": match.track_id,
        "work": match.work_id,
        "title": match.title or match.work_title,
        "artist": match.artist or match.work_artist,
        "likely": percent(match.probability),
        "distance": match.distance,
        "same work": "yes" if match.same_work else "",
        "key": key,
        "stretch": stretch,
    }


def percent(probability: float | None) -> str:
    """Write a probability so that neither 0 nor 100 % is said where it isn't meant."""
    if probability is None:
        return ""
    if 0.01 <= probability < 0.995:
        return f"{100 * probability:.0f} %"
    return "> 99 %" if probability > 0.5 else "< 1 %"


def show_identification(found: "Identification", as_json: bool) -> None:
    """Print what a performance is a version of, and what speaks for it."""
    if as_json:
        print_json(dataclasses.asdict(found))
        return
    say = Console(soft_wrap=True).print
    if found.work is None:
        say(
            f"No version of {found.track_id} is here ({percent(found.probability_of_none)}).",
            highlight=False,
        )
    else:
        title = found.work.work_title or found.work.work_id
        likely = percent(found.work.probability)
        say(f"{found.track_id} is a version of {title} ({likely}).", highlight=False)
    show_table(
        ["work", "title", "likely", "speaking for it"],
        (
            [
                work.work_id,
                work.work_title,
                percent(work.probability),
                [match.track_id for match in work.performances],
            ]
            for work in found.works
        ),
    )


def show_duplicates(table: Path, as_json: bool) -> None:
    """Print the first rows of `flows.duplicates`, and where all are."""
    import polars as pl

    rows = pl.read_csv(table).to_dicts()
    if as_json:
        print_json({"duplicates": rows, "path": str(table)})
        return
    show_table(
        ["", "likely", "track", "title", "other", "other title"],
        (
            [
                rank,
                percent(row["probability"]),
                row["track_id"],
                row["title"],
                row["other_track_id"],
                row["other_title"],
            ]
            for rank, row in enumerate(rows[:SHOWN], 1)
        ),
    )
    show_path(f"all {len(rows)} pairs", table, as_json)


def show_status(facts: "Status", as_json: bool) -> None:
    """Print which collections there are."""
    if as_json:
        print_json(dataclasses.asdict(facts))
        return
    for role, one in zip(
        ("current", *("previous" for _ in facts.previous)),
        (facts.current, *facts.previous),
        strict=True,
    ):
        said = dataclasses.asdict(one) if one else {"nothing": ""}
        if one:
            said["calibration"] = "yes" if one.calibration else "none: it tells no probabilities"
            said["sources"] = _sources(said.pop("origin"))
        show_table(["", role], said.items())
    show_path("kept in", facts.location, as_json)


def _sources(origin: Any) -> str:
    """Where the data of a collection are, as far as it says that."""
    sources = origin.get("sources") if isinstance(origin, dict) else None
    if not sources:
        return "unknown"
    return ", ".join(one.get("data") or one.get("features") or "unknown" for one in sources)


def _alignment(found: "Alignment | None") -> tuple[str, str]:
    """Semitones up from the query, and the first stretch: of the query ~ of the match."""
    if found is None or not found.stretches:
        return "", ""
    one = found.stretches[0]
    query_start, query_end, match_start, match_end = (
        f"{round(seconds) // 60}:{round(seconds) % 60:02d}"
        for seconds in (one.query_start, one.query_end, one.match_start, one.match_end)
    )
    stretch = f"{query_start}-{query_end} ~ {match_start}-{match_end}"
    return f"{found.transposition:+d}", stretch
