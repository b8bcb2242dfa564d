"""Each measure that encoders are compared with agrees with its definition, in any key."""

import importlib.util

import numpy as np
import pytest
from feature_stores import make_sequence, make_store, make_table
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import normalize

from embedding.data.chroma import CHROMA_RATE
from embedding.metrics import peers
from embedding.metrics.retrieval import retrieval

needs_essentia = pytest.mark.skipif(
    importlib.util.find_spec("essentia") is None, reason="essentia is not installed"
)
OF_CHROMA = [
    peers.mean_chroma,
    peers.fourier_magnitudes,
    peers.simple,
    pytest.param(peers.qmax, marks=needs_essentia),
    pytest.param(peers.dmax, marks=needs_essentia),
]


@pytest.fixture
def rate_of_the_store(monkeypatch):
    """2DFTM and SiMPle use the frames of the store."""
    monkeypatch.setattr(peers, "BEAT_RATE", CHROMA_RATE)


def store_of(path, sequences):
    table = make_table(works=len(sequences), each=1)
    return make_store(path / "features", table, sequences=sequences)


def matrix(distances):
    return distances.block(slice(None))


def melody(notes, frames=1):
    """Chroma of one note at a time."""
    notes = np.eye(12, dtype=np.float16)[np.asarray(notes) % 12]
    return np.repeat(np.stack([notes, notes], axis=1), frames, axis=0)


