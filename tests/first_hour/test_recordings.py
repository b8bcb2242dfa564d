"""A folder of recordings goes in, and versions come out, although nothing is labelled."""

import json
from pathlib import Path

import sounds


def test_versions_in_a_folder_of_recordings_are_found_without_labels(covers, tmp_path):
    folder = tmp_path / "music"
    sounds.write(folder / "000011.mp3", sounds.notes(seconds=25))
    sounds.write(folder / "higher, slower.ogg", sounds.notes(seconds=28, transposed=3, note=0.55))
    sounds.write(folder / "other.flac", sounds.notes(sounds.OTHER, seconds=25))
    (folder / "damaged.mp3").write_text("not a recording", encoding="utf-8")
    made = covers("pipeline", "--data", folder, "--bundle", "pretrained")
    assert made.returncode == 0, made.stderr
    assert "1 rejected; nothing says which are of one work, so each is " in made.stderr
    assert "Nothing is measured. No work has two" in made.stdout
    assert f"Left out: {folder / 'damaged.mp3'}: it cannot be decoded" in made.stdout
    asked = covers("similar", "000011", "--rerank", "--json")
    best = json.loads(asked.stdout)["matches"][0]
    assert best["track_id"] == "higher, slower"
    assert best["alignment"]["transposition"] == 3
    assert best["probability"] > 0.9

    take = sounds.write(tmp_path / "take.ogg", sounds.notes(transposed=-2, note=0.46))
    asked = covers("similar", take, "--rerank", "--limit", "3", "--json")
    answer = json.loads(asked.stdout)
    assert answer["query"] == str(take)
    assert answer["matches"][-1]["track_id"] == "other"
    copy = tmp_path / "copy.mp3"
    copy.write_bytes((folder / "000011.mp3").read_bytes())
    judged = covers("same-work", copy, "000011", "--json")
    (match,) = json.loads(judged.stdout)["matches"]
    assert match["distance"] < 1e-5
    assert match["probability"] > 0.9

    extracted = covers("extract", folder, "--to", tmp_path / "features")
    assert extracted.returncode == 0, extracted.stderr
    assert f"Left out: {folder / 'damaged.mp3'}: it cannot be decoded" in extracted.stdout

    (folder / "new.wav").write_bytes((folder / "000011.mp3").read_bytes() + b" ")
    added = json.loads(covers("add", "--json").stdout)
    assert added["added"] == 1
    assert [reject["file"] for reject in added["rejected"]] == [str(folder / "damaged.mp3")]


def test_ten_recordings_without_labels_are_paired_by_tune(covers, tmp_path):
    folder = Path(__file__).resolve().parent.parent.parent / "sample" / "recordings"
    made = covers("pipeline", "--data", folder, "--bundle", "pretrained")
    assert made.returncode == 0, made.stderr
    listed = covers("duplicates", "--json")
    groups = [
        sorted(each["track_id"] for each in group["performances"])
        for group in json.loads(listed.stdout)["groups"]
    ]
    names = sorted(path.stem for path in folder.iterdir())
    assert sorted(groups) == [names[i : i + 2] for i in range(0, 10, 2)]
