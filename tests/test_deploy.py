"""Checks of `deploy/` that need no Docker, no Kubernetes and no network.

The files are checked with Docker Compose, Kubernetes' models, hadolint and Prometheus' grammar,
then against each other and the program. `test_deploy_alerts` evaluates alerts.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import promql_parser
import pytest
import yaml
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


SERVICES = load("compose.yaml")["services"]
DOCKERFILE = read("Dockerfile")
RUNBOOK = read("RUNBOOK.md")
RULES = [rule for group in load("prometheus/alerts.yaml")["groups"] for rule in group["rules"]]
SCRAPES = {job["job_name"]: job for job in load("prometheus/prometheus.yaml")["scrape_configs"]}
MANIFESTS = [
    document
    for path in sorted(KUBERNETES.glob("*.yaml"))
    if not path.name.startswith(("values-", "kustomization"))
    for document in yaml.safe_load_all(path.read_text(encoding="utf-8"))
]
QDRANT, PREFECT_SERVER, PREFECT_WORKER = (
    load(f"kubernetes/values-{name}.yaml")
    for name in ("qdrant", "prefect-server", "prefect-worker")
)
JOB_TEMPLATE = json.loads(read("kubernetes/job-template.json"))
[OUR_IMAGE] = load("kubernetes/kustomization.yaml")["images"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PINNED = dict(
    line.split("==")
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if "==" in line
)


def of_kind(kind):
    return {each["metadata"]["name"]: each for each in MANIFESTS if each["kind"] == kind}


WORKLOADS = of_kind("Deployment")
PODS = {name: each["spec"]["template"]["spec"] for name, each in WORKLOADS.items()}
PODS |= {name: each["spec"] for name, each in of_kind("Pod").items()}
POD = PODS["covers"]
POLICIES = {name: policy["spec"] for name, policy in of_kind("NetworkPolicy").items()}
MONITORS = list(yaml.safe_load_all(read("kubernetes/monitoring/servicemonitors.yaml")))


def images():
    yield from (service["image"] for service in SERVICES.values())
    yield from re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    yield from (container["image"] for pod in PODS.values() for container in pod["containers"])
    yield JOB_TEMPLATE["variables"]["properties"]["image"]["default"]
    yield f"{OUR_IMAGE['newName']}:{OUR_IMAGE['newTag']}"
    yield f"{QDRANT['image']['repository']}:{QDRANT['image']['tag']}"
    for image in (PREFECT_SERVER["global"]["prefect"]["image"], PREFECT_WORKER["worker"]["image"]):
        yield f"{image['repository']}:{image['prefectTag']}"


def found(node, matches):
    """Yield each dictionary within a document for which `matches` is true."""
    if isinstance(node, dict):
        if matches(node):
            yield node
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from found(child, matches)


def run(name, *arguments, **options):
    """Run a program of the development dependencies."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    program = shutil.which(name, path=path)
    assert program, f"{name} is a development dependency: make install"
    return subprocess.run([program, *arguments], capture_output=True, text=True, **options)


# Versions


@pytest.mark.parametrize("image", sorted(set(images())))
def test_an_image_is_pinned_to_a_full_version(image):
    name, version = image.rsplit(":", 1)
    assert re.fullmatch(r"v?\d+\.\d+(\.\d+)?(-[a-z0-9.-]+)?", version)
    if name.endswith("covers"):
        assert version == PROJECT["project"]["version"]


def test_the_images_have_the_versions_that_were_tested():
    python, *others = set(re.findall(r"^FROM python:([\d.]+)-slim", DOCKERFILE, re.MULTILINE))
    assert others == []
    assert Version(python) in SpecifierSet(PROJECT["project"]["requires-python"])
    assert python.startswith(PROJECT["tool"]["mypy"]["python_version"] + ".")
    # Only the worker runs Prefect's image, which has prefect-kubernetes.
    [worker] = [image for image in images() if image.startswith("prefecthq/prefect:")]
    assert worker.startswith(f"prefecthq/prefect:{PINNED['prefect']}-python3.")
    [server] = {Version(i.split(":v")[1].split("-")[0]) for i in images() if "/qdrant:" in i}
    client = Version(PINNED["qdrant-client"])
    # Qdrant promises that a client works with servers one minor version away.
    assert server.major == client.major
    assert abs(server.minor - client.minor) <= 1


