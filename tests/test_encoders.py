"""What all encoders promise, and what each promises about its own vectors."""

import dataclasses
import itertools
import json

import numpy as np
import polars as pl
import pytest
import torch
from feature_stores import QUICK, SEED, make_sequence, make_store, make_table, samples_of
from hypothesis import given, settings
from hypothesis import strategies as st

from embedding.bundle import configure
from embedding.data.chroma import CHROMA_RATE
from embedding.encoders import chroma
from embedding.encoders.autoencoder.network import AutoencoderNetwork
from embedding.encoders.conv_autoencoder import network as conv
from embedding.encoders.registry import ENCODERS
from embedding.encoders.version import network as version
from embedding.encoders.version import training as version_training
from embedding.encoders.version.augmentation import augment
from embedding.metrics.distances import Euclidean
from embedding.metrics.retrieval import retrieval
from embedding.training import train

NAMES = sorted(ENCODERS)
OF_CHROMA = ["conv-autoencoder", "descriptors", "version"]


@pytest.fixture
def encoder(name, trained):
    return trained[name][0]


def vectors_of(encoder, songs):
    return encoder.embed(songs.inputs(encoder.input))


def parameters(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


# Every encoder


@pytest.mark.parametrize("name", NAMES)
def test_an_encoder_comes_back_from_its_tensors_without_drawing_random_numbers(encoder, songs):
    state = torch.get_rng_state()
    again = type(encoder).from_tensors(encoder.config, encoder.tensors())
    torch.testing.assert_close(torch.get_rng_state(), state)
    some = songs.select([3, 7, 11])
    np.testing.assert_array_equal(vectors_of(again, some), vectors_of(encoder, some))


@pytest.mark.parametrize("name", NAMES)
def test_tensors_that_are_missing_or_of_another_shape_are_refused(encoder):
    tensors = encoder.tensors()
    for key, tensor in tensors.items():
        lacking = {other: each for other, each in tensors.items() if other != key}
        with pytest.raises(KeyError, match=key):
            type(encoder).from_tensors(encoder.config, lacking)
        cut = tensor[1:] if key == "projection.matrix" else tensor[..., :-1]  # it has any width
        if key != "motifs" and not key.startswith("scaling"):  # also, and bundles check columns
            with pytest.raises((ValueError, RuntimeError), match="shape"):
                type(encoder).from_tensors(encoder.config, tensors | {key: cut})


@pytest.mark.parametrize("name", NAMES)
def test_other_performances_do_not_change_a_vector(encoder, songs, rng):
    together = vectors_of(encoder, songs)
    assert together.dtype == np.float32
    assert together.shape == (len(songs), encoder.dimension)
    for rows in ([7], rng.integers(0, len(songs), 12), []):
        vectors = vectors_of(encoder, songs.select(rows))
        np.testing.assert_allclose(vectors, together[rows], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_encoder_whatever_the_labels_that_it_does_not_use(
    name, trained, songs, tmp_path
):
    encoder, training = trained[name]
    if name != "version":
        # Sides follow from work ids, so works are swapped among the performances of a side.
        fitted = training.works.filter(side="train")["work_id"].to_list()
        swapped = dict(zip(fitted, fitted[::-1], strict=True))
        table = songs.table.with_columns(pl.col("work_id").replace(swapped))
        songs = make_store(tmp_path / "features", table, sequences=songs.inputs("chroma"))
    np.random.seed(3)  # noqa: NPY002 - what the caller draws must not matter
    torch.manual_seed(3)
    again, result = train(songs, name, config=QUICK[name], seed=SEED)
    assert result.loss_curve.equals(training.loss_curve)
    for key, tensor in encoder.tensors().items():
        np.testing.assert_array_equal(again.tensors()[key], tensor)


@pytest.mark.parametrize("name", NAMES)
def test_a_configuration_survives_json(name):
    config = configure(name, QUICK[name])
    assert configure(name, json.loads(json.dumps(dataclasses.asdict(config)))) == config


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("autoencoder", {"sizes": (40, 10)}, r"sizes are \[40, 10\], expected .* from the 52"),
        ("autoencoder", {"sizes": (52,)}, "expected at least two"),
        ("autoencoder", {"sizes": (52, 0, 3)}, "expected at least two whole numbers"),
        ("autoencoder", {"batch_size": 0}, "batch_size is 0, expected a whole number"),
        ("autoencoder", {"max_epochs": 2.5}, "max_epochs is 2.5, expected a whole number"),
        ("autoencoder", {"learning_rate": float("nan")}, "learning_rate is nan"),
        ("conv-autoencoder", {"window": 8}, "window is 8, expected a whole number from 1 to 7"),
        ("conv-autoencoder", {"epochs": True}, "epochs is True, expected a whole number"),
        ("descriptors", {"dimension": 0}, "dimension is 0, expected a whole number of at least 1"),
        ("descriptors", {"tempering": 0.7}, "tempering is 0.7, expected a number from 0 to 0.5"),
        ("descriptors", {"tempos": (0.1,)}, r"tempos are \(0.1,\), expected a list of numbers"),
        ("version", {"tempos": (1.75,)}, "expected a list of numbers from 0.5 to 1.5"),
        ("version", {"tempos": 1.2}, "tempos are 1.2, expected a list of numbers"),
        ("version", {"views": 1}, "views is 1, expected a whole number of at least 2"),
        ("version", {"dropout": 1.0}, "dropout is 1.0, expected a number from 0 to 0.9"),
        ("version", {"works": "many"}, "works is 'many', expected a whole number"),
    ],
)
def test_a_field_out_of_range_is_refused(name, fields, message):
    with pytest.raises(ValueError, match=message):
        configure(name, fields)


