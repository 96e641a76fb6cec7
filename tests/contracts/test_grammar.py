"""The rules of contract files beyond YAML and schemas."""

from __future__ import annotations

import pytest

from lightning_elche.contracts.grammar.loader import DEFAULT_TEXT, validate_text
from lightning_elche.contracts.grammar.vocabulary import SEVERITIES
from tests.contracts.contract_texts import OPEN, OWN, findings, places, rules

DEFAULT = DEFAULT_TEXT.decode()


def messages(text: str) -> list[str]:
    """Return the messages of the findings."""
    return [one.message for one in findings(text)]


@pytest.mark.parametrize(
    ("text", "rule", "line", "column"),
    [
        (OPEN + "gates: [{id: A, check: {metric: lr, stat: max, max: 1}}, {id: A, check: "
         "{metric: lr, stat: max, max: 1}}]\n", "CT-DUPLICATE", 3, 63),
        (OPEN + "convergense: 1\n", "CT-NEARMISS", 3, 1),
        (OPEN + "equation-s: 1\n", "CT-NEARMISS", 3, 1),
        (OPEN + "gates:\n- {id: GATE-TRAIN-007, evidence_requird: x}\n", "CT-NEARMISS", 4, 24),
        (OPEN + "status: SHINY\n", "CT-STATUS", 3, 9),
        ("metadata: {version: 1.0.0, status: SHINY}\n", "CT-STATUS", 1, 36),
        ("metadata: {version: 1.0.0, kind: novel}\n", "CT-KIND", 1, 34),
        (OPEN + "kind: kernel\n", "CT-TOPKIND", 3, 1),
        (OPEN + "version: 1.0.1\n", "CT-VERSION", 3, 10),
        (OPEN + "version: 1.0\n", "CT-VERSION", 3, 10),
        (OPEN + "gates:\n- {id: GATE-TRAIN-007, verdict: maybe}\n", "CT-VERDICT", 4, 33),
        (OPEN + "gates:\n- {id: GATE-TRAIN-007, colour: red}\n", "CT-GATEKEY", 4, 24),
        (OPEN + "gates:\n- {id: GATE-TRAIN-011}\n", "CT-GATEID", 4, 8),
        (OPEN + "gates:\n- {id: A, falsifier: t}\n", "CT-GATEID", 4, 8),
        (OPEN + "convergence: {}\ngates: [{id: GATE-TRAIN-007}]\n", "CT-NODIVERGENCE", 4, 1),
        (OPEN + "gates:\n- {id: GATE-TRAIN-007, verdict: pass}\n", "CT-CLAIM", 4, 24),
        (OPEN + "gates:\n- {id: GATE-TRAIN-007, evidence_discharged_by: [t]}\n", "CT-CLAIM", 4, 24),
        (OPEN + "suppress:\n- {rule: EV-PPL, until: 2026-06-14, reason: r}\n", "CT-EXPIRED", 4, 25),
        (OPEN + "suppress:\n- {rule: EV-PPL, until: 2026-06-31, reason: r}\n", "CT-SCHEMA", 4, 25),
        (OPEN + "suppress:\n- {rule: EV-PPL, until: soon, reason: r}\n", "CT-SCHEMA", 4, 25),
    ],
)  # fmt: skip
def test_rule_is_broken_at_its_place(text: str, rule: str, line: int, column: int) -> None:
    """Each rule has a file that breaks it, and the finding says where."""
    assert (rule, line, column) in places(text)


