"""`covers pipeline` on the prototype's two tables: 10,000 rows to train on, 15,000 to serve."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
from vectors import many

from benchmarks.harness import Row, in_turns, seconds
from embedding.data.features import FEATURE_NAMES

EPOCHS = 50

MAIN = "from flows.cli.commands import main; main()"

#: (cliques, performances of each, noise works): the two subsets of Da-TACOS.
BENCHMARK, COVERANALYSIS = (1_000, 13, 2_000), (5_000, 2, 0)


def measure() -> list[Row]:
    """Run it, and once more with nothing left to do, which is what Prefect takes by itself."""
    with tempfile.TemporaryDirectory(prefix="covers-bench-") as directory:
        folder = Path(directory)
        _table(folder / "benchmark.csv", BENCHMARK, seed=0)
        _table(folder / "coveranalysis.csv", COVERANALYSIS, seed=1)
        runs = in_turns({"ours": partial(ours, folder)})["ours"]
    again = runs.figure("again")
    return [
        Row(
            f"15,000 + 10,000 rows: train ({EPOCHS} epochs), embed, publish, evaluate",
            seconds(runs.median - again),
            limit="<= 120 s",
            met=runs.median - again <= 120,
            peak_mb=runs.peak_mb,
        ),
        Row(
            "the same again, with nothing to do: Prefect's own, and starting Python",
            seconds(again),
            limit="<= 20 s",
            met=again <= 20,
        ),
    ]


def _table(path: Path, size: tuple[int, int, int], seed: int) -> None:
    cliques, each, noise = size
    rows, works, tracks = many(cliques, each, noise, len(FEATURE_NAMES), seed=seed)
    names = [f"{path.stem}_{track}.h5" for track in tracks]
    table = pl.DataFrame({"work": [f"{path.stem}_{work}" for work in works], "performance": names})
    means = 0.3 + 0.05 * rows.astype(np.float64)
    table.hstack(pl.DataFrame(means, schema=list(FEATURE_NAMES))).write_csv(path)


def ours(folder: Path) -> Generator[None, None, dict[str, float]]:
    """The command, as a user gives it, in a new workspace."""
    config = folder / "config.json"
    config.write_text(json.dumps({"max_epochs": EPOCHS, "patience": EPOCHS}))
    with tempfile.TemporaryDirectory(prefix="covers-bench-") as home:
        environment = os.environ | {"COVERS_HOME": f"{home}/covers", "PREFECT_HOME": f"{home}/ph"}
        environment.pop("QDRANT_URL", None)
        names = ("benchmark", "coveranalysis")
        data, train = (str(folder / f"{name}.csv") for name in names)
        command = [sys.executable, "-c", MAIN, "pipeline", "--data", data, "--train", train]
        run = partial(
            subprocess.run,
            [*command, "--config", str(config)],
            check=True,
            capture_output=True,
            env=environment,
            cwd=Path(__file__).parents[2],
        )
        yield
        run()
        start = time.perf_counter()
        run()
        return {"again": time.perf_counter() - start}
