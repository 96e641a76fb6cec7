"""The report for programs."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from lightning_elche.contracts.reports.json import render
from lightning_elche.version import VERSION
from tests.contracts.sample_reports import EMPTY, MIXED, hostile


def read(text: str) -> dict[str, Any]:
    """Read strict JSON: no NaN, no Infinity."""

    def refuse(name: str) -> None:
        raise ValueError(name)

    document: dict[str, Any] = json.loads(text, parse_constant=refuse)
    return document


def test_head_names_format_version_and_verdict() -> None:
    """A program can tell what it reads."""
    document = read(render(MIXED))
    head = [document[key] for key in ("schema", "version", "command", "subject", "verdict")]
    assert head == ["elche/report-v1", VERSION, "check", "run", "FAIL"]


def test_gates_are_counted_and_listed_in_their_order() -> None:
    """Each with its verdict, and those not declared too."""
    document = read(render(MIXED))
    assert document["counts"] == {"PASS": 1, "FAIL": 1, "INDETERMINATE": 1, "NOT_DECLARED": 1}
    assert [gate["verdict"] for gate in document["gates"]] == [
        "PASS",
        "FAIL",
        "INDETERMINATE",
        "NOT_DECLARED",
    ]


def test_gate_carries_its_findings_with_their_places() -> None:
    """Line and column from 1, the offset in bytes from 0."""
    gate = read(render(MIXED))["gates"][1]
    assert gate["title"] == "Validation loss never doubles"
    places = [gate["findings"][0][key] for key in ("path", "line", "column", "offset", "pointer")]
    assert places == ["run/ckpt/epoch-001.metadata.json", 3, 15, 40, None]


def test_other_findings_are_sorted_by_place() -> None:
    """They were not."""
    document = read(render(MIXED))
    assert [one["rule"] for one in document["findings"]] == ["EV-WALL", "GATE-TRAIN-001"]


def test_facts_keep_their_types() -> None:
    """But for numbers that JSON cannot write, and tuples."""
    facts = {"best": math.inf, "epochs": (0, 1), "more": {"lr": 5e-5, "seed": None}}
    document = read(render(replace(EMPTY, facts=facts)))
    assert document["facts"] == {
        "best": "inf",
        "epochs": [0, 1],
        "more": {"lr": 5e-5, "seed": None},
    }


@given(st.text(st.characters(exclude_categories=())))
def test_any_text_comes_back(text: str) -> None:
    """Also what cannot be printed."""
    document = read(render(hostile(text)))
    assert document["gates"][0]["reason"] == text
    assert document["facts"] == {text: text}
