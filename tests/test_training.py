"""Training learns, splits by work, keeps the best epoch, repeats itself and leaves no trace."""

import logging

import numpy as np
import polars as pl
import pytest
import torch
from feature_stores import TINY, make_store, make_table

from embedding import training
from embedding.bundle import ENCODERS, configure
from embedding.training import FITS, REFITS, Diverged, train

SMALL = {"sizes": (52, 32, 5), "batch_size": 8, "max_epochs": 25, "patience": 25}
CONFIGS = {
    "autoencoder": SMALL | {"max_epochs": 1},
    "conv-autoencoder": {"channels": 4, "code": 2, "steps": 2, "epochs": 1},
    "descriptors": {"dimension": 12, "tempos": (0.9,)},
    "version": TINY | {"epochs": 1},
}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("training") / "features")


@pytest.fixture(scope="module")
def trained(store):
    return train(store, "autoencoder", config=SMALL)


def works_of(result, side):
    return result.works.filter(side=side)["work_id"].to_list()


def weights_of(encoder):
    return np.concatenate([tensor.ravel() for _, tensor in sorted(encoder.tensors().items())])


def test_works_it_has_not_fitted_are_reconstructed_far_better_than_by_the_mean(trained):
    figures = trained[1].figures
    assert figures["loss_of_the_mean"] == pytest.approx(1, abs=0.4)
    assert figures["validation_loss"] < 0.5 * figures["loss_of_the_mean"]


def test_training_stops_when_validation_no_longer_improves_and_keeps_the_best_epoch(store):
    hasty = SMALL | {"patience": 2, "learning_rate": 0.05}
    encoder, result = train(store, "autoencoder", config=hasty)
    figures, curve = result.figures, result.loss_curve
    best = curve.row(int(curve["validation"].arg_min()), named=True)
    assert curve["epoch"].to_list() == list(range(1, figures["epochs"] + 1))
    assert figures["best_epoch"] == best["epoch"]
    assert figures["validation_loss"] == best["validation"]
    assert figures["epochs"] == figures["best_epoch"] + 2 < SMALL["max_epochs"]

    held = store.table.filter(pl.col("work_id").is_in(works_of(result, "validation")))
    features = torch.from_numpy(encoder.standardizer.transform(held)).float()
    with torch.no_grad():
        loss = (encoder(features) - features).square().mean().item()
    assert loss == pytest.approx(best["validation"], rel=1e-5)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(trained, store):
    torch.manual_seed(12345)  # what the caller has drawn before must not matter
    again, result = train(store, "autoencoder", config=SMALL)
    np.testing.assert_array_equal(weights_of(again), weights_of(trained[0]))
    assert result.loss_curve.equals(trained[1].loss_curve)
    other, _ = train(store, "autoencoder", config=SMALL, seed=1)
    assert not np.array_equal(weights_of(other), weights_of(trained[0]))


def test_the_caller_keeps_its_random_numbers_and_flags(store):
    state = torch.get_rng_state()
    train(store, "autoencoder", config=SMALL | {"max_epochs": 1})
    torch.testing.assert_close(torch.get_rng_state(), state)
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_work_is_fitted_or_validated_on_but_never_both(trained, store):
    result = trained[1]
    fitted, validated = works_of(result, "train"), works_of(result, "validation")
    assert fitted
    assert validated
    assert sorted(fitted + validated) == sorted(store.table["work_id"].unique())
    assert result.figures["train_performances"] == 3 * len(fitted)
    assert result.figures["validation_performances"] == 3 * len(validated)


@pytest.mark.parametrize("name", sorted(ENCODERS))
def test_nothing_is_fitted_to_the_validation_works(name, store, tmp_path):
    config = CONFIGS.get(name)
    encoder, result = train(store, name, config=config, seed=2)
    validated = pl.col("work_id").is_in(works_of(result, "validation"))
    louder = store.table.with_columns(
        mfcc_htk_0=pl.when(validated).then(1e3).otherwise("mfcc_htk_0"),
        fingerprint=pl.when(validated).then(pl.lit("other chroma")).otherwise("fingerprint"),
    )
    again, _ = train(make_store(tmp_path / "louder", louder), name, config=config, seed=2)
    before, after = encoder.tensors(), again.tensors()
    # Nothing was chosen of what is fitted again.
    chosen = [tensor for tensor in before if not (name in REFITS and "projection" in tensor)]
    assert chosen
    for tensor in chosen:
        np.testing.assert_array_equal(after[tensor], before[tensor])


