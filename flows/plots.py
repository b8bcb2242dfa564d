"""Plots. Each function draws on the axes that it is given, or on new axes, and returns them.

pyplot is not used: it has global state, and flows can draw in any thread.
"""

import warnings
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import ArrayLike, NDArray

from embedding.data.atomic import whole_file
from embedding.metrics.clusters import Clusters
from embedding.metrics.separation import Separation

# The palette of Okabe and Ito (2008) for all kinds of colour vision. Its yellow is left out: it is
# too pale for small dots.
BLUE, VERMILION, ORANGE, GREY = "#0072B2", "#D55E00", "#E69F00", "#9A9A9A"
CAPTION_COLOUR = "#5F5F5F"
GRID_COLOUR = "#ECECEC"
#: Colour and shape of a series; the shape repeats what the colour says.
SERIES_MARKS = [
    (BLUE, "o"),
    (VERMILION, "s"),
    ("#009E73", "^"),
    ("#CC79A7", "D"),
    (ORANGE, "v"),
    ("#56B4E9", "P"),
    ("#000000", "X"),
]
#: What the kinds of evidence in metrics.json are called.
EVIDENCE = {"distance": "vectors alone", "reranked": "re-ranked"}
MAX_NAME_LENGTH = 20
MAX_REASON_LENGTH = 70


def separation(apart: Separation, ax: Axes | None = None) -> Axes:
    """Draw histograms of the distances of in-clique and of out-of-clique pairs.

    Each shows shares of its own pairs, because there are many more out-of-clique pairs.
    """
    ax = ax or _new_axes()
    for counts, colour, name, mean in (
        (apart.in_counts, BLUE, "in-clique", apart.in_clique),
        (apart.out_counts, ORANGE, "out-of-clique", apart.out_of_clique),
    ):
        pairs = counts.sum()
        shares = counts / pairs
        label = f"{pairs:,} {name} pairs, mean {mean:.3g}"
        ax.stairs(shares, apart.edges, fill=True, color=colour, alpha=0.45, label=label)
        ax.stairs(shares, apart.edges, color=colour, linewidth=1.5)
        ax.axvline(mean, color=colour, linestyle="--", linewidth=1.2)
    ax.set_xlim(apart.edges[0], apart.edges[-1])
    ax.set_ylim(bottom=0)
    ax.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    ax.set_xlabel("Euclidean distance between the vectors of two performances, not re-ranked")
    ax.set_ylabel("share of pairs per bin")
    title = f"Distances between vectors: AUC {apart.auc:.3f}, overlap {apart.overlap:.3f}"
    return _finish(ax, title)


def loss_curve(curve: pl.DataFrame, loss: str, ax: Axes | None = None) -> Axes:
    """Draw training and validation loss, and mark the epoch with the lowest validation loss.

    Parameters
    ----------
    curve : pl.DataFrame
        A row per epoch, with columns epoch, train and validation (finite).
    loss : str
        What the loss is, as `Encoder.loss` says it.
    ax : Axes, optional
        New axes by default.
    """
    ax = ax or _new_axes()
    epoch, train, validation = (curve[name].to_numpy() for name in ("epoch", "train", "validation"))
    best = int(np.argmin(validation))
    ax.plot(epoch, train, color=ORANGE, linewidth=1.8, label="training")
    ax.plot(epoch, validation, color=BLUE, linewidth=1.8, label="validation")
    ax.axvline(epoch[best], color=GREY, linestyle="--", linewidth=1.2, zorder=1)
    label = f"lowest: {validation[best]:.4g} in epoch {epoch[best]}"
    ax.plot(epoch[best], validation[best], "o", color=BLUE, markersize=8, label=label)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("epoch")
    ax.set_ylabel(loss)
    return _finish(ax, "Training and validation loss")


