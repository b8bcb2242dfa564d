"""A publication renews its own sources in the collection, and keeps the others."""

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pytest
from catalogue import in_memory, make_points
from feature_stores import write_csv
from published import copied, served
from trees import Tree

import search
from embedding import bundle as bundles
from embedding.data.store import FeatureStore
from flows.add import add
from flows.aggregate import aggregate
from flows.collection import vectors
from flows.collection.served import current
from flows.collection.sources import Source, merge
from flows.embed import embed, embedded_before
from flows.pipeline import pipeline
from flows.publish import publish
from flows.train import train
from flows.workspace import Workspace


@pytest.fixture(scope="module")
def original(plain_flows) -> Iterator[Path]:
    """A workspace that published a.csv, then added b.csv."""
    with in_memory() as home:
        pipeline(write_csv(home / "a.csv"), encoder="means", home=home)
        add([write_csv(home / "b.csv", 4, 2, seed=1)], home=home)
        yield home


@pytest.fixture
def home(original) -> Iterator[Path]:
    with copied(original) as home:
        yield home


def names(home: Path) -> list[str]:
    found = current(search.connect(home=home), Workspace(home))
    return [source.name for source in found.sources]


def bundles_of(data: str, home: Path) -> list[str]:
    """The bundle of each performance of a data set."""
    return [
        payload["bundle"]
        for track_id, payload in served(home).items()
        if track_id.startswith(f"P_{data}")
    ]


def test_a_pipeline_renews_its_own_data_and_embeds_the_others_that_it_keeps(home):
    before = bundles_of("b", home)
    write_csv(home / "a.csv", 21, 2, seed=2)
    result = pipeline(home / "a.csv", encoder="means", home=home)
    assert result["kept"] == [str(home / "b.csv")]
    after = bundles_of("b", home)
    assert (len(bundles_of("a", home)), len(after)) == (42, 8)
    assert set(bundles_of("a", home)) == set(after) != set(before)
    assert names(home) == [str(home / "a.csv"), str(home / "b.csv")]


def test_only_leaves_out_the_others_and_says_so(home):
    result = pipeline(home / "a.csv", encoder="means", home=home, only=True)
    assert (result["kept"], result["left_out"]) == ([], [str(home / "b.csv")])
    assert not bundles_of("b", home)
    assert names(home) == [str(home / "a.csv")]


def test_what_is_left_out_by_name_is_left_out_and_nothing_else_changes(home):
    before = bundles_of("a", home)
    result = publish(leave_out=[home / "b.csv"], home=home)
    assert result["left_out"] == [str(home / "b.csv")]
    assert bundles_of("a", home) == before
    assert not bundles_of("b", home)
    for name, said in (("b", r"b\.csv cannot be left out, .* \(.*a\.csv\): `covers status`"),
                       ("a", r"Without .*a\.csv nothing would be left to search")):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            publish(leave_out=[home / f"{name}.csv"], home=home)


def test_a_workspace_that_moved_still_knows_its_sources(home):
    origin = search.connect(home=home).open().description.origin
    assert [source["data"] for source in origin["sources"]] == ["a.csv", "b.csv"]
    moved = home.rename(home.with_name("moved"))
    write_csv(moved / "b.csv", 5, 2, seed=1)
    latest = Workspace(moved).noted()
    assert add(home=moved)["added"] == 2
    assert Workspace(moved).noted() == latest  # `add` makes nothing the latest
    assert names(moved) == [str(moved / "a.csv"), str(moved / "b.csv")]


def test_a_link_is_the_data_set_that_it_leads_to(home):
    (home / "link.csv").symlink_to(home / "b.csv")
    assert add([home / "link.csv"], home=home)["added"] == 0
    assert len(names(home)) == 2


def test_embedding_publishes_nothing_and_publishing_takes_what_was_embedded_last(home):
    before = served(home)
    write_csv(home / "a.csv", 22, 2)
    features = aggregate(home / "a.csv", home=home)
    made = embed(home=home)
    assert vectors.origin(made)["features"] == str(features.relative_to(home))
    assert served(home) == before
    assert publish(home=home)["kept"] == [str(home / "b.csv")]
    assert len(bundles_of("a", home)) == 44


def test_a_bare_command_takes_the_data_and_not_what_was_trained_on(home):
    """Although the training data are aggregated last."""
    learned = write_csv(home / "t.csv", seed=5, work="W_t")
    pipeline(home / "a.csv", learned, encoder="means", home=home)
    made = embed(home=home)
    assert vectors.read(made)["track_id"].str.starts_with("P_a").all()
    assert bundles.load(train(encoder="means", home=home)).training.data == "t"


