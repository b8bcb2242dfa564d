"""How much composed music resembles recordings, and what can be learned from it.

python docs/composed_realism.py [--works 200] [--versions 2] [--project | --align] DATASET...

The first data set is compared with composed works: statistics of windows of 15 seconds, and the
success of classifiers that tell the windows apart, cross-validated by works. With `--project`, a
projection is fitted to the composed works alone, and its MAP is measured on every data set. With
`--align`, two performances each of 24 works of either kind are aligned with each other.
"""

import argparse
from functools import partial
from pathlib import Path

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from embedding.composing import ComposingConfig, compose
from embedding.data.chroma import CHANNELS, CHROMA_RATE, reduce
from embedding.data.dataset import open_dataset
from embedding.data.frames import read
from embedding.encoders.chroma import trimmed
from embedding.encoders.moments import map_sequences
from embedding.encoders.projection import fit_discriminant
from embedding.encoders.version.motifs import cut_motifs, statistics
from embedding.metrics.distances import Euclidean
from embedding.metrics.retrieval import retrieval
from search.versions.alignment import similarities

WINDOW = 80  # frames, which are 15 seconds
WINDOWS = 1000  # of each kind that the classifiers see, at most
FOLDS = 5  # of the works
ALIGNED_WORKS = 24
DIMENSIONS, SHRINKAGE = (208, 512), 0.1


def recorded(path):
    """Return the sequences of a data set, and their works."""
    dataset = open_dataset(path)
    sequences = [reduce(read(p), dataset.frame_rate) for p in dataset.performances]
    works = [performance.work_id for performance in dataset.performances]
    return trimmed([sequence.astype(np.float32) for sequence in sequences]), np.array(works)


def described(window):
    """Return the statistics of a window by name."""
    found = {}
    for channel, name in enumerate(CHANNELS):
        x = window[:, channel]
        ranks = np.sort(x, axis=1)[:, ::-1].mean(axis=0)
        found |= {f"{name}, {i + 1}. strongest": ranks[i] for i in (0, 1, 2, 3, 5, 8)}
        share = x / np.maximum(x.sum(axis=1, keepdims=True), 1e-6)
        found[f"{name}, mean"] = x.mean()
        found[f"{name}, sparsity (share below 0.1)"] = (x < 0.1).mean()
        found[f"{name}, entropy (nats)"] = -(share * np.log(share + 1e-9)).sum(axis=1).mean()
        found[f"{name}, flux"] = np.abs(np.diff(x, axis=0)).mean()
        unit = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-3)
        unit = unit - unit.mean(axis=0)
        power = max((unit**2).sum(axis=1).mean(), 1e-6)
        found[f"{name}, variance"] = power
        for lag in (1, 4, 16):
            product = (unit[lag:] * unit[:-lag]).sum(axis=1).mean()
            found[f"{name}, autocorrelation at {lag / 5.383:.1f} s"] = product / power
        profile = x.mean(axis=0) - x.mean()
        spectrum = np.abs(np.fft.rfft(profile)) / max(x.sum(axis=1).mean(), 1e-6)
        found[f"{name}, tonal strength (fifths)"] = spectrum[5]
    both = np.roll(window[:, 0], -3, axis=1), window[:, 1]
    found["hpcp with crema, correlation"] = np.corrcoef(both[0].ravel(), both[1].ravel())[0, 1]
    return found


def windows_of(sequences, works, rng):
    """Return statistics of windows that do not overlap, and the work of each."""
    cut = [
        (x[start : start + WINDOW], work)
        for x, work in zip(sequences, works, strict=True)
        for start in range(0, len(x) - WINDOW + 1, WINDOW)
    ]
    chosen = [cut[i] for i in rng.permutation(len(cut))[:WINDOWS]]
    rows = [described(window) for window, _ in chosen]
    table = np.array([list(row.values()) for row in rows])
    return list(rows[0]), table, np.array([work for _, work in chosen])