def test_what_is_fitted_again_has_learnt_from_all_works_and_its_vectors_to_calibrate_by_have_not(
    store, tmp_path
):
    config = CONFIGS["version"]
    encoder, result = train(store, "version", config=config, seed=2)
    fitted = store.table["work_id"].is_in(works_of(result, "train")).to_numpy()
    unseen = store.select(~fitted)
    vectors = result.validation["vector"].to_numpy()
    assert result.validation["track_id"].to_list() == unseen.table["track_id"].to_list()
    with training._reproducible(2), training._quiet():
        before, _, _ = FITS["version"](
            store.select(fitted), unseen, configure("version", config), seed=2, progress=False
        )
    np.testing.assert_allclose(vectors, before.embed(unseen), atol=1e-5)
    assert np.abs(encoder.embed(unseen) - vectors).max() > 1e-3


def test_a_fit_is_known_for_every_encoder_that_can_be_loaded():
    assert set(FITS) == set(ENCODERS)


def test_it_is_said_what_it_was_trained_on(trained, store):
    result = trained[1]
    assert (result.data, result.fingerprint, result.seed) == ("songs", store.fingerprint, 0)


def test_an_epoch_takes_every_row_once_in_an_order_of_its_own():
    rows = torch.arange(10.0)[:, None]
    batches = training._Batches(rows, 4, torch.Generator().manual_seed(0))
    first, second = (torch.cat(list(batches)).flatten().tolist() for _ in range(2))
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert len(batches) == 3
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    assert torch.equal(torch.cat(list(training._Batches(rows, 4))), rows)


def test_nothing_is_written_printed_or_logged(store, tmp_path, monkeypatch, capfd, caplog):
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.DEBUG):
        train(store, "autoencoder", config=SMALL | {"max_epochs": 2}, progress=True)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")
    assert [each for each in caplog.records if "lightning" in each.name] == []


def test_a_terminal_shows_the_epochs_and_the_loss(store, monkeypatch, capfd):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    result = train(store, "autoencoder", config=SMALL | {"max_epochs": 2}, progress=True)[1]
    out, err = capfd.readouterr()
    assert out == ""
    assert "2/2" in err
    assert f"validation loss {result.loss_curve['validation'][-1]:.4g}" in err


def test_a_loss_that_is_no_number_ends_the_training(store):
    config = SMALL | {"learning_rate": 1e30}
    with pytest.raises(Diverged, match=r"loss became .* in epoch 1: try a smaller learning rate"):
        train(store, "autoencoder", config=config)


@pytest.mark.parametrize(
    ("works", "each", "message"),
    [
        (1, 4, "at least 2 works, one of them to validate on, and songs has 1"),
        (2, 1, "at least 2 performances to learn from, and there is 1"),
        (0, 0, "at least 2 works, one of them to validate on, and songs has 0"),
    ],
)
def test_too_little_to_train_on_is_said_so(works, each, message, tmp_path):
    small = make_store(tmp_path / "features", works=works, each=each)
    with pytest.raises(ValueError, match=message):
        train(small, "autoencoder", config=SMALL)


def test_a_performance_without_a_feature_is_named(tmp_path):
    table = make_table().with_columns(
        novfn=pl.when(track_id="P_011").then(float("nan")).otherwise("novfn")
    )
    with pytest.raises(ValueError, match="P_011 has nan as novfn"):
        train(make_store(tmp_path / "features", table), "means")


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        (
            "autoencodre",
            None,
            "no encoder 'autoencodre': choose from autoencoder, conv-autoencoder, des",
        ),
        ("autoencoder", {"epochs": 3}, "no setting 'epochs': choose from sizes, batch_size"),
        ("means", {"max_epochs": 3}, "means has no setting 'max_epochs': it has none"),
        ("autoencoder", {"sizes": 52}, "are no settings of autoencoder"),
    ],
)
def test_an_encoder_or_setting_that_does_not_exist_is_refused(store, name, config, message):
    with pytest.raises(ValueError, match=message):
        train(store, name, config=config)
