"""Every engine gives the same answers as brute force."""

import inspect
import json
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from catalogue import ENGINES, make_points, payload_of, points_of, published, ranking, vector_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import search
from search import (
    InvalidQuery,
    NoCollection,
    Query,
    Searcher,
    TrackNotFound,
    between,
    contains,
    none_of,
)
from search.fields import FIELDS
from search.words import words

POINTS = make_points(60)


@pytest.fixture(scope="module", params=ENGINES)
def searcher(request):
    with published(POINTS, request.param) as engine:
        yield Searcher(engine)


def track_ids(matches) -> list[str]:
    return [match.track_id for match in matches]


def without(field, query, points=POINTS) -> list[tuple[float, str]]:
    """The plain ranking for a performance, without those that share its value of a field."""
    own = payload_of(points, query)[field]
    return ranking(points, vector_of(points, query), lambda payload: payload[field] != own)


def test_the_matches_of_every_performance_are_those_of_brute_force_ties_broken_by_track_id(
    searcher,
):
    answers = searcher.similar_many(POINTS.track_ids, limit=7)
    for query, matches in zip(POINTS.track_ids, answers, strict=True):
        distances, names = zip(*without("track_id", query)[:7], strict=True)
        assert track_ids(matches) == [*names]
        assert [match.distance for match in matches] == pytest.approx(distances, 1e-6)
        assert searcher.similar(query, limit=7) == matches
    assert searcher.similar_many([]) == []
    assert searcher.similar_many([], leave_out_same_work=True) == []


def test_a_match_says_what_is_known_of_the_performance(searcher):
    matches = searcher.similar("P_5", limit=1000)
    assert sorted(track_ids(matches)) == sorted(set(POINTS.track_ids) - {"P_5"})
    for match in matches:
        known = payload_of(POINTS, match.track_id)
        for field in set(FIELDS) - {"bundle", "in_map"}:
            assert getattr(match, field) == known.get(field)
        assert match.bundle == "b"
        assert match.same_work == (known["work_id"] == "W_1")


def test_the_same_work_can_be_left_out(searcher):
    for query in POINTS.track_ids[:12]:
        matches = searcher.similar(query, 5, leave_out_same_work=True)
        assert track_ids(matches) == [name for _, name in without("work_id", query)[:5]]


@pytest.fixture(scope="module", params=ENGINES)
def clique_of_900(request):
    """A catalogue with a work of 900 performances, whose vectors lie together."""
    rng = np.random.default_rng(0)
    vectors = np.concatenate([rng.normal(size=(900, 4)), rng.normal(size=(100, 4)) + 6])
    points = points_of(
        [f"P_{i}" for i in range(1000)],
        vectors.astype(np.float32),
        [{"work_id": "W_large" if i < 900 else f"W_{i // 2}"} for i in range(1000)],
    )
    with published(points, request.param) as engine:
        yield points, engine


def count_fetched(engine, monkeypatch) -> list[tuple[int, int]]:
    """Return a list that will hold the numbers of queries and candidates of each request."""
    opened, fetched = type(engine.open()), []

    def counted(method):
        def ask(self, queries, limit, conditions):
            fetched.append((len(queries), limit))
            return method(self, queries, limit, conditions)

        return ask

    for name in ("around", "nearest"):
        monkeypatch.setattr(opened, name, counted(getattr(opened, name)))
    return fetched


def test_a_large_work_that_is_left_out_is_not_fetched(clique_of_900, monkeypatch):
    points, engine = clique_of_900
    fetched = count_fetched(engine, monkeypatch)
    searcher = Searcher(engine)
    queries = ["P_0", "P_1", "P_999"]
    answers = searcher.similar_many(queries, 10, leave_out_same_work=True)
    for query, matches in zip(queries, answers, strict=True):
        assert track_ids(matches) == [name for _, name in without("work_id", query, points)[:10]]
    assert sum(limit for _, limit in fetched) < 100
    fetched.clear()
    assert len(searcher.works("P_0", 20, leave_out_same_work=True)) == 20
    assert sum(limit for _, limit in fetched) < 1000


