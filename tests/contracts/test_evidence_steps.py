"""Step logs that contradict themselves, or the metadata of their epochs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from lightning_elche.contracts.evidence.steps import (
    StepEvidence,
    log_contradictions,
    step_contradictions,
)
from lightning_elche.contracts.gates.stepgates import StepGates
from lightning_elche.contracts.model import Contract, FieldSpec
from lightning_elche.contracts.records import EpochRecord, StepRecord
from tests.contracts.epochs import epoch_record

CONTRACT = Contract(
    contract_id="C",
    version="1.0.0",
    kind="training-loop",
    family="B",
    required=(FieldSpec(name="step", type="u64"),),
)


def log_of(steps: Sequence[dict[str, Any]]) -> StepGates:
    """Return what was read of a log: 1024 tokens in 500 ms at every step, unless told otherwise."""
    log = StepGates(CONTRACT)
    for number, changed in enumerate(steps):
        healthy = {
            "train_loss": 3.0,
            "grad_norm": 1.5,
            "lr": 1e-4,
            "tokens_per_sec": 2048.0,
            "gpu_util_pct": 0.0,
            "wall_ms": 500.0,
            "epoch": 0,
        }
        log.step(StepRecord(step=number, **{**healthy, **changed}))
    return log


def rules_of_log(steps: Sequence[dict[str, Any]], *, device: str | None = "cuda") -> list[str]:
    found = log_contradictions(log_of(steps), path="train.jsonl", device=device)
    return [one.rule for one in found]


def rules_of_epochs(
    epochs: Sequence[EpochRecord], *logs: Sequence[dict[str, Any]], is_complete: bool = True
) -> list[str]:
    steps = StepEvidence(totals=[log_of(log).epochs for log in logs], is_complete=is_complete)
    paths = {one.epoch: f"{one.epoch}.json" for one in epochs}
    return [one.rule for one in step_contradictions(epochs, steps, paths=paths)]


FOUR_STEPS: list[dict[str, Any]] = [{}, {}, {}, {}]


def test_healthy_log_is_not_contradicted() -> None:
    """A log without telemetry, and an epoch that fits its steps, raise no finding."""
    assert rules_of_log(FOUR_STEPS, device="cpu") == []
    assert rules_of_epochs([epoch_record(0)], FOUR_STEPS) == []


@pytest.mark.parametrize("field", ["grad_norm", "lr"])
@pytest.mark.parametrize(("value", "rules"), [(0.0, []), (-1e-9, ["EV-SIGN"])])
def test_norm_and_rate_are_not_negative(field: str, value: float, rules: list[str]) -> None:
    """Both may be 0, and not less."""
    assert rules_of_log([{}, {field: value}]) == rules


def spread(count: int, low: float, high: float) -> list[dict[str, Any]]:
    """Return steps whose utilization goes evenly from `low` to `high`."""
    width = (high - low) / (count - 1)
    return [{"gpu_util_pct": low + width * number} for number in range(count)]


@pytest.mark.parametrize(
    ("steps", "rules"),
    [
        (spread(50, 45.5, 54.5), ["EV-UTIL-NOISE"]),
        (spread(49, 45.5, 54.5), []),
        (spread(50, 44.5, 54.5), []),
        (spread(50, 46.5, 55.0), []),
        (spread(50, 46.0, 54.0), []),  # a range of 8
        (spread(50, 45.0, 53.5), ["EV-UTIL-NOISE"]),  # a mean of 49.25
        ([*spread(50, 45.0, 53.5), *[{"gpu_util_pct": 45.0}] * 20], []),  # of 48.04
        ([{"gpu_util_pct": 42.0}] * 100, ["EV-UTIL-NOISE"]),
        ([{"gpu_util_pct": 42.0}] * 99, []),
        ([{"gpu_util_pct": 0.0}] * 100, []),
        ([{"gpu_util_pct": 100.0}] * 100, []),
    ],
)
def test_utilization_looks_invented(steps: list[dict[str, Any]], rules: list[str]) -> None:
    """Noise around one half does, and one value forever, unless it is none or all of the GPU."""
    assert rules_of_log(steps) == rules


@pytest.mark.parametrize(
    ("device", "rules"), [("cpu", ["EV-UTIL-NO-GPU"]), ("cuda", []), (None, [])]
)
def test_cpu_utilizes_no_gpu(device: str | None, rules: list[str]) -> None:
    """A utilization is a contradiction where there is no GPU for sure."""
    assert rules_of_log([{"gpu_util_pct": 37.0}], device=device) == rules


@pytest.mark.parametrize(("seconds", "rules"), [(1.91, []), (1.90, ["EV-WALL"])])
def test_steps_do_not_take_longer_than_their_epoch(seconds: float, rules: list[str]) -> None:
    """Two seconds of steps are at most 1.05 times the time of the epoch."""
    assert rules_of_epochs([epoch_record(0, wall_seconds=seconds)], FOUR_STEPS) == rules


def test_time_of_ranks_is_not_added_up() -> None:
    """Ranks work at the same time."""
    epoch = epoch_record(0, wall_seconds=2.0, tokens_seen=8192)
    assert rules_of_epochs([epoch], FOUR_STEPS, FOUR_STEPS) == []


@pytest.mark.parametrize(
    ("loss", "rules"), [(3.00009, []), (3.00011, ["EV-TRAIN-LOSS"]), (2.9998, ["EV-TRAIN-LOSS"])]
)
def test_training_loss_is_the_mean_of_the_steps(loss: float, rules: list[str]) -> None:
    """It may be off by 1e-4."""
    assert rules_of_epochs([epoch_record(0, train_loss=loss)], FOUR_STEPS) == rules


def test_training_loss_may_be_the_mean_of_the_last_hundred_steps() -> None:
    """The mean of an epoch's end is one that trainers log, too."""
    steps = [{"train_loss": 5.0}] * 100 + [{"train_loss": 3.0}] * 100
    epochs = [epoch_record(0, train_loss=loss, tokens_seen=204_800) for loss in (4.0, 3.0, 3.5)]
    found = [
        rules_of_epochs(
            [epoch], [{**one, "wall_ms": 50.0, "tokens_per_sec": 20480.0} for one in steps]
        )
        for epoch in epochs
    ]
    assert found == [[], [], ["EV-TRAIN-LOSS"]]


