"""The report as SARIF."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_elche.contracts.reports.sarif import render
from lightning_elche.contracts.verdicts import Finding, Location, Report, Severity
from tests.contracts.sample_reports import EMPTY, GREEN, MIXED, hostile


def closed(required: str, **properties: Any) -> dict[str, Any]:
    """Describe an object with no other properties."""
    return {
        "type": "object",
        "additionalProperties": False,
        "required": required.split(),
        "properties": properties,
    }


def listed(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


STRING = {"type": "string"}
MESSAGE = closed("text", text=STRING)
LEVEL = {"enum": ["none", "note", "warning", "error"]}
POSITIVE = {"type": "integer", "minimum": 1}
PLACE = closed(
    "artifactLocation region",
    artifactLocation=closed("uri", uri={"type": "string", "format": "uri-reference"}),
    region=closed("startLine startColumn", startLine=POSITIVE, startColumn=POSITIVE),
)
RULE = closed(
    "id",
    id=STRING,
    shortDescription=MESSAGE,
    fullDescription=MESSAGE,
    help=MESSAGE,
    defaultConfiguration=closed("level", level=LEVEL),
)
RESULT = closed(
    "ruleId ruleIndex level message locations",
    ruleId=STRING,
    ruleIndex={"type": "integer", "minimum": 0},
    level=LEVEL,
    message=MESSAGE,
    locations=listed(closed("physicalLocation", physicalLocation=PLACE)),
)
# What we use of the schema of SARIF 2.1.0, where all of these objects are closed.
SARIF = closed(
    "$schema version runs",
    **{"$schema": STRING, "version": {"const": "2.1.0"}},
    runs=listed(
        closed(
            "tool columnKind results properties",
            tool=closed(
                "driver", driver=closed("name", name=STRING, version=STRING, rules=listed(RULE))
            ),
            columnKind={"enum": ["utf16CodeUnits", "unicodeCodePoints"]},
            results=listed(RESULT),
            properties={"type": "object"},
        )
    ),
)


def run_of(report: Report) -> dict[str, Any]:
    document = json.loads(render(report))
    jsonschema.validate(document, SARIF)
    run: dict[str, Any] = document["runs"][0]
    return run


def uri_of(path: str) -> str:
    finding = Finding(rule="R", severity=Severity.NOTE, message="m", at=Location(path=path))
    (result,) = run_of(replace(EMPTY, findings=(finding,)))["results"]
    uri: str = result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    return uri


def test_results_have_levels_and_places() -> None:
    """A gate that fails is an error, with the place of its finding."""
    results = {one["ruleId"]: one for one in run_of(MIXED)["results"]}
    failed = results["GATE-TRAIN-005"]
    region = failed["locations"][0]["physicalLocation"]["region"]
    assert failed["level"] == "error"
    assert region == {"startLine": 3, "startColumn": 15}


def test_unknown_line_and_column_are_one() -> None:
    """SARIF counts from 1, and viewers need both."""
    results = {one["ruleId"]: one for one in run_of(MIXED)["results"]}
    region = results["EV-WALL"]["locations"][0]["physicalLocation"]["region"]
    assert region == {"startLine": 1, "startColumn": 1}


def test_gate_that_could_not_be_judged_is_a_result() -> None:
    """A warning, for it has not passed."""
    results = {one["ruleId"]: one for one in run_of(MIXED)["results"]}
    assert results["GATE-TRAIN-010"]["level"] == "warning"


def test_rules_are_listed_once_and_results_point_to_them() -> None:
    """By their index."""
    run = run_of(replace(MIXED, findings=MIXED.findings * 2))
    ids = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert ids == ["EV-WALL", "GATE-TRAIN-001", "GATE-TRAIN-005", "GATE-TRAIN-010"]
    assert all(ids[one["ruleIndex"]] == one["ruleId"] for one in run["results"])


def test_green_run_has_no_results_but_its_verdicts() -> None:
    """So that nothing found differs from nothing checked."""
    run = run_of(GREEN)
    assert run["results"] == []
    assert run["properties"] == {"verdicts": {"GATE-TRAIN-001": "PASS"}}


@pytest.mark.parametrize(
    ("path", "uri"),
    [
        ("run/train.jsonl", "run/train.jsonl"),
        ("my run/a%b.yaml", "my%20run/a%25b.yaml"),
        ("a:b.yaml", "a%3Ab.yaml"),
        ("Gr\u00f6\u00dfe.yaml", "Gr%C3%B6%C3%9Fe.yaml"),
        ("bad-\udcff.yaml", "bad-%FF.yaml"),
        ("/tmp/run", "file:///tmp/run"),
    ],
)
def test_paths_are_uris(path: str, uri: str) -> None:
    """Relative ones stay relative; what a URI cannot hold is escaped, byte by byte."""
    assert uri_of(path) == uri


@given(st.text(st.characters(exclude_categories=("Cs",))))
def test_any_text_gives_a_valid_log(text: str) -> None:
    """Whatever the files contain."""
    assert len(run_of(hostile(text))["results"]) == 3
