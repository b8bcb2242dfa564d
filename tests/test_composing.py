"""The generator of works and versions, heard through search's own alignment."""

from dataclasses import fields

import numpy as np
import pytest

from embedding.audio import crema
from embedding.composing import ComposingConfig, compose, compose_work
from embedding.composing.chroma import chroma
from embedding.composing.composing import tune
from embedding.composing.spectrum import FRAME_RATE, render
from embedding.composing.textures import Instrument, Part
from embedding.data.chroma import CHROMA_RATE
from search.versions.alignment import similarities

CONFIG = ComposingConfig(seconds=(40, 45), works_per_style=6)
WORKS, SEED = 6, 2


@pytest.fixture(scope="module")
def composed():
    return compose(CONFIG, works=WORKS, versions=2, seed=SEED)


def test_sequences_are_as_encoders_take_them(composed):
    sequences, labels = composed
    assert labels.tolist() == [f"C_{work}" for work in range(WORKS) for _ in range(2)]
    for sequence in sequences:
        assert sequence.dtype == np.float32
        assert sequence.shape[1:] == (2, 12)
        assert 38 < len(sequence) / CHROMA_RATE < 55
        assert 0 <= sequence.min() <= 0.01
        assert 0.9 < sequence.max() <= 1


def test_a_work_is_the_same_in_any_process_and_with_any_other_works(composed):
    alone = compose_work(CONFIG, SEED, WORKS - 1, 2)
    assert [s.tobytes() for s in alone] == [s.tobytes() for s in composed[0][-2:]]


def test_versions_of_a_work_align_and_works_of_one_style_do_not(composed):
    sequences, _ = composed
    similarity = np.array([similarities(s, sequences, CHROMA_RATE)[0] for s in sequences])
    work = np.arange(len(sequences)) // 2
    same = work[:, None] == work
    np.fill_diagonal(similarity, np.nan)
    versions, others = similarity[same], similarity[~same]
    assert np.nanmedian(versions) > 2 * np.median(others)
    found = [work[np.nanargmax(row)] for row in similarity]
    assert np.mean(found == work) > 0.7


def test_works_of_one_style_share_everything_but_the_tune():
    config = ComposingConfig(works_per_style=3)
    one, two, _, other = (tune(config, 0, index) for index in range(4))
    assert one.style.rhythms[0].tolist() == two.style.rhythms[0].tolist()
    assert one.style.scale == two.style.scale
    assert one.style.rhythms[0].tolist() != other.style.rhythms[0].tolist()
    assert one.strains[0].tune.tolist() != two.strains[0].tune.tolist()


@pytest.mark.parametrize(
    ("midi", "from_a", "from_c"), [((60, 64, 67), (3, 7, 10), (0, 4, 7)), ((57,), (0,), (9,))]
)
def test_pitch_classes_start_where_those_of_recordings_do(midi, from_a, from_c):
    flute = Instrument(1.0 / np.arange(1, 13) ** 2, np.inf, 0.1)
    notes = np.array([[0, 8, pitch, 1.0] for pitch in midi])
    config = ComposingConfig(percussion=0.0, noise_db=(-90, -90), detuning_cents=0.0)
    rng = np.random.default_rng(0)
    energy = render([Part(notes, flute)], 8.0, np.arange(8.0), config, rng)
    assert len(energy) == np.ceil(8 * FRAME_RATE)
    hpcp, chords = chroma([energy])[0][5:-5].mean(axis=0)
    assert set(np.argsort(hpcp)[-len(midi) :]) == set(from_a)
    assert set(from_c) <= set(np.argsort(chords)[-3:])


def test_crema_of_many_recordings_is_that_of_each():
    rng = np.random.default_rng(0)
    magnitudes = [rng.exponential(size=(frames, 252)).astype(np.float32) for frames in (40, 7, 25)]
    for many, one in zip(crema.pitch_classes_of_many(magnitudes), magnitudes, strict=True):
        np.testing.assert_allclose(many, crema.pitch_classes(one), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("field", fields(ComposingConfig), ids=lambda field: field.name)
def test_every_field_of_the_configuration_is_checked(field):
    for wrong in (-100, "often", True, None, (5, 1), [], float("nan")):
        with pytest.raises(
            ValueError, match=f"^{field.name} is .*, expected .* (from|of at least)"
        ):
            ComposingConfig(**{field.name: wrong})


def test_a_range_may_be_a_list_as_in_json():
    assert ComposingConfig(seconds=[50, 60]) == ComposingConfig(seconds=(50, 60))
