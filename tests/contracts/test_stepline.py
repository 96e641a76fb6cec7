"""A step as a line of the log."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_elche.contracts.float32 import FLOAT32_MAX, OVERFLOWS_AT, to_float32
from lightning_elche.contracts.records import StepRecord
from lightning_elche.contracts.runfolder.stepline import format_step

STEP = StepRecord(
    step=3, train_loss=2.5, grad_norm=0.1, lr=5e-5, tokens_per_sec=1e6, gpu_util_pct=99.0
)


def test_step_is_one_line_of_json() -> None:
    """A step without optional fields has the six required ones and the attempt of the log."""
    assert format_step(STEP, attempt=2) == (
        b'{"step":3,"train_loss":2.5,"grad_norm":0.100000001,"lr":4.99999987e-05,'
        b'"tokens_per_sec":1000000,"gpu_util_pct":99,"attempt":2}\n'
    )


def test_step_has_what_the_record_knows_beyond_the_required() -> None:
    """Time and epoch are written where they are known, and the record's own attempt wins."""
    known = replace(STEP, wall_ms=12.5, epoch=1, attempt=7)
    line = json.loads(format_step(known, attempt=2))
    assert (line["wall_ms"], line["epoch"], line["attempt"]) == (12.5, 1, 7)


@given(st.floats(min_value=-FLOAT32_MAX, max_value=FLOAT32_MAX))
def test_every_32_bit_number_is_read_back(value: float) -> None:
    """What a reader makes of the digits is the number that the gates have compared."""
    line = json.loads(format_step(replace(STEP, train_loss=value), attempt=0))
    assert to_float32(line["train_loss"]) == to_float32(value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, OVERFLOWS_AT, 1e308])
@pytest.mark.parametrize("name", ["train_loss", "grad_norm", "lr", "tokens_per_sec"])
def test_step_is_refused_if_a_number_is_not_finite(name: str, value: float) -> None:
    """A number that is no finite 32-bit float never reaches the log."""
    with pytest.raises(ValueError, match="`record` must hold finite 32-bit numbers"):
        format_step(replace(STEP, **{name: value}), attempt=0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_step_is_refused_if_its_time_is_not_finite(value: float) -> None:
    """The optional time is no exception."""
    with pytest.raises(ValueError, match="finite"):
        format_step(replace(STEP, wall_ms=value), attempt=0)