# The Dockerfile


def test_hadolint_finds_nothing():
    done = run("hadolint", "--no-color", str(DEPLOY / "Dockerfile"))
    assert (done.stdout, done.returncode) == ("", 0)


def test_the_build_gets_what_it_copies_and_nothing_else():
    first, *lines = [x for x in read("Dockerfile.dockerignore").splitlines() if x[:1] != "#"]
    assert first == "*"
    copies = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    copied = {source for sources in copies for source in sources.split()}
    assert copied == {line[1:] for line in lines if line.startswith("!")}
    assert all((ROOT / source).exists() for source in copied)


# Compose


def example():
    lines = (line for line in read(".env.example").splitlines() if not line.startswith("#"))
    return {name: value.strip('"') for name, value in (x.split("=", 1) for x in lines if x)}


def test_docker_compose_needs_no_variable_but_the_examples_and_passes_them_on():
    given = {name: value or f"given-{name}" for name, value in example().items()}
    arguments = ("--env-file", os.devnull, "--profile", "*", "config", "--format", "json")
    done = run("docker-compose", *arguments, cwd=DEPLOY, env={"PATH": os.environ["PATH"], **given})
    assert (done.returncode, done.stderr) == (0, "")  # a missing variable would be a warning
    rendered = json.loads(done.stdout)["services"]
    assert set(rendered) == set(SERVICES)
    for name in ("covers", "worker"):
        environment = rendered[name]["environment"]
        assert environment["COVERS_COLLECTION"] == "covers"
        for variable in ("QDRANT_API_KEY", "COVERS_ALERT_URL", "COVERS_COPY_API_KEY"):
            assert environment[variable] == f"given-{variable}"
        assert environment["PREFECT_API_AUTH_STRING"] == "given-PREFECT_AUTH_STRING"


def test_docker_compose_refuses_to_start_without_a_key():
    arguments = ("--env-file", os.devnull, "config", "--quiet")
    done = run("docker-compose", *arguments, cwd=DEPLOY, env={"PATH": os.environ["PATH"]})
    assert done.returncode != 0
    assert "missing a value" in done.stderr


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_confined_limited_and_watched(name):
    service = SERVICES[name]
    confined = {"read_only": True, "cap_drop": ["ALL"], "restart": "unless-stopped"}
    assert service | confined == service
    assert "privileged" not in service
    assert "no-new-privileges:true" in service["security_opt"]
    assert int(service["user"].split(":")[0]) > 0
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}
    assert {"test", "interval", "timeout", "retries", "start_period"} <= set(service["healthcheck"])
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}
    assert all(x.startswith("${BIND_ADDRESS:-127.0.0.1}:") for x in service.get("ports", []))
    # No registry is asked for our image, and a selection of services always includes its builder.
    if service["image"].startswith("covers:"):
        assert service["pull_policy"] == "never"
        [builder] = [name for name, each in SERVICES.items() if "build" in each]
        assert name == builder or builder in service["depends_on"]


# What the services and pods run

REGISTERING, WORKING = SERVICES["worker"]["command"][0].split("&& exec ")
POOLS = re.findall(r"^\$.* (serve --pool [^#\n]*--data .*?)(?:  +#.*)?$", RUNBOOK, re.MULTILINE)


@pytest.mark.parametrize(
    "command",
    [
        SERVICES["covers"]["command"],
        POD["containers"][0]["args"],
        shlex.split(REGISTERING)[1:],
        *map(shlex.split, POOLS),
    ],
    ids=["compose", "kubernetes", "worker", *(f"runbook-{i}" for i, _ in enumerate(POOLS))],
)
def test_a_command_is_one_of_the_program_and_serves_its_own_bundle(command):
    serve = get_command(app).commands[command[0]]
    known = {option for parameter in serve.params for option in parameter.opts}
    assert {word for word in command if word.startswith("--")} <= known
    assert command[command.index("--bundle") + 1] == "pretrained"
    assert command[command.index("--data") + 1] == "/data"


