"""The whole pipeline on real music, with real Prefect and a real engine."""

import os
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from prefect_server import ask
from published import searcher, served, times
from trees import copy_sample

import search
from embedding import bundle as bundles
from embedding.data.features import FEATURE_NAMES
from flows.aggregate import aggregate
from flows.cluster import cluster
from flows.embed import embed
from flows.evaluate import QUALITY_COLUMNS, evaluate, write_back
from flows.pipeline import pipeline
from flows.train import train
from search.fields import RESULTS

SMALL = {"max_epochs": 5}  # enough to run every stage


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Every fifth work of the sample."""
    return copy_sample(tmp_path_factory.mktemp("data") / "fifth", slice(None, None, 5))


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def result(data, home, prefect_server):
    return pipeline(data, config=SMALL, home=home)


@pytest.fixture(scope="module")
def stored(result) -> pl.DataFrame:
    """The vectors of the pipeline."""
    return pl.read_parquet(result["paths"]["vectors"])


def test_every_performance_is_published_with_its_titles(stored, data, home):
    files = sorted(path.stem for path in data.rglob("P_*.h5"))
    assert stored["track_id"].to_list() == files
    assert stored.columns == ["track_id", "work_id", "fingerprint", "vector"]
    matches = searcher(home).similar(files[0], limit=len(files))
    assert sorted([files[0], *(match.track_id for match in matches)]) == files
    assert all(match.title and match.work_title for match in matches)


def test_answers_are_the_nearest_vectors_and_the_chroma_re_ranks_them(stored, home):
    vectors, tracks = stored["vector"].to_numpy(), stored["track_id"].to_list()
    distances = np.linalg.norm(vectors - vectors[7], axis=1)
    nearest = [tracks[i] for i in np.argsort(distances) if i != 7][:5]
    assert [match.track_id for match in searcher(home).similar(tracks[7], 5)] == nearest
    reranked = searcher(home).similar(tracks[7], len(tracks), rerank=True)
    assert len(reranked) == len(tracks) - 1
    assert any(match.alignment.stretches for match in reranked)


def test_metrics_cover_only_works_that_training_has_not_seen(result, stored):
    seen = set(bundles.load(Path(result["paths"]["bundle"])).seen_works)
    unseen = stored.filter(~pl.col("work_id").is_in(seen))
    assert seen
    assert result["measured_on"]["performances"] == len(unseen) == result["metrics"]["performances"]
    assert result["measured_on"]["left_out"] == len(stored) - len(unseen) > 0
    assert "held out" in result["measured_on"]["summary"]


def test_the_result_names_the_metrics_and_files_that_scripts_rely_on(result):
    names = {"map", "mr1", "mrr", "hits@1", "hits@10", "p@10", "recall@k", "auc", "hubness"}
    assert names <= set(result["metrics"])
    assert all(np.isfinite(value) for value in result["metrics"].values())
    assert "reranked" not in result  # there are too few performances
    for path in ("features", "bundle", "vectors", "metrics"):
        assert Path(result["paths"][path]).exists()
    plots = {Path(path).name for path in result["paths"]["plots"]}
    assert plots == {"separation.png", "performances.png", "loss.png"}


def test_the_collection_has_what_was_measured_of_each_performance(result, stored, home):
    table = pl.read_csv(result["paths"]["quality"], schema=QUALITY_COLUMNS)
    measured = stored.filter(pl.col("track_id").is_in(table["track_id"].implode()))
    assert len(table) == len(measured) == result["measured_on"]["performances"]
    published = {
        track_id: {name: payload.get(name) for name in RESULTS}
        for track_id, payload in served(home).items()
    }
    judged = {row.pop("track_id"): row for row in table.select("track_id", *RESULTS).to_dicts()}
    nothing = dict.fromkeys(RESULTS)
    assert published == {track_id: judged.get(track_id, nothing) for track_id in published}
    # Noise works, and works that training has seen, have no measures.
    cliques = measured.filter(pl.len().over("work_id") > 1)
    known = {track_id for track_id, row in published.items() if row != nothing}
    assert known == set(cliques["track_id"])
    ranks = table["nearest_cover"].drop_nulls()
    assert ranks.mean() == pytest.approx(result["metrics"]["mr1"])
    assert table["outlier"].sum() == result["outliers"]
    # The most suspicious are first, and those that can't be judged are last.
    assert table["outlier"].to_list()[: result["outliers"]] == [True] * result["outliers"]
    assert table["nearest_cover"].is_null().to_list() == sorted(table["nearest_cover"].is_null())


def test_results_are_written_again_after_a_server_was_down(result, home, monkeypatch):
    calls = []

    def down(*_):
        calls.append(1)
        raise search.ServerUnreachable("No Qdrant server answers.")

    monkeypatch.setattr(search.Engine, "annotate", down)
    again = write_back.with_options(retry_delay_seconds=0)
    monkeypatch.setattr("flows.evaluate.write_back", again)
    with pytest.raises(search.ServerUnreachable):
        evaluate(Path(result["paths"]["vectors"]), home=home)
    assert len(calls) == 1 + again.retries == 4


def test_a_run_s_log_has_the_messages_of_our_libraries(result, home, prefect_server):
    logs = []
    while more := ask({"PREFECT_API_URL": prefect_server}, "logs", offset=len(logs)):
        logs += more
    collection = search.connect(home=home).open().description.name
    [log] = [log for log in logs if log["message"] == f"building {collection}"]
    assert log["name"] == "search.engines.engine"
    assert log["flow_run_id"]


def test_the_prefect_ui_shows_what_the_terminal_shows_by_data_and_encoder(result, prefect_server):
    address = {"PREFECT_API_URL": prefect_server}
    key = {"artifacts": {"key": {"any_": ["metrics-sample-autoencoder"]}}}
    artifact = ask(address, "artifacts", sort="CREATED_DESC", **key)[0]
    page = artifact["data"]
    low, high = result["intervals"]["map"]
    assert f"| map | {result['metrics']['map']:.4g} | {low:.3f} to {high:.3f} |" in page
    assert artifact["description"] == result["measured_on"]["summary"]
    assert page.count("](data:image/png;base64,") == len(result["paths"]["plots"])
    names = {run["name"] for run in ask(address, "flow_runs")}
    bundle = result["measured_on"]["bundle"]
    assert {f"evaluate sample with {bundle}", f"publish sample with {bundle}"} <= names
    assert {f"embed sample with {bundle}", "train autoencoder on sample"} <= names
    messages = [run["state"]["message"] for run in ask(address, "flow_runs")]
    assert any(result["encoder"] in (message or "") for message in messages)


def test_the_result_names_the_encoder_and_what_finds_covers_better(result):
    assert result["encoder"].startswith("Encoder: autoencoder, the default (")
    assert "Covers are found better with --bundle pretrained" in result["encoder"]


def test_without_labels_the_pipeline_publishes_and_says_what_could_be_measured(
    make_tree, tmp_path, prefect_server
):
    tree = make_tree()
    for i in range(3):
        tree.add(f"W_{i}", f"P_{i}", frames=600)
    result = pipeline(tree.root, bundle=Path("pretrained"), home=tmp_path)
    assert result["published"]
    assert result["metrics"] == {}
    assert "Nothing is measured. No work has two" in result["measured_on"]["summary"]
    assert "With labels" in result["measured_on"]["summary"]
    assert set(served(tmp_path)) == {"P_0", "P_1", "P_2"}


def test_a_second_run_does_nothing_again_and_says_the_same(result, data, home):
    results = ("*.parquet", "quality.csv", "collection.json")
    before = times(home, *results)
    again = pipeline(data, config=SMALL, home=home)
    assert again.pop("verdict").endswith("is already published.")
    assert again == {key: result[key] for key in again}
    assert times(home, *results) == before


def test_a_touched_file_is_read_again_and_nothing_after_it_is_done_again(result, data, home):
    os.utime(next(data.rglob("P_*.h5")))
    again = pipeline(data, config=SMALL, home=home)
    same = {name: again["paths"][name] == result["paths"][name] for name in again["paths"]}
    assert not same["features"]
    assert same["bundle"]
    assert same["vectors"]


def test_with_separate_training_data_everything_is_measured(data, home, result, tmp_path):
    other = copy_sample(tmp_path / "other", slice(1, None, 10))
    measured = pipeline(data, other, encoder="means", home=home)["measured_on"]
    assert measured["left_out"] == 0
    assert "none was used for training" in measured["summary"]


def test_a_large_collection_is_measured_by_a_sample_of_stated_size(
    result, home, monkeypatch, tmp_path
):
    monkeypatch.setattr("flows.evaluate.MAX_EXACT", 4)
    # A copy, since what is measured already isn't measured again.
    vectors = Path(shutil.copy(result["paths"]["vectors"], tmp_path))
    measured = result["measured_on"]["performances"]
    with pytest.raises(ValueError, match=f"such as --sample 10000, or --sample {measured} for all"):
        evaluate(vectors, home=home)
    sampled = evaluate(vectors, home=home, sample=4)
    assert sampled["metrics"]["queries"] == sampled["measured_on"]["sample"] == 4
    assert sampled["metrics"]["performances"] == measured
    assert "with a random sample of 4 queries" in sampled["measured_on"]["summary"]


def test_a_bundle_trained_on_every_work_can_not_be_measured(data, home, prefect_server):
    features = aggregate(data, home=home)
    vectors = embed(features, train(features, "means", home=home), home=home)
    with pytest.raises(ValueError, match="nothing can be measured fairly"):
        evaluate(vectors, home=home)


def test_clusters_come_with_their_curve_counts_and_plots(stored, data, home):
    found = cluster(aggregate(data, home=home), 2, 5, home=home)
    assert [row["k"] for row in found["curve"]] == [2, 3, 4, 5]
    counts = pl.read_parquet(found["paths"]["cooccurrence"])
    assert counts["performances"].sum() == len(stored)
    assert {Path(path).name for path in found["paths"]["plots"]} == {"elbow.png", "silhouette.png"}


def test_a_table_of_features_goes_the_same_way(stored, data, home, tmp_path):
    store = pl.read_parquet(aggregate(data, home=home) / "features.parquet")
    ids = pl.col("work_id").alias("work"), pl.col("track_id").alias("performance")
    store.select(*ids, *FEATURE_NAMES).write_csv(tmp_path / "table.csv")
    result = pipeline(tmp_path / "table.csv", config=SMALL, home=tmp_path / "home")
    vectors = pl.read_parquet(result["paths"]["vectors"])["vector"].to_numpy()
    np.testing.assert_allclose(vectors, stored["vector"].to_numpy(), rtol=1e-5, atol=1e-5)