def test_an_aggregate_that_was_broken_off_is_not_the_latest(home, monkeypatch):
    tree = Tree(home / "c")
    for i in range(20):
        tree.add(f"W_{i}", f"P_c{i}")

    def break_off(dataset, read, *_, **__):
        assert len(read) == 2  # parts
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("flows.aggregate.assemble", break_off)
        with pytest.raises(KeyboardInterrupt):
            aggregate(tree.root, home=home)
    assert len(list(home.glob("features/*/parts/*/store.json"))) == 2
    assert vectors.read(embed(home=home))["track_id"].str.starts_with("P_a").all()
    assert len(FeatureStore.open(aggregate(tree.root, home=home))) == 20


def test_a_source_whose_features_are_missing_ends_a_pipeline_before_anything_is_made(home):
    before = served(home)
    [slot] = home.glob("features/b-*")
    shutil.rmtree(slot)
    write_csv(home / "a.csv", 23, 2)
    made = set(home.rglob("*"))
    said = (
        r"source .*b\.csv cannot be kept, because .*features/b-.* is missing: renew it with "
        r"`covers add .*b\.csv`, or publish without it, with `--only`"
    )
    with pytest.raises(ValueError, match=said):
        pipeline(home / "a.csv", encoder="means", home=home)
    assert set(home.rglob("*")) == made
    assert served(home) == before
    add([home / "b.csv"], home=home)  # as the message says
    assert pipeline(home / "a.csv", encoder="means", home=home)["kept"] == [str(home / "b.csv")]


def test_a_collection_of_unknown_origin_is_not_replaced_unasked(home):
    engine = search.connect(home=home)
    foreign = engine.publish(make_points(8), "other")
    said = f"{foreign.name} does not say what it was made of.*--only"
    with pytest.raises(ValueError, match=said):
        pipeline(home / "a.csv", encoder="means", home=home)
    with pytest.raises(ValueError, match=said):
        add([home / "a.csv"], home=home)
    assert engine.history()[0] == foreign.name
    assert pipeline(home / "a.csv", encoder="means", home=home, only=True)["published"]
    assert len(served(home)) == 40


def test_a_performance_in_two_sources_is_named_with_both_and_what_to_do(home):
    pl.read_csv(home / "a.csv").head(3).write_csv(home / "c.csv")
    said = r"P_a000 is in .*a\.csv and in .*c\.csv: take it out of one of them, .*--leave-out"
    with pytest.raises(ValueError, match=said):
        add([home / "c.csv"], home=home)
    assert len(names(home)) == 2


def test_vectors_of_two_bundles_are_not_published_together(home):
    features = aggregate(home / "b.csv", home=home, role=None)
    latest = Workspace(home).latest("vectors")
    other = embed(features, train(features, "means", home=home), home=home)
    said = r"is of means-.*, and .* is of means-.*: embed all of them"
    with pytest.raises(ValueError, match=said):
        publish([latest, other], home=home)


def test_an_upgrade_trains_again(home, monkeypatch):
    features = aggregate(home / "a.csv", home=home)
    first = train(features, "means", home=home)
    assert train(features, "means", home=home) == first
    monkeypatch.setattr(bundles, "TRAINING_VERSION", bundles.TRAINING_VERSION + 1)
    second = train(features, "means", home=home)
    assert second != first
    monkeypatch.setattr("flows.train.version", lambda _: "99.0")
    assert train(features, "means", home=home) not in (first, second)


def test_no_more_old_vectors_are_read_than_it_takes(home, monkeypatch):
    """The newest file first, and none if no vector is missing."""
    place = Workspace(home).latest("vectors").parent
    table = vectors.read(place / vectors.VECTORS)
    kind, bundle_id = table["vector"].dtype, place.name.rpartition("-")[0]
    for i in range(3):
        shutil.copytree(place, place.with_name(f"{place.name[:-1]}{i}x"))
    os.utime(place / vectors.VECTORS)
    read = []
    monkeypatch.setattr("flows.embed.read", lambda path: read.append(path) or vectors.read(path))
    ids = table.select(vectors.IDS)
    found = embedded_before(ids, kind, Workspace(home), bundle_id)
    assert found["vector"].equals(table["vector"])
    assert len(read) == 1
    assert embedded_before(ids.clear(), kind, Workspace(home), bundle_id).is_empty()
    assert len(read) == 1


