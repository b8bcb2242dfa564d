"""Which work a performance is of is said by a list, its folder, the metadata or the file."""

import json

import pytest
from trees import make_features, write_h5

from embedding.data.aggregate import aggregate_batch, assemble, parts, pending
from embedding.data.dataset import open_dataset


@pytest.fixture
def flat(tmp_path):
    """A folder of three files, of which the first names its work."""
    root = tmp_path / "flat"
    for name, label in (("P_1", "W_1"), ("P_2", None), ("P_3", None)):
        write_h5(root / f"{name}.h5", make_features(name), label=label)
    (root / "dataset.json").write_text('{"frame_rate": "44100/4096"}')
    return root


def works(root, work):
    """Aggregate a data set and return the work of each performance, and the rejects."""
    dataset = open_dataset(root)
    aggregate_batch(pending(dataset, parts(work)), dataset.frame_rate, work)
    made = assemble(dataset, parts(work), work / "store")
    assert pending(dataset, [made]) == ()
    rejects = dict(made.rejects.select("track_id", "reason").iter_rows())
    return dict(made.table.select("track_id", "work_id").iter_rows()), rejects


def test_in_a_flat_folder_the_works_come_from_the_files_the_metadata_or_a_list(flat, tmp_path):
    assert works(flat, tmp_path) == ({"P_1": "W_1", "P_2": "P_2", "P_3": "P_3"}, {})
    (flat / "my_metadata.json").write_text(json.dumps({"W_1": {"P_2": {"perf_title": "Mine"}}}))
    assert works(flat, tmp_path)[0] == {"P_1": "W_1", "P_2": "W_1", "P_3": "P_3"}
    (flat / "works.csv").write_text("path;work\nP_1.h5;W_9\nP_2;\n")
    assert works(flat, tmp_path)[0] == {"P_1": "W_9", "P_2": "W_1", "P_3": "P_3"}


def test_a_work_of_its_own_is_never_another_work_that_has_this_id(flat, tmp_path):
    (flat / "works.csv").write_text("track_id,work_id\nP_1,P_2\n")
    expected = {"P_1": "P_2", "P_2": "P_2 (no work)", "P_3": "P_3"}
    assert works(flat, tmp_path)[0] == expected


def test_a_file_that_was_moved_or_listed_is_of_the_new_work_and_that_is_told(
    tree, tmp_path, caplog
):
    tree.title("W_1", "P_11", perf_title="Evening", work_title="Day")
    tree.title("W_2", "P_21", work_title="Night")
    tree.path("W_1", "P_11").rename(tree.path("W_2", "P_11"))
    (tree.root / "corrections.csv").write_text("track_id,work_id\nP_31,W_1\n")
    found, rejects = works(tree.root, tmp_path)
    assert (found["P_11"], found["P_31"], found["P_12"], rejects) == ("W_2", "W_1", "W_1", {})
    assert "2 of 5 files name another work" in caplog.text
    assert "W_2/P_11.h5 names W_1 and is used as W_2" in caplog.text
    assert "corrections.csv does not list 4 of 5 performances" in caplog.text
    row = assemble(open_dataset(tree.root), parts(tmp_path), tmp_path / "s").table.row(
        0, named=True
    )
    assert (row["track_id"], row["title"], row["work_title"]) == ("P_11", "Evening", "Night")


@pytest.mark.parametrize(
    "heading", ["work_id,track_id", " Work_ID ; Track_ID ", "\ufeffwork\tfile"]
)
def test_a_list_is_read_whatever_its_separator_and_heading(make_tree, heading):
    tree = make_tree("acoss")
    tree.add("W_1", "P_1")
    separator = next(each for each in ",;\t" if each in heading)
    text = f"{heading}\n W_7 {separator} P_1.h5 \n\n"
    (tree.root / "annotations.csv").write_text(text, encoding="utf-8")
    (performance,) = open_dataset(tree.root).performances
    assert performance.work_id == "W_7"


