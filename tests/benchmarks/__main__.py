"""Run the benchmarks, all or those that are named, and print one table.

The rows also go to a file, BENCH.json by default, one list a benchmark, so that a run of one
doesn't lose what the others found.
"""

import argparse
import importlib
import json
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.harness import Row

#: In the order of the way of the data.
BENCHMARKS = (
    "aggregation",
    "training",
    "metrics",
    "publishing",
    "searching",
    "pipeline",
    "growth",
)

#: As wide as the table needs, in a log too.
console = Console(width=170)


def table(results: dict[str, list[Row]]) -> Table:
    """Lay rows out, grouped by benchmark."""
    columns = ("", "ours", "peer", "theirs", "ratio", "limit", "", "peak MB")
    made = Table(*columns)
    for name, rows in results.items():
        made.add_section()
        for row in rows:
            met = {True: "[green]met[/]", False: "[red]missed[/]", None: ""}[row.met]
            peak = "" if row.peak_mb is None else f"{row.peak_mb:.0f}"
            made.add_row(
                f"{name}: {row.what}",
                row.ours,
                row.peer,
                row.theirs,
                row.ratio,
                row.limit,
                met,
                peak,
            )
            if row.note:
                made.add_row(f"[dim]  {row.note}[/]")
    return made


def main() -> None:
    """Run, print and keep."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--out", type=Path, default=Path("BENCH.json"))
    asked = parser.parse_args()
    if unknown := set(asked.names) - set(BENCHMARKS):
        parser.error(f"there is no benchmark {unknown.pop()!r}: choose of {', '.join(BENCHMARKS)}")
    kept = json.loads(asked.out.read_text(encoding="utf-8")) if asked.out.exists() else {}
    for name in [each for each in BENCHMARKS if each in asked.names or not asked.names]:
        console.rule(name)
        rows = importlib.import_module(f"benchmarks.{name}").measure()
        console.print(table({name: rows}))
        kept[name] = [asdict(row) for row in rows]
        asked.out.write_text(json.dumps(kept, indent=1, ensure_ascii=False), encoding="utf-8")
    console.rule("all")
    results = {name: [Row(**row) for row in kept[name]] for name in BENCHMARKS if name in kept}
    console.print(table(results))


if __name__ == "__main__":
    main()
