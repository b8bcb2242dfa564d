"""Deploy every flow: run by this process, or by the workers of a pool."""

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

from embedding.bundle import PRETRAINED_NAME
from flows.checks import check_encoder, check_schedules
from flows.slot import make_limit
from flows.stages import STAGES, flow_of


def deployments(
    data: Path,
    training_data: Path | None = None,
    encoder: str = "autoencoder",
    config: dict[str, Any] | None = None,
    bundle: Path | None = None,
    home: Path | None = None,
    schedules: Mapping[str, str] | None = None,
    sample: int | None = None,
) -> list[RunnerDeployment]:
    """Make a deployment of each flow, named after it.

    Parameters
    ----------
    data, training_data, encoder, config, bundle, home
        As in `flows.pipeline.pipeline`. They become the deployments' parameters, with absolute
        paths.
    schedules : mapping of str to str, optional
        A cron expression by the name of the flow; the others have no schedule. By default, those
        of `flows.stages`.
    sample : int, optional
        As in `flows.evaluate.evaluate`.

    Raises
    ------
    ValueError
        If a schedule is wrong, or the parameters contradict each other.
    """
    if schedules is None:
        schedules = {name: stage.schedule for name, stage in STAGES.items() if stage.schedule}
    check_schedules(schedules)
    check_encoder(encoder, config, bundle, training_data)
    is_ours = str(bundle) == PRETRAINED_NAME
    given: dict[str, Any] = {
        "data": str(data.resolve()),
        "training_data": training_data and str(training_data.resolve()),
        "bundle": bundle and (PRETRAINED_NAME if is_ours else str(bundle.resolve())),
        "home": home and str(home.resolve()),
        "sample": sample,
    }
    made: list[RunnerDeployment] = []
    for name in STAGES:
        flow = flow_of(name)
        known = flow.parameters.properties
        parameters = {k: v for k, v in given.items() if k in known and v is not None}
        if "encoder" in known:  # `compare` has a configuration for each encoder
            parameters |= {"encoder": encoder, **({"config": config} if config else {})}
        deployment = flow.to_deployment(
            name=name,
            cron=schedules.get(name),
            parameters=parameters,
            tags=["covers"],
            # A run is cancelled if the run of the night before has not ended.
            concurrency_limit=ConcurrencyLimitConfig(
                limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW
            ),
            # Every worker has this package installed, in whatever directory.
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
        made.append(cast("RunnerDeployment", deployment))  # is a coroutine in async code only
    return made


def serve(made: list[RunnerDeployment]) -> None:
    """Run the flows on schedule or when an operator starts them, until interrupted."""
    _prepare(made, pool=None)
    prefect_serve(*made)


def deploy(made: list[RunnerDeployment], pool: str) -> None:
    """Register the deployments for the workers of a pool, which is made if it is missing.

    The pool can be of any type. Images, directories and variables are set in the pool.
    """
    _prepare(made, pool)
    for deployment in made:
        deployment.apply(work_pool_name=pool)


def _prepare(made: list[RunnerDeployment], pool: str | None) -> None:
    _require_server()
    with get_client(sync_client=True) as client:
        if pool is not None:
            _make_pool(client, pool)
        make_limit(client)
        for deployment in made:
            _clear(client, deployment, pool)


def _make_pool(client: SyncPrefectClient, pool: str) -> None:
    try:
        client.read_work_pool(pool)
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        client.create_work_pool(
            WorkPoolCreate(name=pool, type=ProcessWorker.type, base_job_template=template)
        )


def _clear(client: SyncPrefectClient, deployment: RunnerDeployment, pool: str | None) -> None:
    """Delete the earlier deployment if its pool changes or it loses its schedule.

    Prefect's update would leave both as they are. Earlier runs and their logs stay.
    """
    try:
        known = client.read_deployment_by_name(deployment.full_name)
    except ObjectNotFound:
        return
    if known.work_pool_name != pool or (known.schedules and not deployment.schedules):
        client.delete_deployment(known.id)


def _require_server() -> None:
    url = PREFECT_API_URL.value()
    if not url:
        raise ValueError(
            "No Prefect server is named, and a temporary server runs nothing on a schedule: run "
            "`prefect server start` and set PREFECT_API_URL, e.g. to http://127.0.0.1:4200/api."
        )
    with get_client(sync_client=True) as client:
        if (error := client.api_healthcheck()) is not None:
            raise RuntimeError(
                f"No Prefect server answers at PREFECT_API_URL={url} ({error}): "
                "start it, or correct the address."
            )
