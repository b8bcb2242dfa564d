"""The comparison measures every row on the same performances, whichever rows fail."""

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from command_line import covers_json
from feature_stores import QUICK, make_sequence, make_store, make_table
from prefect.logging import disable_run_logger
from rich.console import Console
from trees import copy_sample

from embedding import bundle as bundles
from embedding.data.features import FEATURE_NAMES
from embedding.data.store import FeatureStore
from embedding.encoders.registry import ENCODERS
from flows import plots
from flows.aggregate import aggregate
from flows.cli import tables
from flows.measuring.compare import COLUMNS, choose_performances, compare, split_training
from flows.measuring.rows import ROWS

#: Of the vectors of the version encoder.
PARTS = ("projection", "network")


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Music that is not in `small_sample`, which is trained on."""
    return copy_sample(tmp_path_factory.mktemp("data") / "measured", slice(1, None, 12))


@pytest.fixture(scope="module")
def result(data, small_sample, home, prefect_server):
    return compare(data, small_sample, seeds=2, config=QUICK, home=home)


def measured(result):
    return [row for row in result["rows"] if row["why_not"] is None]


def times(home: Path) -> dict[Path, int]:
    """When each row was measured, and each encoder trained."""
    files = [*home.rglob("row.json"), *home.rglob("bundle.json"), *home.rglob("vectors.parquet")]
    return {path: path.stat().st_mtime_ns for path in files}


def test_every_row_is_in_the_table_whether_it_could_be_measured_or_not(result):
    rows = [row["row"] for row in result["rows"]]
    assert [name for name in rows if not name.endswith(" alone")] == [row.name for row in ROWS]
    for row in result["rows"]:
        assert list(row) == list(COLUMNS)
        if row["why_not"] is None:
            assert 0 < row["map_low"] <= row["map"] <= row["map_high"] <= 1
            assert row["mr1"] >= 1
            # Ranks depend on the direction, so they don't make one number of a pair.
            is_reranked = "re-ranked" in row["row"]
            assert row["auc"] is None if is_reranked else 0 <= row["auc"] <= 1
            assert (row["hubness"] is None) == is_reranked
            assert 0 <= row["recall@k"] <= 1 <= row["k"]
            assert (row["depth"] is not None) == is_reranked
        else:
            assert row["row"] in ("Qmax", "Dmax")
            assert row["why_not"].startswith("needs essentia")
            assert row["map"] is None


def test_all_rows_measure_the_same_performances_and_no_training_works(result, home):
    seen = set()
    for path in home.glob("bundles/*/bundle.json"):
        seen |= set(bundles.load(path.parent).seen_works)
    queries = [pl.read_parquet(path) for path in home.glob("comparisons/rows/*/queries.parquet")]
    runs = sum(row["seeds"] for row in measured(result))
    assert runs - 3 <= len(queries) <= runs  # means are the same whatever the seed
    for each in queries:
        assert each["track_id"].equals(queries[0]["track_id"])
    assert not set(queries[0]["work_id"]) & seen
    assert len(queries[0]) == result["measured_on"]["queries"]
    assert "none was used for training" in result["measured_on"]["summary"]


def test_an_encoder_is_trained_with_each_seed_and_the_median_is_reported(result):
    encoders = {row.name: row.encoder for row in ROWS}
    for row in measured(result):
        is_trained = encoders[row["row"].partition(", ")[0]] in ENCODERS
        assert row["seeds"] == (2 if is_trained else 1)
        if is_trained:
            assert row["map"] == row["map_min"] <= row["map_max"]  # of two, the lower
            assert row["seed"] in (0, 1)
        else:
            assert row["map_min"] is row["map_max"] is row["seed"] is None
    spread = [row["map_max"] - row["map_min"] for row in measured(result) if row["seeds"] > 1]
    assert max(spread) > 0


def test_every_encoder_is_reranked_and_the_bundle_of_the_package_is_measured_too(result):
    rows = {row["row"]: row for row in measured(result)}
    for name in (*ENCODERS, "pretrained"):
        plain, reranked = rows[name], rows[f"{name}, re-ranked"]
        assert reranked["queries"] == plain["queries"] == result["measured_on"]["queries"]
        assert 1 < reranked["depth"] < (result["measured_on"]["performances"] - 1) / 5
    # The encoders differ, because not everything is aligned.
    assert len({row["map"] for name, row in rows.items() if "re-ranked" in name}) > 2
    assert rows["pretrained"]["map"] > rows["means"]["map"]


def test_a_vector_has_a_dimension_and_an_alignment_has_none(result):
    dimensions = {row["row"]: row["dimension"] for row in measured(result)}
    assert dimensions["means"] == dimensions["raw means"] == 52
    assert dimensions["version"] == 16
    assert dimensions["SiMPle"] is dimensions["K-Means"] is None


def test_each_part_of_the_vectors_is_measured_alone_with_the_same_encoders(result):
    rows = {row["row"]: row for row in measured(result)}
    for name in ("version", "pretrained"):
        whole, *parts = (rows[f"{name}{part}"] for part in ("", *(f", {p} alone" for p in PARTS)))
        assert sum(part["dimension"] for part in parts) == whole["dimension"]
        assert {part["seeds"] for part in parts} == {whole["seeds"]}
        assert len({row["map"] for row in (whole, *parts)}) > 1
    assert sum(name.endswith(" alone") for name in rows) == 4  # no other encoder has parts


def test_the_table_is_written_for_machines_and_drawn_for_people(result):
    table = pl.read_parquet(result["paths"]["table"])
    assert dict(table.schema) == COLUMNS
    assert table.to_dicts() == result["rows"]
    written = json.loads(Path(result["paths"]["comparison"]).read_text())
    assert written == {key: result[key] for key in ("rows", "measured_on")}
    assert [Path(path).name for path in result["paths"]["plots"]] == ["comparison.png"]


def test_a_second_run_measures_and_trains_nothing_again(result, data, small_sample, home):
    before = times(home)
    assert compare(data, small_sample, seeds=2, config=QUICK, home=home) == result
    assert times(home) == before


def test_after_a_killed_run_only_what_is_missing_is_measured(result, data, small_sample, home):
    (lost,) = home.glob("comparisons/rows/simple-*")
    before = times(home)
    shutil.rmtree(lost)
    shutil.rmtree(Path(result["paths"]["comparison"]).parent)
    again = compare(data, small_sample, seeds=2, config=QUICK, home=home)
    after = times(home)
    assert {path for path in after if after[path] != before[path]} == {lost / "row.json"}

    def but_for_time(rows):
        return [{key: row[key] for key in row if key != "seconds"} for row in rows]

    assert but_for_time(again["rows"]) == but_for_time(result["rows"])


def test_without_chroma_the_rows_that_need_it_say_so_and_the_others_are_measured(
    small_sample, prefect_server, tmp_path
):
    store = FeatureStore.open(aggregate(small_sample, home=tmp_path / "home"))
    table = tmp_path / "prototype.csv"
    store.table.select(
        pl.col("work_id").alias("work"), pl.col("track_id").alias("performance"), *FEATURE_NAMES
    ).write_csv(table)
    found = covers_json("compare", "--data", table, "--seeds", 1, "--home", tmp_path / "home")
    why = {row["row"]: row["why_not"] for row in found["rows"]}
    of_means = {"chance", "raw means", "means", "autoencoder", "K-Means"}
    assert {name for name in why if why[name] is None} == of_means
    assert "does not say how long" in why["track length"]
    assert "it has no chroma" in why["2DFTM"]
    assert "which has no chroma, and this encoder needs chroma" in why["version"]
    assert "has no chroma to align" in why["means, re-ranked"]
    assert "held out" in found["measured_on"]["summary"]


def test_training_works_and_performances_that_an_encoder_cannot_use_are_left_out(tmp_path):
    table = make_table(works=5, each=2)
    music = [make_sequence(*row) for row in table.select("work_id", "fingerprint").iter_rows()]
    music[7] = music[7][:9]
    make_store(tmp_path / "data", table, sequences=music)
    make_store(tmp_path / "training", make_table(works=2, each=2, seed=1))  # W_0 and W_1 too
    with disable_run_logger():
        tracks, about = choose_performances.fn(tmp_path / "data", tmp_path / "training", False)
    assert tracks == ["P_004", "P_005", "P_006", "P_008", "P_009"]
    assert (about["seen"], about["unusable"], about["queries"]) == (4, 1, 4)
    assert about["summary"] == (
        "Measured on 5 of 10 performances of songs: those whose works are not in the training "
        "data, without 1 that cannot be used."
    )


def test_a_comparison_needs_works_that_are_not_trained_on(tmp_path):
    make_store(tmp_path / "data", works=3, each=2)
    with pytest.raises(ValueError, match="No work has two performances among the 0 given"):
        choose_performances.fn(tmp_path / "data", tmp_path / "data", False)


def test_the_training_split_keeps_its_rows_and_sequences(tmp_path):
    store = make_store(tmp_path / "data", works=20, each=2)
    apart = FeatureStore.open(split_training.fn(tmp_path / "data", tmp_path))
    rows = np.flatnonzero(store.table["track_id"].is_in(apart.table["track_id"].implode()))
    assert 20 < len(rows) < 40
    assert apart.fingerprint == store.select(rows).fingerprint
    for i, row in enumerate(rows):
        np.testing.assert_array_equal(apart.sequence(i), store.sequence(int(row)))


def test_the_plot_shows_each_map_or_the_reason_for_its_absence(result):
    table = pl.DataFrame(result["rows"], schema=COLUMNS)
    ax = plots.comparison(table)
    assert [label.get_text() for label in ax.get_yticklabels()] == table["row"].to_list()
    drawn = ax.lines[0].get_xdata()
    np.testing.assert_array_equal(drawn, table["map"].fill_null(float("nan")).to_numpy())
    reasons = [reason for reason in table["why_not"] if reason]
    assert [text.get_text() for text in ax.texts] == reasons
    assert "2 seeds" in [text.get_text() for text in ax.get_legend().get_texts()]
    once = table.with_columns(seeds=1, map_min=None, map_max=None)
    labels = [text.get_text() for text in plots.comparison(once).get_legend().get_texts()]
    assert labels == ["MAP", "95 % interval"]


def test_the_cells_of_a_row_have_a_dash_for_a_missing_value():
    row = dict.fromkeys(COLUMNS) | {"row": "Qmax", "why_not": "needs essentia"}
    assert tables.comparison_cells(row) == ["Qmax", *["-"] * 7]
    row |= {"map": 0.5, "map_low": 0.4, "map_high": 0.6, "mr1": 3.0, "hits@1": 0.25}
    assert tables.comparison_cells(row) == [
        "Qmax", "0.50 (0.40-0.60)", "-", "3.0", "0.25", "-", "-", "-"
    ]  # fmt: skip
    row |= {"map_low": None, "map_min": 0.4, "map_max": 0.5, "dimension": 256}
    row |= {"recall@k": 0.875, "hubness": 1.26}
    assert tables.comparison_cells(row) == [
        "Qmax", "0.50", "0.40-0.50", "3.0", "0.25", "0.88", "1.3", "256"
    ]  # fmt: skip


def test_the_comparison_fits_a_terminal_of_80_columns(result, monkeypatch, capsys):
    monkeypatch.setattr(
        "flows.cli.printing.Console",
        partial(Console, force_terminal=True, width=80, color_system=None),
    )
    tables.show_comparison(result)
    lines = capsys.readouterr().out.splitlines()
    table = lines[: lines.index("")]
    assert max(map(len, table)) <= 80
    assert "R@" in table[0]
    assert "hubs" in table[0]


def test_a_comparison_needs_a_seed(tmp_path, prefect_server):
    with pytest.raises(ValueError, match="seeds is 0: train each encoder at least once"):
        compare(tmp_path, seeds=0)
