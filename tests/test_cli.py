"""What a person or a script sees at the command line."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from catalogue import points_of
from command_line import covers, covers_json
from prefect_server import ask

import search
from flows.cli import options, stages, tables
from flows.cli.commands import COMMANDS
from flows.workspace import Workspace
from search.fields import FIELDS


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


def ids(answer) -> list[str]:
    return [match["track_id"] for match in answer["matches"]]


def test_help_lists_each_command_under_its_heading_and_version_says_which_covers_this_is():
    code, out, _ = covers("--help")
    assert code == 0
    expected = [
        text
        for heading, commands in COMMANDS.items()
        for text in (heading, *(f"│ {each.__name__.replace('_', '-')} " for each in commands))
    ]
    places = [out.index(text) for text in expected]
    assert places == sorted(places)
    assert covers("--version") == (0, "covers 0.1.0\n", "")


def test_similar_lists_the_nearest_for_people_and_for_machines(home):
    code, out, _ = covers("similar", "P_0", "--limit", 2, "--home", home)
    assert code == 0
    assert out.index("Tune 1") < out.index("Tune 2")
    assert "Tune 3" not in out
    answer = covers_json("similar", "P_0", "--limit", 2, "--home", home)
    assert answer["query"] == "P_0"
    found = [(m["track_id"], m["distance"], m["same_work"]) for m in answer["matches"]]
    assert found == [("P_1", 1.0, False), ("P_2", 3.0, True)]


def test_similar_shows_how_reranked_performances_align(tmp_path):
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
    answer = covers_json("similar", "P_0", "--rerank", "--home", tmp_path)
    assert ids(answer) == ["P_1", "P_2"]
    assert answer["matches"][0]["alignment"]["transposition"] == 3
    best, _ = search.Searcher(search.connect(home=tmp_path)).similar("P_0", rerank=True)
    assert tables.alignment_cells(best.alignment) == ("+3", "0:10-1:00 ~ 0:00-0:50")
    shown = covers("similar", "P_0", "--rerank", "--home", tmp_path)[1]
    assert "+3" in shown
    assert f"{best.score:.4g}" in shown  # what orders the matches without probabilities
    assert "stretch" not in covers("similar", "P_0", "--home", tmp_path)[1]


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("year=1902..1903", ["P_2", "P_3"]),
        ("year=1903..", ["P_3", "P_4"]),
        ("instrumental=no", ["P_1", "P_2"]),
        ("work_id=W_1", ["P_1", "P_3"]),
        ("title=Tune 3", ["P_3"]),
        ("outlier=yes", ["P_3"]),
        ("clique_distance=4..", ["P_3"]),
        ("clique_distance=.25..0.75", ["P_1"]),
        ("clique_distance=1e-3..7e-1", ["P_1"]),
        ("year=1901 year=1904", ["P_1", "P_4"]),
        ("year=1902.. year=..1903", ["P_2", "P_3"]),
        ("year=1901..1903 year=1903 year=1904", ["P_3"]),
        ("title~TUNE title=Tune 2 title=Tune 4", ["P_2", "P_4"]),
        ("title~tune year=1904 instrumental=Yes", ["P_4"]),
    ],
)
def test_filters_narrow_the_answer(home, condition, expected):
    judged = {
        "P_1": {"outlier": False, "clique_distance": 0.5, "nearest_cover": 1},
        "P_3": {"outlier": True, "clique_distance": 4.25, "nearest_cover": 9},
    }
    search.connect(home=home).annotate(judged, "line")
    where = [part for each in re.split(r" (?=\w+[=~])", condition) for part in ("--where", each)]
    assert ids(covers_json("similar", "P_0", *where, "--home", home)) == expected


@pytest.mark.parametrize(
    ("texts", "filters"),
    [
        (["artist=Yes"], [{"artist": ["Yes"]}]),
        (["artist=311", "title=1999"], [{"artist": ["311"]}, {"title": ["1999"]}]),
        (["artist=Earth, Wind & Fire"], [{"artist": ["Earth, Wind & Fire"]}]),
        (["title=...Baby One More Time"], [{"title": ["...Baby One More Time"]}]),
        (["title = a=b~c", "artist~x=y"], [{"artist": {"contains": "x=y"}}, {"title": ["a=b~c"]}]),
        (["work_id=2", "track_id=true"], [{"work_id": ["2"]}, {"track_id": ["true"]}]),
        (["year=1999", "instrumental=Yes"], [{"year": [1999]}, {"instrumental": [True]}]),
        (["year=nineteen", "instrumental=1"], [{"year": ["nineteen"]}, {"instrumental": ["1"]}]),
        (["subset=a", "subset=b"], [{"subset": ["a", "b"]}]),
        (["year=..1990", "year=1960.."], [{"year": {"between": [None, 1990]}},
                                          {"year": {"between": [1960, None]}}]),
        ([], []),
    ],
)  # fmt: skip
def test_the_type_of_a_field_decides_what_a_value_means(texts, filters):
    assert options.read_filter(texts, FIELDS) == filters


def test_a_filter_that_finds_nothing_says_what_is_near(home):
    question = ("similar", "P_0", "--where", "title=tune", "--home", home)
    code, out, err = covers(*question)
    assert (code, out, err.count("\n")) == (0, "", 1)
    assert "has title 'tune': near ones are 'Tune " in err
    assert covers(*question, "--json")[1:] == ('{"query": "P_0", "matches": []}\n', err)


def test_ids_may_begin_with_a_dash(tmp_path):
    track_ids = ["-k3_x", "-hello", "--home", "P_1"]
    points = points_of(track_ids, np.eye(4), [{"work_id": f"-{i}"} for i in range(4)])
    search.connect(home=tmp_path).publish(points, "line")
    place = ("--home", tmp_path)
    assert len(ids(covers_json("similar", "-k3_x", "--limit", 2, *place))) == 2
    assert len(ids(covers_json("similar", "--limit", 2, *place, "-hello"))) == 2
    found = covers_json("similar", "P_1", "--where", "work_id=-0", "--other-works", *place)
    assert ids(found) == ["-k3_x"]
    assert covers_json("distance", "-hello", "-k3_x", *place)["a"] == "-hello"
    assert covers("distance", *place, "--", "--home", "-hello")[0] == 0
    assert "No such option: --limt" in covers("similar", "P_1", "--limt", 2, *place)[2]
    assert "'--limit' requires an argument" in covers("similar", "P_1", *place, "--limit")[2]
    assert "--where '' is not of the form" in covers("similar", "P_1", *place, "--where", "")[2]
    assert "covers similar [OPTIONS]" in covers("similar", "-h")[1]


def test_works_and_distance_and_status(home):
    assert ids(covers_json("works", "P_0", "--home", home)) == ["P_1", "P_2"]
    assert float(covers("distance", "P_1", "P_4", "--home", home)[1]) == 14
    assert covers_json("distance", "P_1", "P_4", "--home", home)["distance"] == 14
    assert covers_json("status", "--home", home)["current"]["points"] == 5


def test_status_shows_what_a_collection_was_made_of(home, tmp_path):
    assert "unknown" in covers("status", "--home", home)[1]
    engine, origin = search.connect(home=home), {"bundle": "b", "sources": [{"data": "/songs"}]}
    engine.note(replace(engine.open().description, origin=origin))
    assert "/songs" in covers("status", "--home", home)[1]
    assert covers_json("status", "--home", home)["current"]["origin"] == origin
    assert "Nothing is published." in covers("status", "--home", tmp_path / "empty")[1]


def test_a_collection_is_copied_and_brought_back(home, tmp_path):
    question = ("similar", "P_0", "--json")
    expected = covers(*question, "--home", home)
    backup = tmp_path / "backup"
    code, copied, _ = covers("copy", "--to", backup, "--home", home)
    assert code == 0
    assert copied.startswith("collection: covers-line-")
    assert covers(*question, "--home", backup) == expected
    assert covers("copy", "--from", backup, "--home", tmp_path / "third")[:2] == (0, copied)
    assert covers(*question, "--home", tmp_path / "third") == expected


def test_unneeded_results_are_shown_and_then_deleted(home):
    old = home / "bundles" / "old"
    old.mkdir(parents=True)
    (old / "bundle.json").write_text("{}")
    code, out, _ = covers("gc", "--dry-run", "--home", home)
    assert (code, old.exists()) == (0, True)
    assert "bundles/old" in out
    assert "`covers gc` would free 1 result, 0.0 MB." in out
    freed = covers_json("gc", "--home", home)
    result = {"kind": "bundles", "result": str(old), "bytes": freed["bytes"]}
    assert freed == {"dry_run": False, "results": [result], "bytes": freed["bytes"]}
    assert freed["bytes"] > 0
    assert not old.exists()
    assert covers("gc", "--home", home)[1] == "Everything in the workspace is needed.\n"
    with Workspace(home).used():
        code, _, err = covers("gc", "--home", home)
    assert (code, err.count("\n")) == (1, 1)
    assert "Another run uses the workspace" in err


def test_rollback_makes_the_previous_collection_the_current_one(home):
    code, _, err = covers("rollback", "--home", home)
    assert (code, err.count("\n")) == (1, 1)
    assert "no other collection" in err
    shifted = points_of(["P_0"], np.zeros((1, 1), np.float32), [{"work_id": "W_0"}])
    dot = search.connect(home=home).publish(shifted, "dot").name
    line = covers_json("status", "--home", home)["previous"][0]["name"]
    text = f"collection: {line}\nprevious: {dot}\n"
    assert covers("rollback", "--home", home) == (0, text, "")
    assert covers_json("status", "--home", home)["current"]["bundle"] == "line"
    assert covers_json("rollback", dot, "--home", home) == {"collection": dot, "previous": [line]}
    code, _, err = covers("rollback", "covers-other", "--home", home)
    assert (code, err.count("\n")) == (1, 1)
    assert f"There is no collection covers-other: {home}" in err
    assert err.endswith(f"keeps {dot}, {line}.\n")
    assert covers_json("rollback", "--home", home)["collection"] == line


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["similar", "P_77"], "no performance 'P_77'"),
        (["similar", "P_0", "--where", "genre=folk"], "no field 'genre'"),
        (["similar", "P_0", "--where", "year"], "not of the form field=value or field~words"),
        (["similar", "P_0", "--where", "year="], "not of the form field=value or field~words"),
        (["similar", "P_0", "--where", "year=x"], "year is an integer, so it cannot be 'x'"),
        (["similar", "P_0", "--where", "work_id~W"], "work_id has no words to search for"),
        (["similar", "P_0", "--where", "clique_distance=4"], "ask for a range, such as"),
        (["aggregate", ".", "--frame-rate", "fast"], "fast"),
        (["copy"], "Give either --to or --from."),
        (["copy", "--to", "a", "--from", "b"], "Give either --to or --from."),
        (["copy", "--to", "s3://x"], "s3://x"),
    ],
)
def test_a_failure_is_one_sentence_on_stderr(home, arguments, sentence):
    code, out, err = covers(*arguments, "--home", home)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("covers: ")
    assert sentence in err


def test_without_a_collection_the_command_that_makes_one_is_named(tmp_path):
    code, _, err = covers("similar", "P_1", "--home", tmp_path)
    assert code == 1
    assert "covers pipeline --data DIR" in err


def test_a_flow_that_fails_ends_with_its_sentence_and_shows_no_traceback(home, prefect_server):
    run = subprocess.run(
        [sys.executable, "-c", "from flows.cli.commands import main; main()",
         "aggregate", "/nowhere", "--home", home],
        env=os.environ | {"PREFECT_API_URL": prefect_server},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (run.returncode, run.stdout) == (1, "")
    told = [line for line in run.stderr.splitlines() if line.startswith("covers: ")]
    assert told[0].startswith("covers: There is no data set at /nowhere")
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["similar", "P_0", "--home", "HOME"], 0, "Tune 1"),
        (["train", "--config", "CONFIG"], 1, "must contain a JSON object with the encoder's"),
    ],
)
def test_asking_and_a_wrong_argument_load_nothing_slow(home, arguments, code, expected):
    (home / "config.json").write_text("[]")
    places = {"HOME": str(home), "CONFIG": str(home / "config.json")}
    program = (
        "import sys; from flows.cli import commands\n"
        f"sys.argv = ['covers', *{[places.get(each, each) for each in arguments]!r}]\n"
        "try:\n    commands.main()\n"
        "finally:\n"
        "    slow = {'prefect', 'torch', 'lightning', 'polars', 'qdrant_client', 'h5py'}\n"
        "    assert not slow & set(sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == code, run.stderr
    assert expected in run.stdout + run.stderr
    assert "Traceback" not in run.stderr


def test_the_demo_says_that_it_needs_a_checkout(monkeypatch, tmp_path):
    monkeypatch.setattr(stages, "SAMPLE", tmp_path / "sample")
    code, out, err = covers("demo")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "run `make demo` in a checkout of the repository" in err


@pytest.fixture(scope="module")
def demo(small_sample, tmp_path_factory, prefect_server):
    """The workspace in which the demo has run on a part of the sample, and what it printed."""
    home = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COVERS_HOME", str(home))
        patch.setattr(stages, "SAMPLE", small_sample)
        code, out, err = covers("demo")
        assert code == 0, err
        yield out


def test_the_demo_shows_matches_and_measures_and_identifies_recordings(demo):
    there, missing = (f"sample/recordings/{name}" for name in stages.DEMO_RECORDINGS)
    expected = [
        f"covers similar {stages.DEMO_QUERY}",
        "covers evaluate",
        f"{there} is a version of Devils Dream, The",
        f"covers identify {missing}",
        "To ask more, type:",
    ]
    places = [" ".join(demo.split()).index(text) for text in expected]
    assert places == sorted(places)
    assert "performances.png" in demo
    assert "loss.png" not in demo  # the bundle was trained elsewhere


def test_a_performance_is_identified_and_judged(demo):
    found = covers_json("identify", "P_249990")
    assert found["work"]["work_id"] == "W_2971"
    assert 0 <= found["probability_of_none"] < 0.5
    assert "P_249990 is a version of " in covers("identify", "P_249990")[1]
    (match,) = covers_json("same-work", "P_249990", "P_239199")["matches"]
    assert (match["track_id"], match["same_work"]) == ("P_239199", True)
    assert match["probability"] > 0.5


def test_duplicates_are_listed_in_groups_and_as_pairs(demo, small_sample, prefect_server):
    question = ("duplicates", "--min-probability", 0.001, "--max-pairs", 5)
    rows = covers_json(*question, "--pairs")["pairs"]
    assert 0 < len(rows) <= 5
    assert [row["probability"] for row in rows] == sorted(
        (row["probability"] for row in rows), reverse=True
    )
    content = covers_json(*question)
    assert sum(group["pairs"] for group in content["groups"]) == len(rows)
    assert {group["group"] for group in content["groups"]} == {row["group"] for row in rows}
    out = covers(*question)[1]
    assert "weakest link" in out
    assert f"({len(rows)} pairs): {content['path']}" in out.replace("\n", "")
    key = {"artifacts": {"key": {"any_": [f"duplicates-{small_sample.name}-version"]}}}
    page = ask({"PREFECT_API_URL": prefect_server}, "artifacts", sort="CREATED_DESC", **key)[0]
    assert page["description"].startswith(f"{len(rows)} pairs in {len(content['groups'])} groups")
    assert page["data"].startswith("| group | track | work | title | artist | weakest link |")


def test_clusters_are_drawn_over_k(demo):
    content = covers_json("cluster", "--largest", 4)
    assert [row["k"] for row in content["curve"]] == [2, 3, 4]
    assert all(Path(path).is_file() for path in content["paths"]["plots"])
    assert "silhouette" in covers("cluster", "--largest", 4)[1]


def test_nothing_is_added_where_nothing_is_new(demo):
    result = covers_json("add")
    assert [result[name] for name in ("added", "changed", "relabelled", "withdrawn")] == [0] * 4
    assert f"collection: {result['collection']}" in covers("add")[1]
