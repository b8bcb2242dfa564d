"""What deploy/DASHBOARD.md tells people to paste is what Qdrant takes, of what is published.

The requests that the dashboard makes of a block are put together as its source does, once as it was
until July 2026, when it fetched vectors, and once as it has been since.
"""

import json
import re
from pathlib import Path

import httpx
import numpy as np
import pytest
from catalogue import (
    ENGINES,
    QDRANT_API_KEY,
    QDRANT_CA_CERT,
    engine_of_kind,
    in_memory,
    points_of,
)
from qdrant_client import models

from search.engines.server.server import _strictness
from search.fields import FIELDS, MEANINGS
from search.points import point_id

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


def blocks(section: str, kind: str) -> list[str]:
    found = re.findall(rf"^```{kind}\n(.*?)^```$", SECTIONS[section], re.MULTILINE | re.DOTALL)
    assert found
    return found


def picture(limit, algorithm, color_by=None, filter=None):
    """Draw points: by their vectors, or by the nearest neighbours of each."""
    assert algorithm in ("UMAP", "TSNE", "PCA")
    # UMAP and t-SNE fail with fewer points than neighbours, which are 15.
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


def typed(block: str):
    line, body = block.split("\n", 1)
    yield line.removeprefix("POST collections/covers/"), json.loads(body)


REQUESTS = [
    *(each for block in blocks("Visualize", "json") for each in picture(**json.loads(block))),
    *(each for block in blocks("Graph", "json") for each in graph(**json.loads(block))),
    *(each for block in blocks("Console", "http") for each in typed(block)),
]
#: Each once: some pictures differ in their colours alone.
ASKED = [one for i, one in enumerate(REQUESTS) if one not in REQUESTS[:i]]


@pytest.fixture(scope="module", params=ENGINES[1:])
def server(request):
    """A server with some works of the sample, most of their performances judged."""
    works = {*sorted(SAMPLE)[::4], *re.findall(r"W_\d+", GUIDE)}
    known = [one for work in works for one in SAMPLE[work].values()]
    points = points_of(
        [one["perf_id"] for one in known],
        np.random.default_rng(0).normal(size=(len(known), 8)),
        [
            {
                "work_id": one["work_id"],
                "work_title": one["work_title"],
                "title": one["perf_title"],
                "subset": "benchmark",
            }
            for one in known
        ],
    )
    judged = {
        track_id: {"nearest_cover": i % 30 + 1, "clique_distance": i / 8, "outlier": i % 9 == 0}
        for i, track_id in enumerate(points.track_ids[:-9])
    }
    # One that is in the guide, whichever these are.
    judged["P_249990"] = {"nearest_cover": 12, "clique_distance": 3.5, "outlier": True}
    with in_memory() as directory, engine_of_kind(request.param, directory) as engine:
        engine.publish(points, "b")
        engine.annotate(judged, "b")
        yield engine


def test_everything_that_is_pasted_is_answered_with_something(server):
    host = server.connection.ask(lambda client: client.http.client.host.rstrip("/"))
    with httpx.Client(
        headers={"api-key": QDRANT_API_KEY} if QDRANT_API_KEY else None,
        verify=True if QDRANT_CA_CERT is None else str(QDRANT_CA_CERT),
    ) as client:
        for path, body in ASKED:
            answer = client.post(f"{host}/collections/{server.collection}/{path}", json=body)
            assert answer.status_code == 200, (path, body, answer.text)
            assert any(answer.json()["result"].values()), (path, body)


@pytest.mark.parametrize(("path", "body"), ASKED)
def test_a_request_is_one_of_qdrant_s_and_strict_mode_lets_it_through(path, body):
    asked = MODELS[path].model_validate(body)
    allowed = _strictness(points=193).max_query_limit
    assert (getattr(asked, "limit", None) or 1) * (getattr(asked, "sample", None) or 1) <= allowed
    assert set(re.findall(r'"key": "(\w+)"', json.dumps(body))) <= set(FIELDS)  # all are indexed


def test_the_guide_explains_every_key_that_a_point_shows_and_so_does_the_collection(server):
    (table,) = re.findall(r"\| key \| says \|\n(.*?)\n\n", SECTIONS["On opening"], re.DOTALL)
    keys = [row.split("|")[1] for row in table.splitlines()[1:]]
    assert sorted(re.findall(r"`(\w+)`", " ".join(keys))) == sorted(MEANINGS)
    stored = server.open().performances(["P_249990"])[0].payload
    assert set(stored) <= set(MEANINGS)
    computed = {"usual_distance", "usual_spread", "digest", "collection"}
    assert set(MEANINGS) - set(FIELDS) == computed
    assert not any(isinstance(stored[key], list) for key in computed)  # a line each
    name = server.history()[0]
    assert server.connection.metadata(name)["fields"] == MEANINGS


def test_the_ids_in_the_guide_are_of_the_sample():
    performances = {track_id for work in SAMPLE.values() for track_id in work}
    assert set(re.findall(r"W_\d+", GUIDE)) <= set(SAMPLE)
    assert set(re.findall(r"P_\d+", GUIDE)) <= performances
    assert f'"query": "{point_id("P_249990")}"' in GUIDE
