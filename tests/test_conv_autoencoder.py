"""The convolutional autoencoder: no labels, and the same vector in any key, company and silence."""

import numpy as np
import polars as pl
import pytest
import torch
from feature_stores import make_sequence, make_store, make_table
from hypothesis import given, settings
from hypothesis import strategies as st

from embedding import bundle as bundles
from embedding.encoders.conv_autoencoder import (
    SQUEEZE,
    ChromaDrawer,
    ConvAutoencoder,
    ConvAutoencoderConfig,
    as_image,
)
from embedding.encoders.projection import fit_principal
from embedding.metrics.distances import Euclidean
from embedding.metrics.retrieval import retrieval
from embedding.training import train

SMALL = {"channels": 12, "code": 6, "dimension": 10, "steps": 10, "epochs": 4}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("conv") / "features")


@pytest.fixture(scope="module")
def trained(store):
    return train(store, "conv-autoencoder", config=SMALL)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("altered")


def embed(encoder, directory, sequences):
    table = make_table(works=len(sequences), each=1)
    return encoder.embed(make_store(directory / "features", table, sequences=sequences))


@settings(max_examples=8)
@given(data=st.data())
def test_key_silence_around_and_company_leave_a_vector_as_it_is(data, trained, directory):
    frames = data.draw(st.lists(st.integers(76, 200), min_size=1, max_size=4))
    music = [make_sequence("a work", f"{i} of {n}", n) for i, n in enumerate(frames)]
    together = embed(trained[0], directory, music)
    keys = data.draw(st.lists(st.integers(0, 11), min_size=len(music), max_size=len(music)))
    silence = data.draw(st.tuples(st.integers(0, 60), st.integers(0, 60)))
    for i, (sequence, key) in enumerate(zip(music, keys, strict=True)):
        altered = np.pad(np.roll(sequence, key, axis=2), (silence, (0, 0), (0, 0)))
        alone = embed(trained[0], directory, [altered])[0]
        np.testing.assert_allclose(alone, together[i], rtol=0, atol=1e-5)


@settings(max_examples=15)
@given(seed=st.integers(0, 99), frames=st.integers(SQUEEZE, 90), key=st.integers(1, 11))
def test_no_weights_could_tell_the_key(seed, frames, key):
    torch.manual_seed(seed)
    network = ChromaDrawer(ConvAutoencoderConfig(**SMALL)).double()
    sequence = np.random.default_rng(seed).random((frames, 2, 12))
    np.testing.assert_allclose(
        network.presence(np.roll(sequence, key, axis=2)),
        network.presence(sequence),
        rtol=0,
        atol=1e-9,
    )


def test_other_music_gets_another_vector(trained, directory):
    music = [make_sequence(f"work {i}", "a file", 120) for i in range(4)]
    vectors = embed(trained[0], directory, music)
    apart = np.linalg.norm(vectors[:, None] - vectors, axis=2)
    assert apart[~np.eye(4, dtype=bool)].min() > 0.1
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)


def test_a_window_is_drawn_again_in_its_own_shape():
    network = ChromaDrawer(ConvAutoencoderConfig(**SMALL))
    for steps in (1, 7):
        x = as_image(torch.rand(2, steps * SQUEEZE, 2, 12))
        assert x.shape == (2, 24, steps * SQUEEZE)
        assert network(x).shape == x.shape
        assert network.encode(x).shape == (2, SMALL["code"], steps)


def test_it_learns_to_draw_unseen_music_better_than_by_holding_each_windows_mean(rng, tmp_path):
    triad = np.isin(np.arange(12), [0, 4, 7])
    triads = np.stack([np.roll(triad, key) for key in range(12)]).astype(np.float16)
    music = [np.repeat(triads[rng.integers(12, size=20)], 6, axis=0) for _ in range(12)]
    music = [np.stack([each, each], axis=1) for each in music]
    store = make_store(tmp_path / "features", make_table(works=12, each=1), sequences=music)
    longer = SMALL | {"channels": 24, "code": 16, "batch": 32, "steps": 40, "learning_rate": 5e-3}
    _, result = train(store, "conv-autoencoder", config=longer)
    curve, figures = result.loss_curve, result.figures
    assert curve["validation"][-1] < curve["validation"][0]
    assert figures["validation_loss"] == curve["validation"].min()
    assert figures["validation_loss"] < 0.7 * figures["loss_of_the_mean"]


def test_versions_are_found_without_labels_better_than_by_chance(trained, tmp_path):
    unseen = make_store(
        tmp_path / "features",
        make_table(works=12, seed=5).with_columns(work_id="V_" + pl.col("work_id")),
    )
    vectors = trained[0].embed(unseen)
    noise = np.random.default_rng(0).normal(size=vectors.shape)
    ids = unseen.table["work_id"], unseen.table["track_id"]
    found, chance = (retrieval(Euclidean(each), *ids).map for each in (vectors, noise))
    assert found > 2 * chance


