"""What `deploy/` promises an operator, checked without Docker, Kubernetes or a network.

Against the Compose specification and its program, Kubernetes' own models, hadolint and Prometheus'
grammar, as far as these go; then against each other, the program, and the versions it was tested
with. `test_deploy_alerts` evaluates the alerts.
"""

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import jsonschema
import promql_parser
import pytest
import yaml
from check_jsonschema.builtin_schemas import get_builtin_schema
from lightkube import codecs
from packaging.specifiers import SpecifierSet
from packaging.version import Version
from prefect.automations import AutomationCore, Posture
from prefect.client.schemas.filters import FlowFilter, FlowRunFilter
from prefect.client.schemas.objects import Flow, FlowRun
from prefect.client.schemas.sorting import FlowRunSort
from prefect.settings import Settings
from prefect.settings.legacy import _get_valid_setting_names
from typer.main import get_command

from flows.cli.commands import app

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"


def read(path):
    return (DEPLOY / path).read_text(encoding="utf-8")


def load(path):
    return yaml.safe_load(read(path))


COMPOSE = load("compose.yaml")
SERVICES = COMPOSE["services"]
DOCKERFILE = read("Dockerfile")
RULES = [rule for group in load("prometheus/alerts.yaml")["groups"] for rule in group["rules"]]
MANIFESTS = [
    document
    for path in sorted(KUBERNETES.glob("*.yaml"))
    if not path.name.startswith(("values-", "kustomization"))
    for document in yaml.safe_load_all(path.read_text(encoding="utf-8"))
]
VALUES = {path.stem: load(path) for path in sorted(KUBERNETES.glob("values-*.yaml"))}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PINNED = dict(
    line.split("==")
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if "==" in line
)


def of_kind(kind):
    return [document for document in MANIFESTS if document["kind"] == kind]


WORKLOADS = {each["metadata"]["name"]: each for each in of_kind("Deployment")}
POD = WORKLOADS["covers"]["spec"]["template"]["spec"]
EXPORTER = WORKLOADS["covers-flow-runs"]["spec"]["template"]["spec"]
PODS = {"covers": POD, "covers-flow-runs": EXPORTER} | {
    each["metadata"]["name"]: each["spec"] for each in of_kind("Pod")
}
POLICIES = {policy["metadata"]["name"]: policy["spec"] for policy in of_kind("NetworkPolicy")}
MONITORS = list(yaml.safe_load_all(read("kubernetes/monitoring/servicemonitors.yaml")))


def variables(text):
    """Names of the variables that Compose puts in, `$$` apart, each with what follows it."""
    return re.findall(r"(?<!\$)\$\{(\w+)(:[-?][^}]*)?\}", text)


def example():
    lines = (line for line in read(".env.example").splitlines() if not line.startswith("#"))
    return dict(line.split("=", 1) for line in lines if line)


def images():
    yield from (service["image"] for service in SERVICES.values())
    yield from re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    yield from (container["image"] for pod in PODS.values() for container in pod["containers"])
    qdrant = VALUES["values-qdrant"]["image"]
    yield f"{qdrant['repository']}:{qdrant['tag']}"
    for image in (
        VALUES["values-prefect-server"]["global"]["prefect"]["image"],
        VALUES["values-prefect-worker"]["worker"]["image"],
    ):
        yield f"{image['repository']}:{image['prefectTag']}"
    for image in load("kubernetes/kustomization.yaml")["images"]:
        yield f"{image['newName']}:{image['newTag']}"


# Versions


@pytest.mark.parametrize("image", sorted(set(images())))
def test_an_image_is_pinned_to_a_full_version(image):
    assert re.search(r":v?\d+\.\d+(\.\d+)?(-[a-z0-9.-]+)?$", image)


def test_our_image_has_the_version_of_the_program():
    ours = {image for image in images() if image.rpartition(":")[0].endswith("covers")}
    assert {image.rpartition(":")[2] for image in ours} == {PROJECT["project"]["version"]}
    assert set(re.findall(r"covers:(\d[\w.]*)", read("RUNBOOK.md") + DOCKERFILE)) == {
        PROJECT["project"]["version"]
    }


def test_prefect_is_the_one_that_the_project_pins():
    pinned = PINNED["prefect"]
    assert f"prefect=={pinned}" in PROJECT["project"]["dependencies"]
    others = [image for image in images() if image.startswith("prefecthq/prefect:")]
    # The worker's, which needs prefect-kubernetes. A server needs the other pins too: it is ours.
    [worker] = others
    assert re.fullmatch(rf"prefecthq/prefect:{pinned}-python3\.\d+-kubernetes", worker)


def test_the_qdrant_server_is_at_most_one_minor_version_from_the_client():
    client = Version(PINNED["qdrant-client"])
    servers = [
        Version(re.search(r":v([\d.]+)", image)[1]) for image in images() if "/qdrant:" in image
    ]
    assert len(servers) == 2
    assert len(set(servers)) == 1
    assert servers[0].major == client.major
    assert abs(servers[0].minor - client.minor) <= 1


