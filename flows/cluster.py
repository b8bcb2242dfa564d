"""Features -> K-Means over a range of k: how much clusters say about cliques."""

import json
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

from embedding.data.store import FeatureStore
from embedding.encoders.scaling import Standardizer
from embedding.metrics import clusters
from flows import alert, plots
from flows.show import show_page
from flows.workspace import Workspace, data_name

#: Increase this number when the computation or the plots change.
VERSION = 3


def _run_name() -> str:
    return f"cluster {data_name(flow_run.parameters.get('features'))}"


@alert.flow("cluster", _run_name)
def cluster(
    features: Path | None = None,
    smallest: int = 2,
    largest: int = 12,
    seed: int = 0,
    home: Path | None = None,
) -> dict[str, Any]:
    """Cluster the standardised 52 features and compare the clusters with the cliques.

    Parameters
    ----------
    features : Path, optional
        Result of `aggregate`; by default the latest.
    smallest, largest : int
        Range of k, both included.
    seed : int
        Seed of the initial centres.
    home : Path, optional
        The workspace; by default `$COVERS_HOME`.

    Returns
    -------
    dict
        `curve` (k, inertia, silhouette), `metrics` at the best k, and `paths`.
    """
    workspace = Workspace.at(home)
    with workspace.used():
        features = features or workspace.latest("features")
        place = find_clusters(features, smallest, largest, seed, workspace.root)
        result: dict[str, Any] = json.loads((place / "clusters.json").read_text(encoding="utf-8"))
        figures = sorted(place.glob("*.png"))
        columns = ["k", "inertia", "silhouette"]
        curve = [[row[column] for column in columns] for row in result["curve"]]
        tables = [(columns, curve), (["measure", "value"], list(result["metrics"].items()))]
        data = place.name.rpartition("-")[0]
        show_page(("clusters", data), f"K-means over k of {data}", tables, figures)
    result["paths"] = {
        "clusters": str(place / "clusters.json"),
        "cooccurrence": str(place / "cooccurrence.parquet"),
        "plots": [str(figure) for figure in figures],
    }
    return result


@task(cache_policy=NO_CACHE)
def find_clusters(features: Path, smallest: int, largest: int, seed: int, home: Path) -> Path:
    """Run K-Means for every k, unless the workspace has the result for these features."""
    workspace, store = Workspace(home), FeatureStore.open(features)
    about = workspace.relative(features)

    def make(directory: Path) -> None:
        rows = Standardizer.fit(store.means).transform(store.means)
        found = clusters.cluster(rows, store.table["work_id"], range(smallest, largest + 1), seed)
        over_k = zip(found.ks, found.inertia, found.silhouette, strict=True)
        curve = [{"k": k, "inertia": i, "silhouette": s} for k, i, s in over_k]
        found.cooccurrence.write_parquet(directory / "cooccurrence.parquet")
        text = json.dumps({"curve": curve, "metrics": found.summary()}, indent=1) + "\n"
        (directory / "clusters.json").write_text(text, encoding="utf-8")
        about = f"{store.name}, {len(store)} performances", "standardised means of the features"
        plots.save(plots.elbow(found), directory / "elbow.png", *about)
        plots.save(plots.silhouette(found), directory / "silhouette.png", *about)

    made_of = (VERSION, about, store.fingerprint, smallest, largest, seed)
    return workspace.result("clusters", store.name, made_of, make, {"features": about})