def test_the_worker_serves_the_pool_that_it_registers():
    working, registering = shlex.split(WORKING), shlex.split(REGISTERING)
    assert working[:3] == ["prefect", "worker", "start"]
    pools = {command[command.index("--pool") + 1] for command in (working, registering)}
    assert len(pools) == 1


def test_every_prefect_setting_exists():
    texts = [read("compose.yaml"), DOCKERFILE, *map(Path.read_text, KUBERNETES.glob("*.yaml"))]
    named = {name for text in texts for name in re.findall(r"\bPREFECT_[A-Z_]+(?=[:=,\n])", text)}
    # Our own variables, which Compose passes on under Prefect's names.
    named -= set(example()) - {"PREFECT_UI_API_URL"}
    assert len(named) > 10
    assert named <= _get_valid_setting_names(Settings)


def test_the_runbook_uses_commands_and_services_that_exist():
    commands = re.findall(r"covers covers (\w+)|`covers (\w+)", RUNBOOK)
    assert {a or b for a, b in commands} <= set(get_command(app).commands)
    composed = r"docker compose (?:exec|restart|pull|stop)(?: -e \S+| -\S+)* ([a-z][a-z-]+)"
    assert set(re.findall(composed, RUNBOOK)) <= set(SERVICES)


def test_the_runbooks_automation_is_valid_and_expects_every_bad_end():
    text = re.search(r"<<'END'\n(.*?)\nEND\n", RUNBOOK, re.DOTALL)[1]
    block = "00000000-0000-0000-0000-000000000000"
    made = AutomationCore.model_validate(yaml.safe_load(text.replace("ON-CALL-ID", block)))
    assert made.trigger.posture is Posture.Reactive
    ends = {each.rpartition(".")[2] for each in made.trigger.expect}
    assert ends == {"Failed", "TimedOut", "Crashed", "Late"}
    assert made.actions[0].type == "send-notification"


# Secrets

SECRET = re.compile(
    r"""(?ix) \b[0-9a-f]{32,}\b                                   # a key in hex
    | (?:password|passwd|secret|token|api[_-]?key|auth[_-]?string)  # or something called one,
      ["']?\ *[:=]\ *["']?(?!REPLACE|covers\b|os\.)[\w+/.!@-]{6,}        # with a value
    | ://[^\s/:$"]+:(?!password@|REPLACE)[^\s$@/"]+@               # or one within a URL
    """
)

#: The files that git has: not an operator's own .env, keys and backups.
FILES = sorted(
    path
    for path in DEPLOY.rglob("*")
    if path.is_file()
    and path.suffix != ".png"
    and path.name not in {".env", "compose.override.yaml"}
    and not {"secrets", "backup", "__pycache__"} & set(path.parts)
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_file_contains_a_secret(path):
    assert not [secret[0] for secret in SECRET.finditer(path.read_text(encoding="utf-8"))]
    for planted in (
        "KEY=" + "0123456789abcdef" * 2,
        "api-key: 'letmein1'",
        "db://me:hunter22@db/x",
    ):
        assert SECRET.search(planted)


# Kubernetes


@pytest.mark.parametrize(
    "manifest", MANIFESTS, ids=lambda each: f"{each['kind']}-{each['metadata']['name']}"
)
def test_kubernetes_models_know_every_field_of_a_manifest(manifest):
    # The models drop unknown fields and refuse wrong types.
    assert codecs.from_dict(manifest).to_dict() == manifest
    if manifest["kind"] != "Namespace":
        assert manifest["metadata"]["namespace"] == "covers"


@pytest.mark.parametrize("folder", ["", "monitoring"])
def test_kustomize_builds_it(folder):
    if not shutil.which("kubectl"):
        pytest.skip("NOT CHECKED: there is no `kubectl` here")
    done = run("kubectl", "kustomize", str(KUBERNETES / folder))
    assert done.returncode == 0, done.stderr
    made = list(yaml.safe_load_all(done.stdout))
    assert len(made) == len(MONITORS if folder else MANIFESTS) - (0 if folder else 2)
    # The operator's kinds are apart: where they aren't defined, applying the rest must not fail.
    assert {each["apiVersion"] == "monitoring.coreos.com/v1" for each in made} == {bool(folder)}
    assert "image: covers:" not in done.stdout


@pytest.mark.parametrize("name", PODS)
def test_a_pod_is_confined_and_refers_to_what_exists(name):
    pod = PODS[name]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"] == POD["securityContext"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    claims = {each["claimName"] for each in found(pod["volumes"], lambda node: "claimName" in node)}
    assert claims <= set(of_kind("PersistentVolumeClaim"))
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert set(container["resources"]) == {"requests", "limits"}
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}
        configs = {each["configMapRef"]["name"] for each in container.get("envFrom", [])}
        assert configs <= set(of_kind("ConfigMap"))
        probes = [each for key, each in container.items() if key.endswith("Probe")]
        asked = {(probe.get("httpGet") or probe["tcpSocket"])["port"] for probe in probes}
        assert asked <= {port["name"] for port in container.get("ports", [])}


