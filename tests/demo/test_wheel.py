"""Covers without its checkout: the demo's commands, run from an installed wheel."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The directory into which the wheel of this checkout is installed, without its libraries."""
    work = tmp_path_factory.mktemp("wheel")
    # setuptools writes into the directory from which it builds.
    source = work / "source"
    for name in ("embedding", "search", "flows"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    offline = ["--no-deps", "--no-index"]
    subprocess.run(
        [*PIP, "wheel", *offline, "--no-build-isolation", "--wheel-dir", work, source], check=True
    )
    [wheel] = work.glob("covers-*.whl")
    subprocess.run([*PIP, "install", *offline, "--target", work / "site", wheel], check=True)
    return work / "site"


@pytest.fixture(scope="module")
def python(installed, tmp_path_factory):
    """Run Python with the wheel, outside the checkout, in a workspace of its own."""
    home = tmp_path_factory.mktemp("home")
    environment = {name: text for name, text in os.environ.items() if name[:6] != "COVERS"}
    environment |= {"PYTHONPATH": str(installed), "PYTHONDONTWRITEBYTECODE": "1"}
    environment |= {"COVERS_HOME": str(home / "covers"), "PREFECT_HOME": str(home / "prefect")}

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=home, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip

    return run


def test_the_wheel_has_the_types_the_bundle_and_the_calibration(installed, python):
    code = "import embedding, search, flows; print(embedding.__file__, search.__file__, sep='\\n')"
    imported = python("-c", code)
    assert imported.stdout.splitlines() == [
        str(installed / name / "__init__.py") for name in ("embedding", "search")
    ]
    for name in ("embedding", "search", "flows"):
        assert (installed / name / "py.typed").is_file()
    for name in ("bundle.json", "weights.safetensors", "calibration.json"):
        assert (installed / "embedding/pretrained" / name).is_file()


def test_the_installed_program_says_its_version_and_what_needs_a_checkout(installed, python):
    covers = installed / "bin/covers"
    assert python(covers, "--version").stdout == "covers 0.1.0\n"
    demo = python(covers, "demo")
    assert demo.returncode == 1
    assert "run `make demo` in a checkout of the repository" in demo.stderr
    assert demo.stderr.count("\n") == 1


def test_the_sample_is_published_and_asked_with_the_wheel(installed, python):
    covers = installed / "bin/covers"
    done = python(covers, "pipeline", "--data", ROOT / "sample", "--bundle", "pretrained")
    assert done.returncode == 0, done.stderr
    done = python(covers, "similar", "P_249990", "--limit", 5, "--rerank", "--json")
    assert done.returncode == 0, done.stderr
    matches = json.loads(done.stdout)["matches"]
    assert [match["track_id"] for match in matches[:2]] == ["P_196674", "P_239199"]
    assert all(match["probability"] > 0.99 for match in matches[:2])
