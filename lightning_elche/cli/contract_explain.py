"""`elche contract explain`: what a rule asks for."""

from __future__ import annotations

import argparse
import json

from lightning_elche.cli.contract_output import Outcome
from lightning_elche.contracts.rules.catalog import GROUPS, RULES, find_rule
from lightning_elche.contracts.rules.rule import Rule

__all__ = ["explain"]


def explain(options: argparse.Namespace) -> Outcome:
    """Return the text of a rule or of the rules of a group, or a list of all rules.

    Raises:
        ValueError: If there is no such rule.
    """
    if options.rule is None:
        rules = list(RULES.values())
        text = "\n".join(f"{rule.id}: {rule.title}" for rule in rules)
    else:
        rules = [find_rule(rule) for rule in GROUPS.get(options.rule, (options.rule,))]
        text = "\n\n".join(map(_text, rules))
    return Outcome(result=_json(rules) if options.format == "json" else text)


def _text(rule: Rule) -> str:
    return "\n".join(
        (
            f"{rule.id}: {rule.title}",
            f"rule       {rule.rule}",
            f"evidence   {rule.evidence}",
            f"remedy     {rule.remedy}",
            f"severity   {rule.severity.value}",
            f"exit code  {_exit_code(rule)}",
        )
    )


def _exit_code(rule: Rule) -> str:
    if rule.abort is None:
        return "training goes on; the check fails if this is an error"
    return f"{rule.exit_code} of the training process, which is aborted with {rule.abort.name}"


def _json(rules: list[Rule]) -> str:
    return json.dumps(
        [
            {
                "id": rule.id,
                "title": rule.title,
                "rule": rule.rule,
                "evidence": rule.evidence,
                "remedy": rule.remedy,
                "severity": rule.severity.value,
                "exit_code": rule.exit_code,
            }
            for rule in rules
        ],
        indent=2,
    )
