"""Training learns, splits by work, keeps the best epoch, repeats itself and leaves no trace."""

import logging

import numpy as np
import polars as pl
import pytest
import torch
from feature_stores import QUICK, SEED, make_store, samples_of

from embedding.bundle import configure
from embedding.encoders.fitting import Diverged
from embedding.encoders.registry import ENCODERS
from embedding.encoders.version import training as version_training
from embedding.training import train

SMALL = {"sizes": (52, 32, 5), "batch_size": 4, "max_epochs": 60, "patience": 60}


@pytest.fixture(scope="module")
def small(songs):
    return train(songs, "autoencoder", config=SMALL, seed=SEED)


def works_of(result, side):
    return result.works.filter(side=side)["work_id"].to_list()


def validation_store(songs, result):
    return songs.select(songs.table["work_id"].is_in(works_of(result, "validation")))


def test_other_works_are_reconstructed_far_better_than_by_the_mean(small):
    figures = small[1].figures
    assert figures["loss_of_the_mean"] == pytest.approx(1, abs=0.4)
    assert figures["validation_loss"] < 0.5 * figures["loss_of_the_mean"]


def test_training_stops_when_validation_no_longer_improves_and_keeps_the_best_epoch(songs):
    hasty = SMALL | {"patience": 2, "learning_rate": 0.05}
    encoder, result = train(songs, "autoencoder", config=hasty)
    figures, curve = result.figures, result.loss_curve
    best = curve.row(int(curve["validation"].arg_min()), named=True)
    assert curve["epoch"].to_list() == list(range(1, figures["epochs"] + 1))
    assert figures["best_epoch"] == best["epoch"]
    assert figures["validation_loss"] == best["validation"]
    assert figures["epochs"] == figures["best_epoch"] + 2 < SMALL["max_epochs"]

    means = validation_store(songs, result).means
    features = torch.from_numpy(encoder.standardizer.transform(means)).float()
    with torch.no_grad():
        loss = (encoder.network(features) - features).square().mean().item()
    assert loss == pytest.approx(best["validation"], rel=1e-5)


@pytest.fixture
def sides(songs, trained):
    """Samples of the works on both sides of the version encoder's training."""
    validated = songs.table["work_id"].is_in(works_of(trained["version"][1], "validation"))
    return [samples_of(songs.select(mask), "chroma") for mask in (~validated, validated)]


def configured(**fields):
    return configure("version", QUICK["version"] | fields)


def test_the_averaged_weights_of_the_best_epoch_are_kept(sides):
    config = configured(epochs=3, min_steps=4, learning_rate=0.5)
    network, curve, figures = version_training.fit_network(*sides, config, seed=SEED)
    module = version_training.Contrast(config, 1)
    _, works = np.unique(sides[1].works, return_inverse=True)
    loss = module.loss(network.embed(sides[1].inputs), torch.from_numpy(works)).item()
    assert loss == pytest.approx(curve["validation"].min(), rel=1e-4)
    assert figures["validation_loss"] == curve["validation"].min()
    assert not network.training


def test_an_epoch_of_the_version_encoder_sees_about_every_performance(songs, monkeypatch):
    seen = []
    monkeypatch.setattr(
        version_training, "run", lambda *_args, **_options: seen.append(len(_args[1])) or (None, {})
    )
    samples = samples_of(songs, "chroma")
    for works, steps in ((2, 6), (12, 2)):  # 24 performances, two of each work in a batch
        config = configured(works=works, min_steps=2)
        version_training.fit_network(samples, samples, config, seed=0)
        assert seen.pop() == steps


def test_no_clique_is_split_when_the_loss_is_validated(monkeypatch, rng):
    monkeypatch.setattr(version_training, "VALIDATION_PERFORMANCES", 10)
    works = rng.integers(0, 8, 45)
    batches = version_training.whole_cliques([np.full(1, work) for work in works], works)
    assert len(batches) == 5
    for sequences, labels in batches:
        assert np.concatenate(sequences).tolist() == labels.tolist()
    parts = [set(labels.tolist()) for _, labels in batches]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 8


def test_the_caller_keeps_its_random_numbers_flags_and_threads(songs):
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    train(songs, "autoencoder", config=SMALL | {"max_epochs": 1})
    torch.testing.assert_close(torch.get_rng_state(), state)
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.get_num_threads() == threads


def test_a_work_is_fitted_or_validated_on_but_never_both(small, songs):
    result = small[1]
    fitted, validated = works_of(result, "train"), works_of(result, "validation")
    assert fitted
    assert validated
    assert sorted(fitted + validated) == sorted(songs.table["work_id"].unique())
    assert result.figures["train_performances"] == 2 * len(fitted)
    assert result.figures["validation_performances"] == 2 * len(validated)
    assert (result.data, result.fingerprint, result.seed) == ("songs", songs.fingerprint, SEED)


