"""A small catalogue with all that `covers pipeline` makes of it, for what spoils a part of it."""

import shutil
import subprocess
from pathlib import Path

from trees import Tree

from embedding.bundle import PRETRAINED
from flows.aggregate import aggregate
from flows.embed import embed
from flows.evaluate import evaluate
from flows.train import train

CONFIG = {"sizes": (52, 16, 4), "max_epochs": 3}


def make_catalogue(root: Path) -> Tree:
    """Twelve works of two performances, and a noise work."""
    tree = Tree(root)
    for i in range(25):
        tree.add(f"W_{i // 2}", f"P_{i:02d}", frames=300)
    tree.title("W_0", "P_00", work_title="Tune", perf_title="A tune", release_year="1960")
    return tree


def make_workspace(root: Path) -> None:
    """Fill root/data and root/home; a server of Prefect is there."""
    data, home = make_catalogue(root / "data").root, root / "home"
    features = aggregate(data, home=home)
    bundle = train(features, "autoencoder", CONFIG, hold_out=0.2, home=home)
    # So few works make no calibration of their own.
    shutil.copy(PRETRAINED / "calibration.json", bundle)
    evaluate(embed(features, bundle, home, data), home)


def copy(root: Path, to: Path) -> None:
    """Copy a workspace, whose collections are mostly holes, and let it know where its data are."""
    subprocess.run(["cp", "--recursive", "--sparse=always", f"{root}/.", to], check=True)
    for recipe in to.glob("home/published/*.json"):
        recipe.write_text(recipe.read_text().replace(str(root), str(to)))