@pytest.mark.parametrize("name", sorted(VALUES))
def test_the_runbook_installs_the_chart_that_the_values_are_for(name):
    chart, version = re.search(
        r"^# chart: (\S+) (\S+)$", read(f"kubernetes/{name}.yaml"), re.MULTILINE
    ).groups()
    repository = "qdrant" if chart == "qdrant" else "prefect"
    assert f"{repository}/{chart} --version {version} -n covers -f kubernetes/{name}.yaml" in read(
        "RUNBOOK.md"
    )


def test_the_image_has_the_python_and_the_torch_that_were_tested():
    bases = set(re.findall(r"^FROM python:(\d+\.\d+\.\d+)-slim", DOCKERFILE, re.MULTILINE))
    assert len(bases) == 1
    python = Version(bases.pop())
    assert python in SpecifierSet(PROJECT["project"]["requires-python"])
    assert f"{python.major}.{python.minor}" == PROJECT["tool"]["mypy"]["python_version"]
    installs = re.findall(r"pip --python \S+ install (.*?)\n(?=\S)", DOCKERFILE, re.DOTALL)
    assert len(installs) == 2
    assert all("-c constraints.txt" in install for install in installs)
    # PyTorch's index gives torch and nothing else: no other package can be taken from it.
    torch, rest = installs
    assert re.search(r"--no-deps .*download\.pytorch\.org/whl/cpu torch$", torch, re.DOTALL)
    assert "index-url" not in rest
    assert "torch" in PINNED


# The Dockerfile


def program(name):
    """Where a program of the development dependencies is."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    found = shutil.which(name, path=path)
    assert found, f"{name} is a development dependency: make install"
    return found


def test_hadolint_finds_nothing():
    done = subprocess.run(
        [program("hadolint"), "--no-color", str(DEPLOY / "Dockerfile")],
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.returncode) == ("", 0)


def test_the_image_runs_as_nobody_in_particular_and_keeps_no_builder():
    final = DOCKERFILE.split("\nFROM ")[-1]
    assert re.findall(r"^USER (\d+):(\d+)$", final, re.MULTILINE) == [("10001", "10001")]
    assert {POD["securityContext"][key] for key in ("runAsUser", "runAsGroup", "fsGroup")} == {
        10001
    }
    assert 'ENTRYPOINT ["covers"]' in final
    assert "HEALTHCHECK" in final
    assert "COVERS_HOME=/var/lib/covers" in final
    assert "pip uninstall --yes pip setuptools wheel" in final
    assert not re.search(r"^ADD |apt-get|pip install", final, re.MULTILINE)


def test_the_build_gets_what_it_copies_and_nothing_else():
    lines = [line for line in read("Dockerfile.dockerignore").splitlines() if line[:1] != "#"]
    assert lines[0] == "*"
    let_in = {line[1:] for line in lines if line.startswith("!")}
    copied = {
        source
        for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
        for source in sources.split()
    }
    assert copied == let_in
    assert all((ROOT / source).exists() for source in copied)
    assert {"embedding", "search", "flows"} <= copied


# Compose


def violations(compose):
    schema = get_builtin_schema("vendor.compose-spec")
    validator = jsonschema.validators.validator_for(schema)(schema)
    return [error.message for error in validator.iter_errors(compose)]


def test_the_compose_file_follows_the_specification():
    assert violations(COMPOSE) == []
    assert violations({"services": {"a": {"image": "b", "restarts": "always"}}})


@pytest.fixture(scope="module")
def rendered():
    """What Docker Compose makes of the file, given the example's variables."""
    given = {name: value.strip('"') or f"given-{name}" for name, value in example().items()}
    done = subprocess.run(
        [program("docker-compose"), "--profile", "*", "config", "--format", "json"],
        cwd=DEPLOY, env={**os.environ, **given}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["services"]


def test_docker_compose_reads_it_and_passes_on_what_the_example_gives(rendered):
    assert set(rendered) == set(SERVICES)
    for name in ("covers", "worker"):
        environment = rendered[name]["environment"]
        assert environment["COVERS_COLLECTION"] == "covers"
        for variable in ("QDRANT_API_KEY", "COVERS_ALERT_URL", "COVERS_COPY_API_KEY"):
            assert environment[variable] == f"given-{variable}"
        assert environment["PREFECT_API_AUTH_STRING"] == "given-PREFECT_AUTH_STRING"


def test_docker_compose_refuses_to_start_without_a_key():
    done = subprocess.run(
        [program("docker-compose"), "--env-file", os.devnull, "config", "--quiet"],
        cwd=DEPLOY, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode != 0
    assert "missing a value" in done.stderr


def test_one_service_builds_the_image_and_all_that_use_it_depend_on_that_one(rendered):
    ours = {name: each for name, each in rendered.items() if each["image"].startswith("covers:")}
    assert set(ours) == {"prefect-server", "covers", "worker", "flow-runs-exporter"}
    [builder] = [name for name, each in rendered.items() if "build" in each]
    for name, each in ours.items():
        assert each["image"] == ours[builder]["image"]
        # No registry is asked, and a selection of services always holds the one that builds.
        assert each["pull_policy"] == "never"
        assert name == builder or builder in each["depends_on"]


def test_the_bundle_that_is_served_every_night_comes_with_the_program(rendered):
    commands = [
        rendered["covers"]["command"],
        shlex.split(rendered["worker"]["command"][0].split("&&")[0])[1:],
        POD["containers"][0]["args"],
    ]
    runbook = read("RUNBOOK.md")
    pools = re.findall(r"^\$.* (serve --pool [^#\n]*--data .*?)(?:  +#.*)?$", runbook, re.MULTILINE)
    assert len(pools) == 3
    for command in commands + [shlex.split(pool) for pool in pools]:
        assert command[0] == "serve"
        assert command[command.index("--bundle") + 1] == "pretrained"
        assert command[command.index("--data") + 1] == "/data"
    assert (ROOT / "embedding/pretrained/bundle.json").is_file()
    # Another one is trained by what this adds to the parameters of the deployment.
    trained = re.search(r"--param bundle=null --param encoder=\w+ --param training_data=", runbook)
    assert trained


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_confined_limited_and_watched(name):
    service = SERVICES[name]
    assert int(service["user"].split(":")[0]) > 0
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert "privileged" not in service
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}
    assert {"test", "interval", "timeout", "retries", "start_period"} <= set(service["healthcheck"])
    assert service["restart"] == "unless-stopped"
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}
    for port in service.get("ports", []):
        assert port.startswith("${BIND_ADDRESS:-127.0.0.1}:")