# Encoders of chroma


@settings(max_examples=6)
@given(data=st.data())
@pytest.mark.parametrize("name", OF_CHROMA)
def test_transposition_and_silence_around_do_not_change_a_vector(name, data, trained):
    encoder = trained[name][0]
    frames = data.draw(st.lists(st.integers(76, 200), min_size=1, max_size=3))
    music = [make_sequence("a work", f"{i} of {n}", n) for i, n in enumerate(frames)]
    keys = data.draw(st.lists(st.integers(0, 11), min_size=len(music), max_size=len(music)))
    silence = data.draw(st.tuples(st.integers(0, 60), st.integers(0, 60)))
    altered = [
        np.pad(np.roll(sequence, key, axis=2), (silence, (0, 0), (0, 0)))
        for sequence, key in zip(music, keys, strict=True)
    ]
    np.testing.assert_allclose(encoder.embed(altered), encoder.embed(music), rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def other_songs(tmp_path_factory):
    table = make_table(works=12, each=2, seed=5).with_columns(work_id="V_" + pl.col("work_id"))
    return make_store(tmp_path_factory.mktemp("other") / "features", table)


@pytest.mark.parametrize("name", OF_CHROMA)
def test_versions_of_other_works_are_found_far_better_than_by_chance(encoder, other_songs):
    vectors = vectors_of(encoder, other_songs)
    ids = other_songs.table["work_id"], other_songs.table["track_id"]
    chance = np.random.default_rng(0).normal(size=vectors.shape)
    assert retrieval(Euclidean(vectors), *ids).map > 0.9
    assert retrieval(Euclidean(chance), *ids).map < 0.4
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)


def sounding(frames: int, silence: int = 0) -> np.ndarray:
    return np.pad(np.full((frames, 2, 12), 0.5), ((silence, silence), (0, 0), (0, 0)))


@pytest.mark.parametrize(
    ("sequence", "reason"),
    [
        (sounding(0), "it has no chroma"),
        (sounding(200) / 50, "its chroma is silent throughout"),
        (
            sounding(int(chroma.MIN_SECONDS * CHROMA_RATE)),
            "only 13.9 s of it sound, and at least 14 s are needed",
        ),
        (sounding(9, silence=99), "only 1.7 s of it sound, and at least 14 s are needed"),
        (sounding(200) * np.nan, "its chroma has values that are not finite"),
    ],
)
def test_a_performance_with_too_little_chroma_is_named_with_the_reason(sequence, reason):
    music = [make_sequence("a", "b"), sequence, make_sequence("c", "d")]
    assert chroma.ChromaEncoder.unusable(music) == {1: reason}


@pytest.mark.parametrize("name", ["conv-autoencoder", "version"])
def test_the_shortest_usable_performances_can_be_learnt_from_at_any_tempo(name, tmp_path):
    table = make_table(works=12, each=2)
    shortest = [make_sequence(f"work {i // 2}", f"file {i}", 76) for i in range(len(table))]
    songs = make_store(tmp_path / "features", table, sequences=shortest)
    config = QUICK[name] | ({"tempos": (0.5, 1.5)} if name == "version" else {})
    encoder, _ = train(songs, name, config=config, seed=SEED)
    assert np.isfinite(vectors_of(encoder, songs)).all()


@pytest.mark.parametrize("name", ["conv-autoencoder", "descriptors"])
def test_performances_that_are_all_the_same_cannot_be_learnt_from(name, tmp_path):
    same = [np.full((100, 2, 12), 0.5, np.float16)] * 6
    songs = make_store(tmp_path / "features", make_table(works=6, each=1), sequences=same)
    config = QUICK[name] | ({"tempos": ()} if name == "descriptors" else {})
    with pytest.raises(ValueError, match="same chroma, so there is nothing to learn"):
        train(songs, name, config=config)


