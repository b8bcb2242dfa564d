"""A small workspace to spoil, and the table of what became of it."""

from collections import Counter, defaultdict

import pytest


@pytest.fixture(scope="session")
def small_workspace(tmp_path_factory, prefect_server):
    """See `small`; and `fresh` processes are ready to spoil copies of it."""
    # They import flows, which may not be before the environment is cleared: see ../conftest.py.
    from fresh import warm_up
    from small import make_workspace

    home = tmp_path_factory.mktemp("small")
    make_workspace(home)
    warm_up(prefect_server)
    return home


@pytest.fixture
def count(record_property):
    """Count what became of a kind of fault, for the table that `make faults` ends with."""
    return lambda kind, outcome, times=1: record_property("fault", (kind, outcome, times))


def pytest_terminal_summary(terminalreporter):
    """Print that table."""
    kinds: dict[str, Counter[str]] = defaultdict(Counter)
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            if name == "fault":
                kind, outcome, times = value
                kinds[kind][outcome] += times
    if kinds:
        terminalreporter.section("faults")
    for kind, outcomes in kinds.items():
        said = ", ".join(f"{times:,} {outcome}" for outcome, times in outcomes.items())
        terminalreporter.write_line(f"{kind:44} {said}")
