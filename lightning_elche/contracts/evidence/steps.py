"""Step logs that contradict themselves, or the metadata of their epochs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from lightning_elche.contracts.evidence.contradiction import contradiction
from lightning_elche.contracts.gates.stepgates import StepGates
from lightning_elche.contracts.gates.totals import EpochTotals, UtilTotals
from lightning_elche.contracts.records import EpochRecord
from lightning_elche.contracts.verdicts import Finding

__all__ = ["StepEvidence", "log_contradictions", "step_contradictions"]

LOSS_TOLERANCE = 1e-4
TOKENS_TOLERANCE = 0.01
WALL_TOLERANCE = 1.05
NOISE_RECORDS, NOISE_LOW, NOISE_HIGH, NOISE_SPREAD = 50, 45.0, 55.0, 8.0
NOISE_MEAN, NOISE_MEAN_TOLERANCE = 50.0, 1.0
CONSTANT_RECORDS = 100
U64_END = 1 << 64
SATURATED = 100.0  # a busy GPU says so for hours


@dataclass(frozen=True, kw_only=True)
class StepEvidence:
    """What the step logs have to say about epochs.

    Attributes:
        totals: Of every log, by epoch.
        is_complete: Whether all steps of all ranks are in these logs.
    """

    totals: Sequence[Mapping[int, EpochTotals]]
    is_complete: bool

    def of_epoch(self, epoch: int) -> list[EpochTotals]:
        """Return the totals of an epoch, of the ranks that have steps in it."""
        found = (totals.get(epoch) for totals in self.totals)
        return [one for one in found if one is not None and one.steps]


def log_contradictions(log: StepGates, *, path: str, device: str | None) -> tuple[Finding, ...]:
    """Find what is wrong in one step log on its own.

    Args:
        log: What was read of it.
        path: Where it lies.
        device: Of the run, `None` if nobody knows.
    """
    util = log.util
    found = [
        ("EV-SIGN", f"grad_norm is as low as {log.grad_norm_min:.9g}", log.grad_norm_min < 0.0),
        ("EV-SIGN", f"lr is as low as {log.lr_min:.9g}", log.lr_min < 0.0),
        ("EV-UTIL-NOISE", f"gpu_util_pct {_shape(util)}", _is_noise(util) or _is_constant(util)),
        (
            "EV-UTIL-NO-GPU",
            f"gpu_util_pct is as high as {util.high:.9g} on a CPU",
            device == "cpu" and util.high > 0.0,
        ),
    ]
    return tuple(contradiction(rule, text, path=path) for rule, text, is_so in found if is_so)


def step_contradictions(
    epochs: Sequence[EpochRecord], steps: StepEvidence, *, paths: Mapping[int, str]
) -> tuple[Finding, ...]:
    """Find epochs whose metadata do not fit their steps.

    Args:
        epochs: The epochs in order. What a file does not say is NaN or -1, and not judged.
        steps: What the step logs say.
        paths: Where the metadata of each epoch lie.
    """
    found: list[Finding] = []
    tokens_until = {-1: 0, **{epoch.epoch: epoch.tokens_seen for epoch in epochs}}
    for epoch in epochs:
        totals = steps.of_epoch(epoch.epoch)
        path = paths[epoch.epoch]
        if totals:
            found += _wall(epoch, totals, path)
        if totals and steps.is_complete:
            found += _train_loss(epoch, totals, path)
            found += _tokens_clock(epoch, totals, tokens_until.get(epoch.epoch - 1, -1), path)
    return tuple(found)


def _wall(epoch: EpochRecord, totals: Sequence[EpochTotals], path: str) -> Iterator[Finding]:
    seconds = max(one.wall_ms for one in totals) / 1000.0
    if seconds > WALL_TOLERANCE * epoch.wall_seconds:
        yield contradiction(
            "EV-WALL",
            f"the steps of epoch {epoch.epoch} took {seconds:.9g} s, the epoch "
            f"{epoch.wall_seconds:.9g} s",
            path=path,
            field="wall_seconds",
        )


def _train_loss(epoch: EpochRecord, totals: Sequence[EpochTotals], path: str) -> Iterator[Finding]:
    num_steps = sum(one.steps for one in totals)
    mean = sum(one.train_loss * one.steps for one in totals) / num_steps
    means = (mean, *(one.train_loss_last100 for one in totals))
    if all(abs(epoch.train_loss - one) > LOSS_TOLERANCE for one in means):
        yield contradiction(
            "EV-TRAIN-LOSS",
            f"train_loss of epoch {epoch.epoch} is {epoch.train_loss:.9g}, the mean of its "
            f"{num_steps} steps {mean:.9g}",
            path=path,
            field="train_loss",
        )


def _tokens_clock(
    epoch: EpochRecord, totals: Sequence[EpochTotals], tokens_before: int, path: str
) -> Iterator[Finding]:
    is_known = 0 <= tokens_before < epoch.tokens_seen < U64_END and all(
        one.timed_steps == one.steps for one in totals
    )
    tokens = epoch.tokens_seen - tokens_before
    timed = sum(one.tokens for one in totals)
    if is_known and abs(timed - tokens) > TOKENS_TOLERANCE * tokens:
        yield contradiction(
            "EV-TOKENS-CLOCK",
            f"throughput and step times of epoch {epoch.epoch} make {timed:.0f} tokens, "
            f"tokens_seen grows by {tokens}",
            path=path,
            field="tokens_seen",
        )


def _is_noise(util: UtilTotals) -> bool:
    return (
        util.count >= NOISE_RECORDS
        and util.low >= NOISE_LOW
        and util.high < NOISE_HIGH
        and util.high - util.low > NOISE_SPREAD
        and abs(util.mean - NOISE_MEAN) <= NOISE_MEAN_TOLERANCE
    )


def _is_constant(util: UtilTotals) -> bool:
    is_constant = util.count >= CONSTANT_RECORDS and util.low == util.high
    return is_constant and util.low not in (0.0, SATURATED)


def _shape(util: UtilTotals) -> str:
    if util.low == util.high:
        return f"is {util.low:.9g} in all {util.count} records"
    return f"is spread evenly around 50, from {util.low:.9g} to {util.high:.9g}"