def test_candidates_are_fetched_in_bounded_numbers(searcher, monkeypatch):
    expected = searcher.similar_many(POINTS.track_ids, 20, leave_out_same_work=True)
    monkeypatch.setattr("search.nearest.BATCH_CANDIDATES", 100)
    fetched = count_fetched(searcher.engine, monkeypatch)
    assert searcher.similar_many(POINTS.track_ids, 20, leave_out_same_work=True) == expected
    assert max(queries for queries, _ in fetched) > 1
    assert all(queries == 1 or queries * limit <= 100 for queries, limit in fetched)
    with pytest.raises(InvalidQuery, match=r"101 queries with limit=10000 ask for 1,010,000 match"):
        searcher.similar_many(["P_1"] * 101, 10_000)


@pytest.mark.parametrize("without_own", [False, True])
def test_works_are_ranked_by_their_nearest_performance(searcher, without_own):
    query, nearest = "P_17", {}
    for distance, name in without("work_id" if without_own else "track_id", query):
        nearest.setdefault(payload_of(POINTS, name)["work_id"], (distance, name))
    matches = searcher.works(query, 100, leave_out_same_work=without_own)
    assert track_ids(matches) == [name for _, name in sorted(nearest.values())]
    assert searcher.works(query, 3, leave_out_same_work=without_own) == matches[:3]


years = st.none() | st.integers(1945, 1995)
FILTERS = st.fixed_dictionaries(
    {},
    optional={
        "instrumental": st.booleans() | st.just([True, False]),
        "year": st.integers(1950, 1990)
        | st.lists(st.integers(1950, 1990), min_size=1, max_size=4)
        | st.tuples(years, years)
        .filter(lambda ends: None in ends or ends[0] <= ends[1])
        .map(lambda ends: between(*ends)),
        "work_artist": st.lists(st.sampled_from([f"Writer {i}" for i in range(6)]), min_size=1),
        "subset": st.sampled_from(["benchmark", "coveranalysis", "neither"]),
        "clique_size": st.just(between(4, None)),
        "title": st.just("Title 7") | st.just(none_of(["Title 7", "Title 8"])),
        "artist": st.sampled_from(["3", "ARTIST 4", "4 artist", "art"]).map(contains),
    },
)


def meets(value, asked) -> bool:
    if isinstance(asked, dict) and "none_of" in asked:
        return value not in asked["none_of"]
    if isinstance(asked, dict) and "contains" in asked:
        return set(words(asked["contains"])) <= set(words(value or ""))
    if isinstance(asked, dict):
        low, high = asked["between"]
        return (
            value is not None and (low is None or low <= value) and (high is None or value <= high)
        )
    return value is not None and value in (asked if isinstance(asked, list) else [asked])


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    vector=st.lists(st.integers(-5, 5), min_size=4, max_size=4),
    limit=st.integers(1, 70),
    where=st.none() | FILTERS,
)
def test_a_vector_finds_what_brute_force_finds_with_and_without_a_filter(
    searcher, vector, limit, where
):
    assert json.loads(json.dumps(where)) == where
    matches = searcher.similar(Query(vector), limit, where=where)
    expected = ranking(
        POINTS,
        vector,
        lambda payload: all(
            meets(payload.get(field), asked) for field, asked in (where or {}).items()
        ),
    )
    assert track_ids(matches) == [name for _, name in expected[:limit]]
    assert {match.same_work for match in matches} <= {None}


def test_the_distance_of_two_performances_is_that_of_their_match(searcher):
    for match in searcher.similar("P_3", 10):
        assert searcher.distance("P_3", match.track_id) == pytest.approx(match.distance, 1e-6)
        assert searcher.distance(match.track_id, "P_3") == searcher.distance("P_3", match.track_id)
    assert searcher.distance("P_3", "P_3") == 0


@pytest.mark.parametrize("slip", ["p_17", " P_17 ", "17", "P-17", "P_1 7", "PP_17", "P17"])
def test_an_unknown_track_is_named_and_a_close_one_offered(searcher, slip):
    with pytest.raises(TrackNotFound, match="did you mean") as raised:
        searcher.similar(slip)
    assert repr(slip) in str(raised.value)
    assert "P_17" in str(raised.value)


