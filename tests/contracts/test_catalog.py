"""The texts of the rules."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from lightning_elche.contracts.rules.catalog import GROUPS, RULES, expand_gates, find_rule, remedy
from lightning_elche.contracts.verdicts import Abort, Severity

CONTRACTS = Path(__file__).parents[2] / "lightning_elche" / "contracts"
TEXTS = CONTRACTS / "rules"
FOUND_IN_FILES = re.compile(r"(?:CT|EV)(?:-[A-Z]+)+")
GATES = [f"GATE-TRAIN-{number:03d}" for number in range(1, 11)] + ["GATE-TRAIN-EXHAUST"]


def ids_in_code() -> set[str]:
    """Return the ids of findings that any module but the texts has as a string."""
    sources = [path for path in CONTRACTS.parent.rglob("*.py") if path.parent != TEXTS]
    nodes = (node for path in sources for node in ast.walk(ast.parse(path.read_text("utf-8"))))
    strings = {node.value for node in nodes if isinstance(node, ast.Constant)}
    return {one for one in strings if isinstance(one, str) and FOUND_IN_FILES.fullmatch(one)}


def test_each_finding_of_the_code_has_a_text_and_the_other_way_round() -> None:
    """No id is unexplained, and none is explained that cannot occur."""
    explained = {rule for rule in RULES if not rule.startswith("GATE-")}
    assert ids_in_code() == explained


def test_all_gates_have_a_text() -> None:
    """The ten by number, and the one against placeholders."""
    assert [rule for rule in RULES if rule.startswith("GATE-")] == GATES


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.id)
def test_texts_are_complete_sentences(rule: object) -> None:
    """Title, rule, evidence and remedy are there; rule and remedy end with a full stop."""
    texts = {key: getattr(rule, key) for key in ("title", "rule", "evidence", "remedy")}
    assert all(text == text.strip() and text for text in texts.values())
    assert all(texts[key].endswith(".") for key in ("rule", "remedy"))


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        ("GATE-TRAIN-001", 21),
        ("GATE-TRAIN-002", 22),
        ("GATE-TRAIN-003", None),
        ("GATE-TRAIN-005", 25),
        ("GATE-TRAIN-007", 27),
        ("GATE-TRAIN-008", 28),
        ("GATE-TRAIN-EXHAUST", 31),
        ("EV-PPL", None),
    ],
)
def test_exit_code_is_that_of_the_abort(rule: str, code: int | None) -> None:
    """A rule that aborts no run has none."""
    assert RULES[rule].exit_code == code


def test_each_abort_belongs_to_one_gate() -> None:
    """So that an exit code tells which."""
    aborts = [rule.abort for rule in RULES.values() if rule.abort is not None]
    assert sorted(abort.name for abort in aborts) == sorted(abort.name for abort in Abort)


def test_some_contradictions_only_warn() -> None:
    """Those that an honest run could show."""
    warnings = {rule.id for rule in RULES.values() if rule.severity is Severity.WARNING}
    assert {rule for rule in warnings if rule.startswith("EV-")} == {
        "EV-TRAIN-LOSS",
        "EV-TOKENS-CLOCK",
        "EV-WALL",
        "EV-VAL-LOW",
        "EV-UTIL-NOISE",
        "EV-UTIL-NO-GPU",
        "EV-CONTRACT-DRIFT",
    }


def test_rule_is_found_in_any_case() -> None:
    """People type small letters."""
    assert find_rule("gate-train-005").id == "GATE-TRAIN-005"


def test_unknown_rule_is_refused_with_the_nearest_one() -> None:
    """A typing error is easily made."""
    with pytest.raises(ValueError, match=r"got 'EV-PLP'\. Did you mean EV-PPL\?"):
        find_rule("EV-PLP")


def test_gate_of_a_user_points_to_the_contract() -> None:
    """Its text is there, and nowhere else."""
    assert remedy("GATE-MY-001") == "See what the gate says in the contract."
    assert remedy("SOMETHING") == ""


def test_groups_are_expanded_and_ids_kept() -> None:
    """Both may be mixed."""
    assert expand_gates(["numerical-stability", "GATE-MY-001"]) == {
        "GATE-TRAIN-007",
        "GATE-TRAIN-008",
        "GATE-MY-001",
    }


def test_groups_name_gates_that_exist() -> None:
    """Each has at least one."""
    assert all(members and set(members) <= set(GATES) for members in GROUPS.values())


@pytest.mark.parametrize("name", ["non-divergense", "005", ""])
def test_name_that_is_neither_is_refused(name: str) -> None:
    """It would select nothing, and nothing would be checked."""
    with pytest.raises(ValueError, match="`--gate` must be an id such as GATE-TRAIN-005 or one of"):
        expand_gates([name])
