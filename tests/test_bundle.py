"""A bundle brings back the encoder that was saved, or says in a sentence why it cannot."""

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from feature_stores import make_store
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from embedding import bundle
from embedding.bundle import PRETRAINED, BadBundle, Training, load, save
from embedding.data.chroma import reduce
from embedding.data.dataset import open_dataset
from embedding.data.frames import read
from embedding.encoders.encoder import LOSS_CURVE_SCHEMA
from embedding.encoders.imported import IMPORTED, ImportedConfig
from embedding.encoders.registry import ENCODERS

SAMPLE = Path(__file__).resolve().parent.parent / "sample"


@pytest.fixture
def saved(trained, tmp_path):
    save(tmp_path / "saved", *trained["autoencoder"])
    return tmp_path / "saved"


@pytest.mark.parametrize("name", ENCODERS)
def test_what_is_saved_is_loaded_from_the_directory_alone(name, trained, songs, tmp_path):
    encoder, training = trained[name]
    made = save(tmp_path / "here" / "saved", encoder, training)
    shutil.move(tmp_path / "here" / "saved", tmp_path / "there")
    again = load(tmp_path / "there")
    assert (again.id, again.name, again.dimension) == (made.id, name, encoder.dimension)
    assert again.encoder.config == encoder.config
    some = songs.select([2, 3, 5])
    vectors = encoder.embed(some.inputs(encoder.input))
    np.testing.assert_array_equal(again.embed(some), vectors)
    assert again.training.figures == training.figures
    assert again.training.loss_curve.equals(training.loss_curve)
    assert again.training.works.equals(training.works)
    assert again.seen_works.to_list() == sorted(songs.table["work_id"].unique())
    (tmp_path / "there" / "weights.safetensors").unlink()
    head = bundle.head(tmp_path / "there")
    assert (head.id, head.name, head.inputs) == (made.id, name, made.inputs)


def test_a_large_store_is_embedded_in_batches_and_the_log_counts_them(
    trained, songs, tmp_path, caplog, monkeypatch
):
    made = save(tmp_path / "saved", *trained["autoencoder"])
    whole = made.embed(songs)
    assert not caplog.messages
    monkeypatch.setattr(bundle, "BATCH_PERFORMANCES", 10)
    with caplog.at_level("INFO"):
        np.testing.assert_allclose(made.embed(songs), whole, rtol=0, atol=1e-6)
    assert caplog.messages == [f"embedded {done} of 24" for done in (10, 20, 24)]


def test_a_bundle_is_plain_files_that_say_what_they_are(saved):
    names = "bundle.json loss_curve.csv validation.parquet weights.safetensors works.parquet"
    assert sorted(path.name for path in saved.iterdir()) == names.split()
    facts = facts_of(saved)
    assert facts["columns"][0] == "chroma_cens_0"
    assert len(facts["columns"]) == 52
    assert facts["training"]["data"] == "songs"
    assert facts["config"]["sizes"] == [52, 16, 4]
    assert {"python", "torch", "lightning", "safetensors"} <= set(facts["versions"])
    assert "id" not in facts


def with_mean(encoder, mean):
    return type(encoder).from_tensors(encoder.config, encoder.tensors() | {"scaling.mean": mean})


def test_equal_weights_have_equal_ids_and_others_another(trained, tmp_path):
    encoder, training = trained["means"]
    first = save(tmp_path / "a", encoder, training)
    assert first.id == save(tmp_path / "b", encoder, training).id
    assert first.id.startswith("means-")
    other = with_mean(encoder, encoder.standardizer.mean + 1e-12)
    assert save(tmp_path / "c", other, training).id != first.id


def test_a_bundle_is_replaced_as_a_whole_or_not_at_all_and_nothing_is_left_over(
    trained, saved, monkeypatch
):
    before = load(saved)
    with monkeypatch.context() as patched:
        full = OSError("full")
        patched.setattr(pl.DataFrame, "write_csv", lambda *_: (_ for _ in ()).throw(full))
        with pytest.raises(OSError, match="full"):
            save(saved, *trained["means"])
    assert load(saved).id == before.id
    assert save(saved, *trained["means"]).name == load(saved).name == "means"
    assert [path.name for path in saved.parent.iterdir()] == ["saved"]


