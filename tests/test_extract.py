"""Recordings become features, which are kept as long as the recordings are the same."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import sounds

pytest.importorskip("av")
pytest.importorskip("essentia")

from embedding.audio import extract as extract_module
from embedding.audio.analysis import Analysis, analyse
from embedding.audio.extract import extract_all
from embedding.audio.recording import UnusableRecording
from embedding.data.dataset import open_dataset
from embedding.data.frames import read


@pytest.fixture(scope="module")
def wave(tmp_path_factory) -> Path:
    return sounds.write(tmp_path_factory.mktemp("wave") / "tune.wav", sounds.notes())


@pytest.fixture(scope="module")
def analysed(wave) -> Analysis:
    return analyse(wave)


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    length = min(len(a), len(b))
    a, b = a[:length], b[:length]
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def test_the_features_have_the_shapes_of_da_tacos(analysed):
    frames = 1 + 24 * 44100 // 4096
    for name in ("hpcp", "crema", "chroma_cens"):
        values = getattr(analysed, name)
        assert values.shape == (frames, 12)
        assert values.min() >= 0
        assert values.max() <= 1
    assert analysed.mfcc_htk.shape == (13, frames - 5)
    assert analysed.novfn.shape == analysed.snovfn.shape == (frames,)


def test_chroma_follows_the_notes(analysed):
    """The tune begins with A, C#, E, C# of half a second each; CREMA and CENS begin at C."""
    for second, semitone in ((0.25, 0), (0.75, 4), (1.25, 7), (1.75, 4)):
        frame = round(second * 44100 / 4096)
        assert analysed.hpcp[frame].argmax() == semitone
        assert analysed.chroma_cens[frame].argmax() == (semitone + 9) % 12
    # The chord model hears chords, here those of the notes around.
    assert np.median(analysed.crema.mean(axis=0)[[9, 1, 4]]) > 0.3


@pytest.mark.parametrize("semitones", [0.25, 0.45, -0.45])
def test_chroma_is_in_tune_with_a_recording_between_two_keys(analysed, tmp_path, semitones):
    played = analyse(sounds.write(tmp_path / "tape.wav", sounds.notes(transposed=semitones)))
    for name, least in (("hpcp", 0.97), ("chroma_cens", 0.97), ("crema", 0.8)):
        alike = np.median(cosines(getattr(played, name), getattr(analysed, name)))
        assert alike > least, name


def test_tempo_and_beats_are_those_of_the_notes(analysed):
    assert np.abs(analysed.tempos[:3, 0] - 120).min() < 3
    seconds = np.median(np.diff(analysed.beats)) * 4096 / 44100
    assert seconds == pytest.approx(60 / analysed.tempos[0, 0], rel=0.1)


@pytest.mark.parametrize(
    ("ending", "bits_per_second", "least"),
    [
        (".flac", 0, 0.999),
        (".mp3", 128_000, 0.98),
        (".mp3", 64_000, 0.97),
        (".ogg", 0, 0.95),
        (".opus", 96_000, 0.95),
        (".m4a", 128_000, 0.98),
    ],
)
def test_a_codec_hardly_changes_the_chroma(analysed, tmp_path, ending, bits_per_second, least):
    path = tmp_path / f"tune{ending}"
    sounds.write(path, sounds.notes(), bits_per_second=bits_per_second)
    found = analyse(path)
    assert np.median(cosines(found.hpcp, analysed.hpcp)) > least
    assert np.median(cosines(found.crema, analysed.crema)) > least


def test_loudness_offset_clipping_rate_and_channels_hardly_change_the_chroma(analysed, tmp_path):
    samples = sounds.notes()
    variants = {
        "quiet": samples * 0.05,
        "offset": samples * 0.5 + 0.3,
        "clipped": np.clip(samples * 4, -0.5, 0.5),
        "out of phase": np.stack([samples, -samples]),
        "left only": np.stack([samples, 0 * samples]),
    }
    for name, changed in variants.items():
        found = analyse(sounds.write(tmp_path / f"{name}.wav", changed))
        assert np.median(cosines(found.hpcp, analysed.hpcp)) > 0.9, name
    halved = analyse(sounds.write(tmp_path / "halved.wav", samples[::2], rate=22050))
    assert np.median(cosines(halved.hpcp, analysed.hpcp)) > 0.9