def test_of_two_lists_the_one_of_these_data_is_used_and_else_one_is_asked_for(make_tree, caplog):
    tree = make_tree("acoss")
    tree.add("W_1", "P_1")
    others = {"a.csv": "work_id,track_id\nW_5,P_500\n", "notes.csv": "mood,track\nsad,P_1\n"}
    for name, text in others.items():
        (tree.root / name).write_text(text)
    assert open_dataset(tree.root).performances[0].work_id == "W_1"
    assert "a.csv names none of the performances here" in caplog.text
    assert "notes.csv is not a list of works: its columns are mood, track, where" in caplog.text

    (tree.root / "b.csv").write_text("work_id,track_id\nW_2,P_1\n")
    with pytest.raises(
        ValueError, match=r"annotations.csv and b.csv .*name one .*{\"list\": \"ann"
    ):
        open_dataset(tree.root)
    facts = {"frame_rate": 20, "list": "b.csv"}
    (tree.root / "dataset.json").write_text(json.dumps(facts))
    assert open_dataset(tree.root).performances[0].work_id == "W_2"
    for name, reason in (("c.csv", "does not lie beside it"), ("notes.csv", "is not a list")):
        (tree.root / "dataset.json").write_text(json.dumps(facts | {"list": name}))
        with pytest.raises(ValueError, match=reason):
            open_dataset(tree.root)


@pytest.mark.parametrize(
    ("text", "reasons"),
    [
        ("x.csv\n", {}),
        (
            "track_id,work\nP_1,W_1\nP_1,W_2\n",
            {"P_1": "works.csv lists it under W_1 and W_2: keep one of these rows"},
        ),
        (
            f"track_id,work\nP_2,W_1\n{'x' * 260},W_1\n../P_1,W_1\n",
            {
                "x" * 260: "works.csv lists it, but the file is missing",
                "../P_1": "works.csv lists it, but the file is missing",
            },
        ),
    ],
)
def test_what_a_list_says_wrong_is_rejected_by_name(flat, text, reasons):
    (flat / "works.csv").write_text(text)
    assert {each.track_id: each.reason for each in open_dataset(flat).rejects} == reasons


def test_a_list_of_other_files_is_refused(flat):
    (flat / "works.csv").write_text("track_id,work\nP_100,W_1\n")
    with pytest.raises(ValueError, match=r"names none of the 3 .*begins with P_100.* there is P_1"):
        open_dataset(flat)


def test_ids_that_are_unique_only_in_a_work_get_its_name_when_the_data_say_so(tmp_path):
    root = tmp_path / "shs"
    for work_id, number in (("0", "0"), ("0", "1"), ("1", "0"), ("1", "1")):
        path = root / work_id / f"{number}.h5"
        write_h5(path, make_features(work_id + number), label=work_id, track_id=number)
    (root / "dataset.json").write_text('{"frame_rate": 20}')
    with pytest.raises(ValueError, match=r'2 of 2 track ids .* example 0: .*{"ids": "work_track"}'):
        open_dataset(root)
    (root / "dataset.json").write_text('{"frame_rate": 20, "ids": "work_track"}')
    (root / "metadata.json").write_text('{"1": {"0": {"perf_title": "Mine"}}}')
    (root / "works.csv").write_text("track_id,work_id\n0/1,2\n1_1,2\n0,1\n")
    found, rejects = works(root, tmp_path)
    assert (found, rejects) == ({"0_0": "0", "0_1": "2", "1_0": "1", "1_1": "2"}, {})
    assert open_dataset(root).metadata["track_id"].to_list() == ["1_0"]


def test_a_name_that_is_not_text_is_rejected(flat):
    (flat / "P_2.h5").rename(flat / "P_\udce9.h5")
    (reject,) = open_dataset(flat).rejects
    assert (reject.track_id, reject.reason) == ("P_\ufffd", "its path is not UTF-8 text: rename it")