@pytest.mark.parametrize("measure", OF_CHROMA)
def test_the_same_music_in_another_key_is_nearest_and_as_far_from_all_else(measure, tmp_path):
    music = [make_sequence(f"work {i}", "a file", 90 + 20 * i) for i in range(5)]
    copies = [np.roll(tune, 1 + 2 * i, axis=2) for i, tune in enumerate(music)]
    distances = measure(store_of(tmp_path, music + copies))
    values = matrix(distances)
    np.testing.assert_allclose(values[5:, 5:], values[:5, :5], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(values, values.T)
    assert distances.symmetric
    works = [f"W_{i}" for i in range(5)] * 2
    assert retrieval(distances, works, [f"P_{i}" for i in range(10)]).map == 1


@pytest.mark.parametrize("measure", OF_CHROMA)
def test_a_performance_with_too_little_chroma_is_named(measure, tmp_path):
    music = [make_sequence("a work", "a file"), np.zeros((0, 2, 12), np.float16)]
    with pytest.raises(ValueError, match="P_001 cannot be compared: it has no chroma"):
        measure(store_of(tmp_path, music))


def test_chance_finds_what_a_uniform_shuffle_would(tmp_path):
    store = make_store(tmp_path / "features", works=40, each=2)
    ids = store.table["work_id"], store.table["track_id"]
    found = retrieval(peers.chance(store), *ids)
    # With one relevant among 79 at any rank alike, AP is 1 / rank and its mean H(79) / 79.
    assert found.map == pytest.approx((1 / np.arange(1, 80)).sum() / 79, abs=0.04)
    assert found.mr1 == pytest.approx(40, abs=8)
    np.testing.assert_array_equal(matrix(peers.chance(store)), matrix(peers.chance(store)))
    assert not np.array_equal(matrix(peers.chance(store)), matrix(peers.chance(store, 1)))


def test_track_length_compares_seconds_and_raw_means_their_own_units(tmp_path):
    table = make_table(works=3, each=1, seconds=[60.0, 90.0, 61.0])
    store = make_store(tmp_path / "features", table)
    assert matrix(peers.track_length(store)).tolist() == [[0, 30, 1], [30, 0, 29], [1, 29, 0]]
    expected = np.linalg.norm(store.means[:, None] - store.means, axis=2)
    np.testing.assert_allclose(matrix(peers.raw_means(store)), expected, rtol=1e-6)
    unknown = make_store(tmp_path / "unknown", make_table(works=2, each=1))
    with pytest.raises(ValueError, match="songs does not say how long its performances are"):
        peers.track_length(unknown)


def test_a_cluster_holds_its_members_together_and_all_others_equally_apart(rng):
    centres = np.repeat([[0.0, 0], [9, 0], [0, 9]], 5, axis=0)
    distances = peers.same_cluster(centres + 0.1 * rng.normal(size=(15, 2)))
    blob = np.arange(15) // 5
    np.testing.assert_array_equal(matrix(distances), np.not_equal.outer(blob, blob))


def test_mean_chroma_is_compared_by_cosine_in_the_nearest_key(tmp_path):
    notes = {"a": [0] * 30, "a third up": [3] * 30, "a fourth now and then": [0, 5] * 15}
    store = store_of(tmp_path, [melody(tune, 3) for tune in notes.values()])
    half = 1 - np.sqrt(0.5)
    expected = [[0, 0, half], [0, 0, half], [half, half, 0]]
    np.testing.assert_allclose(matrix(peers.mean_chroma(store)), expected, atol=1e-9)


@pytest.mark.usefixtures("rate_of_the_store")
def test_2dftm_ignores_where_in_time_a_melody_starts(tmp_path):
    tune = np.tile([0, 4, 7, 5, 2], 40)  # 75 half seconds are a whole number of these
    music = [melody(notes) for notes in (tune, tune[2:], tune + 3, tune[::-1])]
    distances = matrix(peers.fourier_magnitudes(store_of(tmp_path, music)))
    np.testing.assert_allclose(distances[0, :3], 0, atol=1e-5)
    assert distances[0, 3] > 1


@pytest.mark.usefixtures("rate_of_the_store")
def test_2dftm_of_one_patch_is_the_magnitude_of_its_transform(tmp_path, rng, monkeypatch):
    monkeypatch.setattr(peers, "PATCH_FRAMES", 76)
    music = [rng.random((76, 2, 12)).astype(np.float16) for _ in range(2)]
    for frames in music:
        frames[[0, -1]] = 1  # so that nothing is trimmed as silence

    def magnitudes(sequence):
        raised = normalize(normalize(sequence[:, 0].astype(np.float64)) ** 1.96)
        return np.abs(np.fft.fft2(raised.T))

    distances = peers.fourier_magnitudes(store_of(tmp_path, music))
    assert distances.dimension == 76 * 12
    expected = np.linalg.norm(magnitudes(music[0]) - magnitudes(music[1]))
    assert matrix(distances)[0, 1] == pytest.approx(expected)


@pytest.mark.usefixtures("rate_of_the_store")
def test_simple_is_the_median_distance_to_the_nearest_ten_seconds(tmp_path, rng):
    """Against the definition, stretch by stretch; both mean chromas agree on the key."""
    music = [rng.random((frames, 2, 12)).astype(np.float16) for frames in (78, 90)]
    for frames in music:
        frames[:, :, 0] = 1
    unit = [normalize(frames[:, 0].astype(np.float64)) for frames in music]

    def profile(a, b):
        return [
            min(np.linalg.norm(a[i : i + 20] - b[j : j + 20]) for j in range(len(b) - 19))
            for i in range(len(a) - 19)
        ]

    expected = np.mean([np.median(profile(*unit)), np.median(profile(*unit[::-1]))])
    got = matrix(peers.simple(store_of(tmp_path, music)))
    assert got[0, 1] == got[1, 0] == pytest.approx(expected)


@given(st.integers(0, 999), st.integers(0, 11))
def test_the_transposition_is_the_one_that_was_made_and_its_inverse_back(seed, key):
    a = np.random.default_rng(seed).random((40, 12))
    up = peers.transpositions([np.roll(a, key, axis=1), a])
    assert up[0, 1] == key
    assert up[1, 0] == -key % 12


@needs_essentia
def test_qmax_is_the_root_of_the_lengths_over_the_longest_alignment(tmp_path):
    """Identical but for the key, all states recur in their order: Qmax counts them."""
    tune = make_sequence("a work", "a file", 200)
    copy = np.roll(tune, 5, axis=2)
    distances = matrix(peers.qmax(store_of(tmp_path, [tune, copy])))
    frames = round(200 / 5.3833 * peers.ALIGNED_RATE)
    states = frames - peers.STACKED_FRAMES + 1
    assert distances[0, 1] == pytest.approx(np.sqrt(frames) / states, rel=0.05)


@pytest.mark.skipif(importlib.util.find_spec("essentia") is not None, reason="it is installed")
@pytest.mark.parametrize("measure", [peers.qmax, peers.dmax])
def test_without_essentia_the_error_says_what_to_install(measure, tmp_path):
    store = store_of(tmp_path, [make_sequence("a", "b"), make_sequence("c", "d")])
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'covers\[peers\]'"):
        measure(store)


def test_a_comparison_that_would_take_hours_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(peers, "MAX_ALIGNED", 3)
    store = store_of(tmp_path, [make_sequence(f"work {i}", "a file") for i in range(4)])
    with pytest.raises(ValueError, match=r"aligning 4 performances .*compare at most 3"):
        peers.simple(store)
