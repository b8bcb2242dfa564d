"""What many tests start from."""

import importlib.util
import os
from pathlib import Path

import catalogue  # reads, before it is taken away below, which server to test with
import numpy as np
import pytest
from hypothesis import settings
from trees import Tree, copy_sample

# How long an example takes is the machine's business: speed is measured in tests/benchmarks.
settings.register_profile("covers", deadline=None, derandomize=True, max_examples=30)
settings.load_profile("covers")

#: These take longest, so they start first: else one process would end with them alone.
SLOWEST = ("prefect", "test_worker", "test_orders", "test_failing_requests", "test_extract")


def pytest_configure(config):
    """Take away the settings of whoever runs the tests, from processes that tests start too.

    Else a test of flows would publish to the server of the environment, or tell somebody of it.
    Only the tests marked `server` know that server, by `catalogue`. It is done before any test is
    imported, for flows read some settings when they are; and not where xdist is about to start the
    processes that test, which need them for `catalogue` and then take them away themselves.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of torch, as tests run side by side
    if config.getoption("dist", "no") == "no":
        for name in list(os.environ):
            if name.startswith(("QDRANT_", "COVERS_", "PREFECT_API_")):
                del os.environ[name]


def pytest_collection_modifyitems(items):
    """Run a file in one process, and all files with flows in the same one, which has a server."""
    with_server = {item.path for item in items if "prefect_server" in item.fixturenames}
    place = {name: i for i, name in enumerate(SLOWEST)}

    def group(item):
        return "prefect" if item.path in with_server else item.path.stem

    items.sort(key=lambda item: place.get(group(item), len(SLOWEST)))
    for item in items:
        item.add_marker(pytest.mark.xdist_group(group(item)))


@pytest.fixture
def make_tree(tmp_path):
    """Make a `Tree`: make_tree(layout="single" | "features" | "acoss", subset=…, name=…)."""

    def make(layout: str = "single", subset: str = "benchmark", name: str = "data") -> Tree:
        return Tree(tmp_path / name, layout, subset)

    return make


@pytest.fixture
def tree(make_tree):
    """A data set of single files: two works with two performances, and a noise work."""
    made = make_tree()
    for track_id in ("P_11", "P_12", "P_21", "P_22", "P_31"):
        made.add(f"W_{track_id[2]}", track_id)
    return made


@pytest.fixture(scope="session")
def small_sample(tmp_path_factory):
    """A data set of every sixth work of the sample, and of the work that the demo asks about."""
    root = tmp_path_factory.mktemp("data") / "sixth"
    return copy_sample(root, slice(None, None, 6), "W_2971")


@pytest.fixture(scope="session")
def songs(tmp_path_factory):
    """A feature store of 12 works with two performances each."""
    from feature_stores import make_store

    return make_store(tmp_path_factory.mktemp("songs") / "features", works=12, each=2)


@pytest.fixture(scope="session")
def trained(songs):
    """Each encoder, quickly trained on these songs, with where it comes from."""
    from feature_stores import QUICK, SEED

    from embedding.training import train

    return {name: train(songs, name, config=config, seed=SEED) for name, config in QUICK.items()}


@pytest.fixture
def rng():
    """Random numbers that are the same in every run."""
    return np.random.default_rng(52)


@pytest.fixture(params=catalogue.ENGINES)
def engine(request):
    """Each kind of engine, empty."""
    with catalogue.empty(request.param) as engine:
        yield engine


@pytest.fixture(params=catalogue.ENGINES[1:])
def server(request):
    """Each kind of server's engine, empty."""
    with catalogue.empty(request.param) as engine:
        yield engine


@pytest.fixture
def embedded():
    """An empty embedded engine."""
    with catalogue.empty() as engine:
        yield engine


@pytest.fixture
def stub():
    """A stand-in for a Qdrant server, with two keys."""
    from contract_stub import KEY, READ_ONLY_KEY, ContractStub

    stub = ContractStub(KEY, READ_ONLY_KEY)
    yield stub
    stub.close()


@pytest.fixture
def own(stub, tmp_path):
    """The engine of that stand-in."""
    from contract_stub import KEY

    from search.engines.server.server import Server

    engine = Server(stub.url, KEY, tmp_path / "publish.lock")
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def prefect_server():
    """Prefect as it runs for a user without a server: a temporary one, on a database of its own.

    Its URL is for processes that a test starts.
    """
    from prefect.settings import PREFECT_API_URL
    from prefect.testing.utilities import prefect_test_harness

    from flows import temporary

    with temporary.settings(), prefect_test_harness(server_startup_timeout=120):
        yield PREFECT_API_URL.value()


@pytest.fixture(scope="module")
def plain_flows():
    """Flows are called as functions in a whole module: see `plain`."""
    from plain import plain_flows

    with plain_flows():
        yield


@pytest.fixture(scope="session")
def exporter():
    """The exporter of flow runs, which is not part of a package."""
    path = Path(__file__).resolve().parent.parent / "deploy/prometheus/flow_runs_exporter.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