def test_an_empty_directory_is_filled_and_a_foreign_one_is_not_touched(trained, tmp_path):
    save(tmp_path, *trained["means"])
    (tmp_path / "bundle.json").unlink()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ValueError, match="holds something that is not a bundle: save elsewhere"):
        save(tmp_path, *trained["means"])
    assert sorted(tmp_path.iterdir()) == before


def test_weights_that_are_not_finite_are_not_saved(trained, tmp_path):
    encoder, training = trained["means"]
    broken = with_mean(encoder, np.full(52, np.nan))
    with pytest.raises(ValueError, match=r"scaling\.mean of the means is not finite"):
        save(tmp_path / "saved", broken, training)
    assert list(tmp_path.iterdir()) == []


def facts_of(directory):
    return json.loads((directory / "bundle.json").read_text())


def edit(**changes):
    """Change facts in bundle.json."""

    def inflict(directory):
        (directory / "bundle.json").write_text(json.dumps(facts_of(directory) | changes))

    return inflict


def replace(name, text=None):
    """Replace the content of a file, or remove it."""
    return lambda directory: (
        (directory / name).unlink() if text is None else (directory / name).write_text(text)
    )


def change_weights(directory):
    weights = directory / "weights.safetensors"
    save_file({name: tensor + 1 for name, tensor in load_file(weights).items()}, weights)


def rehashed(lost=None, **changes):
    """Lose a tensor or change facts, with the hash that belongs to what is left."""

    def inflict(directory):
        facts, tensors = facts_of(directory) | changes, load_file(directory / "weights.safetensors")
        tensors.pop(lost, None)
        save_file(tensors, directory / "weights.safetensors")
        digest = bundle.content_digest("autoencoder", facts["config"], facts["columns"], tensors)
        edit(**changes, content=digest)(directory)

    return inflict


