"""The plots show the numbers that they are given."""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from vectors import many

from embedding.metrics.clusters import cluster
from embedding.metrics.distances import Euclidean
from embedding.metrics.separation import separation
from flows import plots

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def collection():
    return many(n_cliques=12, noise_works=20)


@pytest.fixture(scope="module")
def clusters(collection):
    rows, works, _ = collection
    return cluster(rows, works, range(2, 7))


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_the_histogram_shows_both_distributions_as_shares_of_their_pairs(collection):
    apart = separation(Euclidean(collection[0]), *collection[1:])
    ax = plots.separation(apart)
    inside, outside = (ax.patches[index].get_data() for index in (0, 2))
    np.testing.assert_allclose(inside.values, apart.in_counts / apart.in_counts.sum())
    np.testing.assert_allclose(outside.values, apart.out_counts / apart.out_counts.sum())
    np.testing.assert_array_equal(inside.edges, apart.edges)
    assert legend(ax) == [
        f"252 in-clique pairs, mean {apart.in_clique:.3g}",
        f"5,104 out-of-clique pairs, mean {apart.out_of_clique:.3g}",
    ]
    figures = f"AUC {apart.auc:.3f}, overlap {apart.overlap:.3f}"
    assert ax.get_title("left") == f"Distances between vectors: {figures}"
    assert "not re-ranked" in ax.get_xlabel()


def test_the_loss_curve_marks_the_epoch_with_the_lowest_validation_loss():
    curve = pl.DataFrame(
        {"epoch": [1, 2, 3, 4], "train": [4.0, 3, 2, 1], "validation": [4.0, 2.5, 2.25, 3]}
    )
    ax = plots.loss_curve(curve, "contrastive loss")
    assert ax.get_ylabel() == "contrastive loss"
    train, validation, _, mark = ax.lines
    assert train.get_xydata().tolist() == [[1, 4], [2, 3], [3, 2], [4, 1]]
    assert validation.get_ydata().tolist() == [4.0, 2.5, 2.25, 3]
    assert mark.get_xydata().tolist() == [[3, 2.25]]
    assert legend(ax) == ["training", "validation", "lowest: 2.25 in epoch 3"]


@pytest.mark.parametrize("name", ["elbow", "silhouette"])
def test_plots_over_k_mark_the_best_k(clusters, name):
    values = clusters.inertia if name == "elbow" else clusters.silhouette
    ax = getattr(plots, name)(clusters)
    every, best = ax.lines
    assert every.get_xdata().tolist() == list(clusters.ks)
    assert every.get_ydata().tolist() == list(values)
    index = clusters.ks.index(clusters.k)
    assert best.get_xydata().tolist() == [[clusters.k, values[index]]]
    assert not best.get_clip_on()


def test_the_map_colours_the_largest_cliques_and_shows_everything_once():
    works = ["W_b"] * 3 + ["W_a"] * 3 + ["W_c"] * 2 + ["W_n", "W_o"]
    rows = np.random.default_rng(0).normal(size=(10, 4))
    ax = plots.collection_map(rows, works)
    assert legend(ax) == ["W_a (3)", "W_b (3)", "W_c (2)", "all others (2)"]
    others, first, *_ = ax.collections
    assert [len(each.get_offsets()) for each in ax.collections] == [2, 3, 3, 2]
    drawn = np.concatenate([first.get_offsets(), others.get_offsets()])
    rows = rows - rows.mean(axis=0)
    # The plane of the first two right singular vectors, each of which may point either way.
    plane = rows @ np.linalg.svd(rows)[2][:2].T
    np.testing.assert_allclose(np.abs(drawn), np.abs(plane[[3, 4, 5, 8, 9]]), atol=1e-12)


def test_the_map_always_comes_out_the_same(collection):
    first, again = (plots.collection_map(*collection[:2]) for _ in range(2))
    for one, other in zip(first.collections, again.collections, strict=True):
        np.testing.assert_array_equal(one.get_offsets(), other.get_offsets())


@pytest.mark.parametrize("rows", [np.zeros((4, 3)), np.arange(4.0)[:, None]])
def test_the_map_of_vectors_without_a_plane_is_drawn_nevertheless(rows, tmp_path):
    plots.save(plots.collection_map(rows, ["W_a", "W_a", "W_b", "W_c"]), tmp_path / "map.png")


