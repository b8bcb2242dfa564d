"""Moments and responses to motifs, which do not change with transposition."""

import os

import joblib
import numpy as np
import pytest
from feature_stores import make_sequence
from hypothesis import given
from hypothesis import strategies as st

from embedding.data.chroma import CHROMA_RATE, resample
from embedding.encoders import moments
from embedding.encoders.moments import describe, map_sequences, moment_count, triple_products
from embedding.encoders.version import motifs
from embedding.encoders.version.motifs import MOTIF_FRAMES, MOTIF_RATE, cut_motifs


def sequence_of(seed, frames=120):
    return make_sequence(f"work {seed}", f"file {seed}", frames)


@given(seed=st.integers(0, 999), key=st.integers(1, 11), frames=st.integers(76, 300))
def test_a_transposition_changes_no_moment(seed, key, frames):
    sequence = sequence_of(seed, frames)
    original, moved = (
        np.concatenate(describe(each)) for each in (sequence, np.roll(sequence, key, 2))
    )
    assert original.shape == (moment_count(),)
    np.testing.assert_allclose(moved, original, rtol=0, atol=1e-7)


@given(st.integers(0, 99), st.integers(1, 11), st.integers(1, 4), st.integers(1, 5))
def test_triple_products_tell_a_sequence_from_its_reverse_but_not_from_its_transposition(
    seed, key, second, more
):
    x = np.random.default_rng(seed).random((40, 12))
    lags = [(second, second + more)]
    products = triple_products(x, lags)
    moved = triple_products(np.roll(x, key, 1), lags)
    np.testing.assert_allclose(moved, products, atol=1e-9, rtol=0)
    assert np.linalg.norm(triple_products(x[::-1], lags) - products) > 0.05


def test_processes_give_the_numbers_of_one_and_it_is_told_if_one_is_killed(monkeypatch):
    sequences = [sequence_of(seed, 80 + seed) for seed in range(5)]
    alone = map_sequences(describe, sequences)
    monkeypatch.setattr(joblib, "cpu_count", lambda: 2)
    monkeypatch.setattr(moments, "MIN_PER_PROCESS", 2)
    monkeypatch.setattr(moments, "PART_SEQUENCES", 2)
    shared = map_sequences(describe, sequences)
    for mine, other, expected in zip(shared, alone, describe(sequences[3]), strict=True):
        np.testing.assert_array_equal(mine, other)
        np.testing.assert_array_equal(mine[3], expected)
    with pytest.raises(RuntimeError, match=r"was killed, perhaps because memory ran out: run the"):
        map_sequences(os._exit, [1, 1, 1, 1])


@pytest.fixture(scope="module")
def sequences():
    return [sequence_of(seed, 150).astype(float) for seed in range(20)]


@pytest.fixture(scope="module")
def cut(sequences):
    return cut_motifs(sequences, np.random.default_rng(0))


def test_a_motif_of_unit_length_is_cut_out_of_each_performance_and_channel(cut):
    assert cut.patterns.shape == (2, 20, 12 * MOTIF_FRAMES)
    assert cut.patterns.dtype == np.float16
    lengths = np.linalg.norm(cut.patterns.astype(float), axis=2)
    np.testing.assert_allclose(lengths, 1, rtol=1e-3)


def test_the_number_of_motifs_is_limited(sequences, monkeypatch):
    monkeypatch.setattr(motifs, "MAX_MOTIFS", 5)
    assert cut_motifs(sequences, np.random.default_rng(0)).count == 2 * 5


@given(seed=st.integers(0, 99), key=st.integers(1, 11), frames=st.integers(76, 200))
def test_a_transposition_changes_no_response(seed, key, frames, cut):
    sequence = make_sequence(f"another {seed}", f"file {seed}", frames)
    responses = cut.responses(sequence)
    assert [each.shape for each in responses] == [(20,), (20,)]
    moved = cut.responses(np.roll(sequence, key, axis=2))
    np.testing.assert_allclose(moved, responses, rtol=0, atol=1e-5)


def test_responses_are_the_highest_cosines_minus_their_mean(sequences, cut):
    sequence = sequences[3][:, :1].repeat(2, axis=1)
    x = resample(sequence[:, 0], CHROMA_RATE / MOTIF_RATE)
    x = np.sqrt(x / np.linalg.norm(x, axis=1, keepdims=True)) ** 3
    x -= x.mean(axis=1, keepdims=True)
    best = np.full(20, -1.0)
    for start in range(len(x) - MOTIF_FRAMES + 1):
        for key in range(12):
            stretch = np.roll(x[start : start + MOTIF_FRAMES], key, axis=1).T.ravel()
            cosine = cut.patterns[0].astype(float) @ (stretch / np.linalg.norm(stretch))
            best = np.maximum(best, cosine)
    responses = cut.responses(sequence)[0]
    np.testing.assert_allclose(responses, best - best.mean(), rtol=0, atol=1e-5)


def test_a_performance_responds_to_its_own_motif_best_unless_that_is_left_out(sequences, cut):
    # A motif's number is that of its performance, as all 20 are cut in order.
    for i, sequence in enumerate(sequences):
        for own, without in zip(
            cut.responses(sequence), cut.responses(sequence, without_own=True), strict=True
        ):
            assert own.argmax() == i
            assert without[i] == pytest.approx(0, abs=1e-6)  # its mean response
            others = np.arange(20) != i
            np.testing.assert_allclose(np.diff(without[others]), np.diff(own[others]), atol=1e-9)


def test_a_version_that_is_nearly_the_same_keeps_its_response_to_the_motif(sequences):
    noise = np.random.default_rng(1).normal(size=sequences[0].shape)
    version = sequences[0] + 1e-3 * noise
    cut = cut_motifs(sequences, np.random.default_rng(0))
    for plain, without in zip(
        cut.responses(version), cut.responses(version, without_own=True), strict=True
    ):
        assert plain.argmax() == 0
        np.testing.assert_array_equal(without, plain)
