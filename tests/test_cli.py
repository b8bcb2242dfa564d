"""What a person or a script meets at the command line."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from catalogue import points_of

import search
from flows.cli import commands as cli
from flows.cli import tables
from flows.workspace import Workspace


@pytest.fixture
def covers(monkeypatch, capsys):
    """Run the command line in this process: its exit code, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["covers", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        out, err = capsys.readouterr()
        return int(stopped.value.code or 0), out, err

    return run


@pytest.fixture
def home(tmp_path) -> Path:
    """A workspace with five performances of two works on a line, at 0, 1, 3, 7 and 15."""
    points = points_of(
        track_ids=[f"P_{i}" for i in range(5)],
        vectors=np.array([[0.0], [1], [3], [7], [15]], np.float32),
        payloads=[
            {"work_id": f"W_{i % 2}", "title": f"Tune {i}", "year": 1900 + i, "instrumental": i > 2}
            for i in range(5)
        ],
    )
    search.connect(home=tmp_path).publish(points, "line")
    return tmp_path


def test_help_says_what_each_command_does(covers):
    code, out, _ = covers("--help")
    assert code == 0
    for command in ("pipeline", "aggregate", "train", "embed", "evaluate", "cluster", "compare",
                    "similar", "works", "distance", "status", "rollback", "serve",
                    "copy", "publish", "gc"):  # fmt: skip
        assert command in out


def test_similar_lists_the_nearest_for_people_and_for_machines(covers, home):
    code, out, _ = covers("similar", "P_0", "--limit", 2, "--home", home)
    assert code == 0
    assert out.index("Tune 1") < out.index("Tune 2")
    assert "Tune 3" not in out
    code, out, _ = covers("similar", "P_0", "--limit", 2, "--home", home, "--json")
    answer = json.loads(out)
    assert answer["query"] == "P_0"
    found = [(m["track_id"], m["distance"], m["same_work"]) for m in answer["matches"]]
    assert found == [("P_1", 1.0, False), ("P_2", 3.0, True)]


def test_similar_says_how_what_it_re_ranked_aligns(covers, tmp_path):
    """P_1 is P_0 three semitones higher, without its first ten seconds; P_2 has nothing of it."""
    rng = np.random.default_rng(0)
    tune, other = (np.repeat(rng.random((60, 2, 12)), 5, axis=0) for _ in range(2))
    points = points_of(
        ["P_0", "P_1", "P_2"],
        np.array([[0.0], [2], [1]]),
        [{"work_id": "W_1"}, {"work_id": "W_1"}, {"work_id": "W_2"}],
        [tune, np.roll(tune, 3, axis=2)[50:], other],
        rate=5.0,
    )
    search.connect(home=tmp_path).publish(points, "line")
    _, out, _ = covers("similar", "P_0", "--rerank", "--home", tmp_path, "--json")
    first, second = json.loads(out)["matches"]
    assert (first["track_id"], second["track_id"]) == ("P_1", "P_2")
    assert first["alignment"]["transposition"] == 3
    rows = [
        tables._alignment(match.alignment)
        for match in search.Searcher(search.connect(home=tmp_path)).similar("P_0", rerank=True)
    ]
    assert rows[0] == ("+3", "0:10-1:00 ~ 0:00-0:50")
    _, out, _ = covers("similar", "P_0", "--rerank", "--home", tmp_path)
    assert "+3" in out
    _, out, _ = covers("similar", "P_0", "--home", tmp_path)
    assert "stretch" not in out


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("year=1902..1903", ["P_2", "P_3"]),
        ("year=1903..", ["P_3", "P_4"]),
        ("year=1901,1904", ["P_1", "P_4"]),
        ("instrumental=no", ["P_1", "P_2"]),
        ("work_id=W_1", ["P_1", "P_3"]),
        ("title=Tune 3", ["P_3"]),
    ],
)
def test_conditions_narrow_the_answer(covers, home, condition, expected):
    _, out, _ = covers("similar", "P_0", "--where", condition, "--home", home, "--json")
    assert [match["track_id"] for match in json.loads(out)["matches"]] == expected


def test_results_of_an_evaluation_narrow_it_too(covers, home):
    judged = {
        "P_1": {"outlier": False, "clique_distance": 0.5, "nearest_cover": 1},
        "P_3": {"outlier": True, "clique_distance": 4.25, "nearest_cover": 9},
    }
    search.connect(home=home).annotate(judged, "line")
    for condition, expected in {
        "outlier=yes": ["P_3"],
        "clique_distance=4..": ["P_3"],
        "clique_distance=.25..0.75": ["P_1"],
    }.items():
        _, out, _ = covers("similar", "P_0", "--where", condition, "--home", home, "--json")
        assert [match["track_id"] for match in json.loads(out)["matches"]] == expected


def test_works_and_distance_and_status(covers, home):
    _, out, _ = covers("works", "P_0", "--home", home, "--json")
    assert [match["track_id"] for match in json.loads(out)["matches"]] == ["P_1", "P_2"]
    _, out, _ = covers("distance", "P_1", "P_4", "--home", home)
    assert float(out) == 14
    _, out, _ = covers("status", "--home", home, "--json")
    assert json.loads(out)["current"]["points"] == 5


