"""Every flow as a deployment: run by this process, or by the workers of a pool."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from prefect import get_client
from prefect import serve as prefect_serve
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL
from prefect.types.entrypoint import EntrypointType
from prefect.workers.process import ProcessWorker

from embedding.bundle import configure
from flows.add import add
from flows.aggregate import aggregate
from flows.cluster import cluster
from flows.duplicates import duplicates
from flows.embed import embed
from flows.evaluate import evaluate
from flows.measuring.compare import compare
from flows.pipeline import check_encoder, pipeline
from flows.publish import publish
from flows.slot import make_limit
from flows.train import train

FLOWS = {
    flow.name: flow
    for flow in (
        pipeline,
        add,
        aggregate,
        train,
        embed,
        publish,
        evaluate,
        duplicates,
        cluster,
        compare,
    )
}

#: The whole pipeline every night; the stages wait to be started by hand.
NIGHTLY = {"pipeline": "0 2 * * *"}


def deployments(
    data: Path,
    training_data: Path | None = None,
    encoder: str = "autoencoder",
    config: dict[str, Any] | None = None,
    bundle: Path | None = None,
    home: Path | None = None,
    schedules: Mapping[str, str] = NIGHTLY,
    sample: int | None = None,
) -> list[RunnerDeployment]:
    """One deployment a flow, named after it; its description is the flow's.

    Parameters
    ----------
    data, training_data, encoder, config, bundle, home
        As in `flows.pipeline.pipeline`; they become the deployments' parameters, paths absolute.
    schedules : mapping of flow name to cron expression
        A flow that isn't named gets no schedule.
    sample : int, optional
        As in `flows.evaluate.evaluate`.

    Raises
    ------
    ValueError
        If a schedule names no flow, or is no cron expression; or if the parameters can't go
        together, which would show at night otherwise.
    """
    if unknown := sorted(set(schedules) - set(FLOWS)):
        raise ValueError(
            f"There is no flow named {unknown[0]!r} to schedule: choose from {', '.join(FLOWS)}."
        )
    check_encoder(bundle, training_data)
    configure(encoder, config or {})
    given: dict[str, Any] = {
        "data": str(data.resolve()),
        "training_data": training_data and str(training_data.resolve()),
        "bundle": bundle
        and (str(bundle) if str(bundle) == "pretrained" else str(bundle.resolve())),
        "home": home and str(home.resolve()),
        "sample": sample,
    }
    trained = {"encoder": encoder, "config": config}
    made: list[RunnerDeployment] = []
    for name, flow in FLOWS.items():
        known = flow.parameters.properties
        # The settings are those of one encoder: a comparison has its own for each.
        parameters = given | trained if "encoder" in known else given
        if flow in (add, publish):  # of whatever the collection holds, or was embedded last
            parameters = {"home": given["home"]}
        deployment = flow.to_deployment(
            name=name,
            cron=schedules.get(name),
            parameters={k: v for k, v in parameters.items() if k in known and v is not None},
            tags=["covers"],
            # A night that runs long must not be overtaken by the next one.
            concurrency_limit=ConcurrencyLimitConfig(
                limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW
            ),
            # Whoever runs it has this package installed, in whatever directory.
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
        made.append(cast("RunnerDeployment", deployment))  # a coroutine only where one awaits it
    return made


def serve(made: list[RunnerDeployment]) -> None:
    """Run what the schedules or an operator start, until interrupted."""
    _require_server()
    with get_client(sync_client=True) as client:
        make_limit(client)
        _clear(client, made, None)
    prefect_serve(*made)


def deploy(made: list[RunnerDeployment], pool: str) -> None:
    """Register the deployments for the workers of a pool.

    They name no image, directory or variable: those are the pool's and its workers' business.

    Parameters
    ----------
    made : list of RunnerDeployment
        What `deployments` made.
    pool : str
        A work pool of any type; where it is missing, one for process workers is made.
    """
    _require_server()
    with get_client(sync_client=True) as client:
        try:
            client.read_work_pool(pool)
        except ObjectNotFound:
            client.create_work_pool(
                WorkPoolCreate(
                    name=pool,
                    type=ProcessWorker.type,
                    base_job_template=ProcessWorker.get_default_base_job_template(),
                )
            )
        make_limit(client)
        _clear(client, made, pool)
    for each in made:
        each.apply(work_pool_name=pool)


def _clear(client: SyncPrefectClient, made: list[RunnerDeployment], pool: str | None) -> None:
    """Delete what stands of these in another pool, or on a schedule although it gets none now.

    An update would leave both as they are. Runs that were, and their logs, stay.
    """
    for each in made:
        try:
            standing = client.read_deployment_by_name(each.full_name)
        except ObjectNotFound:
            continue
        if standing.work_pool_name != pool or (standing.schedules and not each.schedules):
            client.delete_deployment(standing.id)


def _require_server() -> None:
    url = PREFECT_API_URL.value()
    if not url:
        raise ValueError(
            "No Prefect server is named, and a temporary one starts nothing on a schedule: run "
            "`prefect server start` and set PREFECT_API_URL, e.g. to http://127.0.0.1:4200/api."
        )
    with get_client(sync_client=True) as client:
        if (error := client.api_healthcheck()) is not None:
            raise RuntimeError(
                f"No Prefect server answers at PREFECT_API_URL={url} ({error}): "
                "start it, or mend the address."
            )
