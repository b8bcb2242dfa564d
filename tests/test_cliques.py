"""Performances are grouped by work in a canonical order."""

import numpy as np
import pytest

from embedding.metrics.cliques import group


def test_cliques_come_first_by_work_and_track_and_noise_works_last():
    works = ["W_b", "W_a", "W_c", "W_b", "W_0", "W_c"]
    found = group(works, ["P_5", "P_3", "P_9", "P_1", "P_2", "P_0"])
    assert found.track_ids.tolist() == ["P_1", "P_5", "P_0", "P_9", "P_2", "P_3"]
    assert found.works.tolist() == ["W_b", "W_c", "W_0", "W_a"]
    assert found.order.tolist() == [3, 0, 5, 2, 4, 1]
    assert found.work.tolist() == [0, 0, 1, 1, 2, 3]
    assert found.starts.tolist() == [0, 2, 4, 5]
    assert found.sizes.tolist() == [2, 2, 1, 1]
    assert found.track_rank.tolist() == [1, 4, 0, 5, 2, 3]
    assert found.counts() == {
        "performances": 6,
        "works": 4,
        "cliques": 2,
        "noise_works": 2,
        "queries": 4,
    }


@pytest.mark.parametrize(
    ("works", "tracks", "message"),
    [
        ([], [], "No work has two performances among the 0 given"),
        (["W_1"], ["P_1"], "No work has two performances among the 1 given"),
        (["W_1", "W_2"], ["P_1", "P_2"], "No work has two performances among the 2 given"),
        (["W_1", "W_1"], ["P_1"], "There are 1 track ids and 2 work ids"),
        (["W_1", "W_1"], ["P_1", "P_1"], "Track id 'P_1' occurs 2 times"),
        (["W_1", None], ["P_1", "P_2"], "The work ids must be strings, and row 1 holds None"),
        (["W_1", "W_1"], [1, 2], "The track ids must be strings, and row 0 holds 1"),
    ],
)
def test_ids_that_cannot_be_grouped_are_refused(works, tracks, message):
    with pytest.raises(ValueError, match=message):
        group(works, tracks)


def test_ids_may_be_arrays():
    assert group(np.array(["W_1", "W_1"]), np.array(["P_2", "P_1"])).queries == 2
