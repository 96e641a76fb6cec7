"""The families of contract files."""

from __future__ import annotations

import pytest

from lightning_elche.contracts.verdicts import Severity
from tests.contracts.contract_texts import contract, findings

KERNEL = """
metadata: {version: "1.2.0", created: "2026-01-02", author: A, references: [a, b]}
equations:
  softmax: {formula: "exp(x) / sum(exp(x))", domain: "x in R^n", invariants: [sums to 1]}
proof_obligations: [{type: invariant, property: sums to one, applies_to: all}]
falsification_tests: [{id: FALSIFY-1, rule: sums, prediction: "1", test: proptest, if_fails: bug}]
kani_harnesses: [{id: KANI-1, obligation: x, bound: 16}]
qa_gate: {id: F-1, name: Softmax, checks: [sums], pass_criteria: all}
enforcement: {sums: {description: d, check: c, severity: ERROR}}
"""
LOOP = """
contract_id: C-TRAIN
version: 1.5.0
status: ACTIVE
metadata: {version: "1.5.0", kind: training-loop, registry: true, peer_contracts: [a.yaml]}
per_step_metrics:
  required: [{name: step, type: u64, description: counts}, {name: train_loss, type: f32}]
convergence: {target_val_loss: 2.2, require_epoch_over_epoch_improvement: true}
non_divergence: {rule: "val_loss[0] > 10.0; FROM_SCRATCH: 2 ln(V)"}
invariants: [{id: INV-1, description: d, falsifier: f, harness: [{name: n, kind: rust-test}]}]
gates:
  - {id: GATE-TRAIN-001, rule: r, evidence_required: e, binds_to: AC-1, falsification_id: F-1}
  - {id: GATE-TRAIN-005, rule: r, ship_blocking: true, motivation: m, derived_metric: {a: 1}}
  - {id: GATE-TRAIN-006, rule: r, discharge_status: PENDING, discharge_notes: later}
failure_modes: [{id: FM-1, description: d}]
"""
PIPELINE = """
metadata: {version: 0.1.0, kind: pipeline}
gates:
  - {id: GATE-DATA-001, name: n, condition: rows > 0, consequence_if_violated: c, blocks_ac: [A]}
falsification: [{id: F-1, rule: r}]
"""
STUB = """
metadata: {version: "1.0.0", registry: true}
kind: AlgorithmContract
name: agent-loop
version: "1.0.0"
scope: to be defined
equations: {placeholder: {formula: TBD}}
falsification: []
"""
AD_HOC = """
metadata: {version: 2.0.0}
invariants: {first: {rule: r}}
gates: {speed: {limit: 5}}
budget: {p95_ms: 200}
"""
LIBRARY = """
metadata: {version: 2.0.0, kind: library}
gates: [{id: GATE-A, rule: r, falsifier: tests/test_a.py::test_a}]
"""


@pytest.mark.parametrize(
    ("text", "family", "kind", "num_gates"),
    [
        (KERNEL, "A", "kernel", 0),
        (LOOP, "B", "training-loop", 3),
        (PIPELINE, "B'", "pipeline", 1),
        (STUB, "C", "kernel", 0),
        (AD_HOC, "D", "kernel", 0),
        (LIBRARY, "D", "library", 1),
    ],
    ids=["kernel", "loop", "pipeline", "stub", "ad-hoc", "library"],
)
def test_file_of_each_family_is_accepted(text: str, family: str, kind: str, num_gates: int) -> None:
    """Files as they are found elsewhere are valid, and their family is known by their keys."""
    read = contract(text)
    assert (read.family, read.kind, len(read.gates)) == (family, kind, num_gates)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (KERNEL, set()),
        (LOOP, set()),
        (PIPELINE, {"CT-GATEID"}),
        (STUB, {"CT-TOPKIND"}),
        (AD_HOC, set()),
        (LIBRARY, set()),
    ],
    ids=["kernel", "loop", "pipeline", "stub", "ad-hoc", "library"],
)
def test_file_of_each_family_has_few_warnings(text: str, expected: set[str]) -> None:
    """Nothing is warned of but what will not be checked."""
    assert {one.rule for one in findings(text) if one.severity is Severity.WARNING} == expected


@pytest.mark.parametrize(
    ("text", "family"),
    [
        ("metadata: {version: 1.0.0, kind: training-loop}\n", "D"),
        ("metadata: {version: 1.0.0}\nconvergence: {}\ngates: [{id: G-1}]\n", "B"),
        ("metadata: {version: 1.0.0}\nequations: {}\ngates: [{id: G-1}]\n", "D"),
        ("metadata: {version: 1.0.0}\nkind: x\ngates: [{id: G-1}]\n", "D"),
        ("metadata: {version: 1.0.0, kind: training-loop}\ngates: [{id: G, condition: c}]\n", "B"),
    ],
)
def test_family_is_decided_by_gates_first(text: str, family: str) -> None:
    """Where signs of several families meet, gates and blocks of training count most."""
    assert contract(text).family == family