def test_an_outage_of_prefect_kills_no_container():
    # While Prefect's server does not answer, /health of the runner and the worker fails. It says
    # whether they are ready; a probe that restarts a container must not ask it.
    for workload in WORKLOADS:
        for container in PODS[workload]["containers"]:
            assert "readinessProbe" in container
            for kind in ("livenessProbe", "startupProbe"):
                assert "httpGet" not in container.get(kind, {}), kind


def test_a_job_is_as_confined_as_the_pod_that_serves_and_mounts_the_same():
    job = JOB_TEMPLATE["job_configuration"]["job_manifest"]
    checked = json.loads(json.dumps(job))
    pod = checked["spec"]["template"]["spec"]
    # Prefect insists on these two here, where Kubernetes does not know them.
    assert (pod.pop("parallelism"), pod.pop("completions")) == (1, 1)
    checked["metadata"] |= {"labels": {}, "name": "x"}
    assert codecs.from_dict(checked).to_dict() == checked
    [container], serving = pod["containers"], POD["containers"][0]
    for name in ("volumeMounts", "securityContext", "envFrom"):
        assert container[name] == serving[name]
    for name in ("volumes", "securityContext", "automountServiceAccountToken"):
        assert pod[name] == POD[name]
    used = set(re.findall(r"{{ (\w+) }}", json.dumps(JOB_TEMPLATE["job_configuration"])))
    assert used == set(JOB_TEMPLATE["variables"]["properties"])
    labels = {"matchLabels": job["spec"]["template"]["metadata"]["labels"]}
    assert labels in [policy["podSelector"] for policy in POLICIES.values()]


def test_every_key_that_is_referred_to_is_in_the_secret():
    [(name, secret)] = of_kind("Secret").items()
    assert set(secret["stringData"].values()) == {"REPLACE"}
    everything = [MANIFESTS, MONITORS, QDRANT, PREFECT_SERVER, PREFECT_WORKER]
    keyed = found(everything, lambda node: {"name", "key"} <= set(node))
    referred = {(each["name"], each["key"]) for each in keyed}
    referred |= {
        (each["existingSecret"], "auth-string")
        for each in found(everything, lambda node: "existingSecret" in node)
    }
    # The chart finds the last by its name.
    keys = {(name, key) for key in secret["stringData"]}
    assert referred == keys - {(name, "connection-string")}
    # The chart would copy these, and a restart would not be enough to change a key.
    assert not {"apiKey", "readOnlyApiKey"} & set(QDRANT)


# Network policies


def ports(rule):
    return {port["port"] for port in rule["ports"]}


