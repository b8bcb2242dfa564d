"""When the alerts of `deploy/prometheus/alerts.yaml` fire, evaluated on what the exporter says.

Prometheus itself isn't here: its grammar is that of `promql-parser`, and the few operators that the
alerts about the pipeline and about who answers use are evaluated below.
"""

import operator
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import promql_parser
import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

PROMETHEUS = Path(__file__).resolve().parent.parent / "deploy/prometheus"
INSTALLED = datetime(2026, 5, 4, 14, 0, tzinfo=UTC)
JOBS = ("qdrant", "prefect", "covers-flow-runs")


@dataclass(frozen=True)
class Sample:
    """A value and its labels, `__name__` among them as long as it is the series itself."""

    labels: dict[str, str]
    value: float


ARITHMETIC = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}
COMPARISONS = {">": operator.gt, "<": operator.lt, "==": operator.eq, "!=": operator.ne}


def evaluate(node, samples, now):
    """A number or a list of samples, as Prometheus' manual has it; the rest of it is refused."""
    kind = type(node).__name__
    if kind == "NumberLiteral":
        return node.val
    if kind == "ParenExpr":
        return evaluate(node.expr, samples, now)
    if kind == "VectorSelector":
        assert (node.at, node.offset) == (None, None)
        wanted = [*node.matchers.matchers]
        return [
            sample
            for sample in samples
            if sample.labels["__name__"] == node.name and all(map(sample_matches(sample), wanted))
        ]
    if kind == "Call" and node.func.name == "time":
        return now.timestamp()
    if kind == "Call" and node.func.name == "absent":
        [selector] = node.args
        there = evaluate(selector, samples, now)
        return [] if there else [Sample({m.name: m.value for m in selector.matchers.matchers}, 1.0)]
    if kind == "AggregateExpr" and str(node.op) == "max" and node.modifier is None:
        values = [sample.value for sample in evaluate(node.expr, samples, now)]
        return [Sample({}, max(values))] if values else []
    assert kind == "BinaryExpr", f"{kind} is not evaluated here: {node}"
    assert not node.modifier or not (node.modifier.matching or node.modifier.return_bool)
    sign = str(node.op)
    left, right = evaluate(node.lhs, samples, now), evaluate(node.rhs, samples, now)
    if sign == "or":
        return left + [one for one in right if matched(one) not in map(matched, left)]
    if isinstance(left, float) and isinstance(right, float):
        return ARITHMETIC[sign](left, right)
    if sign in COMPARISONS:  # keeps those samples of the left for which it holds
        return [a for a, b in pairs(left, right) if COMPARISONS[sign](a.value, b.value)]
    return [
        Sample(dict(matched(a) or matched(b)), ARITHMETIC[sign](a.value, b.value))
        for a, b in pairs(left, right)
    ]


def sample_matches(sample):
    def matches(matcher):
        value = sample.labels.get(matcher.name, "")
        if str(matcher.op) in ("=", "MatchOp.Equal"):
            return value == matcher.value
        assert str(matcher.op) in ("=~", "MatchOp.Re"), matcher.op
        return re.fullmatch(matcher.value, value) is not None

    return matches


def matched(sample):
    """The labels by which samples are brought together: all but the name."""
    return frozenset(item for item in sample.labels.items() if item[0] != "__name__")


def pairs(left, right):
    if isinstance(left, float):
        return [(Sample({}, left), b) for b in right]
    if isinstance(right, float):
        return [(a, Sample({}, right)) for a in left]
    return [(a, b) for a in left for b in right if matched(a) == matched(b)]


@pytest.fixture(scope="module")
def rules():
    text = (PROMETHEUS / "alerts.yaml").read_text(encoding="utf-8")
    return {
        rule["alert"]: promql_parser.parse(rule["expr"])
        for group in yaml.safe_load(text)["groups"]
        for rule in group["rules"]
    }


ABOUT = ("PipelineNotCompleted", "PipelineFailed", "PipelineUnknown", "PrefectDown", "QdrantDown")


