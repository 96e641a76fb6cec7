"""What the gates of a contract say, besides their keys."""

from __future__ import annotations

from collections.abc import Iterator

from lightning_elche.contracts.grammar.families import gate_entries, is_own_dialect, mapping_at
from lightning_elche.contracts.grammar.problem import Data, GrammarProblem
from lightning_elche.contracts.grammar.vocabulary import FALSIFIED_KINDS, TRAINING_GATES

__all__ = ["claims", "gate_ids", "missing_blocks", "thresholds"]


def gate_ids(data: Data) -> Iterator[GrammarProblem]:
    """Find ids that are there twice, and those that nothing checks."""
    first: dict[str, int] = {}
    is_falsified = mapping_at(data, "metadata").get("kind") in FALSIFIED_KINDS
    for i, gate in gate_entries(data):
        name, steps = gate["id"], ("gates", i, "id")
        if name in first:
            message = f"gate {name!r} is there already as `gates[{first[name]}]`"
            yield GrammarProblem(rule="CT-DUPLICATE", message=message, steps=steps)
        first.setdefault(name, i)
        is_proved = "check" in gate or (is_falsified and "falsifier" in gate)
        if name not in TRAINING_GATES and not is_proved:
            message = f"no checker for gate {name!r}: its verdict will be INDETERMINATE"
            yield GrammarProblem(rule="CT-GATEID", message=message, steps=steps)


def missing_blocks(data: Data) -> Iterator[GrammarProblem]:
    """Find gates without the block that says what they judge."""
    if not is_own_dialect(data):
        return
    for i, gate in gate_entries(data):
        block = TRAINING_GATES.get(gate["id"])
        if block is not None and block not in data:
            message = f"gate {gate['id']} needs `{block}`, which is missing"
            yield GrammarProblem(rule="CT-SCHEMA", message=message, steps=("gates", i, "id"))


def thresholds(data: Data) -> Iterator[GrammarProblem]:
    """Find `check`s that cannot be judged."""
    for i, gate in gate_entries(data):
        check = gate.get("check")
        if isinstance(check, dict) and (is_own_dialect(data) or "metric" in check):
            problem = _threshold_problem(check)
            if problem is not None:
                steps = ("gates", i, "check")
                yield GrammarProblem(rule="CT-SCHEMA", message=problem, steps=steps)


def _threshold_problem(check: Data) -> str | None:
    low, high = check.get("min"), check.get("max")
    if low is None and high is None:
        return "`check` must have `min`, `max` or both"
    if isinstance(low, int | float) and isinstance(high, int | float) and low > high:
        return f"`min` must be at most `max` ({high}), got {low}"
    if "steps" in check and "epochs" in check:
        return "`check` must have either `steps` or `epochs`, not both"
    window = check.get("steps", check.get("epochs"))
    if isinstance(window, list) and _is_empty(window):
        return f"the range must have its end above its begin, got {window}"
    return None


def _is_empty(window: list[object]) -> bool:
    if len(window) != 2 or not all(isinstance(one, int) for one in window):
        return False  # an error by the schema
    first, end = window
    return isinstance(first, int) and isinstance(end, int) and end <= first


def claims(data: Data) -> Iterator[GrammarProblem]:
    """Note claims of the file about itself, which prove nothing."""
    for i, gate in gate_entries(data):
        if "evidence_discharged_by" in gate:
            key, message = "evidence_discharged_by", "is a claim and is not read as evidence"
        elif str(gate.get("verdict")).lower() == "pass":
            key, message = "verdict", "is a claim; only a run has a verdict"
        else:
            continue
        yield GrammarProblem(
            rule="CT-CLAIM", message=f"`{key}` {message}", steps=("gates", i, key), is_key=True
        )
