"""What a person sees of the result of each command."""

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flows.cli.printing import say, show_table
from flows.measuring.report import MAX_ROWS, evaluation_tables, group_table, percent

if TYPE_CHECKING:
    from search import Alignment, Identification, Match, Status, Work
    from search.points import Description

#: Columns of the publisher's own that a table of matches shows.
MAX_OWN = 3

#: Performances that are named of those that were added, left out and so on.
MAX_NAMED = 5


def show_paths(paths: Mapping[str, Any]) -> None:
    """Print where results are, one path per line."""
    for name, value in paths.items():
        for path in value if isinstance(value, list) else [value]:
            say(f"{name}: {path}")


def show_evaluation(result: dict[str, Any]) -> None:
    """Print the result of `flows.evaluate` or `flows.pipeline`."""
    for columns, rows in evaluation_tables(result):
        show_table(columns, rows)
    say(result["measured_on"]["summary"])
    if outliers := result.get("outliers"):
        say(
            f"{outliers} performances are unusually far from their versions. They come first in "
            "quality.csv."
        )
    if used := result.get("encoder"):
        say(used)
    _show_other_sources(result)
    if not result.get("published", True):
        say(result["verdict"])
    show_paths(result["paths"])


def _show_other_sources(result: dict[str, Any]) -> None:
    for key, heading in {"kept": "Kept in", "left_out": "Left out of"}.items():
        if sources := result.get(key):
            say(f"{heading} the collection: {', '.join(sources)}.")
    for name, place in result.get("moved", {}).items():
        say(f"The performances of {name} are now in {place}.")
    show_rejects(result)


def show_rejects(result: Mapping[str, Any]) -> None:
    """Print the first performances that were left out of the data, and why."""
    rejects = result.get("rejected", ())
    for reject in rejects[:MAX_NAMED]:
        say(f"Left out: {reject['file']}: {reject['reason'].rstrip('.')}.")
    if len(rejects) > MAX_NAMED:
        say(f"Left out: {len(rejects) - MAX_NAMED} more, which --json lists.")


def show_features(result: Mapping[str, Any]) -> None:
    """Print the result of `flows.aggregate`."""
    show_rejects(result)
    show_paths({"features": result["features"]})


def show_extraction(result: dict[str, Any]) -> None:
    """Print the result of `flows.extract`."""
    names = ["extracted", "analysed"]
    show_table(["", "recordings"], ((name, result[name]) for name in names))
    show_rejects(result)
    show_paths({"features": result["directory"]})


def show_publication(result: dict[str, Any]) -> None:
    """Print the result of `flows.publish`."""
    show_table(["source"], ([source] for source in result["sources"]))
    _show_other_sources(result)
    show_paths({"collection": result["collection"]})


def show_addition(result: dict[str, Any]) -> None:
    """Print the result of `flows.add`."""
    tracks = result["tracks"].items()
    rows = ((name, len(ids), _first(ids)) for name, ids in tracks)
    show_table(["", "performances", "which"], rows)
    _show_other_sources(result)
    show_paths({"collection": result["collection"]})


def _first(ids: Sequence[str]) -> list[str]:
    more = [f"and {len(ids) - MAX_NAMED} more"] if len(ids) > MAX_NAMED else []
    return [*ids[:MAX_NAMED], *more]


def show_unneeded(content: dict[str, Any]) -> None:
    """Print which results `covers gc` has deleted or would delete."""
    results = content["results"]
    if not results:
        say("Everything in the workspace is needed.")
        return
    show_table(
        ["kind", "result", "size"],
        (
            [each["kind"], "/".join(each["result"].split("/")[-2:]), _megabytes(each["bytes"])]
            for each in results
        ),
    )
    plural = "" if len(results) == 1 else "s"
    verb = "`covers gc` would free" if content["dry_run"] else "Freed"
    say(f"{verb} {len(results)} result{plural}, {_megabytes(content['bytes'])}.")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def show_clusters(result: dict[str, Any]) -> None:
    """Print the result of `flows.cluster`."""
    columns = ["k", "inertia", "silhouette"]
    show_table(columns, ([row[column] for column in columns] for row in result["curve"]))
    show_table(["measure", "value"], result["metrics"].items())
    show_paths(result["paths"])


def show_comparison(result: dict[str, Any]) -> None:
    """Print the result of `flows.measuring.compare`."""
    k = next((row["k"] for row in result["rows"] if row["k"]), 100)
    columns = ["row", "MAP (95 %)", "seeds", "MR1", "hits@1", f"R@{k}", "hubs", "dim"]
    show_table(columns, map(comparison_cells, result["rows"]))
    for row in result["rows"]:
        if row["why_not"]:
            say(f"{row['row']} is not measured: {row['why_not']}")
    if any(row["map_min"] is not None for row in result["rows"]):
        say("seeds: lowest and highest MAP; the other columns are of the seed with the median MAP.")
    say(f"R@{k}: share of the versions among the nearest {k}. hubs: hubness, best near 0.")
    if aligned := next((row for row in result["rows"] if row["depth"]), None):
        others = result["measured_on"]["performances"] - 1
        say(
            f"re-ranked: the nearest {aligned['depth']} of the {others} others are aligned, for "
            f"{aligned['queries']} queries."
        )
    say(result["measured_on"]["summary"])
    show_paths(result["paths"])


def comparison_cells(row: Mapping[str, Any]) -> list[str]:
    """Return the cells of a row, with a dash for a missing value."""

    def cell(form: str, *names: str, missing: str = "-") -> str:
        values = [row[name] for name in names]
        return missing if None in values else form.format(*values)

    return [
        row["row"],
        cell("{:.2f}", "map") + cell(" ({:.2f}-{:.2f})", "map_low", "map_high", missing=""),
        cell("{:.2f}-{:.2f}", "map_min", "map_max"),
        cell("{:.1f}", "mr1"),
        cell("{:.2f}", "hits@1"),
        cell("{:.2f}", "recall@k"),
        cell("{:.1f}", "hubness"),
        cell("{}", "dimension"),
    ]