def test_titles_that_were_corrected_since_are_those_of_the_features_embedded_last(home, tmp_path):
    """The vectors stay, but the features change."""
    tree = Tree(tmp_path / "c")
    for i in range(8):
        tree.add(f"W_{i // 2}", f"P_c{i}")
    add([tree.root], home=home)
    tree.title("W_0", "P_c0", perf_title="Hello")
    features = aggregate(tree.root, home=home)
    publish([embed(features, home=home)], home=home)
    assert served(home)["P_c0"]["title"] == "Hello"


def test_while_one_publishes_another_waits_and_nothing_is_lost(home):
    """Both read the current recipe before they publish."""
    for name, seed in (("c", 3), ("d", 4)):
        write_csv(home / f"{name}.csv", 4, 2, seed=seed)
    with ThreadPoolExecutor() as threads:
        runs = [threads.submit(add, [home / f"{name}.csv"], home=home) for name in "cd"]
    for run in runs:
        run.result()
    assert {Path(name).stem for name in names(home)} == {"a", "b", "c", "d"}
    assert len(served(home)) == 40 + 8 + 8 + 8


def test_an_encoder_of_chroma_refuses_a_table_of_means_before_any_work(home, tmp_path):
    made, table = set(home.rglob("*")), home / "a.csv"
    tree = Tree(tmp_path / "c")
    tree.add("W_0", "P_c0")
    said = r"a.* is a table of means, which has no chroma, and this encoder needs chroma: name"
    for data, options in (
        (table, {"bundle": Path("pretrained")}),
        (table, {"encoder": "version"}),
        (tree.root, {"encoder": "version", "training_data": table}),
    ):
        with pytest.raises(ValueError, match=said):
            pipeline(data, **options, home=home)
    features = FeatureStore.open(Workspace(home).latest("features"))
    for refused in (
        lambda: embed(features.path, bundles.PRETRAINED, home=home),
        lambda: train(features.path, "version", home=home),
    ):
        with pytest.raises(ValueError, match=said):
            refused()
    with pytest.raises(ValueError, match=r"source .*a\.csv cannot be kept, because it is a table"):
        pipeline(tree.root, bundle=Path("pretrained"), home=home)
    assert {path for path in home.rglob("*") if not path.name.endswith(".lock")} <= made


@pytest.mark.parametrize("there", [True, False], ids=["there", "gone"])
@pytest.mark.parametrize(
    ("old", "new", "if_there", "if_gone"),
    [
        ("abc", "abc", True, True),
        ("abc", "abcd", True, True),
        ("abc", "ab", False, True),
        ("abcd", "ab", False, False),
        ("abc", "def", False, False),
        ("", "abc", False, False),
    ],
)
def test_a_data_set_is_recognised_by_its_performances(tmp_path, there, old, new, if_there, if_gone):
    """All of them, or most of them if it is no longer where it was."""
    sources = []
    for name, ids in (("old", old), ("new", new)):
        table = pl.DataFrame(
            {name: [*ids] for name in vectors.IDS}, dict.fromkeys(vectors.IDS, str)
        )
        table.write_parquet(tmp_path / f"{name}.parquet")
        sources.append(Source(tmp_path / name, None, tmp_path / f"{name}.parquet"))
    if there:
        (tmp_path / "old_single_files").mkdir()  # the path of the data may be a prefix
    assert sources[0].is_within(sources[1]) == (if_there if there else if_gone)
    merged = merge(sources[:1], sources[1:])
    assert bool(merged.moved) == (not merged.kept) == sources[0].is_within(sources[1])


A, B, C = (Source(Path(f"/{name}"), None, Path(f"/v/{name}")) for name in "abc")


@pytest.mark.parametrize(
    ("current", "renewed", "options", "expected"),
    [
        ([], [A], {}, "A"),
        ([A, B], [B], {}, "AB"),
        ([A, B], [C], {}, "ABC"),
        ([A, B], [C], {"only": True}, "C"),
        ([A, B], [C], {"leave_out": [Path("/a")]}, "BC"),
        ([A, B, C], [], {"leave_out": [Path("/a"), Path("/c")]}, "B"),
        ([A, B], [B, C], {"only": True}, "BC"),
    ],
)
def test_sources_are_merged_in_their_order(current, renewed, options, expected):
    merged = merge(current, renewed, **options)
    assert merged.sources == [{"A": A, "B": B, "C": C}[name] for name in expected]
    others = [source for source in current if source not in renewed]
    assert {*merged.kept, *merged.left_out} == set(others)
    assert not set(merged.kept) & set(merged.left_out)
