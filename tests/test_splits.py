"""No work is on two sides of a split, and each work keeps its side."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from embedding.splits import split_works

work_ids = st.lists(st.text(max_size=4), min_size=3, max_size=60)
seeds = st.integers(0, 2**32)
SHARES = st.sampled_from([(0.5, 0.5), (0.9, 0.1), (0.01, 0.99), (0.6, 0.2, 0.2)])


def many(count: int) -> list[str]:
    return [f"W_{i}" for i in range(count)]


@given(work_ids, SHARES, seeds)
def test_every_work_has_one_side_and_every_side_a_work(ids, shares, seed):
    assume(len(set(ids)) >= len(shares))
    side = split_works(ids, shares, seed)
    assert side.shape == (len(ids),)
    assert len(set(zip(ids, side, strict=True))) == len(set(ids))
    assert set(side) == set(range(len(shares)))


@given(work_ids.filter(lambda ids: len(set(ids)) > 1), seeds, st.randoms())
def test_the_order_of_the_performances_changes_nothing(ids, seed, random):
    order = list(range(len(ids)))
    random.shuffle(order)
    shuffled = split_works([ids[i] for i in order], (0.7, 0.3), seed)
    np.testing.assert_array_equal(shuffled, split_works(ids, (0.7, 0.3), seed)[order])


@given(st.integers(100, 400), st.integers(0, 400), seeds)
def test_a_work_keeps_its_side_when_the_catalogue_grows(count, more, seed):
    before = split_works(many(count), (0.8, 0.2), seed)
    after = split_works(many(count + more) + many(count), (0.8, 0.2), seed)
    np.testing.assert_array_equal(after[:count], before)
    np.testing.assert_array_equal(after[-count:], before)


@settings(max_examples=15)
@given(seeds)
def test_the_shares_are_about_those_asked_for(seed):
    side = split_works(many(4000), (0.7, 0.2, 0.1), seed)
    shares = np.bincount(side) / 4000
    np.testing.assert_allclose(shares, (0.7, 0.2, 0.1), atol=5 * np.sqrt(0.25 / 4000))


def test_another_seed_or_purpose_gives_an_unrelated_split():
    works = np.array(many(2000))
    first = split_works(works, (0.5, 0.5), 0)
    for other in (
        split_works(works, (0.5, 0.5), 1),
        split_works(works, (0.5, 0.5), 0, "validation"),
    ):
        assert 0.45 < (first == other).mean() < 0.55
    again = split_works(works[first == 0], (0.8, 0.2), 0, "validation")
    assert 0.17 < (again == 1).mean() < 0.23


def test_a_split_is_the_same_in_every_process_and_version():
    assert split_works(many(12), (0.5, 0.5), 0).tolist() == [0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]


@pytest.mark.parametrize("shares", [(0.5, 0.4), (1.0,), (1.5, -0.5), (0.5, float("nan")), ()])
def test_shares_that_do_not_sum_to_1_and_sides_without_works_are_refused(shares):
    with pytest.raises(ValueError, match="expected numbers above 0 that sum to 1"):
        split_works(many(5), shares, 0)
    with pytest.raises(ValueError, match=r"1 work\(s\), too few for 2 sides"):
        split_works(["W_1", "W_1"], (0.5, 0.5), 0)