#: The parts that are fitted in closed form, which validation does not choose.
REFITTED = {
    "conv-autoencoder": ("projection",),
    "descriptors": ("projection",),
    "means": ("scaling",),
    "version": ("projection",),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_what_validation_chooses_is_not_fitted_to_its_works_and_the_rest_is(
    name, songs, trained, tmp_path
):
    encoder, result = trained[name]  # after one epoch, so validation had no choice
    # The validation works become other music, and the training works stay.
    validated = pl.col("work_id").is_in(works_of(result, "validation"))
    changed = songs.table.with_columns(
        mfcc_htk_0=pl.when(validated).then(1e3).otherwise("mfcc_htk_0"),
        fingerprint=pl.when(validated).then(pl.lit("other chroma")).otherwise("fingerprint"),
    )
    other = make_store(tmp_path / "changed", changed)
    again = train(other, name, config=QUICK[name], seed=SEED)[0].tensors()
    for key, tensor in encoder.tensors().items():
        equal = np.array_equal(again[key], tensor)
        assert equal != key.startswith(REFITTED.get(name, ("none",))), key


@pytest.mark.parametrize("name", ["descriptors", "version"])
def test_the_vectors_that_calibrate_are_made_before_refitting(name, songs, trained):
    encoder, result = trained[name]
    validated = validation_store(songs, result)
    vectors = result.validation["vector"].to_numpy()
    assert result.validation["track_id"].to_list() == validated.table["track_id"].to_list()
    assert np.abs(encoder.embed(validated.inputs("chroma")) - vectors).max() > 1e-3


def test_nothing_is_written_printed_or_logged(songs, tmp_path, monkeypatch, capfd, caplog):
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.DEBUG):
        train(songs, "autoencoder", config=SMALL | {"max_epochs": 2})
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")
    assert [each for each in caplog.records if "lightning" in each.name] == []


def test_a_terminal_shows_the_epochs(songs, monkeypatch, capfd):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    train(songs, "autoencoder", config=SMALL | {"max_epochs": 2})
    out, err = capfd.readouterr()
    assert out == ""
    assert "Epoch 1/1" in err


def test_a_loss_that_is_not_a_number_ends_the_training(songs):
    config = SMALL | {"learning_rate": 1e30}
    with pytest.raises(Diverged, match=r"loss became .* in epoch 1: try a smaller learning rate"):
        train(songs, "autoencoder", config=config)


@pytest.mark.parametrize(
    ("works", "each", "message"),
    [
        (1, 4, "at least 2 works, one of them to validate on, and songs has 1"),
        (2, 1, "at least 2 performances to learn from, and there is 1"),
        (0, 0, "at least 2 works, one of them to validate on, and songs has 0"),
    ],
)
def test_too_little_to_train_on_is_told(works, each, message, tmp_path):
    small = make_store(tmp_path / "features", works=works, each=each)
    with pytest.raises(ValueError, match=message):
        train(small, "autoencoder", config=SMALL)


@pytest.mark.parametrize(
    ("name", "warnings"),
    [
        ("means", ["left out P_011: it has features that are not finite"]),
        (
            "version",
            [
                "left out P_007: its chroma is silent throughout",
                "left out P_012: only 3.7 s of it sound, and at least 14 s are needed",
            ],
        ),
    ],
)
def test_unusable_performances_are_left_out_with_the_reason(
    name, warnings, songs, tmp_path, caplog
):
    sequences = songs.inputs("chroma")
    sequences[7] = np.zeros_like(sequences[7])
    sequences[12] = sequences[12][:20]
    novelty = pl.when(track_id="P_011").then(float("nan")).otherwise("novfn")
    table = songs.table.with_columns(novfn=novelty)
    holey = make_store(tmp_path / "features", table, sequences=sequences)
    with caplog.at_level(logging.WARNING):
        figures = train(holey, name, config=QUICK[name], seed=SEED)[1].figures
    assert [record.getMessage() for record in caplog.records] == warnings
    assert figures["unusable_performances"] == len(warnings)
    counted = figures["train_performances"] + figures["validation_performances"]
    assert counted == 24 - len(warnings)


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("autoencodre", None, "no encoder 'autoencodre': choose from means, autoencoder, conv-"),
        ("autoencoder", {"epochs": 3}, "no field 'epochs': choose from sizes, batch_size"),
        ("means", {"max_epochs": 3}, "means has no field 'max_epochs': it has none"),
        ("autoencoder", {"sizes": 52}, "does not configure autoencoder"),
    ],
)
def test_an_encoder_or_field_that_does_not_exist_is_refused(songs, name, config, message):
    with pytest.raises(ValueError, match=message):
        train(songs, name, config=config)
