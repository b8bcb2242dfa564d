"""Imports go in one direction: flows to embedding and search, and downwards within each package."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("embedding", "flows", "search")

#: Modules that define commands.
COMMANDS = ("commands", "ids", "measures", "operations", "options", "questions", "stages")
PRINTING = ("console", "running", "tables")


def imported_names(path: Path) -> set[str]:
    """Dotted names of everything that a file imports, in functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def imports(path: Path) -> set[str]:
    """Top-level names of everything that a file imports."""
    return {name.split(".")[0] for name in imported_names(path)}


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
        ("h5py", ["embedding/audio/features_file.py", "embedding/data/hdf5.py"]),
        ("av", ["embedding/audio/recording.py"]),
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
        (
            "qdrant_edge",
            ["search/engines/embedded/collection.py", "search/engines/embedded/engine.py"],
        ),
        (
            "qdrant_client",
            [
                "search/engines/server/collection.py",
                "search/engines/server/connection.py",
                "search/engines/server/failures.py",
                "search/engines/server/server.py",
                "search/engines/server/writing.py",
            ],
        ),
        ("grpc", ["search/engines/server/failures.py"]),
        ("typer", [f"flows/cli/{name}.py" for name in COMMANDS]),
        ("numba", ["embedding/data/shuffle.py", "search/versions/recurrence.py"]),
        ("essentia", ["embedding/essentia.py"]),
    ],
)
def test_a_heavy_library_is_imported_in_modules_of_its_own_only(library, homes):
    users = [
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in modules(package)
        if library in imports(path)
    ]
    assert users == homes


@pytest.mark.parametrize(
    ("folder", "forbidden", "exceptions"),
    [
        ("embedding/data", ["embedding.encoders", "embedding.metrics", "embedding.audio"], set()),
        ("embedding/audio", ["embedding.encoders", "embedding.metrics", "embedding.bundle"], set()),
        ("embedding/data", ["embedding.bundle", "embedding.training"], set()),
        ("embedding/encoders", ["embedding.metrics", "embedding.bundle"], set()),
        ("embedding/composing", ["embedding.encoders", "embedding.bundle"], set()),
        ("embedding/metrics", ["embedding.encoders"], {"peers.py"}),
        ("embedding/metrics", ["embedding.bundle", "embedding.training"], set()),
        ("search/engines", ["search.searcher", "search.query", "search.nearest"], set()),
        ("search/versions", ["search.searcher", "search.query", "search.nearest"], set()),
        ("flows/collection", ["flows.aggregate", "flows.embed", "flows.publish"], set()),
        ("flows", ["flows.cli"], {f"{name}.py" for name in (*COMMANDS, *PRINTING)}),
    ],
)
def test_a_folder_imports_nothing_that_builds_on_it(folder, forbidden, exceptions):
    for path in modules(folder):
        if path.name not in exceptions:
            for name in imported_names(path):
                assert not any(f"{name}.".startswith(f"{module}.") for module in forbidden), path


def private_names(tree: ast.Module) -> Iterator[str]:
    """Private names of our other modules that a module imports, or reads as attributes."""
    ours = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(PACKAGES):
            ours |= {alias.asname or alias.name for alias in node.names}
            yield from (alias.name for alias in node.names if is_private(alias.name))
        elif isinstance(node, ast.Import):
            ours |= {alias.name for alias in node.names if alias.name.startswith(PACKAGES)}
    for node in ast.walk(tree):
        private = isinstance(node, ast.Attribute) and is_private(node.attr)
        if private and ast.unparse(node.value) in ours:
            yield ast.unparse(node)


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def test_no_test_module_imports_another():
    for path in modules("tests"):
        assert not [name for name in imports(path) if name.startswith("test_")], path


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_uses_a_private_name_of_another(package):
    for path in modules(package):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert not list(private_names(tree)), path


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        (
            "import search, search.engines.embedded",
            {"torch", "lightning", "prefect", "qdrant_client", "polars", "h5py", "numba"},
        ),
        ("import embedding.bundle", {"torch", "lightning", "sklearn", "prefect", "search"}),
        (
            "import embedding.data.aggregate, embedding.encoders.version.motifs",
            {"prefect", "torch", "sklearn", "search"},
        ),
        (
            "from embedding.encoders.registry import ENCODERS, encoder_class; "
            "list(map(encoder_class, ENCODERS)); import embedding",
            {"torch", "lightning"},
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
