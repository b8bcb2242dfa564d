"""The version encoder: the same vector in any key, batch and silence; trained by cliques."""

import logging

import numpy as np
import polars as pl
import pytest
import torch
from feature_stores import TINY, make_sequence, make_store, make_table
from hypothesis import given, settings
from hypothesis import strategies as st

from embedding.encoders.descriptors import CHROMA_RATE
from embedding.encoders.version.augmentation import vary
from embedding.encoders.version.encoder import (
    LARGE,
    TwelveKeyNet,
    VersionConfig,
    VersionEncoder,
    padded,
)
from embedding.training import train

#: Leaves 5 of the 15 works to validate on.
SEED = 2


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("version") / "features")


@pytest.fixture(scope="module")
def trained(store):
    return train(store, "version", config=TINY, seed=SEED)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("altered")


def embed(encoder, directory, sequences):
    table = make_table(works=len(sequences), each=1)
    return encoder.embed(make_store(directory / "features", table, sequences=sequences))


@settings(max_examples=10, deadline=None)
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


@settings(max_examples=20, deadline=None)
@given(frames=st.integers(20, 60), padding=st.integers(1, 50), key=st.integers(0, 11))
def test_what_lies_beyond_the_end_changes_nothing_in_the_network(frames, padding, key):
    torch.manual_seed(frames)
    network = TwelveKeyNet(VersionConfig(**TINY)).eval()
    sequence = make_sequence("a work", "a file", frames)
    x, own = padded([sequence])
    beyond = torch.cat([x.roll(key, 3), torch.rand(1, padding, 2, 12)], dim=1)
    with torch.no_grad():
        torch.testing.assert_close(network(beyond, own), network(x, own), rtol=0, atol=1e-5)


def test_halves_have_the_lengths_they_were_given(trained, store):
    encoder, vectors = trained[0], trained[0].embed(store)
    halves = np.split(vectors, [TINY["projection_dimension"]], axis=1)
    lengths = [np.linalg.norm(half, axis=1) for half in halves]
    assert vectors.shape == (45, encoder.dimension) == (45, 16)
    np.testing.assert_allclose(lengths[1] / lengths[0], 0.5, rtol=1e-5)
    np.testing.assert_allclose(np.hypot(*lengths), 1, rtol=1e-5)


def test_what_is_kept_brings_back_the_same_vectors(trained, store):
    again = VersionEncoder.from_tensors(trained[0].config, trained[0].tensors())
    np.testing.assert_array_equal(again.embed(store), trained[0].embed(store))
    lacking = {n: t for n, t in trained[0].tensors().items() if n != "network.kernel"}
    with pytest.raises(KeyError, match=r"network\.kernel"):
        VersionEncoder.from_tensors(trained[0].config, lacking)
    fewer = trained[0].tensors() | {"motifs": trained[0].motifs.patterns[:, 1:]}
    with pytest.raises(ValueError, match="the projection has shapes"):
        VersionEncoder.from_tensors(trained[0].config, fewer)
    with pytest.raises(ValueError, match=r"tensor network\.kernel has shape \(4, .*\(5, 2, 12, 7"):
        VersionEncoder.from_tensors(VersionConfig(**TINY | {"channels": 5}), trained[0].tensors())


def test_the_same_seed_gives_the_same_vectors_and_another_seed_others(trained, store):
    np.random.seed(3)  # noqa: NPY002 - what the caller draws must not matter
    torch.manual_seed(3)
    again, result = train(store, "version", config=TINY, seed=SEED)
    np.testing.assert_array_equal(again.embed(store), trained[0].embed(store))
    assert result.loss_curve.equals(trained[1].loss_curve)
    other, _ = train(store, "version", config=TINY, seed=SEED + 1)
    assert not np.array_equal(other.network.kernel, again.network.kernel)


