"""Motifs: every performance answers with its best match, in any key and at any place."""

import numpy as np
import pytest
from feature_stores import make_sequence
from hypothesis import given, settings
from hypothesis import strategies as st

from embedding.encoders.descriptors import CHROMA_RATE
from embedding.encoders.version import motifs
from embedding.encoders.version.motifs import FPS, FRAMES, cut_motifs


@pytest.fixture(scope="module")
def heard():
    return [make_sequence(f"work {i}", f"file {i}", 150).astype(float) for i in range(20)]


@pytest.fixture(scope="module")
def cut(heard):
    return cut_motifs(heard, CHROMA_RATE, np.random.default_rng(0))


def test_there_is_a_motif_of_each_performance_and_channel_of_unit_length(cut):
    assert cut.patterns.shape == (2, 20, 12 * FRAMES)
    assert cut.patterns.dtype == np.float16
    lengths = np.linalg.norm(cut.patterns.astype(float), axis=2)
    np.testing.assert_allclose(lengths, 1, rtol=1e-3)


def test_of_a_large_catalogue_only_some_are_cut(heard, monkeypatch):
    monkeypatch.setattr(motifs, "MOST", 5)
    assert cut_motifs(heard, CHROMA_RATE, np.random.default_rng(0)).count == 2 * 5


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 99), key=st.integers(1, 11), frames=st.integers(76, 200))
def test_the_key_changes_no_answer(seed, key, frames, cut):
    sequence = make_sequence(f"another {seed}", f"file {seed}", frames)
    answers = cut.answers(sequence, CHROMA_RATE)
    moved = cut.answers(np.roll(sequence, key, axis=2), CHROMA_RATE)
    assert [each.shape for each in answers] == [(20,), (20,)]
    np.testing.assert_allclose(moved, answers, rtol=0, atol=1e-5)


def test_answers_are_the_highest_cosines_less_their_mean(heard, cut):
    sequence = heard[3][:, :1].repeat(2, axis=1)
    x = np.sqrt(sequence[:, 0] / np.linalg.norm(sequence[:, 0], axis=1, keepdims=True)) ** 3
    x -= x.mean(axis=1, keepdims=True)
    best = np.full(20, -1.0)
    for start in range(len(x) - FRAMES + 1):
        for key in range(12):
            stretch = np.roll(x[start : start + FRAMES], key, axis=1).T.ravel()
            cosine = cut.patterns[0].astype(float) @ (stretch / np.linalg.norm(stretch))
            best = np.maximum(best, cosine)
    answers = cut.answers(sequence, FPS)[0]
    np.testing.assert_allclose(answers, best - best.mean(), rtol=0, atol=1e-5)


def test_a_performance_answers_its_own_motif_best(heard):
    # Cut in the order of the performances, so that a motif's number is that of its performance.
    cut = cut_motifs(heard, CHROMA_RATE, np.random.default_rng(1))
    for i, sequence in enumerate(heard):
        assert all(each.argmax() == i for each in cut.answers(sequence, CHROMA_RATE))
