"""Chroma sequences: means of HPCP and CREMA at 44100 / 8192 frames per second."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from embedding.data.chroma import CHANNELS, CHROMA_RATE, reduce, resample

#: Of Da-TACOS: 16 of its frames make a frame of the store.
BENCHMARK_RATE = 44100 / 512


def frames_of(hpcp, crema=None):
    return SimpleNamespace(hpcp=hpcp, crema=hpcp if crema is None else crema)


def test_a_frame_is_the_mean_of_the_frames_that_it_replaces(rng):
    hpcp, crema = rng.random((32, 12)), rng.random((32, 12))
    sequence = reduce(frames_of(hpcp, crema), BENCHMARK_RATE)
    assert sequence.shape == (2, len(CHANNELS), 12)
    assert sequence.dtype == np.float16
    np.testing.assert_allclose(sequence[1, 0], hpcp[16:].mean(axis=0), rtol=1e-3)
    np.testing.assert_allclose(sequence[0, 1], crema[:16].mean(axis=0), rtol=1e-3)


def test_frames_on_a_border_count_by_their_share(rng):
    hpcp = rng.random((5, 12))
    sequence = reduce(frames_of(hpcp), 2.5 * CHROMA_RATE)
    np.testing.assert_allclose(sequence[0, 0], (hpcp[:2].sum(0) + hpcp[2] / 2) / 2.5, rtol=1e-3)
    np.testing.assert_allclose(sequence[1, 0], (hpcp[2] / 2 + hpcp[3:].sum(0)) / 2.5, rtol=1e-3)


@pytest.mark.parametrize(
    ("rate", "length", "frames"),
    [
        *((BENCHMARK_RATE, *case) for case in [(32, 2), (39, 2), (40, 3), (48, 3), (3, 1)]),
        *((44100 / 4096, *case) for case in [(2, 1), (4, 2), (5, 3), (1, 1), (0, 0)]),
        (44100 / 8192, 7, 7),
    ],
)
def test_a_last_frame_counts_if_half_of_it_is_there_or_it_is_the_only_one(rate, length, frames):
    sequence = reduce(frames_of(np.ones((length, 12))), rate)
    assert len(sequence) == frames
    assert (sequence == 1).all()


def test_the_longer_channel_is_cut_to_the_shorter(rng):
    hpcp = rng.random((40, 12))
    sequence = reduce(frames_of(hpcp, hpcp[:32].copy()), BENCHMARK_RATE)
    assert len(sequence) == 2
    np.testing.assert_array_equal(sequence[:, 0], sequence[:, 1])


def test_frames_that_are_not_finite_are_left_out_and_large_values_clipped():
    hpcp, crema = np.ones((32, 12)), np.full((32, 12), -1e300)
    hpcp[3, 5] = np.nan
    hpcp[3, 6] = 1000.0  # in the same frame, which cannot be trusted
    hpcp[16:] = np.inf
    sequence = reduce(frames_of(hpcp, crema), BENCHMARK_RATE)
    assert (sequence[0, 0] == 1).all()
    assert (sequence[1, 0] == 0).all()
    assert (sequence[:, 1] == -65504).all()


@given(
    arrays(
        np.float32,
        st.tuples(st.integers(1, 60), st.just(12)),
        elements=st.floats(0, 1, width=32) | st.sampled_from([np.nan, np.inf, -np.inf]),
        fill=st.floats(0, 1, width=32),
    ),
    st.integers(1, 20),
)
def test_each_frame_is_the_mean_of_the_finite_frames_of_its_stretch(hpcp, width):
    sequence = reduce(frames_of(hpcp), CHROMA_RATE * width)
    assert len(sequence) >= len(hpcp) // width
    for frame, start in zip(sequence[:, 0], range(0, len(hpcp), width), strict=False):
        finite = [each for each in hpcp[start : start + width] if np.isfinite(each).all()]
        expected = np.mean(finite, axis=0) if finite else np.zeros(12)
        np.testing.assert_allclose(frame, expected, rtol=1e-3, atol=1e-4)


@given(st.integers(1, 400), st.floats(0.5, 400), st.integers(0, 2**32 - 1))
def test_a_sequence_is_finite_and_lasts_as_long_as_the_frames(length, frame_rate, seed):
    hpcp = np.random.default_rng(seed).random((length, 12), dtype=np.float32)
    sequence = reduce(frames_of(hpcp), frame_rate)
    assert np.isfinite(sequence).all()
    assert len(sequence) >= 1
    # Up to the half frame that is cut off or filled up, or the one frame that is always there.
    assert abs(len(sequence) / CHROMA_RATE - length / frame_rate) <= 1 / CHROMA_RATE
    assert sequence.min() >= hpcp.min() - 1e-3
    assert sequence.max() <= hpcp.max() + 1e-3


@given(frames=st.integers(2, 200), factor=st.floats(0.4, 5))
def test_resampling_averages_neighbours_and_keeps_mean_and_duration(frames, factor):
    x = np.random.default_rng(frames).random((frames, 2, 3))
    y = resample(x, factor)
    assert len(y) == max(round(frames / factor), 1)
    np.testing.assert_allclose(y.mean(axis=0), x.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(resample(np.array([0.0, 2.0, 4.0, 6.0]), 4 / 3), [0.5, 3, 5.5])
