"""A small catalogue, and a workspace filled from it, for tests that damage parts of both."""

import shutil
from pathlib import Path

from trees import Tree

from embedding.bundle import PRETRAINED
from flows.aggregate import aggregate
from flows.embed import embed
from flows.evaluate import evaluate
from flows.publish import publish
from flows.train import train

CONFIG = {"sizes": (52, 16, 4), "max_epochs": 3}


def make_catalogue(root: Path) -> Tree:
    """Make twelve works with two performances each, and a noise work."""
    tree = Tree(root)
    for i in range(25):
        tree.add(f"W_{i // 2}", f"P_{i:02d}", frames=300)
    tree.title("W_0", "P_00", work_title="Tune", perf_title="A tune", release_year="1960")
    return tree


def make_workspace(home: Path) -> None:
    """Fill a workspace, including the data in home/data; Prefect's server must run."""
    features = aggregate(make_catalogue(home / "data").root, home=home)
    bundle = train(features, "autoencoder", CONFIG, hold_out=0.2, home=home)
    # There are too few works to calibrate on.
    shutil.copy(PRETRAINED / "calibration.json", bundle)
    vectors = embed(features, bundle, home)
    publish([vectors], home=home)
    evaluate(vectors, home)