@pytest.mark.parametrize("far", ["nothing like it", "", "\ud800", "x" * 100_000])
def test_an_id_unlike_any_other_is_shown_what_ids_look_like(searcher, far):
    with pytest.raises(TrackNotFound, match=r"its ids look like P_\d+, P_\d+"):
        searcher.similar(far)


@pytest.mark.parametrize("limit", [0, -1, 10_001, 2.5, float("nan"), True, "3", None])
def test_a_limit_out_of_range_is_refused(searcher, limit):
    for ask in (searcher.similar, searcher.works, searcher.identify):
        with pytest.raises(InvalidQuery, match=r"limit=.* is out of range: give a number from 1"):
            ask("P_1", limit)


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ({"key": "C"}, f"no field 'key' to filter by: the fields are {', '.join(FIELDS)}"),
        ({"year": "1960"}, "year is an integer, so it cannot be '1960'"),
        ({"year": True}, "year is an integer, so it cannot be True"),
        ({"year": 2**63}, "year is an integer, so it cannot be"),
        ({"instrumental": 1}, "instrumental is true or false, so it cannot be 1"),
        ({"title": "half a \ud800"}, "title is text, so it cannot be"),
        ({"title": None}, "title is text, so it cannot be None"),
        ({"title": between("A", "B")}, "title is text and has no range"),
        ({"artist": []}, r"artist=\[\] has no value"),
        ({"artist": none_of([])}, r"artist=\[\] has no value"),
        ({"artist": contains("…")}, "'…' has no word to search for in artist"),
        ({"artist": contains(3)}, "is not a condition"),
        ({"work_id": contains("W")}, "work_id has no words to search for: only title, artist, wo"),
        ([{"year": 1960}, "year"], r"\['?.*'year'\] is not a filter: give fields"),
        ({"artist": {"like": "A"}}, "is not a condition: use a value, a list, search.between"),
        ({"year": {"between": [1960]}}, "give two ends, each an integer or None"),
        ({"year": (1960, None)}, r"cannot be None \(a range is search"),
        ({"year": between(1960.5, None)}, "give two ends, each an integer or None"),
        ({"year": between(1990, 1960)}, "is empty"),
        ({"clique_distance": none_of([4.5])}, "hardly any performance has exactly: ask for a ra"),
        ({"clique_distance": 4.5}, "hardly any performance has exactly: ask for a range"),
        ({"clique_distance": between(True, None)}, "not a range of clique_distance"),
        ({"clique_distance": between(None, float("nan"))}, "give two ends, each a number or None"),
    ],
)
def test_an_impossible_filter_says_what_is_wrong_with_it(searcher, where, words):
    with pytest.raises(InvalidQuery, match=words):
        searcher.similar("P_1", where=where)