def compare(real, made):
    """Print the statistics of both, and how well classifiers tell them apart."""
    rng = np.random.default_rng(0)
    names, x, x_works = windows_of(*real, rng)
    _, y, y_works = windows_of(*made, rng)
    print("| | recorded: 10 %, median, 90 % | composed | AUC |\n|---|---|---|---|")
    for name, one, other in zip(names, x.T, y.T, strict=True):
        auc = (other[:, None] > one).mean()
        cells = [
            " ".join(f"{v:.2f}" for v in np.quantile(z, (0.1, 0.5, 0.9))) for z in (one, other)
        ]
        print(f"| {name} | {cells[0]} | {cells[1]} | {auc:.2f} |")
    if len(set(x_works)) < FOLDS:
        print("No classifiers: the data set has too few works.")
        return
    table, is_made = np.concatenate([x, y]), np.repeat([0, 1], [len(x), len(y)])
    for name, model in {
        "logistic regression": make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000)),
        "gradient boosting": HistGradientBoostingClassifier(random_state=0),
    }.items():
        groups, folds = np.concatenate([x_works, y_works]), GroupKFold(FOLDS)
        probability = cross_val_predict(
            model, table, is_made, groups=groups, cv=folds, method="predict_proba"
        )[np.arange(len(table)), is_made]
        loss = -np.log(np.maximum(probability, 1e-6)).mean()
        print(f"{name}: accuracy {(probability > 0.5).mean():.3f}, loss {loss:.3f} nats")


def project(made, data_sets):
    """Fit a projection to composed works alone, and print its MAP on data sets."""
    sequences, works = made
    first = np.unique(works, return_index=True)[1]
    motifs = cut_motifs([sequences[i] for i in first], np.random.default_rng(0))
    describe = partial(statistics, motifs=motifs)
    blocks = map_sequences(partial(describe, without_own=True), sequences)
    tables = {
        name: np.concatenate(map_sequences(describe, given), axis=1)
        for name, (given, _) in data_sets.items()
    }
    for dimension in DIMENSIONS:
        projection = fit_discriminant(blocks, works, dimension, SHRINKAGE)
        for name, table in tables.items():
            labels = data_sets[name][1]
            ids = [f"{row:06}" for row in range(len(labels))]
            found = retrieval(Euclidean(projection(table)), labels, ids)
            print(f"{len(first)} works, {dimension} components, {name}: MAP {found.map:.3f}")


def align(kinds):
    """Print how similar versions of a work and different works are by alignment."""
    for name, (sequences, works) in kinds.items():
        pairs = [np.flatnonzero(works == work)[:2] for work in np.unique(works)]
        pairs = [pair for pair in pairs if len(pair) == 2]
        chosen = np.random.default_rng(0).permutation(len(pairs))[:ALIGNED_WORKS]
        rows = np.concatenate([pairs[i] for i in chosen])
        taken = [sequences[row] for row in rows]
        similarity = np.array([similarities(x, taken, CHROMA_RATE)[0] for x in taken])
        same = works[rows][:, None] == works[rows]
        others = similarity[~same]
        versions = similarity[same & ~np.eye(len(rows), dtype=bool)]
        auc = (versions[:, None] > others).mean()
        quartiles = [np.quantile(z, (0.25, 0.5, 0.75)).round(2) for z in (versions, others)]
        print(f"{name}: versions {quartiles[0]}, other works {quartiles[1]}, AUC {auc:.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("datasets", type=Path, nargs="+", metavar="DATASET")
    parser.add_argument("--works", type=int, default=200)
    parser.add_argument("--versions", type=int, default=2)
    parser.add_argument("--project", action="store_true")
    parser.add_argument("--align", action="store_true")
    given = parser.parse_args()
    sequences, works = compose(
        ComposingConfig(), works=given.works, versions=given.versions, seed=0
    )
    composed = trimmed(sequences), works
    recordings = {path.name: recorded(path) for path in given.datasets}
    if given.align:
        align({"composed": composed} | recordings)
    elif given.project:
        project(composed, recordings)
    else:
        compare(next(iter(recordings.values())), composed)