def test_blocks_do_not_show(wave, analysed, monkeypatch):
    """A recording longer than a block has the frames that it would have in one block."""
    monkeypatch.setattr("embedding.audio.analysis.BLOCK_FRAMES", 100)
    found = analyse(wave)
    np.testing.assert_allclose(found.hpcp, analysed.hpcp, atol=1e-4)
    np.testing.assert_allclose(found.mfcc_htk, analysed.mfcc_htk, atol=1e-3)
    np.testing.assert_allclose(found.crema, analysed.crema, atol=0.05)


def broken(path: Path, kind: str) -> Path:
    rng = np.random.default_rng(0)
    if kind == "noise":
        sounds.write(path, 0.1 * rng.standard_normal(20 * 44100))
    elif kind == "silence with a click":
        silence = np.zeros(20 * 44100)
        silence[44100] = 1
        sounds.write(path, silence)
    elif kind == "short":
        sounds.write(path, sounds.notes(seconds=0.3))
    elif kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("not a recording", encoding="utf-8")
    elif kind == "cut":
        sounds.write(path, sounds.notes(seconds=60))
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    return path


@pytest.mark.parametrize(
    ("kind", "ending", "reason"),
    [
        ("noise", ".wav", "it is noise: the mean of its HPCP is 0.[56]"),
        ("silence with a click", ".wav", "0.1 seconds of sound, and 5 are needed"),
        ("short", ".wav", "0.[34] seconds of sound"),
        ("empty", ".mp3", "cannot be decoded|holds no sound"),
        ("text", ".mp3", "cannot be decoded|holds no sound"),
        ("cut", ".wav", "cut short"),
        ("cut", ".flac", "cut short"),
        ("cut", ".mp3", "cut short"),
        ("cut", ".m4a", "cannot be decoded"),
    ],
)
def test_what_is_not_music_is_rejected_with_the_reason(tmp_path, kind, ending, reason):
    with pytest.raises(UnusableRecording, match=reason):
        analyse(broken(tmp_path / f"x{ending}", kind))


def test_fast_singing_with_a_wide_vibrato_is_music(tmp_path):
    singing = sounds.notes(seconds=8, note=0.2, vibrato=1)
    assert len(analyse(sounds.write(tmp_path / "singing.wav", singing)).hpcp) > 80


@pytest.fixture(scope="module")
def extracted(tmp_path_factory) -> Path:
    """Recordings of two works, one of them twice and one damaged, and their features."""
    root = tmp_path_factory.mktemp("extracted")
    recordings = root / "recordings"
    tags = {"title": "The Tune", "artist": "Somebody", "date": "1967-05-26"}
    sounds.write(recordings / "Tune" / "A - It.mp3", sounds.notes(seconds=8), tags=tags)
    sounds.write(recordings / "Tune" / "higher.wav", sounds.notes(seconds=8, transposed=3))
    sounds.write(recordings / "Other" / "other.wav", sounds.notes(sounds.OTHER, seconds=8))
    shutil.copy(recordings / "Other" / "other.wav", recordings / "Other" / "the same.wav")
    broken(recordings / "Other" / "broken.mp3", "text")
    extract_all(recordings, root / "features", workers=2)
    return root


@pytest.fixture
def copy(extracted, tmp_path) -> Path:
    shutil.copytree(extracted, tmp_path, dirs_exist_ok=True)
    return tmp_path


def again(root: Path, workers: int = 1):
    return extract_all(root / "recordings", root / "features", workers=workers)


