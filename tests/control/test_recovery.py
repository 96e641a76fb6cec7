"""Which snapshot is restored, which is given up, and when it is enough."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest

from lightning_elche.control.recovery import Decision, Recovery, RecoveryPolicy, Stage

PENDING, ELIGIBLE, CONFIRMED = Stage


@dataclass(eq=False)
class Kept:
    stage: Stage
    is_lasting: bool = False


def marks(*stages: Stage) -> list[Kept]:
    return [Kept(stage) for stage in stages]


def told(decision: Decision) -> tuple[str, int | None, bool]:
    return decision.action, decision.index, decision.is_new


def test_latest_eligible_snapshot_is_restored_first() -> None:
    """One that is not checked yet is not."""
    own = Recovery()
    assert told(own.bad(marks(CONFIRMED, ELIGIBLE, PENDING), step=5)) == ("restore", 1, True)


def test_bad_again_restores_the_latest_confirmed_one_in_the_same_incident() -> None:
    """The one restored before may hold the damage."""
    own, kept = Recovery(), marks(CONFIRMED, CONFIRMED, ELIGIBLE)
    own.bad(kept, step=5)
    assert told(own.bad(kept, step=5)) == ("restore", 1, False)
    assert own.incidents == 1


def test_bad_after_one_healthy_verdict_is_still_bad_again() -> None:
    """The next two verdicts count, and the snapshot that was confirmed meanwhile is not trusted."""
    own, kept = Recovery(), marks(CONFIRMED, ELIGIBLE)
    own.bad(kept, step=5)
    own.healthy()
    kept[1].stage = CONFIRMED
    assert told(own.bad([*kept, *marks(CONFIRMED)], step=6)) == ("restore", 0, False)


def test_bad_after_two_healthy_verdicts_is_another_incident() -> None:
    """With the latest snapshot again."""
    own, kept = Recovery(), marks(CONFIRMED, ELIGIBLE)
    own.bad(kept, step=5)
    own.healthy()
    own.healthy()
    assert told(own.bad(kept, step=7)) == ("restore", 1, True)
    assert own.incidents == 2


def test_bad_again_after_a_confirmed_one_is_another_incident_with_the_one_before() -> None:
    """Back and back, as long as there are any."""
    own, kept = Recovery(), marks(CONFIRMED, CONFIRMED, CONFIRMED)
    decisions = [told(own.bad(kept[: 3 - drop], step=5)) for drop in (0, 0, 1, 2)]
    assert decisions == [
        ("restore", 2, True),
        ("restore", 1, True),
        ("restore", 0, True),
        ("halt", 0, True),
    ]


def test_eligible_snapshot_before_the_restored_one_is_not_trusted() -> None:
    """Only a confirmed one is; what is in memory may stay nevertheless."""
    own, kept = Recovery(), marks(ELIGIBLE, ELIGIBLE)
    own.bad(kept, step=5)
    assert told(own.bad(kept, step=5)) == ("lacks", 1, False)


def test_without_a_snapshot_there_is_none_to_restore() -> None:
    """Nor one to leave in memory."""
    assert told(Recovery().bad(marks(PENDING), step=0)) == ("lacks", None, True)


def test_one_incident_more_than_the_budget_ends_the_run() -> None:
    """The message tells the limits; what is sound stays in memory."""
    own = Recovery(RecoveryPolicy(max_rollbacks=1))
    for _ in range(2):
        decision = own.bad(marks(ELIGIBLE), step=5)
        own.begin_round()
    assert told(decision) == ("halt", 0, True)
    assert decision.reason == "More than 1 rollbacks within 1000 steps"


def test_incident_is_forgotten_after_so_many_steps() -> None:
    """After 9 steps it counts, after 10 it does not."""
    own = Recovery(RecoveryPolicy(max_rollbacks=1, forget_steps=10))
    own.bad(marks(ELIGIBLE), step=5)
    own.begin_round()
    assert not own.may_restore(marks(ELIGIBLE), step=14)
    assert told(own.bad(marks(ELIGIBLE), step=15)) == ("restore", 0, True)


def test_each_incident_lowers_the_learning_rate_once() -> None:
    """Going on with an incident does not."""
    own, kept = Recovery(RecoveryPolicy(lr_factor=0.5)), marks(CONFIRMED, ELIGIBLE)
    own.bad(kept, step=5)
    own.bad(kept, step=5)
    own.begin_round()
    own.bad(kept, step=6)
    assert own.lr_scale == 0.25


def test_latest_snapshots_are_not_evicted() -> None:
    """The oldest of the others is."""
    own = Recovery()
    assert own.to_evict(marks(CONFIRMED, CONFIRMED, ELIGIBLE, PENDING)) == 0
    assert own.to_evict(marks(CONFIRMED, ELIGIBLE)) is None


def test_what_a_bad_verdict_falls_back_to_is_not_evicted() -> None:
    """Until two verdicts were healthy."""
    own, kept = Recovery(), marks(CONFIRMED, ELIGIBLE)
    own.bad(kept, step=5)
    own.healthy()
    kept[1].stage = CONFIRMED
    during = own.to_evict([*kept, *marks(CONFIRMED)])
    own.healthy()
    assert (during, own.to_evict([*kept, *marks(CONFIRMED)])) == (None, 0)


def test_lasting_snapshot_is_not_evicted() -> None:
    """The next one goes instead."""
    kept = [Kept(CONFIRMED, is_lasting=True), *marks(CONFIRMED, CONFIRMED)]
    assert Recovery().to_evict(kept) == 1


def test_restored_snapshot_is_trusted_and_earlier_than_one_that_failed() -> None:
    """Whatever the history: within an incident it only goes back."""
    draw = random.Random(3)
    for _ in range(300):
        own = Recovery(RecoveryPolicy(max_rollbacks=100))
        kept = marks(*draw.choices(list(Stage), k=6))
        last: int | None = None
        while True:
            decision = own.bad(kept, step=0)
            if decision.action != "restore":
                break
            assert decision.index is not None
            assert kept[decision.index].stage >= ELIGIBLE
            assert last is None or (decision.index < last)
            last = decision.index


def test_state_continues_the_history() -> None:
    """Budget and scale outlive the process."""
    policy = RecoveryPolicy(max_rollbacks=1, lr_factor=0.5)
    first, second = Recovery(policy), Recovery(policy)
    first.bad(marks(ELIGIBLE), step=5)
    second.load_state_dict(first.state_dict())
    assert (second.lr_scale, second.incidents) == (0.5, 1)
    assert second.bad(marks(ELIGIBLE), step=6).action == "halt"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"lr_factor": 0.0}, r"`lr_factor` must be in \(0, 1\], got 0.0"),
        ({"lr_factor": 1.5}, r"`lr_factor` must be in \(0, 1\], got 1.5"),
        ({"max_rollbacks": -1}, "`max_rollbacks` must be >= 0, got -1"),
        ({"forget_steps": 0}, "`forget_steps` must be >= 1, got 0"),
        ({"max_failed_epochs": 0}, "`max_failed_epochs` must be >= 1, got 0"),
        ({"publish_per_min": 0}, "`publish_per_min` must be >= 1, got 0"),
        ({"publish_timeout_s": 0.0}, "`publish_timeout_s` must be a number > 0, got 0.0"),
        ({"on_halt": "exit"}, '`on_halt` must be "raise" or "stop", got \'exit\''),
    ],
)
def test_bad_options_are_refused(option: dict[str, float], message: str) -> None:
    """The message names the parameter and the value."""
    with pytest.raises(ValueError, match=message):
        RecoveryPolicy(**option)  # type: ignore[arg-type]


def test_recovery_shows_what_matters() -> None:
    """For logs and debuggers."""
    own = Recovery(RecoveryPolicy(lr_factor=0.5))
    own.bad(marks(ELIGIBLE), step=3)
    assert repr(own) == "Recovery(incidents=1, lr_scale=0.5)"


@pytest.mark.parametrize("deadline_s", [0.0, -1.0, float("nan"), float("inf")])
def test_deadline_that_is_none_is_refused(deadline_s: float) -> None:
    """`None` stands for no limit."""
    with pytest.raises(ValueError, match="`read_deadline_s` must be a number > 0 or None, got"):
        RecoveryPolicy(read_deadline_s=deadline_s)
    assert RecoveryPolicy(read_deadline_s=None).read_deadline_s is None
