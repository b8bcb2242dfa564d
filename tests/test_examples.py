"""The examples in docstrings, in a workspace with a published collection."""

import doctest
import importlib
import inspect
import pkgutil

import pytest
from tunes import CALIBRATED

import embedding
import search

MODULES = [
    module.name
    for package in (embedding, search)
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    if not module.name.endswith((".fitting", ".training"))  # these import Lightning
]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    home = tmp_path_factory.mktemp("examples")
    search.connect(home).publish(CALIBRATED, "example")
    return home


@pytest.mark.parametrize("name", ["search", *MODULES])
def test_examples_give_what_they_show(name, workspace, monkeypatch):
    monkeypatch.setenv("COVERS_HOME", str(workspace))
    found = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert found.failed == 0


def test_there_are_examples_of_what_users_call():
    functions = [name for name in search.__all__ if inspect.isfunction(getattr(search, name))]
    assert functions
    for name in ("Searcher", *functions):
        assert ">>>" in getattr(search, name).__doc__, name
