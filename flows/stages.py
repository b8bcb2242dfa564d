"""The list of stages. To add a stage, write a module with a flow, and add a line here.

The flow has the name of its stage. `flows.serve` deploys every flow in this list, and
`flows.retention` deletes the results that nothing needs. A stage makes its results with
`Workspace.result`.
"""

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefect import Flow


@dataclass(frozen=True)
class Stage:
    """A flow and what it makes.

    Attributes
    ----------
    module : str
        The module of the flow.
    results : tuple of str
        The directories of its results, as patterns relative to the workspace.
    pruned : bool
        Whether results that nothing needs are deleted. Those that are started by hand and take
        hours are not.
    schedule : str or None
        When the deployment runs by default, as a cron expression.
    """

    module: str
    results: tuple[str, ...] = ()
    pruned: bool = True
    schedule: str | None = None


STAGES = {
    "pipeline": Stage("flows.pipeline", schedule="0 2 * * *"),
    "add": Stage("flows.add"),
    "extract": Stage("flows.extract"),
    "aggregate": Stage("flows.aggregate", ("features/*",)),
    "train": Stage("flows.train", ("bundles",)),
    "embed": Stage("flows.embed", ("vectors",)),
    "publish": Stage("flows.publish"),
    "evaluate": Stage("flows.evaluate", ("evaluations",)),
    "duplicates": Stage("flows.duplicates", ("duplicates",)),
    "cluster": Stage("flows.cluster", ("clusters",)),
    "compare": Stage(
        "flows.measuring.compare", ("splits", "comparisons", "comparisons/rows"), pruned=False
    ),
}


def flow_of(name: str) -> "Flow[..., Any]":
    """Import the flow of a stage."""
    flow: Flow[..., Any] = getattr(import_module(STAGES[name].module), name)
    return flow
