"""The dashboard and the alert rules use what is exported."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_elche.coordination.monitoring.metrics import METRICS

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "examples" / "grafana" / "elche-dashboard.json"
ALERTS = ROOT / "examples" / "prometheus" / "elche-alerts.yml"
LABELS = {f"elche_{one.name}": set(one.labels) for one in METRICS}
ADDED = {"job", "instance"}  # by Prometheus


def panels() -> list[dict[str, Any]]:
    return [one for one in json.loads(DASHBOARD.read_text())["panels"] if one["type"] != "row"]


def rules() -> list[dict[str, Any]]:
    [group] = yaml.safe_load(ALERTS.read_text())["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


EXPRESSIONS = [
    *(target["expr"] for panel in panels() for target in panel["targets"]),
    *(rule["expr"] for rule in rules()),
]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_expression_uses_names_and_labels_that_there_are(expression: str) -> None:
    """Every one of them, and its parentheses fit."""
    names = re.findall(r"elche_\w+", expression)
    known = set().union(ADDED, *(LABELS[name] for name in names))
    used = set(re.findall(r"(\w+)=~?\"", expression))
    for listed in re.findall(r"(?:by|on) \(([^)]*)\)", expression):
        used |= set(listed.split(", "))
    assert names
    assert used <= known
    assert [expression.count(one) for one in "({["] == [expression.count(one) for one in ")}]"]


def test_counters_are_only_used_as_rates() -> None:
    """Their values mean nothing by themselves."""
    counters = [f"elche_{one.name}" for one in METRICS if one.kind == "counter"]
    bare = [
        (name, expression)
        for name, expression in itertools.product(counters, EXPRESSIONS)
        if name in expression and f"rate({name}" not in expression
    ]
    assert bare == []


def test_legends_use_labels_of_their_expression() -> None:
    """Else Grafana shows nothing there."""
    for panel in panels():
        for target in panel["targets"]:
            names = re.findall(r"elche_\w+", target["expr"])
            used = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            assert used <= set().union(*(LABELS[name] for name in names))


def test_panels_have_a_place_of_their_own() -> None:
    """In the grid of 24 columns, with numbers and titles of their own."""
    cells = [
        (x, y)
        for grid in (one["gridPos"] for one in json.loads(DASHBOARD.read_text())["panels"])
        for x in range(grid["x"], grid["x"] + grid["w"])
        for y in range(grid["y"], grid["y"] + grid["h"])
    ]
    ids = [one["id"] for one in json.loads(DASHBOARD.read_text())["panels"]]
    titles = [one["title"] for one in panels()]
    assert len(cells) == len(set(cells))
    assert {x for x, _ in cells} == set(range(24))
    assert len(set(ids)) == len(ids)
    assert len(set(titles)) == len(titles)


def test_there_are_five_alerts_that_say_what_to_do() -> None:
    """Each with a severity."""
    assert [rule["alert"] for rule in rules()] == [
        *("ElcheNoAverage", "ElcheBreakerOpen", "ElcheRankIdle", "ElcheDiskFull"),
        "ElcheStopOverdue",
    ]
    assert {key for rule in rules() for key in rule["annotations"]} == {"summary", "description"}
    assert {rule["labels"]["severity"] for rule in rules()} == {"critical", "warning"}


def test_stop_is_overdue_only_after_the_usual_grace() -> None:
    """A run that stops as it should raises no alert."""
    from lightning_elche.coordination.stopping.stop import StopConfig

    [overdue] = [rule for rule in rules() if rule["alert"] == "ElcheStopOverdue"]
    assert float(overdue["for"].removesuffix("s")) > StopConfig().grace_s


def test_table_of_the_documentation_is_that_of_the_code() -> None:
    """Names, kinds and labels, in the same order."""
    text = (ROOT / "docs" / "monitoring.md").read_text()
    rows = re.findall(r"^\| `(elche_\w+)` \| (counter|gauge) \| (.*?) \|", text, re.MULTILINE)
    assert rows == [
        (f"elche_{one.name}", one.kind, ", ".join(f"`{label}`" for label in one.labels))
        for one in METRICS
    ]
