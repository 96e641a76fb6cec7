"""The rules by id: what each asks for, and what to do where it is broken."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from lightning_elche.contracts.rules.evidence import EVIDENCE_RULES
from lightning_elche.contracts.rules.gates import GATE_RULES
from lightning_elche.contracts.rules.grammar import GRAMMAR_RULES
from lightning_elche.contracts.rules.rule import Rule

__all__ = ["GROUPS", "RULES", "expand_gates", "find_rule", "remedy"]

RULES = {rule.id: rule for rule in (*GATE_RULES, *EVIDENCE_RULES, *GRAMMAR_RULES)}

GROUPS = {
    "train-log": ("GATE-TRAIN-001",),
    "epoch-artifacts": ("GATE-TRAIN-002",),
    "final-metrics": ("GATE-TRAIN-003",),
    "non-divergence": ("GATE-TRAIN-005",),
    "numerical-stability": ("GATE-TRAIN-007", "GATE-TRAIN-008"),
    "no-placeholder-loss": ("GATE-TRAIN-EXHAUST",),
}

GATE_PREFIX = "GATE-"
OWN_GATE_REMEDY = "See what the gate says in the contract."


def find_rule(rule: str) -> Rule:
    """Return the text of a rule.

    Args:
        rule: Its id, in capitals or not.

    Raises:
        ValueError: If there is no such rule.
    """
    found = RULES.get(rule.upper())
    if found is None:
        raise ValueError(
            f"`ID` must be the id of a rule, got {rule!r}.{_hint(rule.upper(), RULES)}"
        )
    return found


def remedy(rule: str) -> str:
    """Return what to do where a rule is broken; empty if the catalog does not know the rule."""
    if rule in RULES:
        return RULES[rule].remedy
    return OWN_GATE_REMEDY if rule.startswith(GATE_PREFIX) else ""


def expand_gates(names: Iterable[str]) -> frozenset[str]:
    """Return the ids of gates that are named by id or by group.

    Raises:
        ValueError: If a name is neither a group nor looks like the id of a gate.
    """
    return frozenset(gate for name in names for gate in _expand(name))


def _expand(name: str) -> tuple[str, ...]:
    if name in GROUPS:
        return GROUPS[name]
    if name.startswith(GATE_PREFIX):
        return (name,)
    raise ValueError(
        f"`--gate` must be an id such as GATE-TRAIN-005 or one of {', '.join(GROUPS)}, "
        f"got {name!r}.{_hint(name, (*GROUPS, *RULES))}"
    )


def _hint(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean {close[0]}?" if close else ""
