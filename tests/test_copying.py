"""Copying: a collection moves between engines, and nothing in it changes."""

import shutil

import numpy as np
import pytest
from catalogue import altered, content, in_memory, make_points
from qdrant_client import models
from tunes import CALIBRATED

import search
from search import NoCollection, PublishError, Searcher, copy
from search.copying import take_out
from search.engines.embedded import Embedded

#: Components that no decimal fraction is exactly.
FRACTIONS = altered(
    CALIBRATED,
    vectors=CALIBRATED.vectors + np.random.default_rng(1).normal(size=CALIBRATED.vectors.shape),
)


@pytest.fixture
def make_embedded(server):
    """Embedded engines of the server's deployment, so that names stay what they are."""
    with in_memory() as directory:
        yield lambda name: Embedded(directory / name / "qdrant", server.collection)


@pytest.mark.parametrize("points", [FRACTIONS, make_points(1100)], ids=["sequences", "plain"])
def test_there_and_back_every_point_is_what_it_was(server, make_embedded, points, monkeypatch):
    here, back = make_embedded("here"), make_embedded("back")
    here.publish(points, "b", origin={"sources": ["here"]})
    # Measured values are copied, not measured again.
    monkeypatch.setattr("search.points.backgrounds", None)
    monkeypatch.setattr("search.points.usual_distances", None)
    assert copy(here, server) == copy(server, back) == here.open().description
    assert content(here) == content(server) == content(back)
    queries = points.track_ids[:3]
    assert Searcher(here).similar_many(queries) == Searcher(back).similar_many(queries)


def test_what_is_copied_is_published(server, make_embedded):
    here = make_embedded("here")
    server.publish(make_points(12, seed=1), "old")
    here.publish(make_points(16, seed=2), "new")
    copied = copy(here, server)
    assert server.status().current == copied
    assert len(Searcher(server).similar("P_1", 100)) == 15
    server.build = None  # what is there and whole is not built again
    assert server.publish(make_points(16, seed=2), "new") == copied
    assert server.rollback().bundle == "old"
    assert copy(server, server).bundle == "old"


def test_every_performance_is_compared_before_searchers_see_it(server, make_embedded):
    here = make_embedded("here")
    with pytest.raises(NoCollection, match="no collection"):
        copy(here, server)
    first = server.publish(make_points(12, seed=1), "good")
    here.publish(make_points(300, seed=2), "b")
    bent = take_out(here.open())
    bent.vectors[151, 0] += 1e-6  # a sample of 64 would miss it
    build = server.build
    server.build = lambda description, points: build(description, bent)
    with pytest.raises(PublishError, match=f"{bent.track_ids[151]} does not read back as it was"):
        copy(here, server)
    assert server.history() == [first.name]


def test_a_background_that_differs_is_found(server, make_embedded):
    here = make_embedded("here")
    here.publish(CALIBRATED, "b")
    copy(here, server)
    name = server.open().description.name
    (record, *_) = server.connection.scroll(f"{name}-sequences", 1, with_payload=True)
    payload = {**record.payload, "background": [0.0, 1.0]}
    point = models.PointStruct(id=record.id, vector={}, payload=payload)
    server.connection.ask(lambda client: client.upsert(f"{name}-sequences", [point], wait=True))
    changed = content(server)["backgrounds"]
    copy(here, server)
    assert content(server)["backgrounds"] != changed
    assert content(server)["backgrounds"] == content(here)["backgrounds"]


def test_a_copy_is_of_the_deployment_it_goes_to(tmp_path):
    here, there = Embedded(tmp_path / "here"), Embedded(tmp_path / "there", "other")
    name = here.publish(make_points(12), "b").name
    copied = copy(here, there)
    assert copied.name == name.replace("covers", "other", 1)
    assert there.names() == [copied.name]
    stored = there.open().performances(["P_1"])[0]
    assert stored.payload["collection"] == copied.name


def test_a_back_up_can_be_brought_back_after_everything_is_lost(tmp_path):
    here = search.connect(home=tmp_path / "home")
    published = here.publish(FRACTIONS, "b", origin={"sources": ["here"]})
    copy(here, search.connect(tmp_path / "backup"))
    before = content(here)
    shutil.rmtree(here.directory)
    assert copy(search.connect(tmp_path / "backup"), here) == published
    assert content(here) == before


def test_a_place_is_a_url_or_a_workspace(monkeypatch, tmp_path):
    monkeypatch.setenv("COVERS_HOME", str(tmp_path))
    monkeypatch.setenv("QDRANT_URL", "http://one.example")
    assert search.connect("https://two.example:6333").location == "https://two.example:6333"
    there = search.connect(tmp_path / "there")
    assert there.location == str(tmp_path / "there" / "qdrant" / "covers")
    with pytest.raises(ValueError, match=r"'s3://bucket' is not a place for a collection"):
        search.connect("s3://bucket")


def test_a_directory_that_holds_something_else_is_left_alone(tmp_path):
    """The directory in which a workspace keeps its collections is not a workspace either."""
    Embedded(tmp_path / "home" / "qdrant" / "covers").publish(make_points(12), "b")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").write_text("")
    for place, held in (("photos", "one.jpg"), ("home/qdrant", "covers")):
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(ValueError, match=f"is not a workspace, because it holds {held}"):
            search.connect(tmp_path / place)
        assert sorted(tmp_path.rglob("*")) == before
    with pytest.raises(ValueError, match=r"one\.jpg is a file: name a directory"):
        search.connect(tmp_path / "photos" / "one.jpg")
    (tmp_path / "empty").mkdir()
    for place in ("empty", "home"):
        search.connect(tmp_path / place)


def test_a_key_is_sent_only_to_the_server_that_it_is_for(monkeypatch):
    monkeypatch.setenv("QDRANT_URL", "http://one.example")
    monkeypatch.setenv("QDRANT_API_KEY", "of-one")

    def key_sent_to(url: str, **given: str) -> str | None:
        return search.connect(url, **given).connection._api_key

    assert key_sent_to("http://one.example") == "of-one"
    assert key_sent_to("http://two.example") is None
    assert key_sent_to("http://two.example", api_key="given") == "given"
    monkeypatch.setenv("COVERS_COPY_API_KEY", "of-two")
    assert key_sent_to("http://two.example") == "of-two"