def test_work_ids_are_shown_as_they_are_whatever_is_in_them(tmp_path):
    works = ["_hidden", "$x$ and $y", "讃美歌", "a name that goes on and on"] * 2 + ["_hidden"]
    ax = plots.collection_map(np.random.default_rng(0).normal(size=(9, 2)), works)
    assert legend(ax) == [
        "_hidden (3)",
        "$x$ and $y (2)",
        "a name that goes on… (2)",
        "讃美歌 (2)",
        "all others (0)",
    ]
    plots.save(ax, tmp_path / "map.png")


def test_a_saved_plot_replaces_an_earlier_file_and_always_has_the_same_bytes(clusters, tmp_path):
    path, again = tmp_path / "elbow.png", tmp_path / "again.png"
    path.write_text("an earlier file")
    for target in (path, again):
        plots.save(plots.elbow(clusters), target)
    assert imread(path).shape == (660, 1080, 4)
    assert set(tmp_path.iterdir()) == {path, again}
    assert path.read_bytes() == again.read_bytes()


def test_a_saved_plot_says_what_it_is_about_and_when_it_was_made(clusters, tmp_path):
    ax = plots.elbow(clusters)
    plots.save(ax, tmp_path / "elbow.png", "$my songs$, 92 performances", "version-1a2b")
    line = ax.get_figure().get_supxlabel()
    today = datetime.now(UTC).date().isoformat()
    assert line == f"$my songs$, 92 performances · version-1a2b · {today}"


def test_a_plot_is_drawn_on_the_axes_that_are_given(clusters):
    left, right = Figure().subplots(1, 2)
    assert plots.elbow(clusters, left) is left
    assert plots.silhouette(clusters, right) is right


CERTAINTY = {
    evidence: {
        "curve": [
            {"low": 0.0, "high": 0.1, "stated": 0.05, "observed": 0.2, "pairs": 10},
            {"low": 0.8, "high": 0.9, "stated": 0.85, "observed": 0.8, "pairs": 1000},
        ],
        "calibration_error": 0.1,
    }
    for evidence in ("distance", "reranked")
}


def test_the_reliability_plot_shows_the_observed_shares_and_the_number_of_matches():
    ax = plots.reliability(CERTAINTY)
    _, curve, _ = ax.lines
    assert curve.get_xydata().tolist() == [[0.05, 0.2], [0.85, 0.8]]
    assert legend(ax) == ["as stated", "vectors alone: error 0.100", "re-ranked: error 0.100"]
    _, below = ax.get_figure().axes
    assert [bar.get_height() for bar in below.patches] == [10, 1000] * 2
    assert [text.get_text() for text in below.texts] == ["10", "1000"] * 2
    assert all(0 <= bar.get_x() % 0.1 < 0.1 for bar in below.patches)


def test_no_legend_covers_the_data(collection, clusters):
    curve = pl.DataFrame({"epoch": [0, 1], "train": [2.0, 1], "validation": [2.0, 1.5]})
    for ax in (
        plots.separation(separation(Euclidean(collection[0]), *collection[1:])),
        plots.loss_curve(curve, "loss"),
        plots.reliability(CERTAINTY),
        plots.elbow(clusters),
        plots.silhouette(clusters),
        plots.collection_map(*collection[:2]),
    ):
        figure = ax.get_figure()
        figure.draw_without_rendering()
        assert not ax.get_legend().get_window_extent().overlaps(ax.get_window_extent())
        assert figure.bbox.containsx(ax.get_legend().get_window_extent().x1), legend(ax)


def test_drawing_does_not_import_pyplot_which_has_global_state(tmp_path):
    code = (
        "import sys; from pathlib import Path; from flows import plots;"
        "plots.save(plots.collection_map([[0.0, 1.0], [1.0, 0.0]], 'ab'), Path(sys.argv[1]));"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    picture = tmp_path / "map.png"
    subprocess.run([sys.executable, "-W", "error", "-c", code, picture], check=True, cwd=ROOT)
    assert picture.exists()