@pytest.mark.parametrize(
    "text",
    [
        OPEN,
        OPEN + "status: active\nversion: 1.0.0\nperformance: {}\nx-gatess: 1\n",
        "metadata: {version: 1.0.0, kind: library, status: Draft}\n",
        OPEN + "gates:\n- {id: GATE-TRAIN-007, verdict: PENDING, x-own: 1, discharge_by: me}\n",
        OPEN + "gates:\n- {id: MY-1, check: {metric: lr, stat: max, max: 1}}\n",
        OPEN + "suppress:\n- {rule: EV-PPL, until: 2026-06-15, reason: r}\n",
        DEFAULT,
    ],
)
def test_nothing_is_found_where_rules_are_kept(text: str) -> None:
    """The other side of each rule: known words, own keys, the last day of a suppression."""
    assert findings(text) == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{run_dir}/../{epoch}", "'..'"),
        ("ckpt/{epoch}.ckpt", "must begin with '{run_dir}/'"),
        ("{run_dir}/last.ckpt", "exactly one '{epoch}'"),
    ],
)
def test_template_of_a_contract_is_refused(text: str, message: str) -> None:
    """A template that could lead elsewhere is an error at its place."""
    broken = DEFAULT.replace("{run_dir}/ckpt/epoch-{epoch:03d}.ckpt", text)
    (found,) = findings(broken)
    assert (found.rule, found.at and found.at.line) == ("CT-TEMPLATE", 15)
    assert message in found.message


@pytest.mark.parametrize(
    ("key", "typo"),
    [
        ("patience_epochs", "patience_epoch"),
        ("convergence", "convergense"),
        ("sampling_period_steps", "sampling_period_step"),
        ("required_fields", "required_field"),
        ("per_step_metrics", "per-step-metrics"),
        ("warmup_steps", "warmup_step"),
        ("ship_blocking", "shipblocking"),
    ],
)
@pytest.mark.parametrize("is_own", [True, False])
def test_mistyped_key_is_an_error_in_both_dialects(key: str, typo: str, is_own: bool) -> None:
    """A key that would be ignored without a word is refused once, with what was meant."""
    text = DEFAULT.replace(f"{key}:", f"{typo}:", 1)
    found = findings(text if is_own else text.replace("dialect: elche/1\n", ""))
    assert [one.message for one in found if one.rule == "CT-NEARMISS"] == [
        f"key {typo!r} is not known; did you mean `{key}`?"
    ]


@pytest.mark.parametrize("dialect", ["elche/2", "other", "1", "~"])
def test_unknown_dialect_is_an_error(dialect: str) -> None:
    """A dialect that this version does not know is refused, not read as an open one."""
    assert rules(DEFAULT.replace("dialect: elche/1", f"dialect: {dialect}")) == ["CT-SCHEMA"]


@pytest.mark.parametrize(
    ("gate", "block"),
    [
        ("GATE-TRAIN-001", "per_step_metrics"),
        ("GATE-TRAIN-002", "per_epoch_artifacts"),
        ("GATE-TRAIN-004", "convergence"),
        ("GATE-TRAIN-009", "hyperparameter_defaults"),
    ],
)
def test_gate_needs_its_block_in_the_closed_dialect(gate: str, block: str) -> None:
    """A gate that could judge nothing is an error, unless the file is an open one."""
    head = "contract_id: C\nmetadata: {version: 1.0.0, kind: training-loop}\n"
    gates = f"gates: [{{id: {gate}, rule: r}}, {{id: GATE-TRAIN-005, rule: r}}]\n"
    assert messages("dialect: elche/1\n" + head + gates) == [
        f"gate {gate} needs `{block}`, which is missing"
    ]
    assert messages(head + gates) == []


@pytest.mark.parametrize(
    ("check", "message"),
    [
        ("{metric: lr, stat: max}", "`check` must have `min`, `max` or both"),
        ("{metric: lr, stat: max, min: 2, max: 1}", "`min` must be at most `max` (1), got 2"),
        (
            "{metric: lr, stat: max, max: 1, steps: [0, 9], epochs: [0, 9]}",
            "`check` must have either `steps` or `epochs`, not both",
        ),
        (
            "{metric: lr, stat: max, max: 1, steps: [5, 5]}",
            "the range must have its end above its begin, got [5, 5]",
        ),
        (
            "{metric: lr, stat: max, max: 1, epochs: [1]}",
            "`epochs` must be two numbers [first, end), got a list of 1",
        ),
        (
            "{metric: lr, stat: max, max: 1, epochs: 3}",
            "`epochs` must be two numbers [first, end), got 3",
        ),
        (
            "{metric: lr, stat: max, max: 1, steps: [0, 1.5]}",
            "`steps[1]` must be an integer, got 1.5",
        ),
        ("{metric: lr, stat: max, max: 1, step: [0, 5]}", "`step` is not known"),
        ("{metric: lr, max: 1}", "`stat` is missing here"),
    ],
)
def test_threshold_that_cannot_be_judged_is_refused(check: str, message: str) -> None:
    """A check needs a bound and at most one window that is not empty."""
    assert messages(OPEN + f"gates: [{{id: MY-1, check: {check}}}]\n") == [message]