def test_a_collection_is_copied_and_brought_back(covers, home, tmp_path):
    asked = ("similar", "P_0", "--json")
    expected = covers(*asked, "--home", home)
    backup = tmp_path / "backup"
    code, copied, _ = covers("copy", "--to", backup, "--home", home)
    assert code == 0
    assert copied.startswith("collection: covers-line-")
    assert covers(*asked, "--home", backup) == expected
    assert covers("copy", "--from", backup, "--home", tmp_path / "third")[:2] == (0, copied)
    assert covers(*asked, "--home", tmp_path / "third") == expected
    assert covers("copy", "--to", "s3://x", "--home", home)[0] == 1
    for places in ((), ("--to", backup, "--from", backup)):
        code, _, err = covers("copy", *places, "--home", home)
        assert (code, err) == (1, "covers: Name one place, either --to copy to it, or --from it.\n")


def test_what_nothing_needs_is_shown_and_then_deleted(covers, home):
    old = home / "bundles" / "old"
    old.mkdir(parents=True)
    (old / "bundle.json").write_text("{}")
    code, out, _ = covers("gc", "--dry-run", "--home", home)
    assert (code, old.exists()) == (0, True)
    assert "bundles" in out
    assert "`covers gc` would free 1 result, 0.0 MB." in out
    code, out, _ = covers("gc", "--home", home, "--json")
    said = json.loads(out)
    assert [one["result"] for one in said["results"]] == [str(old)]
    assert not old.exists()
    assert covers("gc", "--home", home)[1] == "Everything in the workspace is needed.\n"
    with Workspace(home).used():
        code, _, err = covers("gc", "--home", home)
    assert (code, err.count("\n")) == (1, 1)
    assert "Another run uses the workspace" in err


def test_status_shows_what_a_collection_was_made_of(covers, home):
    assert "unknown" in covers("status", "--home", home)[1]
    engine = search.connect(home=home)
    engine.note(replace(
        engine.open().description, origin={"bundle": "b", "sources": [{"data": "/songs"}]}
    ))  # fmt: skip
    assert "/songs" in covers("status", "--home", home)[1]
    said = json.loads(covers("status", "--home", home, "--json")[1])
    assert said["current"]["origin"]["sources"] == [{"data": "/songs"}]


def test_rollback_serves_the_previous_collection_again(covers, home):
    code, _, err = covers("rollback", "--home", home)
    assert (code, err.count("\n")) == (1, 1)
    assert "no other collection" in err
    shifted = points_of(["P_0"], np.zeros((1, 1), np.float32), [{"work_id": "W_0"}])
    search.connect(home=home).publish(shifted, "dot")
    assert covers("rollback", "--home", home)[0] == 0
    assert json.loads(covers("status", "--home", home, "--json")[1])["current"]["bundle"] == "line"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["similar", "P_77"], "no performance 'P_77'"),
        (["similar", "P_0", "--where", "genre=folk"], "no field 'genre'"),
        (["similar", "P_0", "--where", "year"], "not of the form key=value"),
        (
            ["similar", "P_0", "--where", "clique_distance=4"],
            "ask for a range, such as",
        ),
        (["aggregate", ".", "--frame-rate", "fast"], "fast"),
    ],
)
def test_a_failure_is_one_sentence_on_stderr(covers, home, arguments, sentence):
    code, out, err = covers(*arguments, "--home", home)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("covers: ")
    assert sentence in err


def test_a_flow_that_fails_ends_with_its_sentence_and_shows_no_traceback(home, prefect_server):
    run = subprocess.run(
        [Path(sys.executable).with_name("covers"), "aggregate", "/nowhere", "--home", home],
        env=os.environ | {"PREFECT_API_URL": prefect_server},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (run.returncode, run.stdout) == (1, "")
    said = [line for line in run.stderr.splitlines() if line.startswith("covers: ")]
    assert said[0].startswith("covers: there is no data set at /nowhere")
    assert "Traceback" not in run.stderr


def test_a_wrong_argument_is_told_at_once_without_loading_prefect(tmp_path):
    config = tmp_path / "config.json"
    config.write_text("[]")
    code = (
        "import sys; from flows.cli import commands as cli\n"
        f"sys.argv = ['covers', 'train', '--config', {str(config)!r}]\n"
        "try:\n    cli.main()\n"
        "finally:\n    assert not {'prefect', 'torch'} & set(sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert run.stderr == f"covers: {config} must hold a JSON object of encoder settings.\n"


def test_without_a_collection_the_command_that_makes_one_is_named(covers, tmp_path):
    code, _, err = covers("similar", "P_1", "--home", tmp_path)
    assert code == 1
    assert "covers pipeline --data DIR" in err


def test_asking_loads_neither_prefect_nor_torch(home):
    code = (
        "import sys; from flows.cli import commands as cli\n"
        f"sys.argv = ['covers', 'similar', 'P_0', '--home', {str(home)!r}]\n"
        "cli.app(standalone_mode=False)\n"
        "print(sorted({name.split('.')[0] for name in sys.modules}))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert "Tune 1" in out
    for library in ("prefect", "torch", "lightning", "polars", "qdrant_client", "h5py"):
        assert f"'{library}'" not in out