@pytest.mark.parametrize(
    ("vector", "words"),
    [
        ([1, 2, 3], r"shape \(3,\) cannot be compared with .*-b-.* have 4 components"),
        ([[1, 2, 3, 4]], r"shape \(1, 4\)"),
        ([1, 2, float("nan"), 4], "component 2 is nan"),
        ([1, 2, 3, 1e300], "component 3 is inf"),
        (["a", "b", "c", "d"], "a list of numbers, and this is not"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_what_is_not_a_vector_is_refused(searcher, vector, words):
    with pytest.raises(InvalidQuery, match=words):
        searcher.similar(Query(vector))


def test_what_is_not_a_track_id_is_refused_by_name(searcher):
    with pytest.raises(InvalidQuery, match="takes a list of queries, not 'P_1'"):
        searcher.similar_many("P_1")
    with pytest.raises(InvalidQuery, match="and 17 is not: write it in quotes"):
        searcher.similar(17)
    with pytest.raises(TrackNotFound, match="'Q_1'"):
        searcher.similar_many(["P_1", "Q_1"])
    with pytest.raises(TrackNotFound, match="'Q_1'"):
        searcher.distance("P_1", "Q_1")


def test_the_status_tells_what_is_searched(searcher):
    with Searcher(searcher.engine) as again:
        status = again.status()
    assert (status.location, status.previous) == (searcher.engine.location, ())
    current = status.current
    assert (current.bundle, current.points, current.dimension) == ("b", 60, 4)


def test_without_a_collection_the_command_that_makes_one_is_named(engine):
    assert Searcher(engine).status().current is None
    with pytest.raises(NoCollection, match="covers pipeline --data DIR"):
        Searcher(engine).similar("P_1")


def test_a_collection_of_identical_vectors_is_ranked_by_track_id():
    ids = [f"P_{i}" for i in range(40)]
    with published(points_of(ids, np.ones((40, 3)), [{"work_id": "W"}] * 40)) as engine:
        matches = Searcher(engine).similar("P_3", limit=5)
    assert track_ids(matches) == sorted(set(ids) - {"P_3"})[:5]


def test_the_functions_search_the_environments_workspace_from_any_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for home, seed in (("one", 1), ("other", 2)):
        monkeypatch.setenv("COVERS_HOME", str(tmp_path / home))
        search.connect().publish(make_points(20, seed=seed), "b")
        searcher = Searcher(search.connect(home=tmp_path / home))
        for name, arguments in (
            ("status", ()),
            ("similar", ("P_1", 3)),
            ("works", ("P_1", 3)),
            ("similar_many", (["P_1", "P_2"],)),
            ("similar", (Query([0] * 4), 3)),
            ("distance", ("P_1", "P_2")),
        ):
            assert getattr(search, name)(*arguments) == getattr(searcher, name)(*arguments)


def test_a_fresh_process_answers_without_loading_what_it_does_not_need(tmp_path, monkeypatch):
    monkeypatch.setenv("COVERS_HOME", str(tmp_path))
    search.connect().publish(make_points(20), "b")
    monkeypatch.setenv("PYTHONPATH", str(Path(search.__file__).parent.parent))
    code = (
        "import search, sys; assert 'qdrant_edge' not in sys.modules; "
        "assert len(search.similar('P_1')) == 10; search.similar_many(['P_1']); search.status(); "
        "print(*sys.modules)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/"
    ).stdout.split()
    heavy = "torch lightning prefect polars h5py qdrant_client filelock numba"
    assert not set(heavy.split()) & {name.split(".")[0] for name in loaded}


@pytest.mark.parametrize("three", [3.0, np.int64(3), np.float32(3), np.array(3), np.uint8(3)])
def test_a_whole_number_is_a_limit_whatever_its_type(searcher, three):
    assert searcher.similar("P_1", three) == searcher.similar("P_1", 3)
    assert searcher.works("P_1", three) == searcher.works("P_1", 3)


YEARS = [1951, 1953, 1955]


@pytest.mark.parametrize(
    "years",
    [
        tuple(YEARS),
        set(YEARS),
        frozenset(YEARS),
        range(1951, 1956, 2),
        np.array(YEARS),
        np.array(YEARS, np.float64),
        pl.Series(YEARS),
        pl.Series(YEARS).to_numpy(),
        dict.fromkeys(YEARS).keys(),
        [np.int64(1951), 1953.0, np.float32(1955)],
    ],
)
def test_several_values_may_come_in_anything_that_holds_several(searcher, years):
    expected = searcher.similar("P_1", where={"year": YEARS})
    assert expected
    assert searcher.similar("P_1", where={"year": years}) == expected
    others = none_of(years)
    assert searcher.similar("P_1", where={"year": others}) == searcher.similar(
        "P_1", where={"year": none_of(YEARS)}
    )
    assert sorted(json.loads(json.dumps(others))["none_of"]) == YEARS


def test_numbers_of_numpy_are_numbers_in_every_condition(searcher):
    where = {"year": between(np.int64(1950), np.float64(1970)), "instrumental": np.bool_(True)}
    plain = {"year": between(1950, 1970), "instrumental": True}
    assert searcher.similar("P_1", where=where) == searcher.similar("P_1", where=plain)
    assert json.loads(json.dumps(where["year"])) == {"between": [1950, 1970]}
    assert none_of("live") == {"none_of": ["live"]}


SONGS = points_of(
    [f"P_{i}" for i in range(7)],
    np.arange(7.0)[:, None],
    [
        {"work_id": f"W_{i}", "title": title, "artist": artist, "year": 1960 + i}
        for i, (title, artist) in enumerate(
            [
                ("Air", "J. S. Bach"),
                ("Für Elise", "Ludwig van Beethoven"),
                ("Devil's Dream", "Johann Sebastian Bach"),
                ("夜に駆ける", "YOASOBI"),
                ("September (live)", "Earth, Wind & Fire"),
                ("…", "Bachman-Turner Overdrive"),
                (None, None),
            ]
        )
    ],
)


@pytest.fixture(scope="module", params=ENGINES)
def songs(request):
    with published(SONGS, request.param) as engine:
        yield Searcher(engine)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"artist": contains("bach")}, ["P_0", "P_2"]),
        ({"artist": contains("BACH johann")}, ["P_2"]),
        ({"title": contains("bach")}, []),
        ({"title": contains("fur elise")}, ["P_1"]),
        ({"title": contains("devils")}, ["P_2"]),
        ({"title": contains("devil’s dream!")}, ["P_2"]),
        ({"title": contains("夜")}, ["P_3"]),
        ({"artist": contains("fire earth")}, ["P_4"]),
        ([{"artist": contains("bach")}, {"artist": "J. S. Bach"}], ["P_0"]),
        ([{"year": between(1961, None)}, {"year": between(None, 1962)}], ["P_1", "P_2"]),
        ([{"year": between(1961, 1963)}, {"year": none_of([1962])}], ["P_1", "P_3"]),
        ([], [f"P_{i}" for i in range(7)]),
    ],
)
def test_words_are_found_in_any_order_and_all_conditions_hold(songs, where, expected):
    assert track_ids(songs.similar(Query([0]), where=where)) == expected


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        ({"artist": "Bach"}, "has artist 'Bach': near ones are '(J. S.|Johann Sebastian) Bach', "),
        (
            {"artist": "Ludwig von Beethoven"},
            "near ones are 'Ludwig van Beethoven' \\(single words",
        ),
        (
            {"artist": "Zappa"},
            "has artist 'Zappa': other ones are '.*', '.*', '.*' \\(single words",
        ),
        ({"artist": contains("bethoven")}, "word 'bethoven' in artist: near ones are 'beethoven'"),
        ({"year": [1999, 2000]}, "has year 1999 or 2000: it is 1960 to 1966 in those"),
        ({"year": between(None, 1900)}, "has year from any to 1900: it is 1960 to 1966"),
        ({"work_title": "Air"}, "none of those that were looked at has a work_title"),
        ({"work_id": "w_1"}, "near ones are 'W_1'"),
        ({"bundle": none_of(["b"])}, "has anything but bundle 'b': near ones are 'b'."),
        ({"artist": "J. S. Bach", "year": 1963}, "No other performance meets all conditions."),
        (None, "No other performance is there."),
    ],
)
def test_a_filter_that_finds_nothing_is_explained(songs, where, sentence):
    assert re.search(sentence, songs.why_nothing(where))


def test_a_value_that_nothing_has_is_named_though_others_are_found(songs):
    where = {"artist": ["J. S. Bach", "Johan Sebastian Bach"], "year": [1963, 1964]}
    [said] = songs.unknown_values(where)
    assert "has artist 'Johan Sebastian Bach': near ones are 'Johann Sebastian Bach'" in said
    assert songs.unknown_values({"artist": ["J. S. Bach", "Johann Sebastian Bach"]}) == []


def test_matches_become_a_table_in_one_step_and_show_every_field(searcher):
    matches = searcher.similar("P_1", 5)
    table = pl.DataFrame(matches)
    assert len(table) == 5
    assert set(FIELDS) <= set(table.columns)
    assert table["year"].to_list() == [match.year for match in matches]
    assert json.loads(json.dumps(asdict(matches[0])))["track_id"] == matches[0].track_id
    assert repr(matches[0]).startswith(f"Match(track_id='{matches[0].track_id}', work_id=")


def test_the_package_exports_everything_that_it_imports():
    names = [name for name, value in vars(search).items() if not inspect.ismodule(value)]
    assert search.__all__ == sorted(name for name in names if not name.startswith("_"))
