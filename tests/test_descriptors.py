"""Descriptors know neither the key nor the silence around the music, and need no labels."""

import os
from functools import partial

import joblib
import numpy as np
import polars as pl
import pytest
from feature_stores import make_sequence, make_store, make_table
from hypothesis import given, settings
from hypothesis import strategies as st

from embedding.encoders import descriptors
from embedding.encoders.descriptors import (
    CHROMA_RATE,
    SHORTEST,
    Descriptors,
    DescriptorsConfig,
    altered_copy,
    describe,
    length,
    resample,
    sounding,
    triple_products,
    unusable,
)
from embedding.metrics.distances import Euclidean
from embedding.metrics.retrieval import retrieval
from embedding.training import train

SMALL = {"dimension": 16, "tempos": (0.9,)}


def sequences_of(seed, frames=120):
    return make_sequence(f"work {seed}", f"file {seed}", frames)


def store_of(path, sequences, **made):
    table = make_store(path / "names", works=len(sequences), each=1).table
    return make_store(path / "features", table, sequences=sequences, **made)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("descriptors") / "features")


@pytest.fixture(scope="module")
def trained(store):
    return train(store, "descriptors", config=SMALL)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), key=st.integers(1, 11), frames=st.integers(76, 300))
def test_a_transposition_changes_no_descriptor(seed, key, frames):
    sequence = sequences_of(seed, frames)
    original, moved = (
        np.concatenate(describe(each, CHROMA_RATE))
        for each in (sequence, np.roll(sequence, key, 2))
    )
    assert original.shape == (length(),)
    np.testing.assert_allclose(moved, original, rtol=0, atol=1e-7)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 99), st.integers(1, 11), st.integers(1, 4), st.integers(1, 5))
def test_triple_products_tell_a_sequence_from_its_reverse_but_not_from_its_transposition(
    seed, key, second, more
):
    x = np.random.default_rng(seed).random((40, 12))
    lags = [(second, second + more)]
    mine = triple_products(x, lags)
    np.testing.assert_allclose(triple_products(np.roll(x, key, 1), lags), mine, atol=1e-9, rtol=0)
    assert np.linalg.norm(triple_products(x[::-1], lags) - mine) > 0.05


def test_silence_at_the_ends_is_cut_off_and_a_pause_stays():
    sequence = sequences_of(1).copy()
    sequence[50:60] = 0
    around = np.pad(sequence, ((7, 11), (0, 0), (0, 0)), constant_values=0.01)
    np.testing.assert_array_equal(sounding(around), sequence)
    assert len(sounding(np.zeros((9, 2, 12)))) == 0


@settings(max_examples=25, deadline=None)
@given(frames=st.integers(2, 200), factor=st.floats(0.4, 5))
def test_resampling_keeps_the_mean_and_the_duration(frames, factor):
    x = np.random.default_rng(frames).random((frames, 2, 3))
    y = resample(x, factor)
    assert len(y) == max(round(frames / factor), 1)
    np.testing.assert_allclose(y.mean(axis=0), x.mean(axis=0), rtol=1e-9)


def test_resampling_averages_neighbours():
    x = np.array([0.0, 2.0, 4.0, 6.0])
    np.testing.assert_allclose(resample(x, 2), [1, 5])
    np.testing.assert_allclose(resample(x, 4 / 3), [0.5, 3, 5.5])


@pytest.fixture
def two_processes(monkeypatch):
    monkeypatch.setattr(joblib, "cpu_count", lambda: 2)
    monkeypatch.setattr(descriptors, "FEWEST", 2)
    monkeypatch.setattr(descriptors, "PART", 2)


def test_processes_describe_as_one_does(request):
    heard = [sequences_of(seed, 80 + seed) for seed in range(5)]
    moments = partial(describe, rate=CHROMA_RATE)
    alone = descriptors.described(heard, moments)
    request.getfixturevalue("two_processes")
    shared = descriptors.described(heard, moments)
    for one, other in zip(shared, alone, strict=True):
        np.testing.assert_array_equal(np.concatenate(one), np.concatenate(other))
    np.testing.assert_array_equal(np.concatenate(alone[3]), np.concatenate(moments(heard[3])))


@pytest.mark.usefixtures("two_processes")
def test_a_process_that_is_killed_is_told_in_a_sentence():
    with pytest.raises(RuntimeError, match=r"was killed, perhaps for want of memory: run the same"):
        descriptors.described([1, 1, 1, 1], os._exit)


def test_an_altered_copy_is_three_quarters_of_the_music_at_another_tempo(rng):
    sequence = np.arange(300.0)[:, None, None] * np.ones((1, 2, 12))
    copy = altered_copy(sequence, 1.2, rng)
    assert len(copy) == 188
    np.testing.assert_allclose(np.diff(copy, axis=0).mean(axis=0), 1.2, rtol=1e-2)


