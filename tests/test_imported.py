"""Vectors of another model are published, searched and measured like our own."""

import json
import shutil

import numpy as np
import polars as pl
import pytest
from feature_stores import make_store
from feature_stores import make_table as make_features_table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from published import searcher, times

import search
from embedding import bundle as bundles
from embedding.data.store import FeatureStore
from embedding.metrics.distances import Euclidean
from embedding.metrics.retrieval import retrieval
from embedding.splits import split_works
from flows import imported
from flows.add import add
from flows.collection import foreign
from flows.collection.vectors import origin, read
from flows.embed import embed
from flows.evaluate import evaluate
from flows.measuring.calibrate import read_calibration
from flows.publish import publish

pytestmark = pytest.mark.usefixtures("prefect_server")


def make_table(works: int = 30, each: int = 4, dimension: int = 16, seed: int = 0) -> pl.DataFrame:
    """The vectors of a good model, with the ids of `feature_stores`."""
    rng = np.random.default_rng(seed)
    work = np.repeat(np.arange(works), each)
    centres = rng.normal(size=(works, dimension))
    rows = centres[work] + 0.4 * rng.normal(size=(works * each, dimension))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)  # as for cosine
    return pl.DataFrame(
        {
            "track_id": [f"P_{i:03d}" for i in range(len(work))],
            "work_id": [f"W_{number}" for number in work],
            "vector": pl.Series(rows.astype(np.float32), dtype=pl.Array(pl.Float32, dimension)),
        }
    )


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


def write_file(directory):
    """Write the file of a model."""
    make_table().write_parquet(directory / "clews.parquet")
    return directory / "clews.parquet"


@pytest.fixture
def file(tmp_path):
    return write_file(tmp_path)


@pytest.fixture(scope="module")
def published(tmp_path_factory, prefect_server):
    """The file of a model, and the workspace that it was published in."""
    root = tmp_path_factory.mktemp("published")
    file = write_file(root)
    publish([file], home=root / "home")
    return file, root / "home"


def imported_last(home):
    """The newest vectors.parquet that is not ours, and its bundle."""
    made = [path for path in home.glob("vectors/*/vectors.parquet") if "source" in origin(path)]
    newest = max(made, key=lambda path: path.stat().st_mtime_ns)
    return newest, home / origin(newest)["bundle"]


def test_vectors_of_another_model_are_published_searched_and_measured(file, home):
    table = make_table().with_columns(
        title=pl.Series([f"Song {i}" for i in range(120)]),
        year=pl.Series([1960 + i % 50 for i in range(120)]),
    )
    table.write_parquet(file)
    published = publish([file], home=home)
    assert published["performances"] == 120
    assert published["sources"] == [str(file)]
    assert published["collection"].startswith("covers-clews-")

    found = searcher(home).similar("P_000", 3)
    vectors = table["vector"].to_numpy().astype(np.float64)
    distances = np.linalg.norm(vectors - vectors[0], axis=1)
    nearest = np.argsort(distances)[1:4]
    assert [match.track_id for match in found] == [f"P_{i:03d}" for i in nearest]
    np.testing.assert_allclose([match.distance for match in found], distances[nearest], rtol=1e-5)
    assert [match.title for match in found] == [f"Song {i}" for i in nearest]
    assert all(0 < match.probability < 1 for match in found)
    assert searcher(home).works("P_000", 1)[0].work_id == "W_0"
    assert searcher(home).identify("P_000", 1).work.work_id == "W_0"
    old = searcher(home).similar("P_000", 5, where={"year": search.between(None, 1969)})
    assert {match.year for match in old} <= {*range(1960, 1970)}

    measured = evaluate(home=home)
    assert measured["metrics"]["map"] > 0.9
    assert measured["measured_on"]["performances"] + measured["measured_on"]["left_out"] == 120
    assert measured["measured_on"]["summary"].endswith(
        "It is not known which works the model was trained on; for those, the figures are too good."
    )
    assert "certainty" in measured
    assert "reranked" not in measured


