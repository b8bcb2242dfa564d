"""Alignment finds a cover in any key, tempo and cut, and says which stretches correspond."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tunes import RATE, make_tune, noisy

from search.versions.alignment import STACK_SECONDS, Alignment, explain, similarities


def aligned(query: np.ndarray, candidate: np.ndarray) -> Alignment:
    similarity, hypothesis = similarities(query, [candidate], RATE)
    return explain(query, candidate, RATE, float(similarity[0]), hypothesis[0])


@pytest.mark.parametrize(
    ("up", "tempo"), [(0, 1.0), (3, 1.15), (-4, 1 / 1.15), (6, 1.32), (-5, 1.0)]
)
def test_a_transposed_stretched_and_cropped_copy_is_found_among_others_and_explained(up, tempo):
    query = noisy(make_tune(1), 10)
    # The copy leaves out the query's first 12 s, and begins with 15 s of something else.
    skipped, before = 12, 15
    rest = make_tune(1, 50 / tempo, tempo, up)[int(skipped / tempo * RATE) :]
    copy = noisy(np.concatenate([make_tune(99, before), rest]), 11)
    others = [noisy(make_tune(seed), seed) for seed in range(20, 60)]
    similarity, _ = similarities(query, [*others, copy], RATE)
    assert similarity.argmax() == len(others)
    assert similarity[-1] > 1.3 * similarity[:-1].max()

    found = aligned(query, copy)
    assert found.transposition == up
    assert found.tempo == pytest.approx(tempo)
    first = found.stretches[0]
    # It covers all that they share; by chance it may start earlier, at the same offset.
    assert first.query_start < skipped + 1
    assert first.match_start < before + 1
    assert [first.query_end, first.match_end] == pytest.approx(
        [50, before + (50 - skipped) / tempo], abs=1
    )
    in_step = before + (first.query_start - skipped) / tempo
    assert first.match_start == pytest.approx(in_step, abs=STACK_SECONDS / 2)


def test_a_performance_is_most_similar_to_itself():
    query = noisy(make_tune(1), 10)
    assert similarities(query, [query], RATE)[0][0] == pytest.approx(len(query) ** 0.5, rel=0.1)
    found = aligned(query, query)
    assert (found.transposition, found.tempo) == (0, 1)
    first = found.stretches[0]
    assert (first.query_start, first.match_start) == (0, 0)
    assert first.query_end == first.match_end == len(query) / RATE


@settings(max_examples=12)
@given(up=st.integers(0, 11), seed=st.integers(0, 5))
def test_transposing_either_changes_the_transposition_and_not_the_similarity(up, seed):
    query, candidate = noisy(make_tune(seed, 40), 1), noisy(make_tune(seed, 30, 1.1), 2)
    plain = aligned(query, candidate)
    for moved, sign in (
        (aligned(query, np.roll(candidate, up, axis=2)), 1),
        (aligned(np.roll(query, up, axis=2), candidate), -1),
    ):
        assert moved.similarity == pytest.approx(plain.similarity, rel=1e-4)
        assert (moved.transposition - plain.transposition - sign * up) % 12 == 0
        assert -5 <= moved.transposition <= 6


@settings(max_examples=25)
@given(lengths=st.tuples(st.integers(0, 700), st.integers(0, 700)), related=st.booleans())
def test_stretches_lie_inside_both_performances(lengths, related):
    query = noisy(make_tune(1, 200), 1)[: lengths[0]]
    candidate = noisy(make_tune(1 if related else 2, 200, 1.2), 2)[: lengths[1]]
    found = aligned(query, candidate)
    assert found.similarity >= 0
    assert len(found.stretches) <= 3
    assert bool(found.stretches) == (found.similarity > 0)
    for stretch in found.stretches:
        assert 0 <= stretch.query_start < stretch.query_end <= len(query) / RATE + 1e-9
        assert 0 <= stretch.match_start < stretch.match_end <= len(candidate) / RATE + 1e-9


def test_a_candidate_is_aligned_alone_as_among_others():
    query = make_tune(1)
    others = [noisy(make_tune(seed, 20 + 5 * seed), seed) for seed in range(12)]
    together = similarities(query, others, RATE)[0]
    assert together.tolist() == [similarities(query, [other], RATE)[0][0] for other in others]
    assert similarities(query, [], RATE)[0].shape == (0,)


def test_long_performances_are_aligned_at_a_coarser_rate_and_still_found():
    query, copy = noisy(make_tune(3, 200), 1), noisy(make_tune(3, 190, 1.0, 2), 2)
    other = noisy(make_tune(4, 190), 3)
    similarity = similarities(query, [copy, other], RATE)[0]
    assert similarity[0] > 4 * similarity[1]
    assert aligned(query, copy).transposition == 2


def test_empty_short_and_silent_sequences_resemble_nothing():
    query = make_tune(1)
    for sequence in (query[:0], query[:10], np.zeros_like(query)):
        assert similarities(query, [sequence], RATE)[0].tolist() == [0]
        assert similarities(sequence, [query], RATE)[0].tolist() == [0]
        assert aligned(query, sequence).stretches == ()


def test_a_wrong_shape_or_rate_is_refused():
    query = make_tune(1)
    with pytest.raises(ValueError, match=r"has the shape \(5, 12\): it must be \(frames, 2, 12\)"):
        similarities(query, [np.zeros((5, 12))], RATE)
    with pytest.raises(ValueError, match="rate is 0 frames per second: give a positive number"):
        similarities(query, [query], 0)