def contents(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def test_features_are_a_data_set_with_titles_and_a_frame_rate(extracted):
    dataset = open_dataset(extracted / "features")
    assert dataset.name == "recordings"
    assert dataset.frame_rate == 44100 / 4096
    assert [(each.track_id, each.work_id) for each in dataset.performances] == [
        ("Other - other", "Other"),
        ("Tune - A - It", "Tune"),
        ("Tune - higher", "Tune"),
    ]
    assert all(len(read(each).hpcp) == 87 for each in dataset.performances)
    titles = dataset.metadata.select("work_title", "title", "artist", "year").rows()
    assert titles == [
        ("Other", "other", None, None),
        ("Tune", "The Tune", "Somebody", 1967),
        ("Tune", "higher", None, None),
    ]
    recordings = ["Other/other.wav", "Tune/A - It.mp3", "Tune/higher.wav"]
    assert dataset.metadata["recording"].to_list() == recordings


def test_the_columns_of_a_list_reach_the_data_set_with_their_types(copy):
    rows = ["path,work,ISRC,plays", "Tune/higher.wav,Tune,000123,7", "Other/other.wav,Other,,8"]
    (copy / "recordings" / "list.csv").write_text("\n".join(rows), encoding="utf-8")
    assert again(copy).analysed == 0
    dataset = open_dataset(copy / "features")
    assert dataset.columns == {"ISRC": "text", "plays": "whole number"}
    own = dataset.metadata.select("track_id", "ISRC", "plays").rows()
    assert own == [("Other - other", None, 8), ("Tune - higher", "000123", 7)]


def test_nothing_is_analysed_twice_and_rejects_keep_their_reasons(copy):
    made = again(copy)
    assert made.analysed == 0
    assert made.rejects["Other/the same.wav"] == "it has the same content as Other/other.wav"
    assert "cannot be decoded" in made.rejects["Other/broken.mp3"]
    assert contents(made.directory) == contents(copy / "features")


def test_only_files_that_changed_are_read_again(copy, monkeypatch):
    read = []
    digest = extract_module.hashlib.file_digest
    monkeypatch.setattr(
        extract_module.hashlib,
        "file_digest",
        lambda stream, name: (read.append(Path(stream.name).name), digest(stream, name))[1],
    )
    tune = copy / "recordings" / "Tune" / "higher.wav"
    samples = sounds.notes(seconds=8, transposed=5)
    sounds.write(tune, samples)  # of the same size
    assert again(copy).analysed == 1
    # One with the content of another recording is not known by its own.
    assert read == ["the same.wav", "higher.wav"]


def test_the_number_of_processes_changes_no_byte(extracted, tmp_path):
    extract_all(extracted / "recordings", tmp_path / "features", workers=1)
    assert contents(tmp_path / "features") == contents(extracted / "features")


def test_recordings_that_move_or_exchange_names_are_not_analysed_again(copy):
    tune, other = copy / "recordings" / "Tune", copy / "recordings" / "Other"
    (tune / "A - It.mp3").rename(other / "moved.mp3")
    (tune / "higher.wav").rename(tune / "x.wav")
    (other / "other.wav").rename(tune / "higher.wav")
    (tune / "x.wav").rename(other / "other.wav")
    (other / "the same.wav").unlink()
    made = again(copy)
    assert made.analysed == 0
    performances = open_dataset(copy / "features").performances
    assert [each.track_id for each in performances] == [
        "Other - moved",
        "Other - other",
        "Tune - higher",
    ]
    notes = {each.track_id: read(each).hpcp.mean(axis=0).argmax() for each in performances}
    assert notes["Other - other"] != notes["Other - moved"]


def test_a_recording_with_the_longest_id_can_move(copy):
    long = copy / "recordings" / ("x" * 120)
    long.mkdir()
    name = f"{'y' * (252 - 120 - 3)}.wav"
    (copy / "recordings" / "Tune" / "higher.wav").rename(long / name)
    assert again(copy).analysed == 0
    assert f"{long.name} - {name[:-4]}" in {
        each.track_id for each in open_dataset(copy / "features").performances
    }


def test_features_of_recordings_that_are_gone_are_deleted(copy):
    shutil.rmtree(copy / "recordings" / "Tune")
    again(copy)
    assert [each.work_id for each in open_dataset(copy / "features").performances] == ["Other"]
    assert not (copy / "features" / "Tune").exists()


def test_an_interrupted_run_continues(copy):
    """What is written, but not in the log, is analysed again; a torn line is left out."""
    log = copy / "features" / "extracted.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if "higher" not in line]
    log.write_text("".join(kept) + '{"path": "Tu', encoding="utf-8")
    assert again(copy).analysed == 1
    assert len(open_dataset(copy / "features").performances) == 3


def test_a_directory_of_something_else_is_not_touched(copy, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "W.h5").touch()
    with pytest.raises(ValueError, match="holds something that covers did not extract"):
        extract_all(copy / "recordings", tmp_path / "mine", workers=1)
    with pytest.raises(ValueError, match="lies within the recordings"):
        extract_all(copy / "recordings", copy / "recordings" / "features", workers=1)
