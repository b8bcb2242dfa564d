"""One publication at a time, of all machines that publish to one Qdrant server."""

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

#: Seconds to wait for the slot, longer than any publication takes.
PATIENCE = 6 * 3600.0

#: Seconds for which the slot is held after a sign of life, so that a publication that is killed
#: holds up the next one for little longer. It is the least that Prefect allows.
LEASE = 60.0


def limit_name() -> str:
    """Name the concurrency limit of this deployment (`$COVERS_COLLECTION`)."""
    return f"{settings.read().collection}-publishing"


def make_limit(client: SyncPrefectClient) -> GlobalConcurrencyLimitResponse:
    """Make the limit on a Prefect server, or return the one that is there as an operator set it."""
    name = limit_name()
    try:
        return client.read_global_concurrency_limit_by_name(name)
    except ObjectNotFound:
        with suppress(ObjectAlreadyExists):  # another run was faster
            client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=1))
    return client.read_global_concurrency_limit_by_name(name)


@contextmanager
def publishing_slot() -> Iterator[None]:
    """Wait until no other run publishes in this deployment, and keep others waiting meanwhile.

    What a run merges is then still current when it is published. Call it in a flow or task, and not
    within itself. Without a Prefect server there is nobody to ask; and without a Qdrant server the
    collections are in the workspace, whose lock does the same.

    Raises
    ------
    RuntimeError
        If the slot does not become free in `PATIENCE` seconds.
    """
    if not PREFECT_API_URL.value() or settings.read().qdrant_url is None:
        yield
        return
    with get_client(sync_client=True) as client:
        limit = make_limit(client)
    if limit.active_slots >= limit.limit:
        get_run_logger().info("waiting while another run publishes (%s)", limit.name)
    try:
        # A publication goes on where Prefect's server does not answer for a while: it is worth more
        # than the certainty that no other one begins.
        with concurrency(
            limit.name,
            timeout_seconds=PATIENCE,
            lease_duration=LEASE,
            raise_on_lease_renewal_failure=False,
        ):
            yield
    except AcquireConcurrencySlotTimeoutError as error:
        raise RuntimeError(
            f"The concurrency limit {limit.name} on the Prefect server was occupied for "
            f"{PATIENCE / 3600:g} hours: if no other run publishes, free it by `prefect gcl "
            f"update {limit.name} --active-slots 0`, and run the same again."
        ) from error
