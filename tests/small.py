"""A small catalogue with all that `covers pipeline` makes of it, for what spoils a part of it."""

import shutil
import subprocess
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
    """Twelve works of two performances, and a noise work."""
    tree = Tree(root)
    for i in range(25):
        tree.add(f"W_{i // 2}", f"P_{i:02d}", frames=300)
    tree.title("W_0", "P_00", work_title="Tune", perf_title="A tune", release_year="1960")
    return tree


def make_workspace(home: Path) -> None:
    """Fill a workspace, the data in home/data included; a server of Prefect is there."""
    features = aggregate(make_catalogue(home / "data").root, home=home)
    bundle = train(features, "autoencoder", CONFIG, hold_out=0.2, home=home)
    # So few works make no calibration of their own.
    shutil.copy(PRETRAINED / "calibration.json", bundle)
    vectors = embed(features, bundle, home)
    publish([vectors], home=home)
    evaluate(vectors, home)


def copy(home: Path, to: Path) -> None:
    """Copy a workspace, whose collections are mostly holes."""
    subprocess.run(["cp", "--recursive", "--sparse=always", f"{home}/.", to], check=True)