def reliability(certainty: Mapping[str, Mapping[str, Any]]) -> Axes:
    """Draw the share of matches that are versions against the stated probability.

    Bars below show the number of matches in each bin of the probability.

    Parameters
    ----------
    certainty : mapping
        What `flows.measuring.trial.certainty` returns, by the kind of evidence.
    """
    figure = Figure(figsize=(7.2, 5.2), layout="constrained")
    ax, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    ax.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1.2, label="as stated")
    width = 0.9 / len(certainty)  # of a bin
    series = zip(certainty.items(), SERIES_MARKS, strict=False)
    for i, ((evidence, known), (colour, mark)) in enumerate(series):
        curve = pl.DataFrame(known["curve"])
        name = EVIDENCE.get(evidence, evidence)
        label = f"{name}: error {known['calibration_error']:.3f}"
        stated, observed = curve["stated"], curve["observed"]
        ax.plot(stated, observed, color=colour, marker=mark, linewidth=1.2, label=label)
        bins = curve["high"] - curve["low"]
        places = curve["low"] + bins * (0.05 + width * (i + 0.5))
        bars = below.bar(places, curve["pairs"], bins * width, color=colour, alpha=0.8)
        below.bar_label(bars, padding=1, fontsize=6)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(PercentFormatter(xmax=1))
    below.set_yscale("log")
    below.margins(y=0.2)
    below.set_ylabel("matches")
    below.set_xlabel("stated probability of being a version")
    ax.set_ylabel("share that are versions")
    _tidy(below, "y")
    return _finish(ax, "Probabilities of the ten likeliest matches of each query")


def elbow(found: Clusters, ax: Axes | None = None) -> Axes:
    """Draw the inertia of K-Means over k."""
    ax = _over_k(found, found.inertia, ax)
    ax.set_ylim(0, 1.08 * max(found.inertia))
    ax.set_ylabel("inertia (sum of squared distances)")
    return _finish(ax, "K-Means: inertia")


def silhouette(found: Clusters, ax: Axes | None = None) -> Axes:
    """Draw the mean silhouette of K-Means over k."""
    ax = _over_k(found, found.silhouette, ax)
    ax.set_ylabel("mean silhouette, between −1 and 1")
    return _finish(ax, "K-Means: silhouette")


def collection_map(vectors: ArrayLike, work_ids: Iterable[str], ax: Axes | None = None) -> Axes:
    """Draw all performances on the first two principal components of their vectors.

    Distances in this plane are never larger than the true distances: performances that are apart
    here are apart, but performances that are close here can be far from each other.

    Parameters
    ----------
    vectors : array_like, shape=(performances, dimension)
        Finite.
    work_ids : iterable of str
        The work of each vector. The largest cliques are coloured, all others are grey.
    ax : Axes, optional
        New axes by default.
    """
    ax = ax or _new_axes(width=8.0, height=5.2)
    points, shares = _principal_plane(np.asarray(vectors, dtype=np.float64))
    works = pl.Series("work", list(work_ids), dtype=pl.String)
    largest = (
        works.value_counts()
        .filter(pl.col("count") > 1)
        .sort("count", "work", descending=[True, False])
        .head(len(SERIES_MARKS))
    )
    rest = ~works.is_in(largest["work"].implode()).to_numpy()
    size = float(np.clip(4000 / len(works), 4, 26))
    ax.scatter(points[rest, 0], points[rest, 1], s=size, color=GREY, alpha=0.45, linewidths=0)
    names = []
    for (colour, marker), (work, count) in zip(SERIES_MARKS, largest.iter_rows(), strict=False):
        x, y = points[(works == work).to_numpy()].T
        ax.scatter(x, y, s=46, color=colour, marker=marker, edgecolors="white", linewidths=0.6)
        names.append(f"{_shortened(work, MAX_NAME_LENGTH)} ({count:,})")
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
        # Matplotlib leaves out labels that begin with an underscore, so names are set afterwards.
        text.set_parse_math(False)
        text.set_text(name)
    return ax


