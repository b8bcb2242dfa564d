"""Every flow as a deployment, on cron schedules, in one process that runs them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from prefect import serve
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.deployments.runner import RunnerDeployment

from flows.add import add
from flows.aggregate import aggregate
from flows.cluster import cluster
from flows.compare import compare
from flows.duplicates import duplicates
from flows.embed import embed
from flows.evaluate import evaluate
from flows.pipeline import pipeline
from flows.train import train

FLOWS = {
    flow.name: flow
    for flow in (add, aggregate, train, embed, evaluate, duplicates, cluster, compare, pipeline)
}

#: The whole pipeline every night; the stages wait to be started by hand.
NIGHTLY = {"pipeline": "0 2 * * *"}


def deployments(
    data: Path,
    training_data: Path | None = None,
    home: Path | None = None,
    schedules: Mapping[str, str] = NIGHTLY,
) -> list[RunnerDeployment]:
    """One deployment a flow, named after it.

    Parameters
    ----------
    data, training_data, home : Path
        As in `flows.pipeline.pipeline`; they become the deployments' parameters, absolute.
    schedules : mapping of flow name to cron expression
        A flow that isn't named gets no schedule.

    Raises
    ------
    ValueError
        If a schedule names no flow, or is no cron expression.
    """
    if unknown := sorted(set(schedules) - set(FLOWS)):
        raise ValueError(
            f"There is no flow named {unknown[0]!r} to schedule: choose from {', '.join(FLOWS)}."
        )
    given: dict[str, Any] = {
        "data": data.resolve(),
        "training_data": training_data and training_data.resolve(),
        "home": home and home.resolve(),
    }
    made: list[RunnerDeployment] = []
    for name, flow in FLOWS.items():
        parameters = {key: str(value) for key, value in given.items() if value}
        deployment = flow.to_deployment(
            name=name,
            cron=schedules.get(name),
            parameters={k: v for k, v in parameters.items() if k in flow.parameters.properties},
            tags=["covers"],
            # A night that runs long must not be overtaken by the next one.
            concurrency_limit=ConcurrencyLimitConfig(
                limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW
            ),
        )
        made.append(cast("RunnerDeployment", deployment))  # a coroutine only where one awaits it
    return made


def run(made: list[RunnerDeployment]) -> None:
    """Serve the deployments until interrupted."""
    serve(*made)