def test_a_bundle_brings_back_the_same_vectors(trained, store, tmp_path):
    bundles.save(tmp_path / "bundle", "conv-autoencoder", *trained)
    loaded = bundles.load(tmp_path / "bundle")
    np.testing.assert_array_equal(loaded.embed(store), trained[0].embed(store))
    assert loaded.dimension == trained[0].dimension == SMALL["dimension"]
    assert loaded.encoder.config == trained[0].config


def test_the_same_seed_gives_the_same_vectors_and_another_seed_others(trained, store):
    torch.manual_seed(3)  # what the caller draws must not matter
    again, result = train(store, "conv-autoencoder", config=SMALL)
    np.testing.assert_array_equal(again.embed(store), trained[0].embed(store))
    assert result.loss_curve.equals(trained[1].loss_curve)
    other, _ = train(store, "conv-autoencoder", config=SMALL, seed=1)
    weights = [each.network.encode[0].weight for each in (again, other)]
    assert not torch.equal(*weights)


def test_labels_do_not_matter_to_it(trained, store, tmp_path):
    # Sides follow from work ids, so works are swapped among the performances of a side.
    fitted = trained[1].works.filter(side="train")["work_id"].to_list()
    swapped = dict(zip(fitted, fitted[::-1], strict=True))
    table = store.table.with_columns(pl.col("work_id").replace(swapped))
    sequences = [store.sequence(i) for i in range(len(store))]
    relabelled = make_store(tmp_path / "features", table, sequences=sequences)
    encoder, _ = train(relabelled, "conv-autoencoder", config=SMALL)
    np.testing.assert_array_equal(encoder.embed(store), trained[0].embed(store))


@pytest.mark.parametrize(
    ("sequence", "reason"),
    [
        (np.zeros((0, 2, 12)), "it has no chroma"),
        (np.full((200, 2, 12), 0.01), "its chroma is silent throughout"),
        (np.full((20, 2, 12), 0.5), r"only 3\.7 s of it sound"),
    ],
)
def test_a_performance_with_too_little_chroma_is_named(sequence, reason, trained, tmp_path):
    music = [make_sequence("a work", "a file"), sequence.astype(np.float16)]
    mixed = make_store(tmp_path / "features", make_table(works=2, each=1), sequences=music)
    assert list(trained[0].unusable(mixed)) == ["P_001"]
    with pytest.raises(ValueError, match=f"P_001 cannot be embedded: {reason}"):
        trained[0].embed(mixed)


def test_the_shortest_performance_is_long_enough_for_a_window_at_any_rate(tmp_path):
    shortest = [make_sequence(f"work {i}", f"file {i}", 76) for i in range(6)]
    store = make_store(tmp_path / "features", make_table(works=6, each=1), sequences=shortest)
    for rate in (4, 5.3):
        encoder, _ = train(store, "conv-autoencoder", config=SMALL | {"chroma_rate": rate})
        assert np.isfinite(encoder.embed(store)).all()


def test_nothing_to_embed_makes_no_vectors(trained, store):
    assert trained[0].embed(store.select([])).shape == (0, trained[0].dimension)


def test_components_are_those_that_vary_each_tempered_by_its_deviation(rng):
    x = rng.normal(size=(400, 3)) * [8, 1, 0] + 5
    plain, tempered = (fit_principal(x, dimension=9, tempering=tempering) for tempering in (0, 0.5))
    assert plain.dimension == tempered.dimension == 2
    spread = ((x - x.mean(axis=0)) @ tempered.matrix.astype(float)).std(axis=0)
    np.testing.assert_allclose(spread[0], spread[1], rtol=1e-2)
    spread = ((x - x.mean(axis=0)) @ plain.matrix.astype(float)).std(axis=0)
    np.testing.assert_allclose(spread[0] / spread[1], 8, rtol=0.1)


def test_performances_that_are_all_the_same_teach_nothing(tmp_path):
    same = make_store(
        tmp_path / "features",
        make_table(works=6, each=1),
        sequences=[np.full((100, 2, 12), 0.5, np.float16)] * 6,
    )
    with pytest.raises(ValueError, match="same chroma, so there is nothing to learn"):
        train(same, "conv-autoencoder", config=SMALL)


def test_tensors_that_do_not_fit_the_configuration_are_refused(trained):
    tensors = trained[0].tensors()
    lacking = {n: t for n, t in tensors.items() if n != "network.encode.0.weight"}
    with pytest.raises(KeyError, match=r"network\.encode\.0\.weight"):
        ConvAutoencoder.from_tensors(trained[0].config, lacking)
    cut = tensors | {"projection.mean": tensors["projection.mean"][1:]}
    with pytest.raises(ValueError, match=r"shapes \(83,\) and \(84, 10\), expected 84 descriptors"):
        ConvAutoencoder.from_tensors(trained[0].config, cut)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"window": 8}, "window is 8, expected a whole number from 1 to 7"),
        ({"epochs": True}, "epochs is True, expected a whole number"),
        ({"tempering": 0.7}, "tempering is 0.7, expected a number from 0 to 0.5"),
    ],
)
def test_a_setting_out_of_range_is_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        ConvAutoencoderConfig(**setting)
