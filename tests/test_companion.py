"""Sequences on a server: the same answers as in process, from a collection beside the first."""

import numpy as np
import pytest
from catalogue import ENGINES, content, engine_of_kind, in_memory, make_points
from contract_stub import READ_ONLY_KEY, ContractStub, asked
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tunes import CALIBRATED, EMPTY, POINTS, RATE, SEQUENCE, SHORT

from search import DamagedCollection, PublishError, Searcher
from search.engines.embedded import Embedded
from search.engines.server import companion
from search.engines.server.server import Server
from search.point import point_id

SERVERS = ENGINES[1:]


@pytest.fixture(scope="module")
def embedded():
    with in_memory() as directory:
        engine = Embedded(directory / "qdrant")
        engine.publish(CALIBRATED, "b")
        yield engine


@pytest.fixture(scope="module", params=SERVERS)
def server(request):
    with in_memory() as directory, engine_of_kind(request.param, directory) as engine:
        engine.publish(CALIBRATED, "b")
        yield engine


def collections(stub: ContractStub) -> list[str]:
    return sorted(found.name for found in stub.local.get_collections().collections)


@pytest.mark.parametrize(
    "ask",
    [
        lambda searcher: searcher.similar("P_0", 39, rerank=True),
        lambda searcher: searcher.similar("P_13", 5, rerank=True, where={"subset": "benchmark"}),
        lambda searcher: searcher.similar("P_0", 39),
        lambda searcher: searcher.identify("P_9"),
        lambda searcher: searcher.identify(EMPTY),
        lambda searcher: searcher.same_work("P_0", "P_1"),
        lambda searcher: searcher.same_work("P_0", SHORT),
        lambda searcher: searcher.duplicates(min_probability=0.01),
    ],
)  # fmt: skip
def test_a_server_answers_what_the_embedded_engine_answers(embedded, server, ask):
    assert ask(Searcher(server)) == ask(Searcher(embedded))


def test_both_engines_hold_the_same_and_describe_it_alike(embedded, server):
    here, there = content(embedded), content(server)
    described, name = vars(here["description"]), there["description"].name
    assert vars(there["description"]) == described | {
        "created": there["description"].created,
        "name": described["name"].replace("covers", server.collection, 1),
    }
    assert [each | {"collection": name} for each in here["payloads"]] == there["payloads"]
    for part in ("vectors", "sequences", "backgrounds", "mean background"):
        assert here[part] == there[part]
    assert embedded.open().sequences.count() == server.open().sequences.count() == 40
    assert server.open().sequences.rate == RATE
    assert server.open().sequences.of(["P_1"])[0].dtype == np.float16


def test_the_companion_is_not_listed_as_a_collection(server):
    name = server.open().description.name
    assert server.names() == server.history() == [name]
    assert server.status().previous == ()
    beside = companion.companion(name)
    info = server.connection.ask(lambda client: client.get_collection(beside))
    assert info.points_count == 40
    assert not info.config.params.vectors
    assert info.config.params.on_disk_payload in (True, None)  # local mode has no such setting


def test_re_ranking_takes_one_request_and_a_read_only_key(stub, own, tmp_path):
    name = own.publish(POINTS, "b").name
    with Server(stub.url, READ_ONLY_KEY, tmp_path / "publish.lock") as reader:
        stub.requests.clear()
        assert len(Searcher(reader).similar("P_0", 39, rerank=True)) == 39
    (body,) = asked(stub, "POST", f"{companion.companion(name)}/points")
    assert len(body["ids"]) == 40
    stub.requests.clear()
    assert own.open().sequences.backgrounds(["P_1", "P_2"]).shape == (2, 2)
    (body,) = asked(stub, "POST", f"{companion.companion(name)}/points")
    assert body["with_payload"] == ["background"]  # without sequences


def test_the_cache_of_sequences_is_bounded(own, monkeypatch):
    monkeypatch.setattr(companion, "CACHED_SEQUENCES", 2)
    monkeypatch.setattr(companion, "BATCH_SEQUENCES", 3)
    own.publish(POINTS, "b")
    sequences = own.open().sequences
    for names in (["P_1", "P_2", "P_3", "P_4", "P_1"], ["P_2", "P_1"], ["P_3"]):
        for found, name in zip(sequences.of(names), names, strict=True):
            np.testing.assert_array_equal(found, SEQUENCE[name])
        assert len(sequences._cache) <= 2


def test_both_are_pruned_and_rolled_back_together(stub, own):
    first = own.publish(POINTS, "a").name
    before = Searcher(own).similar("P_0", rerank=True)
    second = own.publish(make_points(12), "b").name
    assert collections(stub) == sorted([first, companion.companion(first), second])
    own.rollback()
    assert Searcher(own).similar("P_0", rerank=True) == before
    own.publish(make_points(12), "b", keep=1)
    assert collections(stub) == [second]


def test_a_collection_whose_companion_lacks_a_sequence_is_not_published(stub, own, monkeypatch):
    monkeypatch.setattr(
        "search.engines.server.companion.batches", lambda sequences: [range(3, len(sequences))]
    )
    with pytest.raises(PublishError, match="it holds 37 sequences and not 40"):
        own.publish(POINTS, "b")
    assert own.history() == collections(stub) == []


def lose_one(local, beside, track_id) -> None:
    local.delete(beside, [str(point_id(track_id))])


def lose_all(local, beside, track_id) -> None:
    local.delete_collection(beside)


@pytest.mark.parametrize(
    ("lose", "words"),
    [(lose_one, "has no sequence of P_3: publi"), (lose_all, "is missing: publi")],
)
def test_sequences_that_are_lost_later_are_told_and_published_anew(stub, own, lose, words):
    name = own.publish(POINTS, "b").name
    beside = companion.companion(name)
    lose(stub.local, beside, "P_3")
    with pytest.raises(DamagedCollection, match=f"{beside} on .* {words}"):
        Searcher(own).similar("P_3", rerank=True)
    assert len(Searcher(own).similar("P_3", 39)) == 39
    assert own.publish(POINTS, "b").name == f"{name}-2"
    assert len(Searcher(own).similar("P_3", 39, rerank=True)) == 39


@given(arrays(np.float16, st.tuples(st.integers(0, 9), st.just(2), st.just(12))))
def test_a_sequence_is_written_as_text_without_a_loss(sequence):
    np.testing.assert_array_equal(companion.unpack(companion.pack(sequence)), sequence)


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=300))
def test_batches_hold_every_sequence_once_and_are_no_larger_than_need_be(lengths):
    sequences = [np.broadcast_to(np.float16(0), (length, 2, 12)) for length in lengths]
    found = companion.batches(sequences)
    assert [i for batch in found for i in batch] == list(range(len(lengths)))
    for batch in found:
        size = sum(len(companion.pack(sequences[i])) for i in batch)
        assert 1 <= len(batch) <= companion.BATCH_SEQUENCES
        assert size <= companion.BATCH_BYTES or len(batch) == 1