#: How a bundle of an autoencoder is damaged, and what is told.
DAMAGES = {
    "no manifest": (
        replace("bundle.json"),
        r"is not a bundle \(bundle.json is missing\). Train an encoder first, or use 'pretrained'",
    ),
    "no directory": (shutil.rmtree, "is not a bundle"),
    "manifest cut": (replace("bundle.json", '{"format": 1, '), "is damaged: "),
    "manifest of a list": (replace("bundle.json", "[]"), "is damaged: "),
    "key missing": (replace("bundle.json", '{"format": 3}'), "damaged: 'encoder' is missing. Del"),
    "later format": (edit(format=4), "has format 4, and this version reads 3. Delete it"),
    "unknown encoder": (edit(encoder="oracle"), "'oracle' that this version does not know. It kn"),
    "changed columns": (edit(columns=["loudness"]), "and configuration are not those that were"),
    "other columns": (rehashed(columns=["loudness"]), "was trained on other columns than are read"),
    "changed configuration": (edit(config={"sizes": [52, 16, 5]}), "configuration are not those t"),
    "weights missing": (replace("weights.safetensors"), "is damaged: .*weights"),
    "weights empty": (replace("weights.safetensors", ""), "is damaged: "),
    "weights of another": (change_weights, "weights and configuration are not those that were sav"),
    "tensor missing": (rehashed(lost="decoder.0.bias"), r"'decoder\.0\.bias' is missing"),
    "works missing": (replace("works.parquet"), "is damaged: .*works"),
    "vectors missing": (replace("validation.parquet"), "is damaged: .*validation"),
    "curve missing": (replace("loss_curve.csv"), "is damaged: .*loss_curve"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_bundle_is_refused_in_one_sentence(damage, saved):
    inflict, message = DAMAGES[damage]
    inflict(saved)
    with pytest.raises(BadBundle, match=message) as caught:
        load(saved)
    assert str(saved) in str(caught.value)
    assert "\n" not in str(caught.value)


@given(data=st.data())
def test_weights_cut_or_changed_anywhere_are_refused(data, trained, tmp_path_factory):
    directory = tmp_path_factory.mktemp("cut") / "saved"
    save(directory, *trained["autoencoder"])
    weights = directory / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        weights.write_bytes(content[:place])
    else:
        content[place] ^= 1 << data.draw(st.integers(0, 7))
        weights.write_bytes(content)
    try:
        loaded = load(directory)
    except BadBundle:
        return
    # What a flipped bit in the header's padding leaves unchanged may pass; nothing else.
    for name, tensor in trained["autoencoder"][0].tensors().items():
        np.testing.assert_array_equal(loaded.encoder.tensors()[name], tensor)


def test_a_performance_far_out_of_range_is_named(trained, songs, tmp_path):
    made = save(tmp_path / "saved", *trained["means"])
    huge = songs.table.with_columns(tempo=pl.when(track_id="P_013").then(1e300).otherwise("tempo"))
    with pytest.raises(ValueError, match=f"{made.id} gives no finite vector for P_013"):
        made.embed(make_store(tmp_path / "huge", huge))


@pytest.mark.parametrize(
    ("name", "reason"),
    [("descriptors", "only 3.7 s of it sound"), ("means", "it has features that are not finite")],
)
def test_an_unusable_performance_is_named(name, reason, trained, songs, tmp_path):
    made = save(tmp_path / "saved", *trained[name])
    sequences = songs.inputs("chroma")
    sequences[13] = sequences[13][:20]
    tempo = pl.when(track_id="P_013").then(float("nan")).otherwise("tempo")
    table = songs.table.with_columns(tempo=tempo)
    holey = make_store(tmp_path / "holey", table, sequences=sequences)
    assert list(made.unusable(holey)) == ["P_013"]
    with pytest.raises(ValueError, match=f"P_013 cannot be embedded: {reason}.*; leave it out."):
        made.embed(holey)


#: Similarity of P_249990 of the sample to two of its versions, and to another tune.
GOLDEN = {"P_196674": 0.6922, "P_239199": 0.5492, "P_327154": 0.5655}


def test_the_bundle_that_comes_with_the_package_embeds_as_it_did(tmp_path):
    dataset = open_dataset(SAMPLE)
    wanted = ["P_249990", *GOLDEN]
    sequences = {
        each.track_id: reduce(read(each), dataset.frame_rate)
        for each in dataset.performances
        if each.track_id in wanted
    }
    made = load(PRETRAINED)
    query, *others = made.encoder.embed([sequences[track_id] for track_id in wanted])
    assert made.dimension == 256
    np.testing.assert_allclose(np.array(others) @ query, [*GOLDEN.values()], rtol=0, atol=1e-4)


def elsewhere(directory, model="clews", dimension=2, known=()):
    """Save a bundle for vectors made elsewhere; each performance in `known` is its own work."""
    ids = pl.Series(known, dtype=pl.String)
    vector = pl.lit([1.0] * dimension, dtype=pl.Array(pl.Float32, dimension))
    validation = pl.DataFrame({"track_id": ids, "work_id": ids}).with_columns(vector=vector)
    works = validation.select("work_id", side=pl.lit("validation"))
    curve = pl.DataFrame(schema=LOSS_CURVE_SCHEMA)
    training = Training("songs", "of songs", 0, works, validation, curve, figures={})
    return save(directory, ImportedConfig(model, dimension), training)


@pytest.mark.parametrize("known", [[], ["P_1", "P_2"]])
def test_a_bundle_for_vectors_made_elsewhere_is_saved_and_loaded(known, tmp_path):
    elsewhere(tmp_path / "saved", dimension=3, known=known)
    made = load(tmp_path / "saved")
    assert made.is_imported
    assert (made.name, made.dimension) == (IMPORTED, 3)
    assert made.seen_works.to_list() == known
    assert made.training.validation["track_id"].to_list() == known
    assert made.training.loss_curve.is_empty()


def test_its_id_depends_on_the_model_and_its_dimension_alone(tmp_path):
    one = elsewhere(tmp_path / "one").id
    assert elsewhere(tmp_path / "two", known=["P_1"]).id == one
    assert elsewhere(tmp_path / "wider", dimension=3).id != one
    assert elsewhere(tmp_path / "other", model="Clews").id != one
    for model, shown in {"CLEWS (2025)": "CLEWS-2025", "a/../b": "a-b", "?": "model"}.items():
        assert elsewhere(tmp_path / "named", model=model).id.rpartition("-")[0] == shown


def test_it_can_neither_embed_nor_be_chosen_to_train(songs, tmp_path):
    made = elsewhere(tmp_path / "saved")
    for use in (made.embed, made.unusable):
        with pytest.raises(ValueError, match="songs cannot be embedded with this bundle, whose"):
            use(songs)
    with pytest.raises(ValueError, match="There is no encoder 'imported': choose from means"):
        bundle.configure(IMPORTED, {})


@pytest.mark.parametrize("config", [("", 2), ("clews", 0)])
def test_a_model_has_a_name_and_a_dimension(config):
    with pytest.raises(ValueError, match="components is not a model"):
        ImportedConfig(*config)
