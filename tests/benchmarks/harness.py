"""Time two ways of doing the same in turns, each in a fresh process.

A side is a generator function. Code before its `yield` is set-up, code after it is timed, and it
may return a dict of figures that it measured itself. The sides take turns because a machine has
slow minutes. They run in fresh processes to measure the peak memory of each, and so that neither
finds warm caches of the other.
"""

import math
import multiprocessing
import re
import statistics
import time
import traceback
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

#: Seconds between two measurements of a side's memory.
MEMORY_INTERVAL = 0.5

Side: TypeAlias = Callable[[], Generator[None, None, dict[str, float] | None]]


@dataclass(frozen=True)
class Runs:
    """Measurements of one side.

    Attributes
    ----------
    seconds : list of float
        Timed part of each round.
    peak_mb : float
        Peak memory after set-up in MB (10^6 bytes), of the process and its children. Shared memory
        counts once.
    base_mb : float
        Memory at the end of set-up.
    figures : dict
        Values of each of the side's own figures, one per round.
    """

    seconds: list[float] = field(default_factory=list)
    peak_mb: float = 0.0
    base_mb: float = 0.0
    figures: dict[str, list[float]] = field(default_factory=dict)

    @property
    def median(self) -> float:
        """Median of the seconds."""
        return statistics.median(self.seconds)

    def figure(self, name: str) -> float:
        """Median of one of the side's own figures."""
        return statistics.median(self.figures[name])


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes
    ----------
    what : str
        What is measured, with its size.
    ours : str
        Our figure, with its unit.
    peer, theirs : str
        Name and figure of the peer, if there is one.
    ratio : str
        Theirs divided by ours: median, smallest and largest of the rounds.
    limit : str
        The target, if there is one.
    met : bool or None
        Whether the target is met.
    peak_mb : float
        Our peak memory.
    note : str
        Why a target is missed, or how to read the figure.
    """

    what: str
    ours: str
    peer: str = ""
    theirs: str = ""
    ratio: str = ""
    limit: str = ""
    met: bool | None = None
    peak_mb: float | None = None
    note: str = ""


def in_turns(sides: Mapping[str, Side], rounds: int = 3) -> dict[str, Runs]:
    """Run every side once per round. A side that fails raises RuntimeError with its traceback."""
    found = {name: Runs() for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            seconds, base, peak, figures = alone(side)
            runs = found[name]
            runs.seconds.append(seconds)
            for figure, value in figures.items():
                runs.figures.setdefault(figure, []).append(value)
            found[name] = Runs(
                runs.seconds, max(runs.peak_mb, peak), max(runs.base_mb, base), runs.figures
            )
    return found


def alone(side: Side) -> tuple[float, float, float, dict[str, float]]:
    """Run a side in a fresh process: seconds, MB after set-up, peak MB, and its figures."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_run, args=(side, there))
    process.start()
    there.close()
    base = peak = 0.0
    try:
        if (ready := here.recv()) != "ready":
            raise RuntimeError(ready)
        base = memory_mb(process.pid)
        here.send("go")
        while not here.poll(MEMORY_INTERVAL):
            peak = max(peak, memory_mb(process.pid))
        answer = here.recv()
    except EOFError:
        process.join()
        raise RuntimeError(f"{side} ended with exit code {process.exitcode}") from None
    process.join()
    if isinstance(answer, str):
        raise RuntimeError(answer)
    return answer[0], base, max(base, peak), answer[1]


def _run(side: Side, parent: Any) -> None:
    try:
        steps = side()
        next(steps)
        parent.send("ready")
        parent.recv()
        start = time.perf_counter()
        try:
            next(steps)
            raise RuntimeError(f"{side} yields twice")
        except StopIteration as end:
            seconds = time.perf_counter() - start
            figures = end.value or {}
        parent.send((seconds, figures))
    except BaseException:
        parent.send(traceback.format_exc())
        raise


def memory_mb(process: int) -> float:
    """Memory in MB of a process and its children; shared memory counts once."""
    total = 0
    try:
        content = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii")
        total = 1024 * int(re.search(r"^Pss:\s+(\d+)", content, re.MULTILINE)[1])
        for task in Path(f"/proc/{process}/task").iterdir():
            children = (task / "children").read_text(encoding="ascii").split()
            total += int(1e6 * sum(memory_mb(int(child)) for child in children))
    except (OSError, TypeError):  # the process has just ended
        pass
    return total / 1e6


def ratio(theirs: Runs, ours: Runs) -> tuple[float, str]:
    """Median of the rounds' ratios, and a text with the smallest and the largest too."""
    ratios = [b / a for a, b in zip(ours.seconds, theirs.seconds, strict=True)]
    median = statistics.median(ratios)
    return median, f"{median:.3g} ({min(ratios):.3g}-{max(ratios):.3g})"


def seconds(value: float) -> str:
    """Format a duration in s, ms or µs."""
    if value >= 1:
        return f"{value:.3g} s"
    return f"{value * 1e3:.3g} ms" if value >= 1e-3 else f"{value * 1e6:.3g} µs"


def exponent(sizes: list[int], costs: list[float]) -> float:
    """Least-squares slope of log cost over log size; 1 means linear growth."""
    x = [math.log(size) for size in sizes]
    y = [math.log(cost) for cost in costs]
    return statistics.linear_regression(x, y).slope
