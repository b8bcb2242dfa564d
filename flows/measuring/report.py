"""The tables of an evaluation, as the command line and the Prefect UI show them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def evaluation_tables(
    result: Mapping[str, Any],
) -> Iterator[tuple[Sequence[str], Sequence[Sequence[Any]]]]:
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
