"""The pictures: each function draws on axes, given or new, and returns them.

No pyplot, so nothing global changes and flows may draw in any thread.
"""

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import ArrayLike, NDArray

from embedding.metrics.clusters import Clusters
from embedding.metrics.separation import Separation

# Okabe and Ito's palette, which the colour-blind can tell apart: without its yellow, too pale
# for small dots.
BLUE, VERMILION, GREEN, SKY, PURPLE, ORANGE, BLACK = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#56B4E9",
    "#CC79A7",
    "#E69F00",
    "#000000",
)
GREY = "#9A9A9A"
# Colour and shape of the cliques on the map: the shape says it again.
MARKS = [
    (BLUE, "o"),
    (VERMILION, "s"),
    (GREEN, "^"),
    (PURPLE, "D"),
    (ORANGE, "v"),
    (SKY, "P"),
    (BLACK, "X"),
]
LONGEST_NAME = 20
LONGEST_REASON = 70


def separation(apart: Separation, ax: Axes | None = None) -> Axes:
    """Draw the distances of in-clique and out-of-clique pairs as two overlapping histograms.

    Each is scaled to its own number of pairs, of which there are many more out of cliques.
    """
    ax = ax or _new_axes()
    inside = apart.in_counts / apart.in_counts.sum()
    outside = apart.out_counts / apart.out_counts.sum()
    for shares, colour, name, mean, pairs in (
        (inside, BLUE, "in-clique", apart.in_clique, apart.in_counts.sum()),
        (outside, ORANGE, "out-of-clique", apart.out_of_clique, apart.out_counts.sum()),
    ):
        ax.stairs(
            shares,
            apart.edges,
            fill=True,
            color=colour,
            alpha=0.45,
            label=f"{pairs:,} {name} pairs, mean {mean:.3g}",
        )
        ax.stairs(shares, apart.edges, color=colour, linewidth=1.5)
        ax.axvline(mean, color=colour, linestyle="--", linewidth=1.2)
    ax.set_xlim(apart.edges[0], apart.edges[-1])
    ax.set_ylim(bottom=0)
    ax.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    ax.set_xlabel("distance between two performances")
    ax.set_ylabel("share of pairs in a bin")
    return _finish(ax, f"Distances: AUC {apart.auc:.3f}, overlap {apart.overlap:.3f}")


