"""A bundle is calibrated once, on its validation works, if they have enough versions."""

import json

import numpy as np
import polars as pl
import pytest
from feature_stores import make_store
from prefect.logging import disable_run_logger

from embedding import bundle as bundles
from embedding import training
from embedding.data.store import FeatureStore
from flows.measuring.calibrate import (
    FILE,
    FORMAT,
    MAX_PERFORMANCES,
    calibrate,
    draw_performances,
    fit,
    read_calibration,
)
from search.versions.calibration import relative, usual_distances


def make_bundle(store: FeatureStore, place) -> bundles.Bundle:
    config = {"dimension": 8, "tempos": []}
    encoder, facts = training.train(store, "descriptors", config=config)
    return bundles.save(place, encoder, facts)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("calibrate")
    make_bundle(make_store(place / "features", works=60, each=4), place / "bundle")
    with disable_run_logger():
        calibrate.fn(place / "bundle", place / "features")
    return place


def test_short_distances_and_high_similarities_are_likelier_versions(place):
    made = read_calibration(place / "bundle")
    assert made.distance.weights[0] < 0
    similarity, _, distance, _ = made.alignment.weights
    assert similarity > 0 > distance


def test_the_log_ratio_separates_versions_of_the_validation_works_from_others(place):
    """Both kinds weigh the same, so a pair that is as likely of one work as of two has ratio 0."""
    store = FeatureStore.open(place / "features")
    bundle = bundles.load(place / "bundle")
    chosen = bundle.training.works.filter(side="validation")["work_id"]
    store = store.select(store.table["work_id"].is_in(chosen.implode()).to_numpy())
    made = fit(bundle, store)
    assert made == read_calibration(place / "bundle")  # the other works played no part

    vectors, works = bundle.embed(store).astype(np.float64), store.table["work_id"].to_numpy()
    usual = usual_distances(vectors)
    a, b = np.triu_indices(len(store), 1)
    near = relative(np.linalg.norm(vectors[a] - vectors[b], axis=1), usual[a], usual[b])
    ratio = made.distance.log_ratio(near[:, None])
    one_work = works[a] == works[b]
    assert np.median(ratio[one_work]) > 0 > np.median(ratio[~one_work])


def test_a_calibrated_bundle_is_left_alone_and_an_outdated_one_is_calibrated_again(place):
    path = place / "bundle" / FILE
    before = path.read_text()
    with disable_run_logger():
        path.write_text(before.replace("\n", " "))  # the same, told apart by its bytes
        calibrate.fn(place / "bundle", place / "features")
        assert path.read_text() != before
        path.write_text(json.dumps(json.loads(before) | {"format": 0}))
        assert read_calibration(place / "bundle") is None
        calibrate.fn(place / "bundle", place / "features")
    assert path.read_text() == before


@pytest.mark.parametrize(
    "content",
    [
        "{",
        f'{{"format": {FORMAT}, "calibration": {{"distance": 3}}}}',
        f'{{"format": {FORMAT}}}',
        "[]",
    ],
)
def test_a_damaged_calibration_is_named(place, tmp_path, content):
    (tmp_path / FILE).write_text(content)
    with pytest.raises(ValueError, match=r"calibration\.json is damaged: delete it"):
        read_calibration(tmp_path)


def test_a_bundle_with_too_few_versions_is_marked_as_tried(tmp_path):
    make_bundle(make_store(tmp_path / "features", works=10, each=2), tmp_path / "bundle")
    with disable_run_logger():
        calibrate.fn(tmp_path / "bundle", tmp_path / "features")
    assert read_calibration(tmp_path / "bundle") is None
    assert json.loads((tmp_path / "bundle" / FILE).read_text())["calibration"] is None


def test_without_chroma_only_distances_are_calibrated(tmp_path):
    store = make_store(
        tmp_path / "features", works=60, each=4, sequences=[np.empty((0, 2, 12))] * 240
    )
    encoder, facts = training.train(store, "means")
    bundle = bundles.save(tmp_path / "bundle", encoder, facts)
    made = fit(bundle, store)
    assert made.alignment is None
    assert np.isfinite(made.distance.bias)


def test_without_a_store_the_distances_are_calibrated_as_with_one(place):
    made = fit(bundles.load(place / "bundle"), None)
    assert made.distance == read_calibration(place / "bundle").distance
    assert made.alignment is None


def test_alignments_are_calibrated_on_the_performances_that_the_store_has(place):
    bundle, store = bundles.load(place / "bundle"), FeatureStore.open(place / "features")
    validation = bundle.training.validation["track_id"]
    known = store.table["track_id"].is_in(validation.implode())

    def without(performances: int):
        lacks = store.table["track_id"].is_in(validation.sort().tail(performances).implode())
        return fit(bundle, store.select((known & ~lacks).to_numpy()))

    complete, fewer, few = without(0), without(8), without(len(validation) - 4)
    assert complete == read_calibration(place / "bundle")
    assert fewer.distance == complete.distance == few.distance
    assert fewer.alignment not in (complete.alignment, None)
    assert few.alignment is None


def test_beyond_a_limit_whole_works_are_drawn_for_the_calibration():
    works = [f"W_{i}" for i in range(200) for _ in range(3)] + ["W_huge"] * (MAX_PERFORMANCES + 1)
    ids = [f"P_{i}" for i in range(len(works))]
    validation = pl.DataFrame({"track_id": ids, "work_id": works})
    chosen = draw_performances(validation, seed=1)
    assert len(chosen) == MAX_PERFORMANCES
    assert set(chosen["work_id"].value_counts()["count"]) == {3}
    assert chosen.equals(draw_performances(validation, seed=1))
    assert not chosen.equals(draw_performances(validation, seed=2))
    assert draw_performances(chosen, seed=1).sort("track_id").equals(chosen.sort("track_id"))
