"""README and docs/: every block of code runs, every command exists, every link leads somewhere."""

import re
import shlex
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import sounds
import typer.main
from catalogue import altered, make_points
from tunes import make_tune

import search
from embedding.data.chroma import CHROMA_RATE
from flows.cli.commands import app

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "deploy").glob("*.md")),
]


def blocks(path: Path, language: str) -> list[str]:
    text = path.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands(path: Path) -> list[list[str]]:
    """The `covers` commands in a page, as lists of arguments."""
    text = "\n".join(blocks(path, "console")).replace("\\\n", " ")
    lines = [line[2:].partition("    #")[0] for line in text.splitlines() if line[:2] == "$ "]
    found = [shlex.split(line, comments=True) for line in lines if "covers" in line]
    starts = [(words, words.index("covers")) for words in found if "covers" in words]
    return [words[at + 1 :] for words, at in starts if at == 0 or "=" in words[at - 1]]


CODE = [
    pytest.param(path, block, id=f"{path.name}-{i}")
    for path in PAGES
    for i, block in enumerate(blocks(path, "python"))
    if ".demo" not in block  # tests/demo runs these
]


@pytest.mark.parametrize(("path", "block"), CODE)
def test_every_block_of_python_runs_as_it_stands(path, block, tmp_path, monkeypatch):
    monkeypatch.setenv("COVERS_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    search.connect(tmp_path).publish(make_points(40), "example")
    monkeypatch.setattr(search, "same_work", search.distance)  # needs a calibrated bundle
    monkeypatch.setattr(search, "identify", search.works)
    np.save("clews.npy", np.eye(3))
    if "take.mp3" in block:
        sounds.write(tmp_path / "take.mp3", sounds.notes(seconds=20))
        tunes = {"sequences": [make_tune(seed, 20) for seed in range(5)], "rate": CHROMA_RATE}
        catalogue = altered(make_points(5, dimension=256), **tunes)
        search.connect(tmp_path / "catalogue").publish(catalogue, "version")
    names = {"track_ids": ["P_1", "P_2", "P_3"], "work_ids": ["W_1", "W_1", "W_2"]}
    exec(compile(block, str(path), "exec"), names)
    if Path("clews.parquet").exists():
        assert pl.read_parquet_metadata("clews.parquet")["model"] == "CLEWS"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_command_in_a_page_exists_with_its_options(path):
    group = typer.main.get_command(app)
    for words in commands(path):
        if not words or words[0].startswith("-"):
            continue
        command = group.get_command(None, words[0])
        assert command is not None, words
        known = {option for each in command.params for option in each.opts}
        options = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert options <= known | {"--help"}, words


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_link_leads_somewhere(path):
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if not target.startswith(("http://", "https://")):
            assert (path.parent / target).exists(), target


def test_the_readme_fits_on_a_few_screens():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


def test_the_pages_name_every_command_and_encoder():
    from embedding.encoders.registry import ENCODERS

    operating = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
    for name in typer.main.get_command(app).commands:
        assert name in operating or name == "demo", name
    encoders = (ROOT / "docs" / "encoders.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in encoders for name in ENCODERS)