def test_performances_with_features_are_re_ranked_and_calibrated_and_the_others_are_told(
    file, home, tmp_path, caplog
):
    known = make_features_table(30, 4).head(100)
    features = make_store(tmp_path / "features", known).path
    publish([file], features=features, home=home)
    assert "20 of the 120 performances" in caplog.text
    assert "such as P_100, and will not be aligned" in caplog.text
    matches = searcher(home).similar("P_000", 3, rerank=True)
    assert all(match.alignment is not None for match in matches)
    assert {match.work_id for match in matches} == {"W_0"}
    assert searcher(home).engine.open().description.calibration.alignment is not None
    with pytest.raises(search.InvalidQuery, match="P_110 has no chroma sequence in"):
        searcher(home).similar("P_110", rerank=True)
    assert searcher(home).similar("P_110", 1)[0].work_id == "W_27"
    assert evaluate(home=home)["metrics"]["map"] > 0.9


def test_our_own_vectors_as_another_model_s_measure_the_same(home, tmp_path):
    """On the same performances: some calibrate, and are not measured."""
    features = make_store(tmp_path / "features", works=30, each=4).path
    ours = read(embed(features, bundles.PRETRAINED, home))
    file = tmp_path / "taken.parquet"
    as_lists = pl.col("vector").cast(pl.List(pl.Float64))
    ours.select("track_id", "work_id", as_lists).write_parquet(file)
    assert publish([file], home=home)["performances"] == 120
    measured = evaluate(home=home)
    calibrating = bundles.load(imported_last(home)[1]).seen_works
    assert len(calibrating) > 3
    rest = ours.filter(~pl.col("work_id").is_in(calibrating.implode()))
    assert measured["measured_on"]["performances"] == len(rest)
    ids = rest["work_id"].to_list(), rest["track_id"].to_list()
    expected = retrieval(Euclidean(rest["vector"].to_numpy()), *ids)
    assert measured["metrics"]["map"] == expected.summary()["map"]


def test_the_same_file_changes_nothing_and_a_changed_file_is_imported_again(file, home):
    first = publish([file], home=home)
    before = times(home, "clews-*/*")
    assert before
    # The same content in other bytes.
    make_table().write_parquet(file, compression="uncompressed")
    assert publish([file], home=home)["collection"] == first["collection"]
    assert times(home, "clews-*/*") == before

    make_table(works=31, seed=1).write_parquet(file)
    second = publish([file], home=home)
    assert (second["performances"], second["sources"]) == (124, [str(file)])
    assert second["collection"] != first["collection"]
    make_table(works=32, seed=1).write_parquet(file)
    changes = add(home=home)
    assert (changes["performances"], changes["added"], changes["withdrawn"]) == (128, 4, 0)


def test_files_of_one_model_are_one_collection_and_of_others_are_not_mixed(file, home, tmp_path):
    other = tmp_path / "other.parquet"
    more = make_table(seed=2).with_columns(track_id="X" + pl.col("track_id"))
    more.write_parquet(other, metadata={"model": "CLEWS (2025)"})
    publish([file], model="CLEWS (2025)", home=home)
    both = publish([other], home=home)  # the file names the model itself
    assert both["performances"] == 240
    assert both["collection"].startswith("covers-CLEWS-2025-")
    # Two files that do not name their model may be of two models.
    more.write_parquet(other)
    with pytest.raises(ValueError, match=r"clews\.parquet cannot be kept"):
        publish([other], home=home)
    assert publish([other], only=True, home=home)["performances"] == 120


def test_features_of_other_performances_are_refused(file, home, tmp_path):
    features = make_store(tmp_path / "features", works=2).path
    make_table().with_columns(track_id="X" + pl.col("track_id")).write_parquet(file)
    with pytest.raises(ValueError, match=r"has features of none of the performances in .*clews"):
        publish([file], features=features, home=home)


