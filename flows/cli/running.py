"""How a command runs a flow or opens the collection.

Flows import Prefect and torch, which takes seconds. So a command imports what it runs only when it
runs, after its arguments have been checked.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from search import Query, Searcher


def checking(home: Path | None) -> ModuleType:
    """Check the workspace and the servers, and return the module that checks the rest."""
    from flows import checks

    checks.check_places(home)
    return checks


def run_flow(name: str, *arguments: Any, **options: Any) -> Any:
    """Run the flow of a stage, with a temporary Prefect server if there is none."""
    os.environ.setdefault(
        "PREFECT_LOGGING_HANDLERS_CONSOLE_CLASS", "flows.cli.console.ConsoleHandler"
    )
    from flows import temporary
    from flows.stages import flow_of

    # The server is another process, so it starts while this process imports the flow.
    with ThreadPoolExecutor() as threads:
        server = threads.submit(copy_context().run, temporary.start)
        flow = flow_of(name)
        server.result()
    with temporary.settings():
        return flow(*arguments, **options)


def searcher(home: Path | None) -> "Searcher":
    """Open the collection of a workspace or, without `home`, of the environment."""
    import search

    return search.Searcher(search.connect(home=home))


def asking(home: Path | None, *names: str) -> "tuple[Searcher, list[str | Query]]":
    """Open the collection, and return its searcher, and for each name what is asked about.

    A name is a track id, or else the path of a recording.
    """
    opened = searcher(home)
    # A name of any length may be an id, and `Path.is_file` refuses long ones.
    if not any(os.path.isfile(name) or Path(name).suffix for name in names):  # noqa: PTH113
        return opened, [*names]
    from flows.collection.recorded import queries  # takes longer to import than a search

    return opened, queries(opened, names, home)
