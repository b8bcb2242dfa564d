"""Chroma sequences: block means of HPCP and CREMA at about five a second."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from embedding.data.chroma import CHANNELS, hop, rate, reduce

BENCHMARK_RATE = 44100 / 512


def frames_of(hpcp, crema=None):
    return SimpleNamespace(hpcp=hpcp, crema=hpcp if crema is None else crema)


@pytest.mark.parametrize(
    ("frame_rate", "width"), [(44100 / 512, 17), (44100 / 4096, 2), (44100 / 8192, 1), (0.5, 1)]
)
def test_the_hop_aims_at_five_frames_a_second(frame_rate, width):
    assert hop(frame_rate) == width
    assert rate(frame_rate) == frame_rate / width


def test_a_block_is_the_mean_of_its_frames(rng):
    hpcp, crema = rng.random((34, 12)), rng.random((34, 12))
    sequence, chroma_rate = reduce(frames_of(hpcp, crema), BENCHMARK_RATE)
    assert sequence.shape == (2, len(CHANNELS), 12)
    assert sequence.dtype == np.float16
    assert chroma_rate == BENCHMARK_RATE / 17
    np.testing.assert_allclose(sequence[1, 0], hpcp[17:].mean(axis=0), rtol=1e-3)
    np.testing.assert_allclose(sequence[0, 1], crema[:17].mean(axis=0), rtol=1e-3)


@pytest.mark.parametrize(
    ("length", "blocks"), [(34, 2), (42, 2), (43, 3), (51, 3), (3, 1), (17, 1)]
)
def test_a_last_block_counts_if_half_full_or_the_only_one(length, blocks):
    sequence, _ = reduce(frames_of(np.ones((length, 12))), BENCHMARK_RATE)
    assert len(sequence) == blocks
    assert (sequence == 1).all()


def test_the_longer_channel_is_cut_to_the_shorter(rng):
    hpcp = rng.random((40, 12))
    sequence, _ = reduce(frames_of(hpcp, hpcp[:34].copy()), BENCHMARK_RATE)
    assert len(sequence) == 2
    np.testing.assert_array_equal(sequence[:, 0], sequence[:, 1])


def test_frames_that_are_not_finite_are_left_out_of_their_channel():
    hpcp = np.ones((34, 12))
    hpcp[3, 5] = np.nan
    hpcp[3, 6] = 1000.0  # of the same frame, so not to be believed either
    hpcp[17:] = np.inf
    crema = np.full((34, 12), 2.0)
    sequence, _ = reduce(frames_of(hpcp, crema), BENCHMARK_RATE)
    assert (sequence[0, 0] == 1).all()
    assert (sequence[1, 0] == 0).all()
    assert (sequence[:, 1] == 2).all()


@given(
    arrays(
        np.float32,
        st.tuples(st.integers(1, 60), st.just(12)),
        elements=st.floats(0, 1, width=32) | st.sampled_from([np.nan, np.inf, -np.inf]),
        fill=st.floats(0, 1, width=32),
    ),
    st.integers(1, 20),
)
def test_a_sequence_is_what_a_look_at_each_block_gives(hpcp, width):
    sequence, _ = reduce(frames_of(hpcp), 5.0 * width)
    assert len(sequence) >= len(hpcp) // width
    for block, start in zip(sequence[:, 0], range(0, len(hpcp), width), strict=False):
        believed = [frame for frame in hpcp[start : start + width] if np.isfinite(frame).all()]
        expected = np.mean(believed, axis=0) if believed else np.zeros(12)
        np.testing.assert_allclose(block, expected, rtol=1e-3, atol=1e-4)


def test_values_beyond_half_precision_are_clipped():
    sequence, _ = reduce(frames_of(np.full((2, 12), 1e6), np.full((2, 12), -1e308)), 10.0)
    assert (sequence[:, 0] == 65504).all()
    assert (sequence[:, 1] == -65504).all()


@given(st.integers(1, 400), st.floats(0.5, 400), st.integers(0, 2**32 - 1))
def test_a_sequence_is_finite_and_lasts_as_long_as_the_frames(length, frame_rate, seed):
    hpcp = np.random.default_rng(seed).random((length, 12), dtype=np.float32)
    sequence, chroma_rate = reduce(frames_of(hpcp), frame_rate)
    assert np.isfinite(sequence).all()
    assert len(sequence) >= 1
    # Within the half block that may be cut off or filled up, or the one that is always there.
    assert abs(len(sequence) / chroma_rate - length / frame_rate) <= 1 / chroma_rate
    assert sequence.min() >= hpcp.min() - 1e-3
    assert sequence.max() <= hpcp.max() + 1e-3