@pytest.fixture
def firing(exporter, rules):
    """Which alerts fire at a time, given what Prefect knows and which jobs are scraped."""

    def at(now, created=INSTALLED, ends=None, up=JOBS, down=()):
        def ask(path, question):
            if path == "/flows/filter":
                return [] if created is None else [{"created": created.isoformat()}]
            [state] = question["flow_runs"]["state"]["type"]["any_"]
            end = (ends or {}).get(state)
            return [] if end is None else [{"end_time": end.isoformat()}]

        registry = CollectorRegistry()
        registry.register(exporter.LastRuns(ask, ["pipeline"]))
        samples = [Sample({"__name__": "up", "job": job}, 1.0) for job in up]
        samples += [Sample({"__name__": "up", "job": job}, 0.0) for job in down]
        if "covers-flow-runs" in up:
            samples += [
                Sample({"__name__": one.name, "job": "covers-flow-runs", **one.labels}, one.value)
                for family in text_string_to_metric_families(generate_latest(registry).decode())
                for one in family.samples
            ]
        return {alert for alert in ABOUT if evaluate(rules[alert], samples, now)}

    return at


def after(**much):
    return INSTALLED + timedelta(**much)


@pytest.mark.parametrize("hours", [0, 1, 12, 25])
def test_nothing_fires_on_a_fresh_installation(firing, hours):
    assert firing(after(hours=hours)) == set()


def test_a_pipeline_that_never_completed_is_heard_of_after_a_night_and_two_hours(firing):
    assert firing(after(hours=27)) == {"PipelineNotCompleted"}
    assert firing(after(hours=27), ends={"FAILED": after(hours=13)}) == {
        "PipelineNotCompleted", "PipelineFailed"
    }  # fmt: skip


def test_so_is_one_that_completed_longer_ago(firing):
    completed = {"COMPLETED": after(days=300)}
    assert firing(after(days=300, hours=25), ends=completed) == set()
    assert firing(after(days=300, hours=27), ends=completed) == {"PipelineNotCompleted"}


def test_a_pipeline_that_prefect_never_heard_of_counts_as_never_completed(firing):
    assert firing(after(hours=1), created=None) == {"PipelineNotCompleted"}


@pytest.mark.parametrize("state", ["FAILED", "CRASHED"])
def test_a_failed_run_is_told_of_until_another_completes(firing, state):
    now = after(hours=20)
    failed = {state: after(hours=14)}
    assert firing(now, ends=failed | {"COMPLETED": after(hours=13)}) == {"PipelineFailed"}
    assert firing(now, ends=failed | {"COMPLETED": after(hours=15)}) == set()


@pytest.mark.parametrize(
    ("job", "alerts"),
    [
        ("qdrant", {"QdrantDown"}),
        ("prefect", {"PrefectDown"}),
        ("covers-flow-runs", {"PipelineUnknown"}),
    ],
)
def test_a_job_that_does_not_answer_or_is_not_scraped_is_heard_of(firing, job, alerts):
    others = [each for each in JOBS if each != job]
    assert firing(after(hours=1), up=others, down=[job]) == alerts
    assert firing(after(hours=1), up=others) == alerts


def test_the_evaluation_here_agrees_with_the_manual():
    samples = [
        Sample({"__name__": "a", "x": "1"}, 3.0),
        Sample({"__name__": "a", "x": "2"}, 5.0),
        Sample({"__name__": "b", "x": "2"}, 7.0),
    ]

    def values(text):
        found = evaluate(promql_parser.parse(text), samples, INSTALLED)
        return found if isinstance(found, float) else sorted(one.value for one in found)

    assert values("time() - 60") == INSTALLED.timestamp() - 60
    assert values("a > 4") == [5.0]
    assert values("max(a or b)") == [5.0]  # b{x="2"} has the labels of a{x="2"}
    assert values('max(a{x=~"1|3"} or b)') == [7.0]
    assert values("b - a") == [2.0]
    assert values("10 - max(a)") == [5.0]
    assert values('absent(a{x="1"})') == []
    assert values('absent(a{x="9"})') == [1.0]
    with pytest.raises(AssertionError, match="is not evaluated here"):
        values("rate(a[5m])")