def show_matches(content: Mapping[str, Any], wanted: Collection[str] = ()) -> None:
    """Print `matches`, with their probabilities and alignments where these are known.

    Of the publisher's columns, the first few are shown, and those that are `wanted` before others.
    """
    matches: Sequence[Match] = content["matches"]
    aligned = any(match.alignment for match in matches)
    judged = any(match.probability is not None for match in matches)
    columns = ["track"]
    columns += ["title"] if aligned else ["work", "title", "artist"]
    columns += ["likely", "score"] + ["distance"] * (not (aligned and judged)) + ["same work"]
    columns += ["key", "stretch"] * aligned
    own = [name for match in matches[:1] for name in match.columns]
    own.sort(key=lambda name: name not in wanted)
    rows = []
    for rank, match in enumerate(matches, 1):
        cells = _match_cells(match)
        known = [cells[column] for column in columns]
        rows.append([rank, *known, *(_own_cell(match.columns[name]) for name in own[:MAX_OWN])])
    show_table(["", *columns, *own[:MAX_OWN]], rows)
    if own[MAX_OWN:]:
        say(f"--json also shows {', '.join(own[MAX_OWN:])}.")


def _own_cell(value: Any) -> Any:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else value


def _match_cells(match: "Match") -> dict[str, Any]:
    key, stretch = alignment_cells(match.alignment)
    return {
        "track": match.track_id,
        "work": match.work_id,
        "title": match.title or match.work_title,
        "artist": match.artist or match.work_artist,
        "likely": percent(match.probability),
        "score": match.score,
        "distance": match.distance,
        "same work": "yes" if match.same_work else "",
        "key": key,
        "stretch": stretch,
    }


def alignment_cells(alignment: "Alignment | None") -> tuple[str, str]:
    """Return the semitones up from the query, and the first stretch: of the query ~ the match."""
    if alignment is None or not alignment.stretches:
        return "", ""
    first = alignment.stretches[0]
    query_start, query_end, match_start, match_end = (
        f"{round(seconds) // 60}:{round(seconds) % 60:02d}"
        for seconds in (first.query_start, first.query_end, first.match_start, first.match_end)
    )
    stretch = f"{query_start}-{query_end} ~ {match_start}-{match_end}"
    return f"{alignment.transposition:+d}", stretch


def show_identification(found: "Identification") -> None:
    """Print the work that a performance is a version of, and the evidence."""
    if found.work is None:
        none = percent(found.probability_of_none)
        say(f"The collection has no version of {found.track_id} ({none}).")
    else:
        title = _title(found.work) or found.work.work_id
        is_likely = found.work.probability > 0.5
        is_version = "is a version" if is_likely else "may be a version"
        say(f"{found.track_id} {is_version} of {title} ({percent(found.work.probability)}).")
    show_table(
        ["work", "probably the same", "title", "likely", "evidence"],
        (
            [
                work.work_id,
                work.same_as,
                _title(work),
                percent(work.probability),
                [match.track_id for match in work.performances],
            ]
            for work in found.works
        ),
    )
    if any(work.same_as for work in found.works):
        say("Works that are probably one count as one here, although their labels differ.")


def _title(work: "Work") -> str | None:
    return work.work_title or work.performances[0].title


def show_distance(content: Mapping[str, Any]) -> None:
    """Print a distance."""
    say(f"{content['distance']:.4f}")


def show_pairs(content: Mapping[str, Any]) -> None:
    """Print the most probable pairs of the table of `flows.duplicates`, and where the table is."""
    rows = content["pairs"]
    columns = ["track_id", "title", "other_track_id", "other_title"]
    show_table(
        ["", "likely", "track", "title", "other", "other title"],
        (
            [rank, percent(row["probability"]), *(row[column] for column in columns)]
            for rank, row in enumerate(rows[:MAX_ROWS], 1)
        ),
    )
    show_paths({f"all {len(rows)} pairs": content["path"]})


def show_groups(content: Mapping[str, Any]) -> None:
    """Print the first groups of the table of `flows.duplicates`, and where the table is."""
    groups = content["groups"]
    show_table(*group_table(groups))
    pairs = sum(group["pairs"] for group in groups)
    show_paths({f"all {len(groups)} groups ({pairs} pairs)": content["path"]})


def show_status(status: "Status") -> None:
    """Print the current collection and the previous ones."""
    if status.current is None:
        say("Nothing is published.")
    else:
        show_table(["", "current"], _description_rows(status.current))
    for previous in status.previous:
        show_table(["", "previous"], _description_rows(previous))
    show_paths({"collections": status.location})


def _description_rows(description: "Description") -> Iterable[tuple[str, Any]]:
    facts = dataclasses.asdict(description)
    origin, hidden = facts.pop("origin"), facts.pop("hidden") or {}
    facts |= {f"hidden {name}": value for name, value in hidden.items()}
    facts["calibration"] = "yes" if description.calibration else "no (so it has no probabilities)"
    facts["columns"] = [f"{name} ({kind})" for name, kind in description.columns.items()]
    facts["sources"] = _sources(origin)
    return facts.items()


def _sources(origin: Any) -> str:
    """Where the data of a collection is, if that is known."""
    sources = origin.get("sources") if isinstance(origin, dict) else None
    if not sources:
        return "unknown"
    return ", ".join(each.get("data") or each.get("features") or "unknown" for each in sources)
