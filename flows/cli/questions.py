"""Commands that ask the collection."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli import options, tables
from flows.cli.printing import show, visible
from flows.cli.running import asking, checking, run_flow, searcher

if TYPE_CHECKING:
    from search import Match, Searcher


def similar(
    query: options.Query,
    limit: options.Limit = 10,
    rerank: options.Rerank = False,
    other_works: options.OtherWorks = False,
    where: options.Where = None,
    home: options.Home = None,
    as_json: options.AsJson = False,
) -> None:
    """List the performances that are most similar to a performance.

    Examples: covers similar P_135582 --where instrumental=yes --where year=1950..1980;
    covers similar take.mp3 --rerank
    """
    filter_ = _filter(home, where)
    asked, (performance,) = asking(home, query)
    matches = asked.similar(
        performance, limit, rerank=rerank, leave_out_same_work=other_works, where=filter_
    )
    _show_matches(query, matches, as_json, asked, filter_)


def works(
    query: options.Query,
    limit: options.Limit = 10,
    rerank: options.Rerank = False,
    other_works: options.OtherWorks = False,
    where: options.Where = None,
    home: options.Home = None,
    as_json: options.AsJson = False,
) -> None:
    """List the works that are most similar to a performance, each with its best performance.

    Example: covers works P_135582 --other-works; covers works take.mp3
    """
    filter_ = _filter(home, where)
    asked, (performance,) = asking(home, query)
    matches = asked.works(
        performance, limit, rerank=rerank, leave_out_same_work=other_works, where=filter_
    )
    _show_matches(query, matches, as_json, asked, filter_)


def _filter(home: Path | None, where: list[str] | None) -> list[dict[str, Any]]:
    """Read --where, by the types that the collection says, before a recording is analysed."""
    return options.read_filter(where, searcher(home).fields()) if where else []


def _show_matches(
    query: str,
    matches: list["Match"],
    as_json: bool,
    asked: "Searcher",
    filter_: list[dict[str, Any]],
) -> None:
    """Print matches, and on stderr what there is to say about the filter."""
    wanted = [field for each in filter_ for field in each]
    show_matches = partial(tables.show_matches, wanted=wanted)
    show({"query": query, "matches": matches}, as_json, show_matches)
    _warn(asked, filter_, bool(matches))


def _warn(asked: "Searcher", filter_: list[dict[str, Any]], is_found: bool) -> None:
    """Say on stderr why nothing is found, or which values of the filter are unknown."""
    for line in asked.unknown_values(filter_) if is_found else [asked.why_nothing(filter_)]:
        typer.echo(visible(line), err=True)


def identify(
    query: options.Query,
    limit: options.Limit = 5,
    where: options.Where = None,
    home: options.Home = None,
    as_json: options.AsJson = False,
) -> None:
    """Name the work that a performance is a version of, or say that there is none.

    The label of the performance plays no part.

    Example: covers identify P_135582; covers identify take.mp3
    """
    filter_ = _filter(home, where)
    asked, (performance,) = asking(home, query)
    found = asked.identify(performance, limit, where=filter_)
    show(found, as_json, tables.show_identification)
    _warn(asked, filter_, bool(found.works))


def same_work(
    a: options.Query,
    b: options.OtherQuery,
    home: options.Home = None,
    as_json: options.AsJson = False,
) -> None:
    """Say how likely two performances are versions of the same work.

    Example: covers same-work P_135582 P_201213; covers same-work take.mp3 P_135582
    """
    asked, (first, second) = asking(home, a, b)
    match = asked.same_work(first, second)
    show({"query": a, "matches": [match]}, as_json, tables.show_matches)


def distance(
    a: options.Query,
    b: options.OtherQuery,
    home: options.Home = None,
    as_json: options.AsJson = False,
) -> None:
    """Print the distance between two performances.

    Example: covers distance P_135582 P_201213
    """
    asked, (first, second) = asking(home, a, b)
    value = asked.distance(first, second)
    show({"a": a, "b": b, "distance": value}, as_json, tables.show_distance)


def duplicates(
    pairs: Annotated[bool, typer.Option("--pairs", help="List pairs instead of groups.")] = False,
    max_pairs: Annotated[
        int, typer.Option(help="Maximum number of pairs, in all groups together.", min=1)
    ] = 1000,
    min_probability: Annotated[
        float, typer.Option(help="Minimum probability of a pair.", min=0, max=1)
    ] = 0.5,
    home: options.Home = None,
    as_json: options.AsJson = False,
) -> None:
    """Find performances that are probably of one work, but are labelled with different works.

    They are mislabelled performances, or works that should be linked. Pairs that share a
    performance, or that connect the same two works, are shown as one group. The weakest link of a
    group is the least probable pair that holds it together; its percentage stands beside both
    performances of this pair. Groups whose weakest link is strongest come first.

    All pairs are in duplicates.csv, with the number of their group. Its columns are explained in
    docs/operating.md.

    Example: covers duplicates --min-probability 0.9
    """
    checking(home)
    path = run_flow("duplicates", max_pairs, min_probability, home)
    from flows.duplicates import groups_of, read

    table = read(path)
    if pairs:
        rows = table.sort("probability", descending=True, maintain_order=True).to_dicts()
        show({"pairs": rows, "path": str(path)}, as_json, tables.show_pairs)
    else:
        content = {"groups": groups_of(table), "path": str(path)}
        show(content, as_json, tables.show_groups)
