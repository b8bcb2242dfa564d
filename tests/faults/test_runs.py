"""Two runs at once, half-written results, and secrets."""

import json
import logging
import os
import shutil
from pathlib import Path

import pytest
from contract_stub import ContractStub
from feature_stores import write_csv
from fresh import begin, command, ended, in_fresh_process, sentence
from listening import listening
from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL, PREFECT_HOME
from published import copy
from small import CONFIG

import search
from embedding import bundle as bundles
from embedding.data.store import FeatureStore
from flows.collection import vectors
from flows.workspace import Workspace
from search.engines.server.server import Server


@pytest.fixture
def copied(small_workspace, tmp_path):
    """A directory with a workspace that published data, and the configuration."""
    (tmp_path / "home").mkdir()
    copy(small_workspace, tmp_path / "home")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path


def pipeline(root: Path, home: Path, *more: object) -> list[object]:
    data, config = root / "home" / "data", root / "config.json"
    return ["pipeline", "--data", data, "--config", config, "--home", home, *more]


def run_two(root: Path, *commands: list[object]) -> list[tuple[int, str]]:
    logs = [root / "0.log", root / "1.log"]
    begun = [begin(*each, log=log) for each, log in zip(commands, logs, strict=True)]
    return [ended(*each) for each in zip(begun, logs, strict=True)]


def test_two_pipelines_at_once_both_succeed_and_their_results_are_complete(copied, count):
    home = copied / "new"
    both = [pipeline(copied, home, "--seed", seed) for seed in range(2)]
    for code, said in in_fresh_process(run_two, copied, *both):
        assert code == 0, said
    (features,) = [FeatureStore.open(path.parent) for path in home.glob("features/*/*/store.json")]
    assert len(features) == 25
    made = {bundles.load(path.parent).id for path in home.glob("bundles/*/bundle.json")}
    assert len(made) == 2
    for path in home.glob(f"vectors/*/{vectors.VECTORS}"):
        assert len(vectors.read(path)) == 25
    assert len(list(home.glob("evaluations/*/metrics.json"))) == 2
    engine = search.connect(home=home)
    assert {engine.describe(name).bundle for name in engine.history()} == made
    assert sorted(engine.history()) == engine.names()
    assert not [path for path in home.rglob(".*") if path.is_dir()]
    count("pipelines at once", "ended well", 2)


def test_after_a_pipeline_and_an_add_at_once_both_are_in_the_collection(copied, count):
    home, other = copied / "home", write_csv(copied / "other.csv", 6)
    both = pipeline(copied, home, "--seed", 1), ["add", other, "--home", home]
    for code, said in in_fresh_process(run_two, copied, *both):
        assert code == 0, said
    published = search.connect(home=home).open()
    names = {each.payload["track_id"] for each in published.everything()}
    assert len(names) == 25 + 12
    assert [Path(one["data"]).stem for one in published.description.origin["sources"]] == [
        "data", "other"
    ]  # fmt: skip
    assert published.description.bundle == bundles.load(Workspace(home).latest("bundle")).id
    count("a pipeline and an add at once", "both in the collection")


def test_a_half_written_result_is_named_and_made_again_after_it_is_deleted(copied, count):
    home = copied / "home"
    half = {
        next(home.glob("features/*/*/features.parquet")): ["train", "--home", home],
        next(home.glob("bundles/*/weights.safetensors")): pipeline(copied, home),
        next(home.glob("vectors/*/vectors.parquet")): pipeline(copied, home),
    }
    for path in half:
        os.truncate(path, path.stat().st_size // 2)
    for path, asked in half.items():
        code, said = in_fresh_process(run, asked, copied / "log")
        assert code == 1, said
        assert str(path.parent) in sentence(said)
        assert "delete" in sentence(said).lower()
        assert len(search.Searcher(search.connect(home=home)).similar("P_00")) == 10
        shutil.rmtree(path.parent)
    code, said = in_fresh_process(run, pipeline(copied, home), copied / "log")
    assert code == 0, said
    count("half-written results", "named, and made anew", len(half))


def run(arguments: list[object], log: Path, environment: dict[str, str] | None = None):
    os.environ.update(environment or {})
    if environment:
        logging.basicConfig(level=logging.DEBUG, force=True)  # of every library
    return command(*arguments, log=log)


SECRETS = {"key": "k3y-0f-qdrant", "password": "p4ss-0f-qdrant", "token": "t0ken-0f-alert"}


def test_no_secret_gets_into_a_file_a_log_an_artifact_or_a_payload(copied, count):
    stub = ContractStub(SECRETS["key"])
    home, said = copied / "elsewhere", []
    with listening() as (address, told):
        for why in ("refused", "fails", "works"):
            environment = {
                "QDRANT_URL": stub.url.replace("//", f"//someone:{SECRETS['password']}@"),
                "QDRANT_API_KEY": SECRETS["key"],
                "COVERS_ALERT_URL": address.replace("a-secret", SECRETS["token"]),
            }
            stub.keys = {"another"} if why == "refused" else {SECRETS["key"]}
            stub.fail_next = 10**6 if why == "fails" else 0
            log = copied / f"{why}.log"
            code, output = in_fresh_process(run, pipeline(copied, home), log, environment)
            assert code == (0 if why == "works" else 1), output
            assert "DEBUG" in output
            said.append(output)
    assert len(told) == 2  # of what was refused and of what failed
    assert len(search.Searcher(Server(stub.url, SECRETS["key"], copied / "l")).similar("P_00"))
    points = [
        stub.local.scroll(each.name, limit=100) for each in stub.local.get_collections().collections
    ]
    places = [
        copied,
        PREFECT_HOME.value(),
        Path(PREFECT_API_DATABASE_CONNECTION_URL.value().partition("///")[2]).parent,
    ]
    files = {path for place in places for path in place.rglob("*") if path.is_file()}
    for secret in SECRETS.values():
        assert secret not in repr([said, told, points])
        for path in files:
            assert secret.encode() not in path.read_bytes(), path
    stub.close()
    count("files looked through for secrets", "free of them", len(files))