def comparison(table: pl.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw the MAP of each row, its confidence interval and, with several seeds, its range.

    Parameters
    ----------
    table : pl.DataFrame
        With the columns `flows.measuring.compare.COLUMNS`. A row without MAP shows the reason.
    ax : Axes, optional
        New axes by default.
    """
    ax = ax or _new_axes(height=1.4 + 0.27 * len(table))
    y = np.arange(len(table))
    names = ("map", "map_low", "map_high", "map_min", "map_max")
    mean, low, high, smallest, largest = (
        table[name].cast(pl.Float64).fill_null(float("nan")).to_numpy() for name in names
    )
    ax.plot(mean, y, "o", color=BLUE, markersize=6, label="MAP", zorder=3)
    ax.hlines(y, low, high, color=BLUE, linewidth=1.5, label="95 % interval")
    if not np.isnan(smallest).all():
        label = f"{max(filter(None, table['seeds']))} seeds"
        ax.hlines(y, smallest, largest, color=ORANGE, linewidth=7, alpha=0.6, label=label, zorder=1)
    for row, reason in zip(y, table["why_not"], strict=True):
        if reason is not None:
            text = _shortened(reason, MAX_REASON_LENGTH)
            ax.text(0.01, float(row), text, color=GREY, va="center", parse_math=False).set_bbox(
                {"facecolor": "white", "edgecolor": "none", "pad": 1}
            )
    ax.set_yticks(y, table["row"].to_list())
    ax.set_ylim(len(table) - 0.5, -0.5)
    ax.set_xlim(0, 1)
    ax.set_xlabel("mean average precision")
    _finish(ax, "Encoders and measures compared")
    ax.grid(visible=True, axis="x", color=GRID_COLOUR, linewidth=0.8)
    return ax


def save(ax: Axes, path: Path, *about: str) -> None:
    """Write the figure of these axes as a PNG, atomically.

    `about` says which data and encoder it is about. A line below the axes shows it with the date.
    """
    figure = ax.get_figure(root=True)
    if figure is None:
        raise ValueError(f"The axes for {path} are not on a figure. Draw on axes of a figure.")
    if about:
        line = " · ".join([*about, datetime.now(UTC).date().isoformat()])
        text = figure.supxlabel(line, x=0.01, ha="left", fontsize=8, color=CAPTION_COLOUR)
        text.set_parse_math(False)
    with whole_file(path) as part, warnings.catch_warnings():
        # Ids can be in any script. The font shows a box for a character that it lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(part, format="png", dpi=150, metadata={"Software": None})


def _new_axes(width: float = 7.2, height: float = 4.4) -> Axes:
    return Figure(figsize=(width, height), layout="constrained").subplots()


def _finish(ax: Axes, title: str) -> Axes:
    """Add the title and the legend above the axes, where they do not cover data."""
    _tidy(ax, "y")
    ax.legend(
        loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=3, frameon=False, borderaxespad=0.2
    )
    ax.set_title(title, loc="left", pad=30)
    return ax


def _tidy(ax: Axes, grid: Literal["both", "y"]) -> None:
    ax.grid(visible=True, axis=grid, color=GRID_COLOUR, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _over_k(found: Clusters, values: tuple[float, ...], ax: Axes | None) -> Axes:
    ax = ax or _new_axes()
    best = found.ks.index(found.k)
    ax.plot(found.ks, values, "o-", color=BLUE, linewidth=1.8, markersize=5, label="all k")
    label = f"best: k = {found.k}, silhouette {found.silhouette[best]:.3f}"
    ax.plot(found.k, values[best], "D", color=VERMILION, markersize=9, label=label, clip_on=False)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("number of clusters k")
    return ax


def _principal_plane(
    vectors: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coordinates on the first two principal components, and their shares of the variance."""
    if vectors.shape[1] == 1:
        vectors = np.hstack([vectors, np.zeros_like(vectors)])
    centred = vectors - vectors.mean(axis=0)
    variances, axes = np.linalg.eigh(centred.T @ centred)  # ascending
    axes = axes[:, [-1, -2]]
    # The sign of an axis is arbitrary. Make its largest component positive.
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), [0, 1]])
    total = variances.sum()
    shares = np.maximum(variances[[-1, -2]], 0) / total if total > 0 else np.zeros(2)
    return centred @ axes, shares