def test_a_service_waits_until_those_it_needs_are_healthy():
    needs = {name: service.get("depends_on", {}) for name, service in SERVICES.items()}
    assert set(needs["covers"]) == set(needs["worker"]) == {"qdrant", "prefect-server"}
    assert set(needs["prefect-server"]) == {"postgres"}
    for each in needs.values():
        assert set(each) <= set(SERVICES)
        assert all(how == {"condition": "service_healthy"} for how in each.values())


def test_only_prefect_reaches_its_database():
    on = {name for name, service in SERVICES.items() if "database" in service.get("networks", [])}
    assert on == {"postgres", "prefect-server"}
    assert COMPOSE["networks"]["database"] == {"internal": True}
    assert SERVICES["postgres"]["networks"] == ["database"]
    assert "ports" not in SERVICES["postgres"]


def test_what_is_worth_keeping_lies_on_named_volumes():
    mounts = {
        name: dict(
            mount.split(":") for mount in service.get("volumes", []) if isinstance(mount, str)
        )
        for name, service in SERVICES.items()
    }
    assert {volume for each in mounts.values() for volume in each} == set(COMPOSE["volumes"])
    assert mounts["qdrant"]["qdrant-storage"] == "/qdrant/storage"
    assert mounts["qdrant"]["qdrant-snapshots"] == "/qdrant/snapshots"
    assert mounts["covers"] == mounts["worker"] == {"workspace": "/var/lib/covers"}
    # Who holds a concurrency limit, which a restart must not forget.
    home = SERVICES["prefect-server"]["environment"]["PREFECT_HOME"]
    assert mounts["prefect-server"] == {"prefect": home}
    # From PostgreSQL 18 on the image wants the directory above its data.
    assert mounts["postgres"] == {"postgres": "/var/lib/postgresql"}


def test_paths_that_compose_names_are_there():
    build = SERVICES["prefect-server"]["build"]
    context = (DEPLOY / build["context"]).resolve()
    assert context == ROOT
    assert (context / build["dockerfile"]) == DEPLOY / "Dockerfile"
    script = SERVICES["flow-runs-exporter"]["entrypoint"][-1]
    assert f"{Path(script).name} {Path(script).parent}/\n" in DOCKERFILE
    assert script in EXPORTER["containers"][0]["command"]


def test_every_variable_is_explained_and_used():
    used = dict(variables(read("compose.yaml")))
    assert set(used) == set(example())
    for name, value in example().items():
        # A default that's said twice is the same twice; what has none must be given.
        default = used[name].removeprefix(":-") if used[name].startswith(":-") else ""
        assert value.strip('"') == default, name
        optional = name in {"COVERS_ALERT_URL", "COVERS_COPY_API_KEY"}
        assert (used[name] == ":?") == (value == "" and not optional), name


