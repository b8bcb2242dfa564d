"""Qdrant accepts what deploy/DASHBOARD.md tells people to paste, and finds something for it.

`picture` and `graph` make requests from a pasted block as the dashboard's source does: the first
request of `picture` as it did until July 2026, the second as it does since.
"""

import json
import re
from pathlib import Path

import httpx
import numpy as np
import pytest
from catalogue import ENGINES, QDRANT_API_KEY, QDRANT_CA_CERT, engine_of_kind, in_memory, points_of
from qdrant_client import models

from search.engines.server.server import strict_mode
from search.fields import FIELDS, MEANINGS
from search.point import point_id

ROOT = Path(__file__).resolve().parent.parent
GUIDE = (ROOT / "deploy/DASHBOARD.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", GUIDE, re.MULTILINE | re.DOTALL))
SAMPLE = json.loads((ROOT / "sample/da-tacos_benchmark_subset_metadata.json").read_text("utf-8"))

MODELS = {
    "points/scroll": models.ScrollRequest,
    "points/count": models.CountRequest,
    "points/query": models.QueryRequest,
    "points/search/matrix/offsets": models.SearchMatrixRequest,
    "points/search/matrix/pairs": models.SearchMatrixRequest,
    "facet": models.FacetRequest,
}


def blocks(section, kind):
    found = re.findall(rf"^```{kind}\n(.*?)^```$", SECTIONS[section], re.MULTILINE | re.DOTALL)
    assert found
    return found


def picture(limit, algorithm, color_by=None, filter=None):
    """Draw points, by their vectors or by the nearest neighbours of each."""
    assert algorithm in ("UMAP", "TSNE", "PCA")
    # UMAP and t-SNE fail with fewer points than their 15 neighbours.
    assert algorithm == "PCA" or '"work_id"' not in json.dumps(filter)
    assert color_by is None or color_by["payload"] in FIELDS
    vectors = {"limit": limit, "filter": filter, "with_vector": True, "with_payload": True}
    yield "points/scroll", vectors
    yield "points/search/matrix/offsets", {"sample": limit, "limit": 15, "filter": filter}


def graph(limit, filter=None, sample=None):
    """Draw links: of a sample, or of the first point and then of those that are clicked."""
    if sample is not None:
        yield "points/search/matrix/pairs", {"sample": sample, "limit": limit, "filter": filter}
    else:
        yield "points/scroll", {"limit": 1, "filter": filter}
        clicked = str(point_id("P_196674"))
        yield "points/query", {"query": clicked, "limit": limit, "filter": filter}


def typed(block):
    line, body = block.split("\n", 1)
    yield line.removeprefix("POST collections/covers/"), json.loads(body)


ALL_REQUESTS = [
    *(each for block in blocks("Visualize", "json") for each in picture(**json.loads(block))),
    *(each for block in blocks("Graph", "json") for each in graph(**json.loads(block))),
    *(each for block in blocks("Console", "http") for each in typed(block)),
]
#: Some pictures differ only in their colours.
REQUESTS = [each for i, each in enumerate(ALL_REQUESTS) if each not in ALL_REQUESTS[:i]]


@pytest.fixture(scope="module", params=ENGINES[1:])
def server(request):
    """A server with some works of the sample, and results of an evaluation for most of them."""
    works = {*sorted(SAMPLE)[::4], *re.findall(r"W_\d+", GUIDE)}
    known = [one for work in works for one in SAMPLE[work].values()]
    points = points_of(
        [one["perf_id"] for one in known],
        np.random.default_rng(0).normal(size=(len(known), 8)),
        [
            {name: one[name] for name in ("work_id", "work_title")}
            | {"title": one["perf_title"], "subset": "benchmark"}
            for one in known
        ],
    )
    results = {
        track_id: {"nearest_cover": i % 30 + 1, "clique_distance": i / 8, "outlier": i % 9 == 0}
        for i, track_id in enumerate(points.track_ids[:-9])
    }
    # The guide names this one.
    results["P_249990"] = {"nearest_cover": 12, "clique_distance": 3.5, "outlier": True}
    with in_memory() as directory, engine_of_kind(request.param, directory) as engine:
        engine.publish(points, "b")
        engine.annotate(results, "b")
        yield engine


def test_every_block_that_is_pasted_finds_something(server):
    host = server.connection.ask(lambda client: client.http.client.host.rstrip("/"))
    with httpx.Client(
        headers={"api-key": QDRANT_API_KEY} if QDRANT_API_KEY else None,
        verify=True if QDRANT_CA_CERT is None else str(QDRANT_CA_CERT),
    ) as client:
        for path, body in REQUESTS:
            answer = client.post(f"{host}/collections/{server.collection}/{path}", json=body)
            assert answer.status_code == 200, (path, body, answer.text)
            assert any(answer.json()["result"].values()), (path, body)


@pytest.mark.parametrize(("path", "body"), REQUESTS)
def test_qdrants_models_and_strict_mode_accept_a_request(path, body):
    request = MODELS[path].model_validate(body)
    results = (getattr(request, "limit", None) or 1) * (getattr(request, "sample", None) or 1)
    assert results <= strict_mode(points=193).max_query_limit
    # Strict mode wants an index for each field of a filter.
    assert set(re.findall(r'"key": "(\w+)"', json.dumps(body))) <= set(FIELDS)


def test_the_guide_and_the_collection_explain_every_key_of_a_point(server):
    (table,) = re.findall(r"\| key \| says \|\n(.*?)\n\n", SECTIONS["On opening"], re.DOTALL)
    keys = [row.split("|")[1] for row in table.splitlines()[1:]]
    assert sorted(re.findall(r"`(\w+)`", " ".join(keys))) == sorted(MEANINGS)
    stored = server.open().performances(["P_249990"])[0].payload
    assert set(stored) <= set(MEANINGS)
    computed = {"usual_distance", "usual_spread", "digest", "collection"}
    assert set(MEANINGS) - set(FIELDS) == computed | {"words"}
    assert not any(isinstance(stored[key], list) for key in computed)  # a line each
    assert server.connection.metadata(server.history()[0])["fields"] == MEANINGS
