"""The import arrows: flows -> embedding, flows -> search, and nothing the other way."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OURS = {"embedding", "search", "flows"}


def imports(path: Path) -> set[str]:
    """Top-level names of everything a file imports, wherever in the file it does so."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


def modules(package: str) -> list[Path]:
    found = sorted((ROOT / package).rglob("*.py"))
    assert found
    return found


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("embedding", {"search", "flows", "prefect", "qdrant_client", "qdrant_edge", "matplotlib"}),
        ("search", {"embedding", "flows", "prefect", "torch", "lightning", "h5py", "polars"}),
        ("flows", {"torch", "h5py", "qdrant_client", "qdrant_edge"}),
    ],
)
def test_a_package_imports_nothing_that_is_not_its_business(package, forbidden):
    for path in modules(package):
        assert not imports(path) & forbidden, path


@pytest.mark.parametrize(
    ("library", "homes"),
    [
        ("h5py", ["embedding/data/dataset.py"]),
        (
            "lightning",
            [
                "embedding/encoders/autoencoder/training.py",
                "embedding/encoders/conv_autoencoder/training.py",
                "embedding/encoders/fitting.py",
                "embedding/encoders/version/training.py",
            ],
        ),
        ("matplotlib", ["flows/plots.py"]),
        ("pytorch_metric_learning", ["embedding/encoders/version/training.py"]),
        ("qdrant_edge", ["search/engines/embedded.py"]),
        (
            "qdrant_client",
            [
                "search/engines/server/collection.py",
                "search/engines/server/connection.py",
                "search/engines/server/server.py",
            ],
        ),
        ("grpc", ["search/engines/server/connection.py"]),
        ("typer", ["flows/cli/commands.py"]),
        ("numba", ["embedding/data/shuffle.py", "search/versions/recurrence.py"]),
        ("essentia", ["embedding/metrics/peers.py"]),
    ],
)
def test_a_heavy_library_is_imported_in_modules_of_its_own_only(library, homes):
    users = [
        str(path.relative_to(ROOT))
        for package in sorted(OURS)
        for path in modules(package)
        if library in imports(path)
    ]
    assert users == homes


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        (
            "import search, search.engines.embedded",
            {"torch", "lightning", "prefect", "qdrant_client", "polars", "h5py", "numba"},
        ),
        ("import embedding.bundle", {"lightning", "pytorch_metric_learning", "prefect", "search"}),
        (
            "import embedding.data.aggregate, embedding.encoders.version.motifs",
            {"prefect", "torch", "sklearn", "search"},
        ),
        ("import flows.cli.commands", {"torch", "lightning", "prefect", "polars", "matplotlib"}),
    ],
)
def test_importing_loads_nothing_slow_that_is_not_needed(statement, absent):
    code = f"{statement}, sys; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/"
    ).stdout.split()
    assert not absent & {name.split(".")[0] for name in loaded}