def test_the_commands_are_those_of_the_program():
    serve = get_command(app).commands["serve"]
    known = {option for parameter in serve.params for option in parameter.opts}
    registering, working = (
        shlex.split(SERVICES["worker"]["command"][0].split("&& exec ")[0]),
        (shlex.split(SERVICES["worker"]["command"][0].split("&& exec ")[1])),
    )
    assert registering.pop(0) == "covers"
    pool = registering[registering.index("--pool") + 1]
    assert working[:3] == ["prefect", "worker", "start"]
    assert working[working.index("--pool") + 1] == pool
    for command in (SERVICES["covers"]["command"], POD["containers"][0]["args"], registering):
        assert command[0] == serve.name
        assert {word for word in command if word.startswith("--")} <= known
        assert any(re.fullmatch(r"pipeline=(\$\{.+\}|0 2 \* \* \*)", word) for word in command)


def test_every_prefect_setting_is_one():
    known = _get_valid_setting_names(Settings)
    texts = [read("compose.yaml"), DOCKERFILE, *map(Path.read_text, KUBERNETES.glob("*.yaml"))]
    named = {name for text in texts for name in re.findall(r"\bPREFECT_[A-Z_]+(?=[:=,\n])", text)}
    # Our own variables, which Compose passes on under Prefect's names.
    named -= set(example()) - {"PREFECT_UI_API_URL"}
    assert len(named) > 10
    assert named <= known


# Secrets

SECRET = re.compile(
    r"""(?ix) \b[0-9a-f]{32,}\b                                   # a key in hex
    | (?:password|passwd|secret|token|api[_-]?key|auth[_-]?string)  # or something called one,
      ["']?\ *[:=]\ *["']?(?!REPLACE|covers\b|os\.)[\w+/.!@-]{6,}        # with a value
    | ://[^\s/:$"]+:(?!password@|REPLACE)[^\s$@/"]+@               # or one within a URL
    """
)


#: What git keeps: not an operator's own .env, keys and backups.
FILES = sorted(
    path
    for path in DEPLOY.rglob("*")
    if path.is_file()
    and path.suffix != ".png"
    and path.name not in {".env", "compose.override.yaml"}
    and not {"secrets", "backup", "__pycache__"} & set(path.parts)
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_file_holds_a_secret(path):
    assert not [found[0] for found in SECRET.finditer(path.read_text(encoding="utf-8"))]


@pytest.mark.parametrize(
    "planted",
    ["KEY=0123456789abcdef0123456789abcdef", "POSTGRES_PASSWORD: hunter22", "api-key: 'letmein1'",
     "postgresql://prefect:hunter22@db/x", 'QDRANT_API_KEY="letmein1"'],
)  # fmt: skip
def test_a_planted_secret_would_be_found(planted):
    assert SECRET.search(planted)


# Kubernetes


@pytest.mark.parametrize(
    "manifest", MANIFESTS, ids=lambda each: f"{each['kind']}-{each['metadata']['name']}"
)
def test_a_manifest_is_what_kubernetes_knows(manifest):
    # What its models don't know gets lost on the way through them, and a wrong type is refused.
    assert codecs.from_dict(manifest).to_dict() == manifest
    if manifest["kind"] != "Namespace":
        assert manifest["metadata"]["namespace"] == "covers"


def test_a_misspelt_manifest_would_be_found():
    misspelt = {"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replica": 3}}
    with pytest.raises(Exception, match=r"missing required field|Expected"):
        codecs.from_dict(misspelt)
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "spec": {"accessMode": ["x"]}}
    assert codecs.from_dict(claim).to_dict() != claim


def test_kustomize_applies_every_manifest_but_the_example():
    listed = set(load("kubernetes/kustomization.yaml")["resources"])
    there = {path.name for path in KUBERNETES.glob("*.yaml") if "values-" not in path.name}
    assert listed == there - {"kustomization.yaml", "secret.example.yaml", "data-pod.yaml"}


@pytest.mark.parametrize("name", PODS)
def test_a_pod_is_confined_and_limited(name):
    pod = PODS[name]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"] == POD["securityContext"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert set(container["resources"]) == {"requests", "limits"}


def test_an_outage_of_prefect_kills_no_container():
    # The runner's and the worker's /health fails while Prefect's server doesn't answer them, so it
    # says whether they are ready; only what restarts a container must not ask it.
    for workload in WORKLOADS.values():
        for container in workload["spec"]["template"]["spec"]["containers"]:
            assert "readinessProbe" in container
            for kind in ("livenessProbe", "startupProbe"):
                assert "httpGet" not in container.get(kind, {}), kind
    assert VALUES["values-prefect-worker"]["worker"]["livenessProbe"] == {"enabled": False}


def test_prefects_server_is_started_from_our_image_as_compose_starts_it():
    values = VALUES["values-prefect-server"]
    image = values["global"]["prefect"]["image"]
    [ours] = load("kubernetes/kustomization.yaml")["images"]
    assert image == {"repository": ours["newName"], "prefectTag": ours["newTag"]}
    # The chart's own command is the entrypoint of Prefect's image.
    assert values["server"]["command"] == SERVICES["prefect-server"]["entrypoint"]
    assert values["server"]["args"] == SERVICES["prefect-server"]["command"]
    given = {each["name"] for each in values["server"]["env"] + values["global"]["prefect"]["env"]}
    # These the chart makes of its other values.
    charts = {"PREFECT_SERVER_API_AUTH_STRING", "PREFECT_SERVER_UI_API_URL"}
    charts |= {"PREFECT_SERVER_UI_STATIC_DIRECTORY"}
    said = SERVICES["prefect-server"]["environment"]
    assert given | charts == {name for name in said if "_DATABASE_" not in name}


