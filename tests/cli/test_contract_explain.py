"""The verb `elche contract explain`."""

from __future__ import annotations

import json

import pytest

from lightning_elche.cli.main import main
from lightning_elche.contracts.rules.catalog import RULES


def explain(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["contract", "explain", *arguments]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_is_explained(rule: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Title, rule, evidence, remedy, severity and exit code."""
    lines = explain(capsys, rule).splitlines()
    assert lines[0] == f"{rule}: {RULES[rule].title}"
    assert [line.split()[0] for line in lines[1:]] == [
        "rule",
        "evidence",
        "remedy",
        "severity",
        "exit",
    ]


def test_exit_code_of_an_abort_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """With its name; other rules stop no training."""
    aborted = "exit code  25 of the training process, which is aborted with DIVERGENCE\n"
    assert explain(capsys, "GATE-TRAIN-005").endswith(aborted)
    assert "training goes on" in explain(capsys, "EV-PPL")


def test_group_explains_its_gates(capsys: pytest.CaptureFixture[str]) -> None:
    """Two for numerical stability."""
    rules = json.loads(explain(capsys, "numerical-stability", "--format", "json"))
    assert [rule["id"] for rule in rules] == ["GATE-TRAIN-007", "GATE-TRAIN-008"]
    assert [rule["exit_code"] for rule in rules] == [27, 28]


def test_all_rules_are_listed_without_an_id(capsys: pytest.CaptureFixture[str]) -> None:
    """A line each."""
    assert len(explain(capsys).splitlines()) == len(RULES)


def test_unknown_rule_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, with the nearest one."""
    assert main(["contract", "explain", "GATE-TRAIN-05"]) == 2
    assert "Did you mean GATE-TRAIN-005?" in capsys.readouterr().err