def test_about_a_fifth_of_the_works_calibrates_up_to_300_performances():
    table = make_table()
    chosen = imported.calibrating(table, None)
    side = split_works(table["work_id"], (0.8, 0.2), 0, "calibration")
    assert set(chosen["work_id"]) == set(table.filter(side == 1)["work_id"])
    many = make_table(works=1000, each=3)
    assert 290 < len(imported.calibrating(many, None)) <= 300


@pytest.mark.parametrize(("works", "each"), [(6, 2), (30, 1)])
def test_too_few_versions_calibrate_nothing_and_all_are_measured(file, home, works, each):
    make_table(works, each).write_parquet(file)
    publish([file], home=home)
    _, bundle = imported_last(home)
    assert read_calibration(bundle) is None
    assert bundles.load(bundle).seen_works.is_empty()
    assert searcher(home).similar("P_000", 1)[0].probability is None
    if each > 1:
        assert evaluate(home=home)["measured_on"]["left_out"] == 0


def test_a_bundle_that_stands_for_a_model_cannot_embed_or_be_trained(published, tmp_path, caplog):
    _, home = published
    _, bundle = imported_last(home)
    features = make_store(tmp_path / "features").path
    with pytest.raises(ValueError, match="songs cannot be embedded with this bundle, whose vect"):
        embed(features, bundle, home)
    assert "Task run failed" in caplog.text
    assert "Retry" not in caplog.text
    with pytest.raises(ValueError, match="songs cannot be embedded with this bundle"):
        bundles.load(bundle).embed(FeatureStore.open(features))
    with pytest.raises(ValueError, match="There is no encoder 'imported': choose from means"):
        bundles.configure("imported", {})


def test_the_metadata_say_whether_vectors_are_ours(published, tmp_path):
    file, home = published
    assert not imported.is_ours(file)
    assert not imported.is_ours(tmp_path / "missing")
    ours, _ = imported_last(home)
    assert imported.is_ours(ours)
    assert publish([ours], home=home)["sources"] == [str(file)]


IDS = {"track_id": ["P_1", "P_2", "P_3"], "work_id": ["W_1", "W_1", "W_2"]}
VECTORS = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]


def changed(**columns):
    return {**IDS, "vector": VECTORS, **columns}


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"vector": VECTORS}, "has no column track_id (it has vector): it needs track_id, work_id"),
        ({**IDS, "vectors": VECTORS}, "has no column vector (it has track_id, work_id, vectors)"),
        (changed(track_id=[1, 2, 3]), "Column track_id of {} is Int64, expected text (String)"),
        (changed(track_id=["P_1", None, "P_3"]), "Row 2 of {} has no track_id"),
        (changed(work_id=["W_1", "W_1", ""]), "Row 3 of {} (P_3) has no work_id"),
        (changed(track_id=["P_1", "P_2", "P_1"]), "Performance P_1 is in {} more than once"),
        (changed(vector=[[1.0, 2], [3.0], [5.0, 6]]), "of P_2 in {} does not have 2 numbers"),
        (changed(vector=[[1.0, 2], [], [5.0, 6]]), "of P_2 in {} does not have 2 numbers"),
        (changed(vector=[[1.0, 2], None, [5.0, 6]]), "The vector of P_2 in {} is missing"),
        (changed(vector=[[1.0, 2], [3.0, None], [5.0, 6]]), "of P_2 in {} has a number that is mi"),
        (changed(vector=[[1.0, 2], [3.0, 4], [5.0, np.nan]]), "of P_3 in {} has a number that is"),
        (changed(vector=[[1.0, 2], [3.0, 4], [5.0, 1e39]]), "of P_3 in {} has a number that is mi"),
        (changed(vector=[[1, 2], [3, 4], [5, 6]]), "Column vector of {} is List(Int64), expected"),
        (changed(vector=["1 2", "3 4", "5 6"]), "Column vector of {} is String, expected"),
        (changed(vector=pl.Series([[]] * 3, dtype=pl.List(pl.Float32))), "vectors in {} are empty"),
        (changed(year=["1960", None, None]), "Column year of {} is String, expected whole numbers"),
        (changed(year=[1960, 2**40, None]), "Column year of {} has a number that is out of range"),
        (changed(title=[1, 2, 3]), "Column title of {} is Int64, expected text (String)"),
        (changed(instrumental=[0, 1, 1]), "Column instrumental of {} is Int64, expected true and"),
        ({name: [] for name in (*IDS, "vector")}, "{} has no rows"),
    ],
)  # fmt: skip
def test_a_table_that_is_wrong_is_refused_in_one_sentence(columns, said, tmp_path):
    path = tmp_path / "wrong.parquet"
    pl.DataFrame(columns).write_parquet(path)
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole message is compared
        foreign.read(path)
    assert said.format(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"track_id,work_id\n", b"PAR1" + bytes(40) + b"PAR1"])
