"""Let one machine at a time publish to a Qdrant server."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.client.schemas.responses import GlobalConcurrencyLimitResponse
from prefect.concurrency.asyncio import AcquireConcurrencySlotTimeoutError
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.logging import get_run_logger
from prefect.settings import PREFECT_API_URL

from search import settings

#: Seconds to wait for the slot; longer than any publication takes.
MAX_WAIT = 6 * 3600.0

#: Seconds for which a publication that is killed blocks the next; Prefect's minimum.
LEASE = 60.0


def make_limit(client: SyncPrefectClient) -> GlobalConcurrencyLimitResponse:
    """Return the concurrency limit of this deployment (`$COVERS_COLLECTION`).

    It is made if it is missing. An operator may change it.
    """
    name = f"{settings.read().collection}-publishing"
    try:
        return client.read_global_concurrency_limit_by_name(name)
    except ObjectNotFound:
        with suppress(ObjectAlreadyExists):  # another run was faster
            client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=1))
    return client.read_global_concurrency_limit_by_name(name)


@contextmanager
def publishing_slot() -> Iterator[None]:
    """Wait until no other run of this deployment publishes, and make the others wait.

    What a run merges is then still current when it publishes. Call it in a flow or task, and not
    within itself. It does nothing without a Prefect server, or if the collections are in the
    workspace, whose lock is enough.

    Raises
    ------
    RuntimeError
        If the slot is not free within `MAX_WAIT` seconds.
    """
    if not PREFECT_API_URL.value() or settings.read().qdrant_url is None:
        yield
        return
    with get_client(sync_client=True) as client:
        limit = make_limit(client)
    if limit.active_slots >= limit.limit:
        get_run_logger().info("waiting while another run publishes (%s)", limit.name)
    try:
        # A publication continues if Prefect's server does not answer for a while.
        with concurrency(
            limit.name,
            timeout_seconds=MAX_WAIT,
            lease_duration=LEASE,
            raise_on_lease_renewal_failure=False,
        ):
            yield
    except AcquireConcurrencySlotTimeoutError as error:
        raise RuntimeError(
            f"The concurrency limit {limit.name} on the Prefect server was occupied for "
            f"{MAX_WAIT / 3600:g} hours: if no other run publishes, free it by `prefect gcl "
            f"update {limit.name} --active-slots 0`, and run the same again."
        ) from error
