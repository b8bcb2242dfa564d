"""The autoencoder has the prototype's size, a linear code, and embeds each row by itself."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
import torch
from feature_stores import make_store
from hypothesis import given, settings
from hypothesis import strategies as st

from embedding.encoders.autoencoder import Autoencoder, AutoencoderConfig
from embedding.encoders.means import Means, MeansConfig
from embedding.encoders.scaling import Standardizer


def parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("autoencoder") / "features")


@pytest.fixture(scope="module")
def autoencoder(store):
    torch.manual_seed(0)
    return Autoencoder(standardizer=Standardizer.fit(store.table))


def test_the_default_network_has_207_172_parameters():
    assert parameters(Autoencoder()) == 207_172


@given(st.lists(st.integers(1, 40), min_size=1, max_size=4))
@settings(max_examples=20, deadline=None)
def test_the_parameters_are_those_of_two_mirrored_halves(hidden_and_code):
    sizes = (52, *hidden_and_code)
    linear = sum((a + 1) * b for half in (sizes, sizes[::-1]) for a, b in itertools.pairwise(half))
    normalised = 2 * sum(2 * size for size in sizes[1:-1])
    made = Autoencoder(AutoencoderConfig(sizes=sizes))
    assert parameters(made) == linear + normalised
    assert made(torch.zeros(3, 52)).shape == (3, 52)
    assert made.dimension == sizes[-1]


def test_code_and_output_are_linear(autoencoder):
    for half in (autoencoder.encoder, autoencoder.decoder):
        hidden = half[:-1](torch.randn(4, half[0].in_features))
        doubled = half[-1](2 * hidden) - half[-1].bias
        torch.testing.assert_close(doubled, 2 * (half[-1](hidden) - half[-1].bias))


def test_a_vector_is_the_code_of_the_standardised_features(autoencoder, store):
    features = torch.from_numpy(autoencoder.standardizer.transform(store.table)).float()
    with torch.no_grad():
        codes = autoencoder.encoder(features).numpy()
    vectors = autoencoder.embed(store)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, codes, rtol=1e-5, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(rows=st.lists(st.integers(0, 44), min_size=1, max_size=50))
def test_a_performance_has_the_same_vector_alone_and_in_any_batch(autoencoder, store, rows):
    together = autoencoder.embed(store)
    np.testing.assert_allclose(autoencoder.embed(store.select(rows)), together[rows], atol=1e-6)


def test_many_rows_are_embedded_in_slices_of_which_nothing_shows(autoencoder, store, monkeypatch):
    whole = autoencoder.embed(store)
    monkeypatch.setattr("embedding.encoders.autoencoder.ROWS", 7)
    np.testing.assert_allclose(autoencoder.embed(store), whole, atol=1e-6)


def test_no_performances_make_no_vectors(autoencoder, store):
    assert autoencoder.embed(store.select([])).shape == (0, 20)


def test_it_comes_back_from_tensors_without_drawing_random_numbers(autoencoder, store):
    state = torch.get_rng_state()
    again = Autoencoder.from_tensors(autoencoder.config, autoencoder.tensors())
    torch.testing.assert_close(torch.get_rng_state(), state)
    np.testing.assert_array_equal(again.embed(store), autoencoder.embed(store))


def test_tensors_of_another_network_are_refused(autoencoder):
    other = AutoencoderConfig(sizes=(52, 300, 200, 100, 50, 8))
    with pytest.raises(ValueError, match=r"encoder.12.weight has shape \(20, 50\), expected"):
        Autoencoder.from_tensors(other, autoencoder.tensors())


def test_a_configuration_survives_json():
    config = AutoencoderConfig(sizes=(52, 10, 3), learning_rate=0.01)
    assert AutoencoderConfig(**json.loads(json.dumps(dataclasses.asdict(config)))) == config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sizes": (40, 10)}, r"sizes are \[40, 10\], expected .* from the 52 features"),
        ({"sizes": (52,)}, "expected at least two"),
        ({"sizes": (52, 0, 3)}, r"sizes\[1\] is 0, expected a whole number of at least 1"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"max_epochs": 2.5}, "max_epochs is 2.5"),
        ({"patience": -1}, "patience is -1"),
        ({"learning_rate": 0}, "learning_rate is 0, expected a number above 0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        AutoencoderConfig(**settings)


def test_the_baseline_embeds_as_the_standardised_features_themselves(store):
    means = Means(MeansConfig(), Standardizer.fit(store.table))
    vectors = means.embed(store)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, means.standardizer.transform(store.table), rtol=1e-6)
    again = Means.from_tensors(MeansConfig(), means.tensors())
    np.testing.assert_array_equal(again.embed(store), vectors)