@pytest.mark.parametrize(
    "check",
    [
        "{metric: lr, stat: max, min: 1, max: 1}",
        "{metric: lr, stat: p95, max: 1, steps: [5, 6]}",
        "{metric: val_loss, stat: last, min: 0, epochs: [0, 1]}",
    ],
)
def test_threshold_is_accepted_at_its_limits(check: str) -> None:
    """Equal bounds and windows of one are fine."""
    assert findings(OPEN + f"gates: [{{id: MY-1, check: {check}}}]\n") == ()


def test_suppressed_warning_is_not_shown() -> None:
    """A warning is silenced by its rule."""
    silence = "suppress: [{rule: CT-KIND, until: 2026-06-15, reason: r}]\n"
    assert rules("metadata: {version: 1.0.0, kind: novel}\n" + silence) == []


def test_suppressed_error_is_shown() -> None:
    """Errors cannot be silenced."""
    silence = "suppress: [{rule: CT-NEARMISS, until: 2026-06-15, reason: r}]\n"
    assert rules(OPEN + "convergense: 1\n" + silence) == ["CT-NEARMISS"]


def test_contract_without_gates_is_noted() -> None:
    """A file with nothing to run is valid, and says so."""
    (note,) = validate_text(OPEN.encode(), path="c.yaml")
    assert (note.rule, note.severity.value) == ("CT-NOGATES", "note")


def test_own_dialect_is_closed_at_top_level() -> None:
    """A key of another family is an error there."""
    assert rules(OWN + " equations: {}}\n") == ["CT-SCHEMA"]


def test_findings_are_in_the_order_of_the_file() -> None:
    """Findings are sorted by line, then by column."""
    found = places(OPEN + "version: 2.0.0\nstatus: SHINY\nkind: x\nconvergense: 1\n")
    assert [line for _, line, _ in found] == [3, 4, 5, 6]


@pytest.mark.parametrize(
    "text",
    [
        "{}", "[]", "5", "metadata: 5", "metadata: {version: [1]}", "metadata: {version: {}}",
        OPEN + "gates: 5", OPEN + "gates: [5, {id: 5}, {id: [1]}, {id: ~}]", OPEN + "suppress: 5",
        OPEN + "suppress: [5, {until: 5}]", OPEN + "kind: [x]", OPEN + "status: {a: 1}",
        OPEN + "version: [1]", OPEN + "gates: [{id: GATE-TRAIN-001, check: 5, verdict: [pass]}]",
        OPEN + "convergence: 5\nper_epoch_artifacts: [1]\ngates: [{id: GATE-TRAIN-001}]",
        OPEN + "per_epoch_artifacts: {checkpoint: {path_template: 5}}\ngates: [{id: GATE-TRAIN-1}]",
        OPEN + "gates: [{id: A, check: {metric: 5, min: x, max: [1], steps: 7}}]",
        "dialect: [1]\nmetadata: 5\ngates: {a: 1}\ninvariants: 5\nsuppress: {}\n",
    ],
)  # fmt: skip
def test_values_of_other_types_are_findings(text: str) -> None:
    """No value anywhere leads to another error than a finding with a place."""
    assert all(one.at is not None and one.at.line for one in findings(text))


def test_every_rule_has_a_severity() -> None:
    """Seven rules are errors, eight are warnings and two are notes."""
    found = [severity.value for severity in SEVERITIES.values()]
    assert [found.count(one) for one in ("error", "warning", "note")] == [7, 8, 2]