def test_every_epoch_is_recorded_and_the_best_is_kept(trained):
    curve, figures = trained[1].loss_curve, trained[1].figures
    assert curve["epoch"].to_list() == [1, 2]
    assert figures["validation_loss"] == curve["validation"].min()
    assert figures["best_epoch"] == 1 + curve["validation"].arg_min()
    assert not trained[0].network.training


def test_the_network_learns_to_tell_works_apart(store):
    longer = TINY | {"steps": 12, "epochs": 5, "augmentation": 0.1, "bfloat16": False}
    curve = train(store, "version", config=longer, seed=SEED)[1].loss_curve
    assert curve["validation"].min() < curve["validation"][0] - 0.1
    assert curve["train"][-1] < curve["train"][0]


def test_unusable_performances_are_left_out_of_training_with_the_reason(store, tmp_path, caplog):
    sequences = [store.sequence(i) for i in range(len(store))]
    sequences[7] = np.zeros_like(sequences[7])
    sequences[12] = sequences[12][:20]
    holey = make_store(tmp_path / "features", store.table, sequences=sequences)
    with caplog.at_level(logging.WARNING):
        figures = train(holey, "version", config=TINY | {"epochs": 1}, seed=SEED)[1].figures
    assert [each.getMessage() for each in caplog.records] == [
        "left out P_007: its chroma is silent throughout",
        "left out P_012: only 3.7 s of it sound, and at least 14 s are needed",
    ]
    assert figures["unusable_performances"] == 2
    assert figures["train_performances"] + figures["validation_performances"] == 43


def test_works_of_one_performance_do_no_harm(store, tmp_path):
    noise = make_table(works=6, each=1, seed=9).with_columns(
        track_id="N_" + pl.col("track_id"), work_id="N_" + pl.col("work_id")
    )
    table = pl.concat([make_table(), noise])
    encoder, _ = train(make_store(tmp_path / "features", table), "version", config=TINY, seed=SEED)
    assert np.isfinite(encoder.embed(store)).all()
    assert encoder.motifs.count == 2 * 30  # cut out of the 10 works with versions alone


def test_too_few_works_with_versions_are_said_so(store, tmp_path):
    with pytest.raises(ValueError, match=r"2 works of several performances to validate .* has 1"):
        train(store, "version", config=TINY, seed=0)
    alone = make_store(tmp_path / "features", works=12, each=1)
    with pytest.raises(ValueError, match=r"at least 2 works of several performances to learn"):
        train(alone, "version", config=TINY, seed=SEED)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), strength=st.floats(0, 1), frames=st.integers(2, 90))
def test_altered_versions_are_chroma_of_the_length_asked_for(seed, strength, frames):
    x, own = padded([make_sequence("a", "b", frames), make_sequence("c", "d", 90)])
    views = [vary(x, own, 40, strength, torch.Generator().manual_seed(seed)) for _ in range(2)]
    assert views[0].shape == (2, 40, 2, 12)
    assert torch.isfinite(views[0]).all()
    assert views[0].min() >= 0
    assert torch.equal(*views)


def test_at_strength_0_only_time_is_varied():
    x = torch.rand(1, 1, 2, 12).expand(3, 50, 2, 12)
    view = vary(x, torch.full((3,), 50), 40, 0, torch.Generator().manual_seed(0))
    torch.testing.assert_close(view, x[:, :40], atol=2e-4, rtol=1e-3)


def test_both_sizes_make_vectors_of_at_most_256_components():
    for config in (VersionConfig(), LARGE):
        assert config.projection_dimension + config.network_dimension <= 256
        assert config.chroma_rate == CHROMA_RATE


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"views": 1}, "views is 1, expected a whole number of at least 2"),
        ({"dropout": 1.0}, "dropout is 1.0, expected a number from 0 to 0.9"),
        ({"epochs": True}, "epochs is True, expected a whole number"),
        ({"tempos": 1.2}, "tempos are 1.2, expected a list of numbers"),
    ],
)
def test_a_setting_out_of_range_is_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        VersionConfig(**setting)
