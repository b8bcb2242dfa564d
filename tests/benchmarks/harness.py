"""Timing two ways of doing the same, in turns, each in a fresh process.

A side is a generator function: what it does before its `yield` is set-up, what it does after is
timed, and what it returns, a dict of numbers, is figures of its own. In turns, because a machine
has slow minutes; in fresh processes, because a peak of memory is one of a process, and so that
neither side finds what the other has warmed.
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

#: Seconds between two looks at how much memory a side holds.
LOOK = 0.5

Side: TypeAlias = Callable[[], Generator[None, None, dict[str, float] | None]]


@dataclass(frozen=True)
class Runs:
    """What one side took, round by round.

    Attributes
    ----------
    seconds : list of float
        Of what is timed.
    peak_mb : float
        The most memory that a round held at once, seen every `LOOK` seconds from set-up on: MB of
        10^6 bytes, of it and all its children, what they share counted once.
    base_mb : float
        What it held when set-up was done.
    figures : dict
        Each figure of the side's own: its values, round by round.
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
        """Median of a figure of its own."""
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
        Whom it is compared with, and that one's figure; empty for a limit alone.
    ratio : str
        Theirs over ours, with the smallest and the largest of the rounds.
    limit : str
        What must be reached, and empty where a figure is only reported.
    met : bool or None
        Whether it is.
    peak_mb : float
        Ours.
    note : str
        Why a limit is missed, or what must be known to read the figure.
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
    """Run every side once a round, in fresh processes, and collect what each took.

    Raises
    ------
    RuntimeError
        With the side's own words, if one fails.
    """
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
    """Run one side in a process of its own: seconds, MB after set-up, peak MB, its figures."""
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
        while not here.poll(LOOK):
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
        figures: dict[str, float] = {}
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
    """Memory of a process and its children, what several of them map counted once, MB."""
    total = 0
    try:
        content = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii")
        total = 1024 * int(re.search(r"^Pss:\s+(\d+)", content, re.MULTILINE)[1])
        for task in Path(f"/proc/{process}/task").iterdir():
            children = (task / "children").read_text(encoding="ascii").split()
            total += int(1e6 * sum(memory_mb(int(child)) for child in children))
    except (OSError, TypeError):  # it has just ended
        pass
    return total / 1e6


def ratio(theirs: Runs, ours: Runs) -> tuple[float, str]:
    """Median of the rounds' ratios, and that in words with the smallest and the largest."""
    each = [b / a for a, b in zip(ours.seconds, theirs.seconds, strict=True)]
    middle = statistics.median(each)
    return middle, f"{middle:.3g} ({min(each):.3g}-{max(each):.3g})"


def seconds(value: float) -> str:
    """Write a duration with a unit that suits it."""
    if value >= 1:
        return f"{value:.3g} s"
    return f"{value * 1e3:.3g} ms" if value >= 1e-3 else f"{value * 1e6:.3g} µs"


def exponent(sizes: list[int], costs: list[float]) -> float:
    """Slope of log cost over log size, by least squares: 1 is linear."""
    x = [math.log(size) for size in sizes]
    y = [math.log(cost) for cost in costs]
    return statistics.linear_regression(x, y).slope
