"""Tests of the rules on one step."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_elche.contracts.gates.steps import (
    SIX_FIELDS,
    check_step,
    is_clean,
    non_finite_of,
    step_violations,
)
from lightning_elche.contracts.model import FieldSpec
from lightning_elche.contracts.records import StepRecord
from lightning_elche.contracts.verdicts import Abort
from tests.contracts.sample_runs import EDGES, fields_of, step_of, step_records


def _message(**changes: object) -> str:
    violation = check_step(fields_of(4, **changes))
    assert violation is not None
    return violation.message


def test_clean_step_breaks_no_rule() -> None:
    """A step with good values passes, as an object and as a mapping, with further keys, too."""
    assert check_step(step_of(4)) is None
    assert check_step(fields_of(4, note="more", wall_ms=..., epoch=...)) is None


@pytest.mark.parametrize("name", [spec.name for spec in SIX_FIELDS])
@pytest.mark.parametrize("value", [..., None, "1", True, [], {}])
def test_metric_is_missing_for_each_field_that_is_none(name: str, value: object) -> None:
    """Each of the six fields must be there and be a number."""
    violation = check_step(fields_of(4, **{name: value}))
    assert violation is not None
    assert (violation.gate, violation.abort, violation.field, violation.value) == (
        "GATE-TRAIN-001",
        Abort.METRIC_MISSING,
        name,
        None,
    )


def test_metric_is_named_in_the_message() -> None:
    """The message says which field is missing at which step, and how."""
    assert _message(lr=...) == "METRIC_MISSING at step 4: lr is absent"
    assert _message(lr=None) == "METRIC_MISSING at step 4: lr is null"


def test_metric_is_missing_in_an_object_that_has_none() -> None:
    """A field that is None in a record of our own is null."""
    violation = check_step(step_of(4, grad_norm=None))
    assert violation is not None
    assert violation.message == "METRIC_MISSING at step 4: grad_norm is null"


@pytest.mark.parametrize("step", [1.0, True, "1", -1, 2**63])
def test_step_must_be_a_u64(step: object) -> None:
    """A step that only looks like an integer, or lies outside 63 bits, is missing."""
    violation = check_step(fields_of(step=step))
    assert violation is not None
    assert (violation.field, violation.step) == ("step", None)
    assert violation.message.startswith("METRIC_MISSING: step is ")


def test_step_is_the_expected_one_where_the_record_does_not_say() -> None:
    """A record without a step is called by the step that was expected."""
    (violation,) = step_violations(fields_of(step=...), SIX_FIELDS, expected_step=9)
    assert violation.message == "METRIC_MISSING at step 9: step is absent"


def test_only_declared_fields_are_required() -> None:
    """A field that the contract does not ask for may be absent, and one it asks for may not."""
    only_loss = (FieldSpec(name="train_loss", type="f32"),)
    assert check_step(fields_of(lr=..., gpu_util_pct=...), only_loss) is None
    own = (*SIX_FIELDS, FieldSpec(name="loss_scale", type="f32"))
    violation = check_step(fields_of(), own)
    assert violation is not None
    assert violation.field == "loss_scale"


@pytest.mark.parametrize("name", ["train_loss", "grad_norm", "lr"])
@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, -math.inf, 1e39, 3.4028235677973366e38, -1e39, 10**400],
)
def test_instability_is_found_in_each_number_that_32_bits_cannot_hold(
    name: str, value: float
) -> None:
    """NaN, infinities and what a cast to 32 bits makes infinite are unstable."""
    violation = check_step(fields_of(3, **{name: value}))
    assert violation is not None
    assert (violation.gate, violation.exit_code, violation.field) == ("GATE-TRAIN-007", 27, name)


def test_instability_is_not_found_in_the_largest_32_bit_number() -> None:
    """The largest finite 32-bit float, and what rounds to it, passes."""
    largest = math.nextafter(3.4028235677973366e38, 0.0)
    assert check_step(step_of(train_loss=largest, grad_norm=largest, lr=-largest)) is None


def test_instability_is_told_with_its_value() -> None:
    """The message names the first of loss, gradient norm and learning rate that is unstable."""
    assert _message(train_loss=math.nan) == "NUMERICAL_INSTABILITY at step 4: train_loss = nan"
    assert _message(lr=math.nan, grad_norm=-math.inf) == (
        "NUMERICAL_INSTABILITY at step 4: grad_norm = -inf"
    )


@pytest.mark.parametrize("value", [None, "NaN", "Infinity", "-inf", "1e400"])
def test_instability_is_found_in_what_a_json_writer_makes_of_it(value: object) -> None:
    """Null and the text of a number that is not finite are both missing and unstable."""
    found = step_violations(fields_of(3, train_loss=value), SIX_FIELDS)
    assert [one.gate for one in found] == ["GATE-TRAIN-001", "GATE-TRAIN-007"]


@pytest.mark.parametrize("value", ["", "x", "1.5", True, [], {}])
def test_instability_is_not_found_in_other_types(value: object) -> None:
    """Other text and types are only missing."""
    found = step_violations(fields_of(3, train_loss=value), SIX_FIELDS)
    assert [one.gate for one in found] == ["GATE-TRAIN-001"]


def test_non_finite_is_read_from_text_and_null() -> None:
    """Null is NaN, text counts if it is not finite, and numbers are cast to 32 bits."""
    assert math.isnan(non_finite_of(None) or 0.0)
    assert (non_finite_of("inf"), non_finite_of("1"), non_finite_of(0.1)) == (
        math.inf,
        None,
        0.10000000149011612,
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tokens_per_sec", 0.0),
        ("tokens_per_sec", -0.0),
        ("tokens_per_sec", 3e38),
        ("gpu_util_pct", 0),
        ("gpu_util_pct", 100),
        ("gpu_util_pct", 100.0 + 2.0**-18),
        ("wall_ms", 0.0),
        ("wall_ms", None),
    ],
)
def test_throughput_is_in_range_at_its_bounds(name: str, value: float | None) -> None:
    """Zero passes everywhere, and 100 % of a GPU, to the precision of 32 bits."""
    assert check_step(fields_of(1, **{name: value})) is None


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("tokens_per_sec", -1.0, "tokens_per_sec = -1 outside [0, inf)"),
        ("tokens_per_sec", math.inf, "tokens_per_sec = inf outside [0, inf)"),
        ("tokens_per_sec", math.nan, "tokens_per_sec = nan outside [0, inf)"),
        ("tokens_per_sec", 1e39, "tokens_per_sec = inf outside [0, inf)"),
        ("gpu_util_pct", 150, "gpu_util_pct = 150 outside [0, 100]"),
        ("gpu_util_pct", 100.00001, "gpu_util_pct = 100.00001 outside [0, 100]"),
        ("gpu_util_pct", -1e-45, "gpu_util_pct = -1.4013e-45 outside [0, 100]"),
        ("gpu_util_pct", math.nan, "gpu_util_pct = nan outside [0, 100]"),
        ("wall_ms", -3.0, "wall_ms = -3 outside [0, inf)"),
        ("wall_ms", math.inf, "wall_ms = inf outside [0, inf)"),
    ],
)
def test_throughput_is_out_of_range_beyond_its_bounds(name: str, value: float, text: str) -> None:
    """Negative, endless and undefined throughput is refused, and more than 100 % of a GPU."""
    assert _message(**{name: value}) == f"THROUGHPUT_OUT_OF_RANGE at step 4: {text}"


@pytest.mark.parametrize("value", [1.0, 1, 1.0 - 2.0**-25, 1.0 + 2.0**-24])
def test_placeholder_is_found_where_both_are_a_32_bit_one(value: float) -> None:
    """A loss and a gradient norm of 1 stand in for a step that never was."""
    assert _message(train_loss=value, grad_norm=value) == (
        "STREAM_EXHAUSTED at step 4: placeholder (1.0, 1.0)"
    )


@pytest.mark.parametrize(
    ("loss", "norm"),
    [(1.0, 0.5), (0.5, 1.0), (1.0, 1.0 + 2.0**-23), (1.0 - 2.0**-24, 1.0), (-1.0, -1.0)],
)
def test_placeholder_is_not_found_in_one_of_both(loss: float, norm: float) -> None:
    """A gradient norm of 1 alone proves nothing, and a neighbour of 1 neither."""
    assert check_step(step_of(train_loss=loss, grad_norm=norm)) is None


def test_rules_are_looked_at_in_order() -> None:
    """Missing fields come before unstable numbers, these before ranges and placeholders."""
    worst = fields_of(lr=..., grad_norm=math.nan, gpu_util_pct=-1)
    found = [one.abort.value for one in step_violations(worst, SIX_FIELDS)]
    assert found == [21, 27, 28]


@settings(max_examples=500)
@given(step_records())
def test_clean_predicate_agrees_with_the_rules(record: StepRecord) -> None:
    """The comparison of 64-bit floats finds clean what the rules on 32-bit floats do."""
    assert is_clean(record) == (check_step(record) is None)


@given(
    st.sampled_from(["train_loss", "grad_norm", "lr", "tokens_per_sec", "gpu_util_pct", "wall_ms"]),
    st.sampled_from(EDGES),
    st.sampled_from([0.0, 1.0]),
)
def test_clean_predicate_agrees_at_each_edge(name: str, value: float, norm: float) -> None:
    """The same at all bounds, one field at a time."""
    record = step_of(**{"grad_norm": norm, name: value})
    assert is_clean(record) == (check_step(record) is None)


@pytest.mark.parametrize("step", [-1, 0, 2**63 - 1, 2**63])
def test_clean_predicate_agrees_on_steps(step: int) -> None:
    """The same for steps at the ends of their range."""
    assert is_clean(step_of(step)) == (check_step(step_of(step)) is None) == (0 <= step < 2**63)