def test_every_image_of_ours_names_the_same_registry():
    [ours] = load("kubernetes/kustomization.yaml")["images"]
    pulled = f"{ours['newName']}:{ours['newTag']}"
    for workload in WORKLOADS.values():  # kustomize puts it in
        for container in workload["spec"]["template"]["spec"]["containers"]:
            assert container["image"].split(":")[0] == ours["name"]
    for name in ("data-pod.yaml", "job-template.json"):  # it sees none of these
        assert pulled in read(f"kubernetes/{name}")
    assert f"docker push {pulled} " in read("RUNBOOK.md")


@pytest.mark.parametrize("folder", ["", "monitoring"])
def test_kustomize_builds_it(folder):
    kubectl = shutil.which("kubectl")
    if not kubectl:
        pytest.skip("NOT CHECKED: there is no `kubectl` here")
    done = subprocess.run(
        [kubectl, "kustomize", str(KUBERNETES / folder)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    made = list(yaml.safe_load_all(done.stdout))
    assert len(made) == len(MONITORS if folder else MANIFESTS) - (0 if folder else 2)
    # The operator's kinds are apart: where they aren't defined, applying the rest must not fail.
    assert {each["apiVersion"] == "monitoring.coreos.com/v1" for each in made} == {bool(folder)}
    assert "image: covers:" not in done.stdout


def test_a_job_is_as_confined_as_the_pod_that_serves_and_mounts_the_same():
    template = json.loads(read("kubernetes/job-template.json"))
    job = template["job_configuration"]["job_manifest"]
    pod = job["spec"]["template"]["spec"]
    # Prefect insists on these two here, where Kubernetes knows nothing of them.
    assert (pod.pop("parallelism"), pod.pop("completions")) == (1, 1)
    checked = json.loads(json.dumps(job))
    checked["metadata"] |= {"labels": {}, "name": "x"}
    assert codecs.from_dict(checked).to_dict() == checked
    [container], serving = pod["containers"], POD["containers"][0]
    for name in ("volumeMounts", "securityContext", "envFrom"):
        assert container[name] == serving[name]
    for name in ("volumes", "securityContext", "automountServiceAccountToken"):
        assert pod[name] == POD[name]
    assert set(references(job)) < set(references(POD))
    given = {each["name"] for each in container["env"]}
    assert given == {"QDRANT_API_KEY", "COVERS_ALERT_URL"}  # a worker passes Prefect's on
    assert container["command"] == ["env"]  # the image's entrypoint is `covers`, Prefect's its own
    said = template["variables"]["properties"]
    assert said["image"]["default"] in set(images())
    used = set(re.findall(r"{{ (\w+) }}", json.dumps(template["job_configuration"])))
    assert used == set(said)
    labels = job["spec"]["template"]["metadata"]["labels"]
    selected = [
        policy["spec"]["podSelector"]["matchLabels"] for policy in of_kind("NetworkPolicy")
        if policy["spec"]["podSelector"]
    ]  # fmt: skip
    assert labels in selected
    assert VALUES["values-prefect-worker"]["worker"]["config"]["type"] == "kubernetes"


def test_one_pod_serves_the_schedules():
    assert WORKLOADS["covers"]["spec"]["replicas"] == 1
    assert WORKLOADS["covers"]["spec"]["strategy"] == {"type": "Recreate"}


def references(node):
    """Every (secret, key) that something asks for."""
    if isinstance(node, dict):
        for name in ("secretKeyRef", "credentials", "username", "password"):
            if name in node:
                yield node[name]["name"], node[name]["key"]
        if "existingSecret" in node:
            yield node["existingSecret"], "auth-string"
        node = list(node.values())
    if isinstance(node, list):
        for each in node:
            yield from references(each)


def test_what_a_manifest_or_chart_refers_to_is_there():
    [secret] = of_kind("Secret")
    assert set(secret["stringData"].values()) == {"REPLACE"}
    keys = {(secret["metadata"]["name"], key) for key in secret["stringData"]}
    # The chart finds the last one by its name.
    assert set(references([MANIFESTS, MONITORS, *VALUES.values()])) == keys - {
        ("covers", "connection-string")
    }
    assert VALUES["values-prefect-server"]["secret"] == {"create": False, "name": "covers"}
    assert all(f"--from-literal={key}=" in read("RUNBOOK.md") for _, key in keys)
    claims = {claim["metadata"]["name"] for claim in of_kind("PersistentVolumeClaim")}
    mounted = [
        volume.get("persistentVolumeClaim", {}).get("claimName") for volume in POD["volumes"]
    ]
    assert set(mounted) - {None} == claims
    configs = {config["metadata"]["name"] for config in of_kind("ConfigMap")}
    for pod in PODS.values():
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} == volumes
            sources = container.get("envFrom", [])
            assert {source["configMapRef"]["name"] for source in sources} <= configs
            probes = [each for name, each in container.items() if name.endswith("Probe")]
            ports = {port["name"] for port in container.get("ports", [])}
            assert {(p.get("httpGet") or p["tcpSocket"])["port"] for p in probes} <= ports


def test_keys_that_need_not_be_there_are_the_two_that_are_optional():
    def optional(node):
        if isinstance(node, dict):
            if node.get("optional"):
                yield node["key"]
            node = list(node.values())
        if isinstance(node, list):
            for each in node:
                yield from optional(each)

    assert set(optional(MANIFESTS)) == {"alert-url", "copy-api-key"}
    assert set(optional(json.loads(read("kubernetes/job-template.json")))) == {"alert-url"}


def test_a_restart_is_enough_to_change_the_keys_of_qdrant():
    values = VALUES["values-qdrant"]
    assert not {"apiKey", "readOnlyApiKey"} & set(values)  # copied when helm runs
    given = {each["name"]: each["valueFrom"]["secretKeyRef"]["key"] for each in values["env"]}
    assert given == {
        "QDRANT__SERVICE__API_KEY": "qdrant-api-key",
        "QDRANT__SERVICE__READ_ONLY_API_KEY": "qdrant-read-only-api-key",
    }
    assert set(given) <= set(SERVICES["qdrant"]["environment"])
    [restart] = re.findall(r"rollout restart (.*)", read("RUNBOOK.md"))
    charts = {"statefulset/qdrant", "deployment/prefect-server"}
    assert set(restart.split()) == charts | {f"deployment/{name}" for name in WORKLOADS}


def ports(rule):
    return {port["port"] for port in rule["ports"]}


def test_nothing_is_let_through_but_what_a_policy_names():
    assert POLICIES["nothing"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    [config] = of_kind("ConfigMap")
    asked = {
        re.match(r"http://([\w-]+):(\d+)", url).groups()
        for name, url in config["data"].items() if name.endswith("_URL")
    }  # fmt: skip
    for name in ("covers", "prefect-jobs"):  # both run flows
        allowed = {
            (rule["to"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/name"], port)
            for rule in POLICIES[name]["egress"] if "to" in rule
            for port in ports(rule)
        }  # fmt: skip
        assert allowed == {(host, int(port)) for host, port in asked} | {("qdrant", 6334)}
        # An alert's address is known by its port alone.
        assert [ports(rule) for rule in POLICIES[name]["egress"] if "to" not in rule] == [{443}]


def test_whoever_reaches_qdrants_rest_reaches_its_grpc():
    rules = [
        rule
        for policy in POLICIES.values()
        for rule in [*policy.get("egress", []), *policy.get("ingress", [])]
        if 6333 in ports(rule)
    ]
    assert len(rules) == 4
    assert all(6334 in ports(rule) for rule in rules)


def test_what_one_policy_lets_out_another_lets_in():
    for policy in POLICIES.values():
        for rule in policy.get("egress", []):
            for target in rule.get("to", []):
                if "podSelector" not in target:
                    continue  # the cluster's DNS
                [receiver] = [
                    each for each in POLICIES.values()
                    if each["podSelector"] == target["podSelector"]
                ]  # fmt: skip
                source = {"podSelector": policy["podSelector"]}
                let_in = [ports(each) for each in receiver["ingress"] if source in each["from"]]
                assert ports(rule) <= set().union(*let_in), (policy, target)


def test_qdrants_cluster_outlives_a_node():
    qdrant = VALUES["values-qdrant"]
    assert qdrant["replicaCount"] == 3
    assert qdrant["config"]["cluster"]["enabled"] is True
    assert qdrant["config"]["storage"]["collection"]["replication_factor"] == 2
    assert qdrant["podDisruptionBudget"] == {"enabled": True, "maxUnavailable": 1}
    assert qdrant["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert qdrant["snapshotPersistence"]["enabled"] is True
    assert qdrant["snapshotPersistence"]["size"] == qdrant["persistence"]["size"]


# Prometheus


def monitored_as(monitor):
    """The job by whose name the alerts know what a ServiceMonitor has scraped."""
    [endpoint] = monitor["spec"]["endpoints"]
    [relabeling] = endpoint["relabelings"]
    assert (relabeling["action"], relabeling["targetLabel"]) == ("replace", "job")
    return relabeling["replacement"]


#: What the charts label their Services with, and how they name the ports.
CHARTS = [
    ({"app.kubernetes.io/name": "qdrant", "app.kubernetes.io/component": "cluster-discovery"},
     {"http": 6333, "grpc": 6334, "p2p": 6335}),
    ({"app.kubernetes.io/name": "prefect-server", "app.kubernetes.io/component": "server"},
     {"server-svc-port": 4200}),
]  # fmt: skip


@pytest.mark.parametrize("monitor", MONITORS, ids=monitored_as)
def test_kubernetes_has_scraped_what_one_host_has(monitor):
    assert (monitor["apiVersion"], monitor["kind"]) == (
        "monitoring.coreos.com/v1", "ServiceMonitor"
    )  # fmt: skip
    [endpoint] = monitor["spec"]["endpoints"]
    jobs = {job["job_name"]: job for job in load("prometheus/prometheus.yaml")["scrape_configs"]}
    job = jobs[monitored_as(monitor)]
    assert endpoint["path"] == job.get("metrics_path", "/metrics")
    assert endpoint["interval"] == job.get("scrape_interval", "30s")
    assert endpoint.get("scrapeTimeout") == job.get("scrape_timeout")
    assert ("authorization" in endpoint, "basicAuth" in endpoint) == (
        "authorization" in job, "basic_auth" in job
    )  # fmt: skip
    # It finds a Service, whose port the network policy opens for Prometheus.
    services = CHARTS + [
        (each["metadata"]["labels"], {port["name"]: port["port"] for port in each["spec"]["ports"]})
        for each in of_kind("Service")
    ]
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    [named] = [named for labels, named in services if wanted <= labels.items()]
    pods = {"app.kubernetes.io/name": dict(wanted)["app.kubernetes.io/name"]}
    [policy] = [each for each in POLICIES.values() if each["podSelector"] == {"matchLabels": pods}]
    prometheus = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}
    }
    opened = [ports(rule) for rule in policy["ingress"] if prometheus in rule["from"]]
    assert named[endpoint["port"]] in set().union(*opened)


def test_no_chart_asks_for_kinds_that_only_the_operator_defines():
    assert VALUES["values-qdrant"]["metrics"]["serviceMonitor"]["enabled"] is False


def test_the_runbook_makes_a_rule_of_the_operators_of_the_alerts():
    text = read("RUNBOOK.md")
    [command] = re.findall(
        r"^\$ (\{ printf .*? \}) \| kubectl apply", text, re.DOTALL | re.MULTILINE
    )
    done = subprocess.run(["bash", "-euc", command], cwd=DEPLOY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rule = yaml.safe_load(done.stdout)
    assert (rule["apiVersion"], rule["kind"]) == ("monitoring.coreos.com/v1", "PrometheusRule")
    assert rule["spec"] == load("prometheus/alerts.yaml")
    [wanted] = load("kubernetes/monitoring/kustomization.yaml")["labels"]
    assert rule["metadata"]["labels"] == wanted["pairs"]
    assert rule["metadata"]["namespace"] == "covers"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_can_be_evaluated_and_says_what_to_do(rule):
    promql_parser.parse(rule["expr"])
    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert rule["annotations"]["summary"].endswith(".")
    named = re.search(r'See "(.+)"', rule["annotations"]["description"])
    if named:
        assert f"\n## {named[1]}\n" in read("RUNBOOK.md")
    named = set(re.findall(r'job="([^"]+)"', rule["expr"]))
    assert named <= {
        job["job_name"] for job in load("prometheus/prometheus.yaml")["scrape_configs"]
    }
    assert named <= {monitored_as(monitor) for monitor in MONITORS}
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}


def test_alerts_have_names_of_their_own_and_are_loaded():
    assert len({rule["alert"] for rule in RULES}) == len(RULES)
    for name in load("prometheus/prometheus.yaml")["rule_files"]:
        assert (DEPLOY / "prometheus" / name).is_file()


def test_prometheus_takes_its_keys_from_files_that_the_runbook_writes():
    jobs = {job["job_name"]: job for job in load("prometheus/prometheus.yaml")["scrape_configs"]}
    files = [
        jobs["qdrant"]["authorization"]["credentials_file"],
        jobs["prefect"]["basic_auth"]["password_file"],
    ]
    assert all(f"> prometheus/{file}\n" in read("RUNBOOK.md") for file in files)


def test_prometheus_asks_ports_that_are_published():
    published = {
        port.split(":")[-2] for service in SERVICES.values() for port in service.get("ports", [])
    }
    for job in load("prometheus/prometheus.yaml")["scrape_configs"]:
        if job["job_name"] != "node":
            [target] = [each for one in job["static_configs"] for each in one["targets"]]
            assert target.rpartition(":")[2] in published


def test_the_memory_alert_knows_the_limit():
    [alert] = [rule for rule in RULES if rule["alert"] == "QdrantMemoryNearlyFull"]
    gigabytes = re.search(r"\* (\d+) \* 1024 \^ 3", alert["expr"])[1]
    assert SERVICES["qdrant"]["deploy"]["resources"]["limits"]["memory"] == f"{gigabytes}g"
    assert VALUES["values-qdrant"]["resources"]["limits"]["memory"] == f"{gigabytes}Gi"


@pytest.fixture(scope="module")
def exporter():
    path = DEPLOY / "prometheus/flow_runs_exporter.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_exporter_asks_what_prefect_understands(exporter):
    question = exporter.last_run("pipeline", "CRASHED")
    for model, part in ((FlowFilter, "flows"), (FlowRunFilter, "flow_runs")):
        understood = model.model_validate(question[part])
        assert understood.model_dump(mode="json", exclude_unset=True) == question[part]
    assert FlowRunSort(question["sort"]) is FlowRunSort.END_TIME_DESC
    question = exporter.named("pipeline")["flows"]
    understood = FlowFilter.model_validate(question)
    assert understood.model_dump(mode="json", exclude_unset=True) == question
    assert "created" in Flow.model_fields
    assert "end_time" in FlowRun.model_fields


def test_the_exporter_says_when_a_run_last_ended_and_zero_where_none_did(exporter):
    end = datetime(2026, 5, 4, 2, 30, tzinfo=UTC)
    asked = []

    def ask(path, question):
        [flow] = question["flows"]["name"]["any_"]
        if path == "/flows/filter":
            asked.append((flow, None))
            return [{"created": "2026-05-03T12:00:00Z"}]
        [state] = question["flow_runs"]["state"]["type"]["any_"]
        asked.append((flow, state))
        return [{"end_time": "2026-05-04T02:30:00Z"}] if state == "COMPLETED" else []

    created, ends = exporter.LastRuns(ask, ["pipeline"]).collect()
    assert [(sample.labels, sample.value) for sample in created.samples] == [
        ({"flow": "pipeline"}, datetime(2026, 5, 3, 12, tzinfo=UTC).timestamp())
    ]
    said = {sample.labels["state"]: sample.value for sample in ends.samples}
    assert said == {"completed": end.timestamp(), "failed": 0, "crashed": 0}
    assert asked == [("pipeline", state) for state in (None, *exporter.STATES)]
    # Its metrics, flow and states are those that the alerts ask for.
    rules = [rule["expr"] for rule in RULES if "covers_" in rule["expr"]]
    assert len(rules) == 2
    metrics = {metric for expression in rules for metric in re.findall(r"covers_\w+", expression)}
    assert metrics == {created.name, ends.name}
    for expression in rules:
        assert set(re.findall(r'flow="(\w+)"', expression)) == {"pipeline"}
        states = re.findall(r'state=~?"([\w|]+)"', expression)
        assert {one for each in states for one in each.split("|")} <= set(said)


def test_a_flow_that_prefect_never_heard_of_was_not_created(exporter):
    created, ends = exporter.LastRuns(lambda path, question: [], ["pipeline"]).collect()
    assert created.samples == []
    assert {sample.value for sample in ends.samples} == {0}


def test_the_exporters_port_is_the_one_that_is_published(exporter):
    [port] = SERVICES["flow-runs-exporter"]["ports"]
    assert port.endswith(f":{exporter.PORT}:{exporter.PORT}")
    [container] = EXPORTER["containers"]
    assert container["ports"] == [{"name": "metrics", "containerPort": exporter.PORT}]


# The runbook


def test_the_runbook_names_services_and_files_that_exist():
    text = read("RUNBOOK.md")
    named = re.findall(
        r"docker compose (?:exec|restart|pull|stop)((?: -e \S+| -\S+)*) ([a-z][a-z-]+)", text
    )
    assert set(re.findall(r"(?:deployment|statefulset)/([a-z-]+)", text)) - set(WORKLOADS) == {
        "qdrant", "prefect-server", "prefect-worker"
    }  # fmt: skip
    assert len(named) > 5
    assert {service for _, service in named} <= set(SERVICES)
    for path in re.findall(r"\b((?:kubernetes|prometheus)/[\w./-]+\.(?:yaml|py))\b", text):
        assert (DEPLOY / path).is_file(), path


def test_the_runbooks_commands_are_those_of_the_program():
    commands = get_command(app).commands
    named = re.findall(r"covers covers (\w+)|`covers (\w+)", read("RUNBOOK.md"))
    assert {first or second for first, second in named} <= set(commands)


def test_the_runbooks_automation_is_one():
    text = re.search(r"<<'END'\n(.*?)\nEND\n", read("RUNBOOK.md"), re.DOTALL)[1]
    block = "00000000-0000-0000-0000-000000000000"
    made = AutomationCore.model_validate(yaml.safe_load(text.replace("ON-CALL-ID", block)))
    assert made.trigger.posture is Posture.Reactive
    # Every state that the alert by URL is for, and the one in which no hook can run.
    ends = {each.rpartition(".")[2] for each in made.trigger.expect}
    assert ends == {"Failed", "TimedOut", "Crashed", "Late"}
    assert made.actions[0].type == "send-notification"
