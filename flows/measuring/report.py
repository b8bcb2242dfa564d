"""Tables that the command line and the Prefect UI show alike."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

#: The columns and rows of a table.
Table = tuple[Sequence[str], Sequence[Sequence[Any]]]

#: Rows or groups that are shown of a result of any length.
MAX_ROWS = 20


def evaluation_tables(result: Mapping[str, Any]) -> Iterator[Table]:
    """Yield the columns and rows of each table in the result of `flows.evaluate`."""
    if not result["metrics"]:
        return
    yield ["measure", "value", "95 %"], _with_intervals(result["metrics"], result["intervals"])
    if reranked := result.get("reranked"):
        names = ["map", "mr1", "hits@1", "hits@10", "recall@k", "k", "queries"]
        values = {name: reranked[name] for name in names}
        heading = f"reranked (nearest {reranked['depth']})"
        yield [heading, "value", "95 %"], _with_intervals(values, reranked["intervals"])
    for evidence, measured in result.get("certainty", {}).items():
        rows = [(name, value) for name, value in measured.items() if isinstance(value, float)]
        kind = "alignment" if evidence == "reranked" else evidence
        yield [f"probability by {kind}", "value"], rows


def _with_intervals(
    values: Mapping[str, Any], intervals: Mapping[str, Sequence[float]]
) -> list[Sequence[Any]]:
    known = {name: f"{low:.3f} to {high:.3f}" for name, (low, high) in intervals.items()}
    return [(name, value, known.get(name)) for name, value in values.items()]


def group_table(groups: Sequence[Mapping[str, Any]]) -> Table:
    """Return the table of the first groups in the result of `flows.duplicates`."""
    rows = []
    for group in groups[:MAX_ROWS]:
        number, link = group["group"], group["weakest_link"]
        ends = link["track_id"], link["other_track_id"]
        for track_id, work_id, title, artist in map(dict.values, group["performances"]):
            work_id = work_id if work_id != track_id else None  # as where nothing is labelled
            weakest = percent(link["probability"]) if track_id in ends else None
            rows.append([number, track_id, work_id, title, artist, weakest])
            number = None
    return ["group", "track", "work", "title", "artist", "weakest link"], rows


def percent(probability: float | None) -> str:
    """Write a probability, but never round it to 0 or 100 %."""
    if probability is None:
        return ""
    if 0.01 <= probability < 0.995:
        return f"{100 * probability:.0f} %"
    return "> 99 %" if probability > 0.5 else "< 1 %"
