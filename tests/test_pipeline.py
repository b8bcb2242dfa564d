"""The whole pipeline on real music, with real Prefect and a real engine."""

import os
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from prefect_server import ask

import search
from flows.aggregate import aggregate
from flows.cluster import cluster
from flows.evaluate import QUALITY_COLUMNS, evaluate, write_back
from flows.pipeline import pipeline
from flows.train import train
from search.fields import RESULTS

SAMPLE = Path(__file__).resolve().parent.parent / "sample"
SMALL = {"max_epochs": 5}  # enough to run every stage


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Every fifth work of the sample."""
    root = tmp_path_factory.mktemp("data") / "fifth"
    singles = "da-tacos_benchmark_subset_single_files"
    for work in sorted((SAMPLE / singles).iterdir())[::5]:
        shutil.copytree(work, root / singles / work.name)
    for name in ("dataset.json", "da-tacos_benchmark_subset_metadata.json"):
        shutil.copy(SAMPLE / name, root / name)
    return root


@pytest.fixture(scope="module")
def result(data, prefect_server, tmp_path_factory):
    home = tmp_path_factory.mktemp("undisturbed")
    return pipeline(data, config=SMALL, home=home) | {"home": home}


def written(home: Path) -> dict[Path, int]:
    """When each table and each collection was written."""
    return {
        path: path.stat().st_mtime_ns
        for name in ("*.parquet", "quality.csv", "collection.json")
        for path in home.rglob(name)
    }


def collection(home: Path) -> search.Searcher:
    return search.Searcher(search.connect(home=home))


def test_every_performance_is_published_with_its_titles(result, data):
    stored = pl.read_parquet(result["paths"]["vectors"])
    files = sorted(path.stem for path in data.rglob("P_*.h5"))
    assert stored["track_id"].to_list() == files
    assert stored.columns == ["track_id", "work_id", "fingerprint", "vector"]
    matches = collection(result["home"]).similar(files[0], limit=len(files))
    assert sorted([files[0], *(match.track_id for match in matches)]) == files
    assert all(match.title and match.work_title for match in matches)


def test_answers_are_the_nearest_vectors(result):
    stored = pl.read_parquet(result["paths"]["vectors"])
    vectors, tracks = stored["vector"].to_numpy(), stored["track_id"].to_list()
    distances = np.linalg.norm(vectors - vectors[7], axis=1)
    nearest = [tracks[i] for i in np.argsort(distances) if i != 7][:5]
    assert [m.track_id for m in collection(result["home"]).similar(tracks[7], 5)] == nearest


def test_the_chroma_travels_along_to_re_rank_with(result):
    tracks = pl.read_parquet(result["paths"]["vectors"])["track_id"].to_list()
    found = collection(result["home"]).similar(tracks[7], len(tracks), rerank=True)
    assert len(found) == len(tracks) - 1
    assert any(match.alignment.stretches for match in found)


def test_metrics_cover_only_works_that_training_has_not_seen(result):
    from embedding import bundle as bundles

    seen = set(bundles.load(Path(result["paths"]["bundle"])).seen_works)
    stored = pl.read_parquet(result["paths"]["vectors"])
    unseen = stored.filter(~pl.col("work_id").is_in(seen))
    assert seen
    assert result["measured_on"]["performances"] == len(unseen) == result["metrics"]["performances"]
    assert result["measured_on"]["left_out"] == len(stored) - len(unseen) > 0
    assert "held out" in result["measured_on"]["summary"]


def test_the_result_names_the_metrics_and_files_that_scripts_rely_on(result):
    names = {"map", "mr1", "mrr", "hits@1", "hits@10", "p@10", "nar", "auc", "overlap"}
    assert names <= set(result["metrics"])
    assert all(np.isfinite(value) for value in result["metrics"].values())
    assert names - {"auc", "overlap"} <= set(result["reranked"])
    for path in ("features", "bundle", "vectors", "metrics"):
        assert Path(result["paths"][path]).exists()
    plots = {Path(path).name for path in result["paths"]["plots"]}
    assert plots == {"separation.png", "map.png", "loss.png"}


def test_the_collection_has_what_was_measured_of_each_performance(result):
    table = pl.read_csv(result["paths"]["quality"], schema=QUALITY_COLUMNS)
    stored = pl.read_parquet(result["paths"]["vectors"])
    measured = stored.filter(pl.col("track_id").is_in(table["track_id"].implode()))
    assert len(table) == len(measured) == result["measured_on"]["performances"]
    engine = search.connect(home=result["home"])
    published = {
        one.payload["track_id"]: {name: one.payload.get(name) for name in RESULTS}
        for one in engine.open().everything()
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
    # The most suspicious first, what can't be judged last.
    assert table["outlier"].to_list()[: result["outliers"]] == [True] * result["outliers"]
    assert table["nearest_cover"].is_null().to_list() == sorted(table["nearest_cover"].is_null())


def test_a_server_that_is_down_when_results_are_written_is_waited_for(
    result, monkeypatch, prefect_server
):
    asked = []

    def down(*_):
        asked.append(1)
        raise search.ServerUnreachable("No Qdrant server answers.")

    monkeypatch.setattr("search.engines.engine.Engine.annotate", down)
    again = write_back.with_options(retry_delay_seconds=0)
    monkeypatch.setattr("flows.evaluate.write_back", again)
    with pytest.raises(search.ServerUnreachable):
        evaluate(Path(result["paths"]["vectors"]), home=result["home"])
    assert len(asked) == 1 + again.retries == 4


def test_a_run_s_log_has_the_messages_of_our_libraries(result, prefect_server):
    server = {"PREFECT_API_URL": prefect_server}
    logs = []
    while more := ask(server, "logs", offset=len(logs)):
        logs += more
    collection = search.connect(home=result["home"]).open().description.name
    [told] = [log for log in logs if log["message"] == f"building {collection}"]
    assert told["name"] == "search.engines.engine"
    assert told["flow_run_id"]


def test_a_second_run_does_nothing_again_and_says_the_same(result, data):
    home = result["home"]
    before = written(home)
    again = pipeline(data, config=SMALL, home=home)
    assert again.pop("verdict").endswith("is already published.")
    assert again == {key: result[key] for key in again}
    assert written(home) == before


def test_a_touched_file_is_read_again_and_nothing_after_it_is_done_again(result, data):
    home = result["home"]
    os.utime(next(data.rglob("P_*.h5")))
    again = pipeline(data, config=SMALL, home=home)
    assert again["paths"]["features"] != result["paths"]["features"]
    assert again["paths"]["bundle"] == result["paths"]["bundle"]
    assert again["paths"]["vectors"] == result["paths"]["vectors"]


def test_with_training_data_of_its_own_everything_is_measured(result, data, tmp_path):
    singles = "da-tacos_benchmark_subset_single_files"
    other = tmp_path / "other"
    for work in sorted((SAMPLE / singles).iterdir())[1::5]:
        shutil.copytree(work, other / singles / work.name)
    shutil.copy(SAMPLE / "dataset.json", other)
    home = result["home"]
    found = pipeline(data, other, config=SMALL, home=home)
    measured = found["measured_on"]
    assert measured["left_out"] == 0
    assert "none was used for training" in measured["summary"]


def test_a_large_collection_is_measured_by_a_sample_only(
    result, prefect_server, monkeypatch, tmp_path
):
    monkeypatch.setattr("flows.evaluate.MAX_EXACT", 4)
    # A copy, since what is measured already isn't measured again.
    vectors = Path(shutil.copy(result["paths"]["vectors"], tmp_path))
    measured = result["measured_on"]["performances"]
    with pytest.raises(ValueError, match=f"such as --sample 10000, or --sample {measured} for all"):
        evaluate(vectors, home=result["home"])
    sampled = evaluate(vectors, home=result["home"], sample=4)
    assert sampled["metrics"]["queries"] == 4
    assert sampled["metrics"]["performances"] == measured
    assert sampled["measured_on"]["sample"] == 4
    assert "with a random sample of 4 queries" in sampled["measured_on"]["summary"]


def test_a_bundle_trained_on_every_work_can_not_be_measured(result, data, prefect_server):
    from flows.embed import embed

    home = result["home"]
    features = aggregate(data, home=home)
    vectors = embed(features, train(features, "means", home=home), home=home)
    with pytest.raises(ValueError, match="nothing can be measured fairly"):
        evaluate(vectors, home=home)


def test_clusters_come_with_their_curve_counts_and_plots(result, data, prefect_server):
    found = cluster(aggregate(data, home=result["home"]), 2, 5, home=result["home"])
    assert [row["k"] for row in found["curve"]] == [2, 3, 4, 5]
    counts = pl.read_parquet(found["paths"]["cooccurrence"])
    assert counts["performances"].sum() == len(pl.read_parquet(result["paths"]["vectors"]))
    assert {Path(path).name for path in found["paths"]["plots"]} == {"elbow.png", "silhouette.png"}


def test_a_table_of_features_goes_the_same_way(result, data, prefect_server, tmp_path):
    from embedding.data.features import FEATURE_NAMES

    store = pl.read_parquet(aggregate(data, home=result["home"]) / "features.parquet")
    table = tmp_path / "table.csv"
    store.select(
        pl.col("work_id").alias("work"), pl.col("track_id").alias("performance"), *FEATURE_NAMES
    ).write_csv(table)
    home = tmp_path / "home"
    from_table = pipeline(table, config=SMALL, home=home)
    expected = pl.read_parquet(result["paths"]["vectors"])["vector"].to_numpy()
    got = pl.read_parquet(from_table["paths"]["vectors"])["vector"].to_numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
