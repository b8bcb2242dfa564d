"""Questions as people type them: titles, ids and filters of real catalogues."""

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from rich.cells import cell_len

import search
from search import Calibration, Point, Points
from search.versions.calibration import Logistic

COVERS = Path(sys.executable).parent / "covers"

#: Ids of the length that file names have, and a short one.
LONG_IDS = [
    "claudette+everly_brothers+the_original_british_hit_singles+01-Claudette_remastered_2012",
    "claudette+roy_orbison+black_and_white_night+13-Claudette",
    "-x",
]

TITLES = ["Closer [/w lyrics]", "Creep [live]", "Smile :heart:", "\x1b[31mRéd\x07", "1999", None]
ARTISTS = ["Yes", "Earth, Wind & Fire", "J. S. Bach", "Johann Sebastian Bach", "311", None]


def publish(home: Path, track_ids: list[str]) -> None:
    """Performances on a line, each a work of its own."""
    points = [
        Point(
            track_id,
            [float(i)],
            {
                "work_id": str(i),
                "work_title": TITLES[i],
                "title": TITLES[i],
                "artist": ARTISTS[i],
                "year": 1994 + i,
            },
        )
        for i, track_id in enumerate(track_ids)
    ]
    calibration = Calibration(Logistic((-4.0,), 6.0))
    search.connect(home=home).publish(Points(points, calibration=calibration), "line")


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A workspace whose path has brackets."""
    home = tmp_path_factory.mktemp("work") / "[bold] :heart: [" / "x]"
    publish(home, [f"P_{i}" for i in range(6)])
    return home


@pytest.fixture(scope="module")
def home_of_long_ids(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("long")
    publish(home, LONG_IDS)
    return home


def on_terminal(home: Path, columns: int, *arguments: str) -> list[str]:
    """Run covers on a terminal of this width: the lines it shows."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    environment = {name: text for name, text in os.environ.items() if name != "COLUMNS"}
    environment |= {"COVERS_HOME": str(home), "TERM": "xterm"}
    with subprocess.Popen(
        [COVERS, *arguments], stdin=slave, stdout=slave, stderr=slave, env=environment
    ) as run:
        os.close(slave)
        shown = b""
        try:
            while part := os.read(master, 4096):
                shown += part
        except OSError:  # the terminal is closed
            pass
    os.close(master)
    assert run.returncode == 0, shown
    return re.sub(r"\x1b\[[0-9;]*m", "", shown.decode()).splitlines()


def test_text_from_data_and_paths_is_printed_as_it_is(covers, home):
    shown = covers("similar", "P_0", home=home)
    assert (shown.returncode, shown.stderr) == (0, "")
    for title in ("Creep [live]", "Smile :heart:", r"\x1b[31mRéd\x07"):
        assert title in shown.stdout
    assert "P_1 is a version of Closer [/w lyrics]" in covers("identify", "P_1", home=home).stdout
    assert f"collections: {home}" in covers("status", home=home).stdout
    assert str(home) in covers("similar", "x", home=home / "none").stderr
    refused = covers("train", "--config", "[/w] :heart:.json", home=home)
    assert "'[/w] :heart:.json' does not exist" in refused.stderr


def test_a_terminal_without_the_characters_of_a_title_shows_their_codes(covers, home):
    shown = covers("identify", "P_0", home=home, env={"PYTHONIOENCODING": "ascii"})
    assert (shown.returncode, shown.stderr) == (0, "")
    assert r"\x1b[31mR\xe9d\x07" in shown.stdout


@pytest.mark.parametrize("columns", [20, 80, 200])
def test_ids_are_whole_and_titles_wrap_at_every_width(home_of_long_ids, columns):
    lines = on_terminal(home_of_long_ids, columns, "similar", "-x")
    for track_id in LONG_IDS[:2]:
        assert sum(track_id in line for line in lines) == 1
    assert sum("1994" in line for line in lines) == 0
    whole = [line for line in lines if not any(track_id in line for track_id in LONG_IDS)]
    assert all(cell_len(line) <= max(columns, 40) for line in whole)
    assert "…" not in "".join(lines)


def test_what_is_no_terminal_is_not_cut(covers, home_of_long_ids):
    shown = covers("similar", "-x", home=home_of_long_ids, env={"COLUMNS": "40"}).stdout
    for title, track_id in zip(TITLES[:2], LONG_IDS[:2], strict=True):
        assert any(title in line and track_id in line for line in shown.splitlines())


def test_columns_without_content_are_left_out(home):
    lines = on_terminal(home, 80, "similar", "P_0", "--limit", "5")
    assert lines[0].split() == ["track", "work", "title", "artist", "likely", "distance"]
    assert len(lines) == 8


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        (["title=1999", "work_id=4"], ["P_4"]),
        (["artist=Earth, Wind & Fire"], ["P_1"]),
        (["artist~bach"], ["P_2", "P_3"]),
        (["artist=Yes", "artist=311", "year=1994.."], ["P_0", "P_4"]),
        (["year=1995..", "year=..1996"], ["P_1", "P_2"]),
    ],
)
def test_a_filter_means_what_its_field_holds(covers, home, conditions, expected):
    where = [part for each in conditions for part in ("--where", each)]
    shown = covers("similar", "P_5", "--json", *where, home=home)
    assert shown.stderr == ""
    assert sorted(each["track_id"] for each in json.loads(shown.stdout)["matches"]) == expected


def test_a_filter_that_finds_nothing_names_what_is_near(covers, home):
    shown = covers("similar", "P_5", "--where", "artist=Bach", home=home)
    assert (shown.returncode, shown.stdout, shown.stderr.count("\n")) == (0, "", 1)
    assert "'J. S. Bach'" in shown.stderr
    assert "artist~Bach" in shown.stderr
    beside = "--where", "artist=Yes", "--where", "artist=J.S. Bach"
    shown = covers("similar", "P_5", *beside, home=home)
    assert "P_0" in shown.stdout
    assert "has artist 'J.S. Bach': near ones are 'J. S. Bach'" in shown.stderr


def test_from_python_numbers_are_numbers_and_answers_are_short_and_become_json(home):
    with search.Searcher(search.connect(home=home)) as covers:
        where = {"year": (np.int64(1995), 1996.0)}
        assert len(covers.similar("P_0", np.int64(3), where=where)) == 2
        work = covers.identify("P_0").works[0]
        assert len(repr(work)) < 200
        assert json.loads(json.dumps(asdict(work)))["work_id"] == work.work_id