def loss_curve(curve: pl.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw the loss over epochs and mark the epoch that was kept, of least validation loss.

    Parameters
    ----------
    curve : pl.DataFrame
        A row an epoch: epoch, train, validation (both mean squared errors, finite).
    ax : Axes, optional
        New ones by default.
    """
    ax = ax or _new_axes()
    epoch, train, validation = (curve[name].to_numpy() for name in ("epoch", "train", "validation"))
    kept = int(np.argmin(validation))
    ax.plot(epoch, train, color=ORANGE, linewidth=1.8, label="training")
    ax.plot(epoch, validation, color=BLUE, linewidth=1.8, label="validation")
    ax.axvline(epoch[kept], color=GREY, linestyle="--", linewidth=1.2, zorder=1)
    ax.plot(
        epoch[kept],
        validation[kept],
        "o",
        color=BLUE,
        markersize=8,
        label=f"kept: epoch {epoch[kept]}, validation {validation[kept]:.4g}",
    )
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("epoch")
    ax.set_ylabel("loss (mean squared error)")
    return _finish(ax, "Training")


def reliability(sure: Mapping[str, Mapping[str, Any]], ax: Axes | None = None) -> Axes:
    """Draw the share of matches that are versions over the probability that was stated for them.

    Parameters
    ----------
    sure : mapping
        By the name of the evidence, what `flows.measuring.trial.certainty` gives.
    ax : Axes, optional
        Where to draw.
    """
    ax = ax or _new_axes()
    ax.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1.2, label="as stated")
    for (name, one), (colour, mark) in zip(sure.items(), MARKS, strict=False):
        curve = one["curve"]
        sizes = [12 + 40 * np.log10(row["pairs"]) for row in curve]
        stated, observed = ([row[key] for row in curve] for key in ("stated", "observed"))
        ax.plot(stated, observed, color=colour, linewidth=1.2)
        label = f"{name}: error {one['calibration_error']:.3f}"
        ax.scatter(stated, observed, sizes, color=colour, marker=mark, label=label, zorder=3)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(PercentFormatter(xmax=1))
    ax.set_xlabel("probability of being a version, as stated")
    ax.set_ylabel("share that are versions")
    return _finish(ax, "Ten likeliest matches of each query; larger marks are more pairs")


def elbow(found: Clusters, ax: Axes | None = None) -> Axes:
    """Draw the inertia of K-Means over k."""
    ax = _over_k(found, found.inertia, ax)
    ax.set_ylim(bottom=0)
    ax.set_ylabel("inertia (sum of squared distances)")
    return _finish(ax, "K-Means: inertia")


def silhouette(found: Clusters, ax: Axes | None = None) -> Axes:
    """Draw the mean silhouette of K-Means over k."""
    ax = _over_k(found, found.silhouette, ax)
    ax.set_ylabel("mean silhouette, between −1 and 1")
    return _finish(ax, "K-Means: silhouette")


def collection_map(vectors: ArrayLike, work_ids: Iterable[str], ax: Axes | None = None) -> Axes:
    """Draw all performances in the plane of the vectors' first two principal components.

    Principal components always come out the same, and their distances are never larger than the
    true ones, so what is apart here is apart; what is together need not be.

    Parameters
    ----------
    vectors : array_like, shape=(performances, dimension)
        Finite.
    work_ids : iterable of str
        One for each vector. The largest cliques are coloured, the rest is grey.
    ax : Axes, optional
        New ones by default.
    """
    ax = ax or _new_axes(width=8.0, height=5.2)
    points, shares = _principal_plane(np.asarray(vectors, dtype=np.float64))
    works = pl.Series("work", list(work_ids), dtype=pl.String)
    largest = (
        works.value_counts()
        .filter(pl.col("count") > 1)
        .sort("count", "work", descending=[True, False])
        .head(len(MARKS))
    )
    rest = ~works.is_in(largest["work"].implode()).to_numpy()
    size = float(np.clip(4000 / len(works), 4, 26))
    ax.scatter(points[rest, 0], points[rest, 1], s=size, color=GREY, alpha=0.45, linewidths=0)
    names = []
    for (colour, marker), (work, count) in zip(MARKS, largest.iter_rows(), strict=False):
        x, y = points[(works == work).to_numpy()].T
        ax.scatter(x, y, s=46, color=colour, marker=marker, edgecolors="white", linewidths=0.6)
        short = work if len(work) <= LONGEST_NAME else work[: LONGEST_NAME - 1] + "…"
        names.append(f"{short} ({count:,})")
    names.append(f"all others ({rest.sum():,})")
    ax.set_aspect("equal", adjustable="datalim")
    ax.set_xlabel(f"first principal component ({shares[0]:.0%} of the variance)")
    ax.set_ylabel(f"second principal component ({shares[1]:.0%})")
    _tidy(ax, "both")
    ax.set_title(f"{len(works):,} performances of {works.n_unique():,} works", loc="left")
    legend = ax.legend(
        [*ax.collections[1:], ax.collections[0]],
        ["·"] * len(names),
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        frameon=False,
        title="largest cliques",
        alignment="left",
    )
    for text, name in zip(legend.get_texts(), names, strict=True):
        # Set late, or an id that begins with an underscore would be left out; an id is no formula.
        text.set_parse_math(False)
        text.set_text(name)
    return ax


def comparison(table: pl.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw the MAP of each row with its interval, and how far it moves from seed to seed.

    Parameters
    ----------
    table : pl.DataFrame
        As `flows.measuring.compare.COLUMNS`. A row without MAP shows why instead.
    ax : Axes, optional
        New ones by default.
    """
    ax = ax or _new_axes(height=1.4 + 0.3 * len(table))
    place = np.arange(len(table))
    names = ("map", "map_low", "map_high", "map_min", "map_max")
    mean, low, high, least, most = (
        table[name].cast(pl.Float64).fill_null(float("nan")).to_numpy() for name in names
    )
    ax.hlines(place, low, high, color=BLUE, linewidth=1.5, label="95 % by resampling cliques")
    ax.hlines(place, least, most, color=ORANGE, linewidth=7, alpha=0.6, label="over the seeds")
    ax.plot(mean, place, "o", color=BLUE, markersize=6, label="MAP")
    for row, reason in zip(place, table["why_not"], strict=True):
        if reason is not None:
            short = reason if len(reason) <= LONGEST_REASON else reason[: LONGEST_REASON - 1] + "…"
            ax.text(0.01, float(row), short, color=GREY, va="center", parse_math=False)
    ax.set_yticks(place, table["row"].to_list())
    ax.set_ylim(len(table) - 0.5, -0.5)
    ax.set_xlim(0, 1)
    ax.set_xlabel("mean average precision")
    _finish(ax, "Side by side")
    ax.grid(visible=True, axis="x", color="#ECECEC", linewidth=0.8)
    return ax


def save(ax: Axes, path: Path) -> None:
    """Write the figure of these axes as PNG, whole or not at all."""
    figure = ax.get_figure(root=True)
    if figure is None:
        raise ValueError(f"The axes for {path} are on no figure: draw them on one first.")
    part = path.with_name(f".{path.name}.part")
    with warnings.catch_warnings():
        # Ids may be in any script; the font shows a box for what it lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(part, format="png", dpi=150, metadata={"Software": None})
    part.replace(path)


def _new_axes(width: float = 7.2, height: float = 4.4) -> Axes:
    return Figure(figsize=(width, height), layout="constrained").subplots()


def _finish(ax: Axes, title: str) -> Axes:
    """Add title and legend, above the axes where they cover nothing."""
    _tidy(ax, "y")
    ax.legend(
        loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=3, frameon=False, borderaxespad=0.2
    )
    ax.set_title(title, loc="left", pad=30)
    return ax


def _tidy(ax: Axes, grid: Literal["both", "y"]) -> None:
    ax.grid(visible=True, axis=grid, color="#ECECEC", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def _over_k(found: Clusters, values: tuple[float, ...], ax: Axes | None) -> Axes:
    ax = ax or _new_axes()
    best = found.ks.index(found.k)
    ax.plot(found.ks, values, "o-", color=BLUE, linewidth=1.8, markersize=5, label="each k")
    ax.plot(
        found.k,
        values[best],
        "D",
        color=VERMILION,
        markersize=9,
        label=f"chosen: k = {found.k}, silhouette {found.silhouette[best]:.3f}",
    )
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("number of clusters k")
    return ax


def _principal_plane(
    vectors: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return coordinates on the first two principal components, and their shares of variance."""
    if vectors.shape[1] == 1:
        vectors = np.hstack([vectors, np.zeros_like(vectors)])
    centred = vectors - vectors.mean(axis=0)
    variances, axes = np.linalg.eigh(centred.T @ centred)  # ascending
    axes = axes[:, [-1, -2]]
    # An axis has no direction of its own: let its largest component be positive.
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), [0, 1]])
    total = variances.sum()
    shares = np.maximum(variances[[-1, -2]], 0) / total if total > 0 else np.zeros(2)
    return centred @ axes, shares
