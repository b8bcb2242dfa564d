"""Run all benchmarks, or those that are named, and print one table.

A file, BENCH.json by default, has the rows of each benchmark from its latest run.
"""

import argparse
import importlib
import json
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.harness import Row

BENCHMARKS = ["aggregation", "training", "metrics", "publishing", "searching", "pipeline", "growth"]

#: Wide enough for the table, also in a log.
console = Console(width=170)


def table(results: dict[str, list[Row]]) -> Table:
    """Make a table of the rows of each benchmark."""
    made = Table("", "ours", "peer", "theirs", "ratio", "limit", "", "peak MB")
    for name, rows in results.items():
        made.add_section()
        for row in rows:
            met = {True: "[green]met[/]", False: "[red]missed[/]", None: ""}[row.met]
            peak = "" if row.peak_mb is None else f"{row.peak_mb:.0f}"
            figures = (row.ours, row.peer, row.theirs, row.ratio, row.limit)
            made.add_row(f"{name}: {row.what}", *figures, met, peak)
            if row.note:
                made.add_row(f"[dim]  {row.note}[/]")
    return made


def main() -> None:
    """Run the benchmarks, print their rows and write them to the file."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--out", type=Path, default=Path("BENCH.json"))
    options = parser.parse_args()
    if unknown := set(options.names) - set(BENCHMARKS):
        parser.error(f"There is no benchmark {unknown.pop()!r}: choose {', '.join(BENCHMARKS)}.")
    latest = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {}
    for name in [name for name in BENCHMARKS if name in options.names or not options.names]:
        console.rule(name)
        rows = importlib.import_module(f"benchmarks.{name}").measure()
        console.print(table({name: rows}))
        latest[name] = [asdict(row) for row in rows]
        options.out.write_text(json.dumps(latest, indent=1, ensure_ascii=False), encoding="utf-8")
    console.rule("all")
    ran = [name for name in BENCHMARKS if name in latest]
    console.print(table({name: [Row(**row) for row in latest[name]] for name in ran}))


if __name__ == "__main__":
    main()
