"""A data set's frame rate is stated, implied by lengths, or measured from its beats."""

import numpy as np
import pytest

from embedding.data.frame_rate import COMMON_RATES, from_provenance, measure, parse_frame_rate

RATE = 44100 / 4096


@pytest.mark.parametrize(
    ("given", "rate"),
    [("44100/512", 44100 / 512), ("10.75", 10.75), (86, 86.0), (" 44100 / 512 ", 86.1328125)],
)
def test_a_rate_is_a_number_or_a_fraction(given, rate):
    assert parse_frame_rate(given) == rate


@pytest.mark.parametrize("given", ["", "fast", "1/0", "0", -3, float("nan"), "inf", None, True])
def test_text_that_is_not_a_rate_is_refused_with_an_example(given):
    with pytest.raises(ValueError, match=r"is not a frame rate: .*44100/512"):
        parse_frame_rate(given)


def test_frames_over_seconds_near_a_common_rate_are_that_rate():
    assert from_provenance({"P_1": {"T": 664, "sec": 61.6}, "P_2": {"T": 738, "sec": 68.5}}) == RATE
    assert from_provenance({"P_1": {"T": 5000, "sec": 100.0}}) == 50.0
    assert from_provenance({"P_1": {"sec": 100.0}, "P_2": "?"}) is None
    assert from_provenance({}) is None


def beats_of(bpm, frame_rate):
    return bpm, np.round(np.arange(40) * 60 / bpm * frame_rate).astype(int)


@pytest.mark.parametrize("frame_rate", COMMON_RATES.values())
def test_the_rate_is_measured_from_beats_at_a_known_tempo(frame_rate):
    rng = np.random.default_rng(4)
    beats = [beats_of(bpm, frame_rate) for bpm in rng.uniform(50, 120, 20)]
    measured = measure(beats)
    assert measured.rate == frame_rate
    assert f"{frame_rate:.3f} per second as measured from the beats of 20" in str(measured)


def test_the_majority_decides_where_some_follow_every_second_beat():
    beats = [beats_of(100, RATE) for _ in range(7)]
    beats += [(200.0, onsets) for _, onsets in beats[:3]]
    assert measure(beats).rate == RATE


def test_a_divided_vote_is_inconclusive():
    beats = [beats_of(100, RATE), beats_of(100, RATE / 2)]
    with pytest.raises(ValueError, match=r"inconclusive \(44100/4096 1, 44100/8192 1\)"):
        measure(beats)
    with pytest.raises(ValueError, match=r"inconclusive \(no beats\)"):
        measure([(120.0, np.array([3])), (float("nan"), np.arange(9))])