@pytest.mark.parametrize(
    ("tokens", "rules"),
    [(4096, []), (4056, []), (4055, ["EV-TOKENS-CLOCK"]), (4137, []), (4138, ["EV-TOKENS-CLOCK"])],
)
def test_tokens_fit_the_clock(tokens: int, rules: list[str]) -> None:
    """Throughput times duration is the growth of `tokens_seen`, within 1 %."""
    assert rules_of_epochs([epoch_record(0, tokens_seen=tokens)], FOUR_STEPS) == rules


def test_tokens_are_those_since_the_epoch_before() -> None:
    """A later epoch is judged by what it adds, and not at all if the one before is not known."""
    second = [{"epoch": 1, "tokens_per_sec": 4096.0, "train_loss": 2.5}] * 4
    epochs = [epoch_record(0), epoch_record(1, tokens_seen=4096 + 8192)]
    assert rules_of_epochs(epochs, [*FOUR_STEPS, *second]) == []
    assert rules_of_epochs(epochs[1:], second) == []


def test_clock_is_not_judged_if_a_step_has_no_time() -> None:
    """Without all durations nobody knows the tokens of the steps."""
    assert rules_of_epochs([epoch_record(0)], [{}, {}, {"wall_ms": None}]) == []


def test_sums_are_not_judged_if_steps_are_missing() -> None:
    """With a thinned log, or without a rank's, only what holds for a part of the steps is."""
    epoch = epoch_record(0, train_loss=9.0, tokens_seen=99_999, wall_seconds=1.0)
    assert rules_of_epochs([epoch], FOUR_STEPS, is_complete=False) == ["EV-WALL"]
    assert rules_of_epochs([epoch_record(7)], FOUR_STEPS) == []
