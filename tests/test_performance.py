"""One performance is embedded by one call, and gets what a data set of it would get."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import sounds
from trees import FRAME_RATE, Tree, make_features, only, write_h5

from embedding import bundle as bundles
from embedding.audio.analysis import analyse
from embedding.data import aggregate
from embedding.data.store import FeatureStore
from embedding.encoders.imported import ImportedConfig
from embedding.performance import embed
from embedding.training import train


@pytest.fixture(scope="module")
def pretrained():
    return bundles.load("pretrained")


@pytest.fixture(scope="module")
def of_means(songs, tmp_path_factory):
    place = tmp_path_factory.mktemp("bundle") / "means"
    return bundles.save(place, *train(songs, "means"))


@pytest.fixture
def song(tmp_path) -> Path:
    path = tmp_path / "song.h5"
    write_h5(path, make_features("song", 400))
    return path


def test_a_file_gets_the_vector_and_the_sequence_that_its_data_set_gets(
    tmp_path, pretrained, of_means
):
    tree = Tree(tmp_path / "data")
    path = tree.add("W_1", "P_1", frames=400)
    part = aggregate.aggregate_batch([only(tree)], 44100 / 4096, tmp_path)
    store = FeatureStore.open(part)
    for bundle in (pretrained, of_means):
        made = embed(path, bundle, frame_rate=FRAME_RATE)
        np.testing.assert_array_equal(made.vector, bundle.embed(store)[0])
        np.testing.assert_array_equal(made.sequence, store.sequence(0))
    with h5py.File(path) as file:
        arrays = {name: file[name][()] for name in ("hpcp", "crema")}
    made = embed(arrays, frame_rate=44100 / 4096)
    np.testing.assert_array_equal(made.vector, pretrained.embed(store)[0])
    turned = embed({name: array.T for name, array in arrays.items()}, frame_rate=FRAME_RATE)
    np.testing.assert_array_equal(turned.vector, made.vector)


def test_a_bundle_can_be_named_or_be_a_path(song, pretrained):
    made = embed(song, pretrained, frame_rate=FRAME_RATE)
    for bundle in ("pretrained", Path("pretrained"), bundles.PRETRAINED, str(bundles.PRETRAINED)):
        np.testing.assert_array_equal(
            embed(song, bundle, frame_rate=FRAME_RATE).vector, made.vector
        )


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"hpcp": np.ones((400, 12))}, "The performance cannot be embedded: it has no crema."),
        ({}, "it has no hpcp, crema."),
        (
            {"hpcp": np.ones((400, 12)), "crema": np.ones((300, 12))},
            "crema has 300 frames where",
        ),
        ({"hpcp": np.ones((400, 9)), "crema": np.ones((400, 12))}, r"hpcp has shape \(400, 9\)"),
        ({"hpcp": np.zeros((400, 12)), "crema": np.ones((400, 12))}, "its chroma is silent"),
        ({"hpcp": np.ones((40, 12)), "crema": np.ones((40, 12))}, "only 3.7 s of it sound, and at"),
    ],
)
def test_features_that_cannot_be_used_say_why(pretrained, arrays, reason):
    with pytest.raises(ValueError, match=reason):
        embed(arrays, pretrained, frame_rate=FRAME_RATE)


def test_what_cannot_embed_says_so(song, pretrained, of_means, tmp_path):
    with pytest.raises(ValueError, match="has no chroma_cens, mfcc_htk, "):
        embed({"hpcp": np.ones((400, 12)), "crema": np.ones((400, 12))}, of_means, frame_rate=10)
    with pytest.raises(ValueError, match="'fast' is not a frame rate"):
        embed(song, pretrained, frame_rate="fast")
    with pytest.raises(OSError, match=r"elsewhere\.h5"):
        embed(tmp_path / "elsewhere.h5", pretrained, frame_rate=10)
    (tmp_path / "text.h5").write_text("not HDF5")
    with pytest.raises(ValueError, match=r"text\.h5 .* is not an HDF5 file"):
        embed(tmp_path / "text.h5", pretrained, frame_rate=10)
    with pytest.raises(bundles.BadBundle, match="or use 'pretrained', the bundle that comes with"):
        embed(song, "pretraind", frame_rate=10)
    foreign = bundles.save(tmp_path / "b", ImportedConfig("CLEWS", 52), of_means.training)
    with pytest.raises(ValueError, match="cannot embed, because its vectors were made elsewhere"):
        embed(song, foreign, frame_rate=10)


def test_a_recording_gets_what_its_features_get(pretrained, tmp_path):
    wave = sounds.write(tmp_path / "tune.wav", sounds.notes(seconds=20))
    made = embed(wave, pretrained)
    analysed = analyse(wave)
    features = {"hpcp": analysed.hpcp, "crema": analysed.crema}
    again = embed(features, pretrained, frame_rate="44100/4096")
    np.testing.assert_array_equal(made.vector, again.vector)
    np.testing.assert_array_equal(made.sequence, again.sequence)
    with pytest.raises(ValueError, match=r"tune\.wav is a recording, which needs no frame_rate"):
        embed(wave, pretrained, frame_rate=10)
    with pytest.raises(ValueError, match="Features need their frame_rate"):
        embed(features, pretrained)


def test_a_recording_that_cannot_be_used_is_named(pretrained, tmp_path, monkeypatch):
    silence = sounds.write(tmp_path / "silence.wav", np.zeros(6 * sounds.RATE))
    with pytest.raises(ValueError, match=r"silence\.wav cannot be used: it has 0\.0 seconds of"):
        embed(silence, pretrained)
    (tmp_path / "text.mp3").write_text("not a recording", encoding="utf-8")
    with pytest.raises(ValueError, match=r"text\.mp3 cannot be used: it cannot be decoded"):
        embed(tmp_path / "text.mp3", pretrained)
    with pytest.raises(OSError, match=r"elsewhere\.mp3"):
        embed(tmp_path / "elsewhere.mp3", pretrained)
    monkeypatch.setattr("embedding.audio.libraries.LIBRARIES", ("av", "not_there"))
    with pytest.raises(ValueError, match=r"not_there cannot be .* pip install 'covers\[audio\]'"):
        embed(silence, pretrained)