def test_a_file_that_is_missing_or_not_parquet_is_refused_in_one_sentence(content, tmp_path, home):
    path = tmp_path / "vectors.csv"
    with pytest.raises(FileNotFoundError, match=r"There is no file .*vectors\.csv: name a parquet"):
        publish([path], home=home)
    path.write_bytes(content)
    said = r"vectors\.csv cannot be read as a parquet file[^\n]*$"
    with pytest.raises(ValueError, match=said):
        publish([path], home=home)


def test_further_columns_travel_and_are_told(file, caplog):
    own = {"tempo": 120.5, "key": pl.lit("C"), "digest": pl.lit("x"), "tags": pl.lit(["a"])}
    make_table().with_columns(**own).write_parquet(file)
    with caplog.at_level("INFO"):
        table = foreign.read(file)
    assert f"{file}: own columns: tempo (number), key (text); columns left out: dig" in caplog.text
    assert "digest (another field has this name: rename the column); tags (its " in caplog.text
    assert table.columns == ["track_id", "work_id", "fingerprint", "vector", "tempo", "key"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    matrix=arrays(
        np.float32,
        st.tuples(st.integers(1, 9), st.integers(1, 5)),
        elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
    ),
    kind=st.sampled_from([pl.List(pl.Float32), pl.List(pl.Float64), pl.Array]),
)
def test_vectors_are_read_as_they_were_written_bit_by_bit(matrix, kind, tmp_path):
    path = tmp_path / "any.parquet"
    wanted = pl.Array(pl.Float32, matrix.shape[1])
    ids = [f"P_{i}" for i in range(len(matrix))]
    column = pl.Series(matrix, dtype=wanted).cast(wanted if kind is pl.Array else kind)
    table = pl.DataFrame({"track_id": ids[::-1], "work_id": ids, "vector": column})
    table.write_parquet(path)
    table = foreign.read(path)
    assert table["track_id"].to_list() == sorted(ids)
    assert table["vector"].to_numpy().tobytes() == matrix[::-1].tobytes()
    # Equal vectors have equal fingerprints, and others have others.
    assert len(set(table["fingerprint"])) == len({row.tobytes() for row in matrix})


def test_what_a_killed_import_left_is_completed(published):
    """A bundle that has not been calibrated yet, and no vectors."""
    file, home = published
    vectors, bundle = imported_last(home)
    before = read(vectors)
    calibration = json.loads((bundle / "calibration.json").read_text())
    (bundle / "calibration.json").unlink()
    shutil.rmtree(vectors.parent)
    (vectors.parent.parent / f".{vectors.parent.name}.killed.tmp").mkdir()
    publish([file], home=home)
    assert read(vectors).equals(before)
    assert json.loads((bundle / "calibration.json").read_text()) == calibration
    assert not list(home.glob("vectors/.*.tmp"))
