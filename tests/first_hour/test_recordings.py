"""A folder of recordings goes in, and versions come out."""

import json

import sounds


def test_a_folder_of_recordings_becomes_a_collection_and_duplicates_pairs_them(covers, tmp_path):
    folder = tmp_path / "music"
    sounds.write(folder / "tune.mp3", sounds.notes(seconds=25))
    sounds.write(folder / "higher, slower.ogg", sounds.notes(seconds=28, transposed=3, note=0.55))
    sounds.write(folder / "other.flac", sounds.notes(sounds.OTHER, seconds=25))
    (folder / "damaged.mp3").write_text("not a recording", encoding="utf-8")
    made = covers("pipeline", "--data", folder, "--bundle", "pretrained")
    assert made.returncode == 0, made.stderr
    asked = covers("similar", "tune", "--rerank", "--json")
    best = json.loads(asked.stdout)["matches"][0]
    assert best["track_id"] == "higher, slower"
    assert best["alignment"]["transposition"] == 3

    extracted = covers("extract", folder, "--to", tmp_path / "features")
    assert extracted.returncode == 0, extracted.stderr
    assert "damaged.mp3" in extracted.stdout
    assert "cannot be decoded" in extracted.stdout

    (folder / "new.wav").write_bytes((folder / "tune.mp3").read_bytes() + b" ")
    added = covers("add", "--json")
    assert json.loads(added.stdout)["added"] == 1, added.stderr