def test_silence_at_the_ends_is_cut_off_and_a_pause_stays():
    sequence = make_sequence("a", "b", 120).copy()
    sequence[50:60] = 0
    around = np.pad(sequence, ((7, 11), (0, 0), (0, 0)), constant_values=0.01)
    np.testing.assert_array_equal(chroma.without_silence(around), sequence)
    assert len(chroma.without_silence(np.zeros((9, 2, 12)))) == 0


def test_an_altered_copy_is_three_quarters_of_the_music_at_another_tempo(rng):
    sequence = np.arange(300.0)[:, None, None] * np.ones((1, 2, 12))
    copy = chroma.altered_copy(sequence, 1.2, rng)
    assert len(copy) == 188
    np.testing.assert_allclose(np.diff(copy, axis=0).mean(axis=0), 1.2, rtol=1e-2)


# means and autoencoder


def test_the_baseline_embeds_as_the_standardised_features_themselves(trained, songs):
    means = trained["means"][0]
    expected = means.standardizer.transform(songs.means)
    np.testing.assert_allclose(vectors_of(means, songs), expected, rtol=1e-6)


@pytest.mark.parametrize("sizes", [(52, 300, 200, 100, 50, 20), (52, 7), (52, 16, 4)])
def test_the_autoencoder_has_the_parameters_of_two_mirrored_halves(sizes):
    linear = sum((a + 1) * b for half in (sizes, sizes[::-1]) for a, b in itertools.pairwise(half))
    normalised = 2 * sum(2 * size for size in sizes[1:-1])
    network = AutoencoderNetwork(sizes)
    assert parameters(network) == linear + normalised
    assert network(torch.zeros(3, 52)).shape == (3, 52)


def test_code_and_output_of_the_autoencoder_are_linear():
    network = AutoencoderNetwork((52, 16, 4))
    for half in (network.encoder, network.decoder):
        hidden = half[:-1](torch.randn(4, half[0].in_features))
        doubled = half[-1](2 * hidden) - half[-1].bias
        torch.testing.assert_close(doubled, 2 * (half[-1](hidden) - half[-1].bias))


# conv-autoencoder


@settings(max_examples=15)
@given(
    seed=st.integers(0, 99), frames=st.integers(conv.FRAMES_PER_STEP, 90), key=st.integers(1, 11)
)
def test_pooled_codes_are_equal_in_every_key_whatever_the_weights(seed, frames, key):
    torch.manual_seed(seed)
    config = configure("conv-autoencoder", {"channels": 12, "code": 6})
    network = conv.ConvAutoencoderNetwork(config).double()
    sequence = np.random.default_rng(seed).random((frames, 2, 12))
    moved = network.pooled_codes(np.roll(sequence, key, axis=2))
    np.testing.assert_allclose(moved, network.pooled_codes(sequence), rtol=0, atol=1e-9)


def test_a_window_is_reconstructed_in_its_own_shape():
    network = conv.ConvAutoencoderNetwork(configure("conv-autoencoder", {"code": 6}))
    for steps in (1, 7):
        x = conv.as_image(torch.rand(2, steps * conv.FRAMES_PER_STEP, 2, 12))
        assert x.shape == (2, 24, steps * conv.FRAMES_PER_STEP)
        assert network(x).shape == x.shape
        assert network.encode(x).shape == (2, 6, steps)


def test_it_learns_to_reconstruct_other_music_better_than_each_windows_mean(rng, tmp_path):
    triad = np.isin(np.arange(12), [0, 4, 7])
    triads = np.stack([np.roll(triad, key) for key in range(12)]).astype(np.float16)
    music = [np.repeat(triads[rng.integers(12, size=20)], 6, axis=0) for _ in range(12)]
    music = [np.stack([each, each], axis=1) for each in music]
    songs = make_store(tmp_path / "features", make_table(works=12, each=1), sequences=music)
    config = {"channels": 24, "code": 16, "batch": 32, "learning_rate": 5e-3, "epochs": 6}
    _, result = train(songs, "conv-autoencoder", config=config)
    curve, figures = result.loss_curve, result.figures
    assert curve["validation"][-1] < curve["validation"][0]
    assert figures["validation_loss"] == curve["validation"].min()
    assert figures["validation_loss"] < 0.7 * figures["loss_of_the_mean"]


# version


def test_both_halves_of_a_version_vector_have_the_lengths_of_the_configuration(trained, songs):
    encoder = trained["version"][0]
    halves = np.split(vectors_of(encoder, songs), [encoder.projection.dimension], axis=1)
    lengths = [np.linalg.norm(half, axis=1) for half in halves]
    np.testing.assert_allclose(lengths[1] / lengths[0], 0.5, rtol=1e-5)
    np.testing.assert_allclose(np.hypot(*lengths), 1, rtol=1e-5)


