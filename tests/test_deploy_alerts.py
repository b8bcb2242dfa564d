"""When the alerts of `deploy/prometheus/alerts.yaml` fire, evaluated on the exporter's metrics.

Prometheus does not run here: `promql-parser` parses the expressions, and `evaluate` below knows the
few operators that the alerts about the pipeline and about targets use.
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

ALERTS = Path(__file__).resolve().parent.parent / "deploy/prometheus/alerts.yaml"
RULES = {
    rule["alert"]: promql_parser.parse(rule["expr"])
    for group in yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
}
TESTED = ("PipelineNotCompleted", "PipelineFailed", "PipelineUnknown", "PrefectDown", "QdrantDown")
JOBS = ("qdrant", "prefect", "covers-flow-runs")
INSTALLED = datetime(2026, 5, 4, 14, 0, tzinfo=UTC)


@dataclass(frozen=True)
class Sample:
    """A value and its labels. `__name__` is a label until an operator drops it."""

    labels: dict[str, str]
    value: float

    @property
    def key(self):
        """The labels by which operators match samples: all but the name."""
        return frozenset(item for item in self.labels.items() if item[0] != "__name__")


ARITHMETIC = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}
COMPARISONS = {">": operator.gt, "<": operator.lt, "==": operator.eq, "!=": operator.ne}


def evaluate(node, samples, now):
    """A number or a list of samples, as in Prometheus' manual; unknown operators are refused."""
    kind = type(node).__name__
    if kind == "NumberLiteral":
        return node.val
    if kind == "ParenExpr":
        return evaluate(node.expr, samples, now)
    if kind == "VectorSelector":
        assert (node.at, node.offset) == (None, None)
        return [sample for sample in samples if selects(node, sample)]
    if kind == "Call" and node.func.name == "time":
        return now.timestamp()
    if kind == "Call" and node.func.name == "absent":
        [selector] = node.args
        labels = {matcher.name: matcher.value for matcher in selector.matchers.matchers}
        return [] if evaluate(selector, samples, now) else [Sample(labels, 1.0)]
    if kind == "AggregateExpr" and str(node.op) == "max" and node.modifier is None:
        values = [sample.value for sample in evaluate(node.expr, samples, now)]
        return [Sample({}, max(values))] if values else []
    assert kind == "BinaryExpr", f"{kind} is not evaluated here: {node}"
    assert not node.modifier or not (node.modifier.matching or node.modifier.return_bool)
    return combine(str(node.op), *(evaluate(side, samples, now) for side in (node.lhs, node.rhs)))


def selects(selector, sample):
    def matches(matcher):
        value = sample.labels.get(matcher.name, "")
        if str(matcher.op) in ("=", "MatchOp.Equal"):
            return value == matcher.value
        assert str(matcher.op) in ("=~", "MatchOp.Re"), matcher.op
        return re.fullmatch(matcher.value, value) is not None

    named = sample.labels["__name__"] == selector.name
    return named and all(map(matches, selector.matchers.matchers))


def combine(sign, left, right):
    if sign == "or":
        keys = {sample.key for sample in left}
        return left + [sample for sample in right if sample.key not in keys]
    if isinstance(left, float) and isinstance(right, float):
        return ARITHMETIC[sign](left, right)
    if isinstance(left, float):
        pairs = [(Sample({}, left), sample) for sample in right]
    elif isinstance(right, float):
        pairs = [(sample, Sample({}, right)) for sample in left]
    else:
        pairs = [(a, b) for a in left for b in right if a.key == b.key]
    if sign in COMPARISONS:  # a filter of the samples on the left
        return [a for a, b in pairs if COMPARISONS[sign](a.value, b.value)]
    return [Sample(dict(a.key or b.key), ARITHMETIC[sign](a.value, b.value)) for a, b in pairs]


@pytest.fixture
def firing(exporter):
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
        samples = [Sample({"__name__": "up", "job": job}, float(job in up)) for job in (*up, *down)]
        if "covers-flow-runs" in up:
            samples += [
                Sample({"__name__": one.name, "job": "covers-flow-runs", **one.labels}, one.value)
                for family in text_string_to_metric_families(generate_latest(registry).decode())
                for one in family.samples
            ]
        return {alert for alert in TESTED if evaluate(RULES[alert], samples, now)}

    return at


def after(**duration):
    return INSTALLED + timedelta(**duration)


@pytest.mark.parametrize("hours", [0, 1, 12, 25])
def test_nothing_fires_on_a_fresh_installation(firing, hours):
    assert firing(after(hours=hours)) == set()


def test_an_alert_fires_when_the_pipeline_has_not_completed_for_26_hours(firing):
    assert firing(after(hours=27)) == {"PipelineNotCompleted"}
    failed = {"FAILED": after(hours=13)}
    assert firing(after(hours=27), ends=failed) == {"PipelineNotCompleted", "PipelineFailed"}
    completed = {"COMPLETED": after(days=300)}
    assert firing(after(days=300, hours=25), ends=completed) == set()
    assert firing(after(days=300, hours=27), ends=completed) == {"PipelineNotCompleted"}
    # Prefect does not know the pipeline at all.
    assert firing(after(hours=1), created=None) == {"PipelineNotCompleted"}


@pytest.mark.parametrize("state", ["FAILED", "CRASHED"])
def test_an_alert_about_a_failed_run_fires_until_another_run_completes(firing, state):
    now = after(hours=20)
    failed = {state: after(hours=14)}
    assert firing(now, ends=failed | {"COMPLETED": after(hours=13)}) == {"PipelineFailed"}
    assert firing(now, ends=failed | {"COMPLETED": after(hours=15)}) == set()


@pytest.mark.parametrize(
    ("job", "alert"),
    [
        ("qdrant", "QdrantDown"),
        ("prefect", "PrefectDown"),
        ("covers-flow-runs", "PipelineUnknown"),
    ],
)
def test_an_alert_fires_when_a_job_does_not_answer_or_is_not_scraped(firing, job, alert):
    others = [each for each in JOBS if each != job]
    assert firing(after(hours=1), up=others, down=[job]) == {alert}
    assert firing(after(hours=1), up=others) == {alert}


@pytest.mark.parametrize(
    ("expression", "values"),
    [
        ("a > 4", [5.0]),
        ("max(a or b)", [5.0]),  # b{x="2"} has the labels of a{x="2"}
        ('max(a{x=~"1|3"} or b)', [7.0]),
        ("b - a", [2.0]),
        ("10 - max(a)", [5.0]),
        ('absent(a{x="1"})', []),
        ('absent(a{x="9"})', [1.0]),
    ],
)
def test_the_evaluation_here_agrees_with_prometheus_manual(expression, values):
    series = [("a", "1", 3.0), ("a", "2", 5.0), ("b", "2", 7.0)]
    samples = [Sample({"__name__": name, "x": x}, value) for name, x, value in series]
    found = evaluate(promql_parser.parse(expression), samples, INSTALLED)
    assert [sample.value for sample in found] == values
