"""Which recordings a folder holds, and what their paths and a CSV say of them."""

from pathlib import Path

import pytest

from embedding.audio.recordings import find_recordings, holds_recordings


@pytest.fixture
def folder(tmp_path):
    """Make a folder of empty files."""

    def make(*paths: str, csv: str | None = None) -> Path:
        for path in paths:
            file = tmp_path / "music" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        if csv is not None:
            (tmp_path / "music" / "list.csv").write_text(csv, encoding="utf-8")
        return tmp_path / "music"

    return make


def ids(found) -> list[tuple[str, str]]:
    return [(each.track_id, each.work_id) for each in found.found]


def test_folders_are_works_and_a_name_holds_artist_and_title(folder):
    found = find_recordings(folder("Yesterday/A - Y.mp3", "Yesterday/B.FLAC", "Help/C - D - E.ogg"))
    assert ids(found) == [
        ("Help - C - D - E", "Help"),
        ("Yesterday - A - Y", "Yesterday"),
        ("Yesterday - B", "Yesterday"),
    ]
    assert found.found[0].guessed == {
        "perf_title": "D - E",
        "perf_artist": "C",
        "work_title": "Help",
    }
    assert found.found[2].guessed == {"perf_title": "B", "work_title": "Yesterday"}
    assert found.works_from == "the folders"


@pytest.mark.parametrize(
    "paths",
    [("a.mp3", "b.mp3"), ("a.mp3", "W/b.mp3"), ("Artist/Album/a.mp3", "Artist/Other/b.mp3")],
)
def test_in_any_other_folder_each_recording_is_a_work_of_its_own(folder, paths):
    found = find_recordings(folder(*paths))
    assert [track == work for track, work in ids(found)] == [True, True]
    assert found.works_from == "nowhere"


def test_a_csv_says_which_works_there_are_and_names_what_is_missing(folder):
    rows = ["a.mp3,P_1,Yesterday,Ye,1965,007,3", "b/b.mp3,,Yesterday,,,12,", "c.mp3,,X,,,,"]
    csv = "\n".join(["Path, Track_ID,work,title,year,ISRC,plays", *rows])
    found = find_recordings(folder("a.mp3", "b/b.mp3", "d.mp3", csv=csv))
    assert ids(found) == [("P_1", "Yesterday"), ("b - b", "Yesterday")]
    assert [each.own for each in found.found] == [
        {"ISRC": "007", "plays": 3},
        {"ISRC": "12", "plays": None},
    ]
    assert found.found[0].listed == {
        "perf_title": "Ye",
        "release_year": "1965",
        "work_title": "Yesterday",
    }
    assert found.rejected == {
        "c.mp3": "list.csv lists it, but it is not there",
        "d.mp3": "list.csv does not list it",
    }


def test_recordings_that_would_share_an_id_or_a_file_name_are_rejected_by_name(folder):
    long = f"{'x' * 200}/{'é' * 50}.mp3"
    found = find_recordings(folder("a.mp3", "a.wav", long))
    assert ids(found) == [("a", "a")]
    assert found.rejected["a.wav"] == "it has the track id of a.mp3: list another in a CSV"
    assert found.rejected[long] == "its id is longer than 252 bytes: list a shorter one in a CSV"


def test_an_id_in_a_csv_cannot_lead_out_of_the_directory(folder):
    found = find_recordings(folder("a.mp3", csv="path,track_id\na.mp3,../../x\n"))
    assert found.found == ()
    assert "cannot be the name of a file" in found.rejected["a.mp3"]


def test_hidden_files_are_not_recordings(folder):
    found = find_recordings(folder("a.mp3", "._a.mp3", ".trash/b.mp3", "notes.txt"))
    assert [each.path for each in found.found] == ["a.mp3"]


def test_a_folder_of_features_does_not_hold_recordings(folder):
    assert holds_recordings(folder("W/a.mp3"))
    assert not holds_recordings(folder("a.mp3", "W/P.h5", "Z/b.mp3"))
    assert not holds_recordings(folder() / "missing")


def test_a_folder_without_recordings_is_refused_in_a_sentence(folder):
    with pytest.raises(ValueError, match=r"holds no recording: its files should end in .aac"):
        find_recordings(folder("notes.txt"))
    with pytest.raises(ValueError, match="There is no folder at"):
        find_recordings(Path("/nowhere"))


def test_two_lists_are_refused(folder):
    root = folder("a.mp3", csv="path\na.mp3\n")
    (root / "other.csv").write_text("path,work\na.mp3,W\n", encoding="utf-8")
    with pytest.raises(
        ValueError, match=r"several CSV tables with a column path \(list.csv, other"
    ):
        find_recordings(root)