@pytest.mark.parametrize("name", ["covers", "prefect-jobs"])
def test_a_pod_that_runs_flows_reaches_its_servers_and_alerts_and_nothing_else(name):
    assert POLICIES["nothing"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    [config] = of_kind("ConfigMap").values()
    urls = [value for key, value in config["data"].items() if key.endswith("_URL")]
    servers = [re.match(r"http://([\w-]+):(\d+)", url).groups() for url in urls]
    allowed = {
        (rule["to"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/name"], port)
        for rule in POLICIES[name]["egress"]
        if "to" in rule
        for port in ports(rule)
    }
    assert allowed == {(host, int(port)) for host, port in servers} | {("qdrant", 6334)}
    # An alert's address is known by its port alone.
    assert [ports(rule) for rule in POLICIES[name]["egress"] if "to" not in rule] == [{443}]


def test_what_one_policy_lets_out_another_lets_in():
    for policy in POLICIES.values():
        source = {"podSelector": policy["podSelector"]}
        for rule in policy.get("egress", []):
            for target in rule.get("to", []):
                if "podSelector" not in target:
                    continue  # the cluster's DNS
                selector = target["podSelector"]
                [receiver] = [p for p in POLICIES.values() if p["podSelector"] == selector]
                let_in = [ports(each) for each in receiver["ingress"] if source in each["from"]]
                assert ports(rule) <= set().union(*let_in), (policy, target)
                # Whoever reaches Qdrant's REST reaches its gRPC.
                assert 6333 not in ports(rule) or 6334 in ports(rule)


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
def test_a_service_monitor_finds_a_service_whose_port_is_open_for_prometheus(monitor):
    [endpoint] = monitor["spec"]["endpoints"]
    services = CHARTS + [
        (each["metadata"]["labels"], {port["name"]: port["port"] for port in each["spec"]["ports"]})
        for each in of_kind("Service").values()
    ]
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    [named] = [named for labels, named in services if wanted <= labels.items()]
    pods = {"app.kubernetes.io/name": dict(wanted)["app.kubernetes.io/name"]}
    [policy] = [each for each in POLICIES.values() if each["podSelector"] == {"matchLabels": pods}]
    namespace = {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}
    prometheus = {"namespaceSelector": namespace}
    opened = [ports(rule) for rule in policy["ingress"] if prometheus in rule["from"]]
    assert named[endpoint["port"]] in set().union(*opened)


def test_the_runbook_makes_a_rule_of_the_operator_from_the_alerts():
    [command] = re.findall(
        r"^\$ (\{ printf .*? \}) \| kubectl apply", RUNBOOK, re.DOTALL | re.MULTILINE
    )
    done = run("bash", "-euc", command, cwd=DEPLOY)
    assert done.returncode == 0, done.stderr
    rule = yaml.safe_load(done.stdout)
    assert (rule["apiVersion"], rule["kind"]) == ("monitoring.coreos.com/v1", "PrometheusRule")
    assert rule["spec"] == load("prometheus/alerts.yaml")
    [wanted] = load("kubernetes/monitoring/kustomization.yaml")["labels"]
    assert rule["metadata"]["labels"] == wanted["pairs"]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_can_be_evaluated_and_says_what_to_do(rule):
    promql_parser.parse(rule["expr"])
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert rule["annotations"]["summary"].endswith(".")
    for section in re.findall(r'See "(.+)"', rule["annotations"]["description"]):
        assert f"\n## {section}\n" in RUNBOOK
    jobs = set(re.findall(r'job="([^"]+)"', rule["expr"]))
    assert jobs <= set(SCRAPES)
    assert jobs <= set(map(monitored_as, MONITORS))


def test_prometheus_loads_the_alerts():
    assert len({rule["alert"] for rule in RULES}) == len(RULES)
    for name in load("prometheus/prometheus.yaml")["rule_files"]:
        assert (DEPLOY / "prometheus" / name).is_file()


# The exporter of flow runs (the fixture `exporter` is conftest's)


def test_the_exporter_asks_what_prefect_understands(exporter):
    question = exporter.last_run("pipeline", "CRASHED")
    for model, part in [
        (FlowFilter, question["flows"]),
        (FlowRunFilter, question["flow_runs"]),
        (FlowFilter, exporter.named("pipeline")["flows"]),
    ]:
        assert model.model_validate(part).model_dump(mode="json", exclude_unset=True) == part
    assert FlowRunSort(question["sort"]) is FlowRunSort.END_TIME_DESC
    assert "created" in Flow.model_fields
    assert "end_time" in FlowRun.model_fields
