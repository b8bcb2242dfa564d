"""Reading one performance's frames, whoever wrote the files."""

import pickle

import numpy as np
import pytest
from trees import make_features, only, reason_of

from embedding.data.frames import UnreadablePerformance, read


@pytest.mark.parametrize("layout", ["single", "features", "acoss"])
@pytest.mark.parametrize("turned", [False, True])
def test_every_layout_and_orientation_gives_the_same_frames(make_tree, layout, turned):
    tree = make_tree(layout)
    written = make_features("P_1")
    tree.add("W_1", "P_1", crema=written["crema"].T if turned else written["crema"])
    performance = only(tree)
    assert (performance.track_id, performance.work_id) == ("P_1", "W_1")
    frames = read(performance)
    for name, array in written.items():
        if (attribute := name.removeprefix("madmom_features/")) not in ("tempos", "onsets"):
            expected = array.T if name == "mfcc_htk" else array
            np.testing.assert_array_equal(getattr(frames, attribute), expected)
    assert frames.tempo == written["madmom_features/tempos"][0, 0]
    assert (frames.size, frames.mtime_ns) == performance.stat()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"hpcp": None}, "it has no hpcp"),
        ({"tempos": None, "crema": None}, "it has no crema, madmom_features/tempos"),
        ({"crema": np.ones((60, 11))}, "crema has shape (60, 11), expected 12 on one side"),
        ({"mfcc_htk": np.ones((12, 60))}, "mfcc_htk has shape (12, 60), expected 13 on one side"),
        ({"hpcp": np.ones(60)}, "hpcp has shape (60,), expected 12 on one side"),
        (
            {"novfn": np.ones((60, 2))},
            "madmom_features/novfn has shape (60, 2), expected (frames,)",
        ),
        (
            {"tempos": np.ones((0, 2))},
            "madmom_features/tempos is empty, as for silence: leave the file out",
        ),
        ({"tempos": np.ones(2)}, "madmom_features/tempos has shape (2,), expected (k, 2)"),
        ({"hpcp": np.ones((0, 12))}, "hpcp has no frames"),
        ({"crema": np.ones((12, 7))}, "crema has 7 frames where hpcp has 60"),
        ({"snovfn": np.ones(400)}, "madmom_features/snovfn has 400 frames where hpcp has 60"),
        ({"hpcp": np.full((60, 12), b"0.5")}, "hpcp holds |S3, not numbers"),
        ({"hpcp": np.ones((60, 12), complex)}, "hpcp holds complex128, not numbers"),
        ({"hpcp": np.ones((60, 12), bool)}, "hpcp holds bool, not numbers"),
        (
            {"track_id": "P_9"},
            "its track_id is P_9, but its name is P_1: rename the file, or correct what it says",
        ),
        ({"label": np.array([1, 2])}, "its label is an array of 2, not a name"),
        ({"label": b"caf\xe9"}, "its label is not UTF-8 text"),
        ({"label": "W" * 5000}, "its label is longer than any name"),
    ],
)
@pytest.mark.parametrize("layout", ["single", "features"])
def test_a_performance_that_cannot_be_used_says_why(make_tree, layout, changes, reason):
    tree = make_tree(layout)
    tree.add("W_1", "P_1", **changes)
    assert reason_of(only(tree)) == reason


@pytest.mark.parametrize(("frames", "apart"), [(60, 50), (1000, 100)])
def test_lengths_may_differ_by_a_tenth_or_fifty_frames(make_tree, frames, apart):
    tree = make_tree()
    tree.add("W_1", "P_1", frames=frames, novfn=np.ones(frames - apart))
    assert len(read(only(tree)).novfn) == frames - apart
    tree.add("W_1", "P_1", frames=frames, novfn=np.ones(frames - apart - 1))
    assert "novfn has" in reason_of(only(tree))


def test_a_file_that_is_gone_may_come_back(make_tree):
    tree = make_tree()
    path = tree.add("W_1", "P_1")
    performance = only(tree)
    path.unlink()
    with pytest.raises(UnreadablePerformance, match="No such file") as caught:
        read(performance)
    assert not caught.value.lasting
    assert performance.stat() == (-1, -1)


def test_a_reject_travels_between_processes():
    error = UnreadablePerformance("P_1", "W_1/P_1.h5", "it has no hpcp", lasting=False)
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.reason, copy.lasting) == (str(error), error.reason, False)


def short_song(rng):
    """Thirteen frames of one changing chord: HPCP starts at A, CREMA at C, three semitones up."""
    chord = np.repeat(rng.random((4, 12)), 4, axis=0)[:13]
    noise = rng.normal(0, 0.02, (2, 13, 12))
    return chord + noise[0], np.roll(chord, -3, axis=1)[:12] + noise[1][:12]


@pytest.mark.parametrize("turned", [False, True])
def test_a_square_crema_is_turned_to_follow_the_other_chroma(make_tree, rng, turned):
    tree = make_tree()
    hpcp, crema = short_song(rng)
    tree.add("W_1", "P_1", frames=13, hpcp=hpcp, crema=crema.T if turned else crema)
    np.testing.assert_array_equal(read(only(tree)).crema, crema)


def test_a_square_crema_whose_orientation_is_unknown_is_rejected(make_tree, rng):
    tree = make_tree()
    tree.add("W_1", "P_1", frames=13, crema=np.full((12, 12), 0.5))
    assert "follows hpcp and chroma_cens equally well either way" in reason_of(only(tree))
    _, crema = short_song(rng)
    tree.add("W_1", "P_1", frames=600, hpcp=np.tile(crema, (50, 1)), crema=crema)
    assert reason_of(only(tree)) == "crema has 12 frames where hpcp has 600"