def test_versions_are_found_without_labels_far_better_than_by_chance(trained, tmp_path):
    unseen = make_store(
        tmp_path / "features",
        make_table(works=12, seed=5).with_columns(work_id="V_" + pl.col("work_id")),
    )
    vectors = trained[0].embed(unseen)
    noise = np.random.default_rng(0).normal(size=vectors.shape)
    ids = unseen.table["work_id"], unseen.table["track_id"]
    found, chance = (retrieval(Euclidean(each), *ids).map for each in (vectors, noise))
    assert found > 0.9
    assert chance < 0.4
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)


def test_labels_do_not_matter_to_it(trained, store, tmp_path):
    # Sides follow from work ids, so works are swapped among the performances of a side.
    fitted = trained[1].works.filter(side="train")["work_id"].to_list()
    swapped = dict(zip(fitted, fitted[::-1], strict=True))
    table = store.table.with_columns(pl.col("work_id").replace(swapped))
    sequences = [store.sequence(i) for i in range(len(store))]
    again = make_store(tmp_path / "features", table, sequences=sequences)
    encoder, _ = train(again, "descriptors", config=SMALL)
    np.testing.assert_array_equal(encoder.projection.matrix, trained[0].projection.matrix)


def test_another_chroma_rate_is_brought_to_the_encoders(trained, tmp_path):
    fine = [np.repeat(sequences_of(seed, 160), 8, axis=0) for seed in range(6)]
    vectors = []
    for name, rate in (("same", CHROMA_RATE), ("other", 44100 / 512 / 17)):
        music = [resample(each, 8 * CHROMA_RATE / rate).astype(np.float16) for each in fine]
        vectors.append(trained[0].embed(store_of(tmp_path / name, music, chroma_rate=rate)))
    apart = np.linalg.norm(vectors[0][:, None] - vectors[1], axis=2)
    assert np.diag(apart).max() < apart[~np.eye(6, dtype=bool)].min()


SHORT = int(SHORTEST * CHROMA_RATE)
UNUSABLE = {
    "empty": (np.zeros((0, 2, 12)), "it has no chroma"),
    "silent": (np.full((200, 2, 12), 0.01), "its chroma is silent throughout"),
    "short": (np.full((SHORT, 2, 12), 0.5), r"only 13\.9 s of it sound, and at least 14 s"),
    "short but for silence": (
        np.pad(np.full((9, 2, 12), 0.5), ((99, 99), (0, 0), (0, 0))),
        r"only 1\.7 s of it sound",
    ),
    "not finite": (np.full((200, 2, 12), np.nan), "values that are not finite"),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_a_performance_with_too_little_chroma_is_named_and_the_rest_is_not_lost(
    case, trained, tmp_path
):
    sequence, reason = UNUSABLE[case]
    all_ = [sequences_of(1), sequence.astype(np.float16), sequences_of(2)]
    mixed = store_of(tmp_path, all_)
    assert list(trained[0].unusable(mixed)) == ["P_001"]
    with pytest.raises(ValueError, match=f"P_001 cannot be embedded: .*{reason}"):
        trained[0].embed(mixed)
    assert trained[0].embed(mixed.select([0, 2])).shape == (2, trained[0].dimension)


def test_a_table_that_never_had_chroma_has_nothing_usable(tmp_path):
    bare = store_of(tmp_path, [np.zeros((0, 2, 12), np.float16)] * 2, chroma_rate=None)
    assert unusable(bare) == dict.fromkeys(["P_000", "P_001"], "it has no chroma")


def test_nothing_to_embed_makes_no_vectors(trained, store):
    assert trained[0].embed(store.select([])).shape == (0, trained[0].dimension)


def test_a_projection_of_other_descriptors_is_refused(trained):
    tensors = {name: each[1:] for name, each in trained[0].tensors().items()}
    with pytest.raises(ValueError, match=rf"\({length() - 1},\) and .*expected {length()}"):
        Descriptors.from_tensors(DescriptorsConfig(), tensors)


def test_performances_that_are_all_the_same_teach_nothing(tmp_path):
    same = np.full((100, 2, 12), 0.5, np.float16)
    with pytest.raises(ValueError, match="same chroma, so there is nothing to learn"):
        train(store_of(tmp_path, [same] * 6), "descriptors", config=SMALL | {"tempos": ()})


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"dimension": 0}, "dimension is 0, expected a whole number of at least 1"),
        ({"dimension": 2.5}, "dimension is 2.5, expected a whole number"),
        ({"tempering": 0.7}, "tempering is 0.7, expected a number from 0 to 0.5"),
        ({"chroma_rate": float("nan")}, "chroma_rate is nan, expected a number from 4 to 50"),
        ({"tempos": (0.1,)}, r"tempos are \(0.1,\), expected a list of numbers from 0.5 to 2"),
    ],
)
def test_a_setting_out_of_range_is_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        DescriptorsConfig(**setting)
