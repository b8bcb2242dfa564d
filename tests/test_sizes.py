"""Modules and functions stay short enough to read."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = [
    path
    for package in ("embedding", "flows", "search")
    for path in sorted((ROOT / package).rglob("*.py"))
]
MAX_MODULE_LINES, MAX_FUNCTION_LINES = 400, 60


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_module_and_its_functions_are_short(path):
    name, text = path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
    assert text.count("\n") <= MAX_MODULE_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            long = lines_without_docstring(node) > MAX_FUNCTION_LINES
            assert not long, f"{name}: {node.name}"


def lines_without_docstring(function: ast.FunctionDef) -> int:
    first, lines = function.body[0], (function.end_lineno or 0) - function.lineno + 1
    if ast.get_docstring(function) is not None:
        lines -= (first.end_lineno or 0) - first.lineno + 1
    return lines
