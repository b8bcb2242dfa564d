"""Call flows and tasks as the functions they are, for tests of what they leave in a workspace.

Prefect keeps nothing of ours between runs, because no task is cached. But its server and its
engine, pictures for its artifacts, and a process that reads a few small files take most of the time
of a small run. `test_pipeline`, `test_cli` and `test_aggregate` run the same flows with all of it.
"""

import contextlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from prefect import Flow, State, Task
from prefect.logging import disable_run_logger


def _call(self: Flow | Task, *arguments: Any, **given: Any) -> Any:
    return_state = given.pop("return_state", False)
    found = self.fn(*arguments, **given)
    return found.result() if isinstance(found, State) and not return_state else found


def _submit(self: Task, *arguments: Any, **given: Any) -> Future[Any]:
    done: Future[Any] = Future()
    done.set_result(self(*arguments, **given))
    return done


@contextlib.contextmanager
def plain_flows() -> Iterator[None]:
    """Run flows without Prefect, pictures and processes of their own."""
    with pytest.MonkeyPatch.context() as patch, disable_run_logger():
        patch.setattr(Flow, "__call__", _call)
        patch.setattr(Task, "__call__", _call)
        patch.setattr(Task, "submit", _submit)
        patch.setattr("flows.aggregate.processes", ThreadPoolExecutor)
        for name in (
            "plots.save",
            "show.create_markdown_artifact",
            "rejects.create_table_artifact",
        ):
            patch.setattr(f"flows.{name}", lambda *_, **__: None)
        yield