@given(frames=st.integers(20, 60), padding=st.integers(1, 50), key=st.integers(0, 11))
def test_what_lies_beyond_the_end_has_no_effect_in_the_network(frames, padding, key):
    torch.manual_seed(frames)
    network = version.TwelveKeyNet(configure("version", QUICK["version"])).eval()
    x, lengths = version.padded([make_sequence("a work", "a file", frames)])
    beyond = torch.cat([x.roll(key, 3), torch.rand(1, padding, 2, 12)], dim=1)
    with torch.no_grad():
        longer, shorter = network(beyond, lengths), network(x, lengths)
    torch.testing.assert_close(longer, shorter, rtol=0, atol=1e-5)


def receptive_field(layers) -> int:
    """Frames that a feature depends on, from the width, stride and dilation of each layer."""
    field, step = 1, 1
    for width, stride, dilation in layers:
        field += (width - 1) * dilation * step
        step *= stride
    return field


def test_the_networks_are_as_large_as_their_docstrings_say():
    autoencoder = AutoencoderNetwork(configure("autoencoder", {}).sizes)
    assert f"{parameters(autoencoder):,} parameters" in autoencoder.__doc__
    small = conv.ConvAutoencoderNetwork(configure("conv-autoencoder", {}))
    large = version.TwelveKeyNet(configure("version", {}))
    convolutions = [layer.conv for layer in (large.near, large.down, *large.far)]
    first = [(large.KERNEL, 2, 1)]
    for network, start, others in ((small, [], small.encode[::2]), (large, first, convolutions)):
        layers = [(each.kernel_size[0], each.stride[0], each.dilation[0]) for each in others]
        text = " ".join(network.__doc__.split())
        assert f"{parameters(network):,} parameters" in text
        assert f"{receptive_field([*start, *layers])} frames" in text


@given(seed=st.integers(0, 999), strength=st.floats(0, 1), frames=st.integers(2, 90))
def test_an_augmented_stretch_is_chroma_of_the_length_asked_for(seed, strength, frames):
    x, lengths = version.padded([make_sequence("a", "b", frames), make_sequence("c", "d", 90)])
    views = [augment(x, lengths, 40, strength, torch.Generator().manual_seed(seed)) for _ in "ab"]
    assert views[0].shape == (2, 40, 2, 12)
    assert torch.isfinite(views[0]).all()
    assert views[0].min() >= 0
    assert torch.equal(*views)


def test_augmentation_of_strength_0_changes_time_only():
    x = torch.rand(1, 1, 2, 12).expand(3, 50, 2, 12)
    view = augment(x, torch.full((3,), 50), 40, 0, torch.Generator().manual_seed(0))
    torch.testing.assert_close(view, x[:, :40], atol=2e-4, rtol=1e-3)


def test_the_network_learns_to_tell_works_apart(songs, other_songs):
    longer = QUICK["version"] | {"min_steps": 12, "epochs": 4, "works": 12, "augmentation": 0.1}
    torch.manual_seed(1)
    sides = samples_of(songs, "chroma"), samples_of(other_songs, "chroma")
    _, curve, _ = version_training.fit_network(*sides, configure("version", longer), seed=1)
    assert curve["validation"].min() < curve["validation"][0] - 1
    assert curve["train"][-1] < curve["train"][0] - 1


def test_the_network_and_the_projection_also_learn_from_composed_works(songs, trained):
    config = QUICK["version"] | {"composed_works": 2}
    tensors = train(songs, "version", config=config, seed=SEED)[0].tensors()
    without = trained["version"][0].tensors()
    np.testing.assert_array_equal(tensors["motifs"], without["motifs"])
    for key in ("network.kernel", "projection.matrix"):
        assert not np.array_equal(tensors[key], without[key])


def test_works_of_one_performance_take_no_part(songs, tmp_path):
    noise = make_table(works=6, each=1, seed=9).with_columns(
        track_id="N_" + pl.col("track_id"), work_id="N_" + pl.col("work_id")
    )
    mixed = make_store(tmp_path / "features", pl.concat([make_table(works=12, each=2), noise]))
    encoder, _ = train(mixed, "version", config=QUICK["version"], seed=SEED)
    assert np.isfinite(vectors_of(encoder, songs)).all()
    assert encoder.motifs.count == 2 * 14  # from the 7 works with versions
    several = samples_of(mixed, "chroma").of_several()
    assert sorted(set(several.works)) == sorted(songs.table["work_id"].unique())


@pytest.mark.parametrize(
    ("each", "seed", "message"),
    [
        (2, 0, r"2 works of several performances to validate on, and the data has 1"),
        (1, SEED, "at least 2 works of several performances to learn from"),
    ],
)
def test_too_few_works_with_versions_are_told(each, seed, message, tmp_path):
    small = make_store(tmp_path / "features", works=12, each=each)
    with pytest.raises(ValueError, match=message):
        train(small, "version", config=QUICK["version"], seed=seed)
