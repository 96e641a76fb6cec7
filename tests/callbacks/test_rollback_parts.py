"""What Rollback tells, keeps from one process to the next, and asks of other callbacks."""

from __future__ import annotations

import csv
import json
import logging
import math
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.strategies import FSDPStrategy
from torch.utils.data import DataLoader

from lightning_elche import GateTrain, GateViolation
from lightning_elche.callbacks.rollback import Rollback
from lightning_elche.callbacks.rollback_state import check_strategy
from lightning_elche.control.recovery import RecoveryPolicy
from lightning_elche.control.safety import SafetySignal
from lightning_elche.coordination import DeadlineWorker
from lightning_elche.exceptions import RecoveryHalted
from lightning_elche.ops.ring import RingConfig
from tests.callbacks.gated import Scripted, lines_of
from tests.callbacks.rolled import Stateful, assert_same, batches, fit_rolled
from tests.ranks import Numbered, make_loader, make_trainer

pytestmark = pytest.mark.filterwarnings("ignore:Safety level")

EVENTS = "lightning_elche.events"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Several threads would wait for each other most of the time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def events_of(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [json.loads(record.message) for record in caplog.records if record.name == EVENTS]


# Learning rates


def test_incident_scales_the_steps_after_it() -> None:
    """SGD moves half as far, though the scheduler and the optimizer know the same rate."""
    ends = []
    for factor in (1.0, 0.5):
        model = Stateful("sgd", None)
        model.bad_at = [(0, 0)]
        rollback = Rollback(policy=RecoveryPolicy(lr_factor=factor))
        trainer, _ = fit_rolled(batches(2), rollback, model=model)
        ends.append(model.head.weight.detach() - Stateful("sgd", None).head.weight.detach())
        assert trainer.optimizers[0].param_groups[0]["lr"] == 0.01
    torch.testing.assert_close(ends[1], 0.5 * ends[0])
    assert rollback.lr_scale == 0.5


def test_reset_forgets_all() -> None:
    """Level, incidents and scale."""
    rollback = Rollback(policy=RecoveryPolicy(lr_factor=0.5))
    fit_rolled(batches(nan=[3]), rollback)
    before = (rollback.level.name, rollback.incidents, rollback.lr_scale)
    rollback.reset()
    assert before == ("ELEVATED", 1, 0.5)
    assert (rollback.level.name, rollback.incidents, rollback.lr_scale) == ("NORMAL", 0, 1.0)


def test_resumed_run_goes_on_with_its_history(tmp_path: Path) -> None:
    """Scale, budget, average and step count are in the checkpoint."""
    policy = RecoveryPolicy(lr_factor=0.5, max_rollbacks=1)
    path = tmp_path / "one.ckpt"
    fit_rolled(batches(nan=[3]), Rollback(policy=policy))[0].save_checkpoint(path)
    rollback, model = Rollback(policy=policy), Stateful()
    model.bad_at = [(1, 5)]
    trainer = make_trainer(1, strategy="auto", max_epochs=2, callbacks=[rollback])
    with pytest.raises(RecoveryHalted, match="More than 1 rollbacks"):
        trainer.fit(model, DataLoader(batches(), batch_size=None), ckpt_path=path)
    assert (rollback.lr_scale, rollback.effective_step) == (0.5, 16)


# What is told


def test_metrics_are_logged_at_the_usual_interval(tmp_path: Path) -> None:
    """Counts, bytes that are held, and times."""
    logger = CSVLogger(tmp_path, version=0, flush_logs_every_n_steps=1)
    fit_rolled(batches(nan=[3]), Rollback(), logger=logger, log_every_n_steps=4)
    path = tmp_path / "lightning_logs" / "version_0" / "metrics.csv"
    with path.open() as file:
        rows = [row for row in csv.DictReader(file) if row.get("rollback/incidents")]
    last = rows[-1]
    assert [int(row["step"]) for row in rows] == [4, 8, 12]
    names = ("incidents", "ram_restores", "undone_batches", "refused", "failures")
    assert [float(last[f"rollback/{name}"]) for name in names] == [1, 1, 1, 0, 0]
    assert float(last["rollback/snapshots"]) == 10  # none for two batches after the incident
    assert float(last["emergency/level"]) == 1
    assert float(last["rollback/ring_bytes"]) > 2 * 4 * 3 * (4 * 8 + 8 + 2 * 8 + 8 + 1)
    assert float(last["rollback/snapshot_ms"]) > 0.0 < float(last["rollback/restore_ms"])


def test_signals_reach_the_publisher() -> None:
    """One for each change, in order, all of the same run."""
    signals: list[SafetySignal] = []
    fit_rolled(batches(nan=[3, 9]), Rollback(publish=signals.append))
    told = [(signal.previous, signal.level, signal.step) for signal in signals]
    assert told == [(0, 1, 3), (1, 2, 8)]
    assert len({signal.run for signal in signals}) == 1


def test_end_of_the_run_reaches_the_publisher() -> None:
    """Whatever the rate allows."""
    signals: list[SafetySignal] = []
    policy = RecoveryPolicy(max_rollbacks=1, publish_per_min=1)
    with pytest.raises(RecoveryHalted):
        fit_rolled(batches(nan=[3, 9]), Rollback(policy=policy, publish=signals.append))
    assert [signal.level for signal in signals] == [1, 4]


def test_publisher_that_raises_does_not_end_training(caplog: pytest.LogCaptureFixture) -> None:
    """What it raised is an event; the fit ends as without one."""

    def fail(signal: SafetySignal) -> None:
        raise ConnectionError(f"no route for level {signal.level}")

    caplog.set_level(logging.INFO, logger=EVENTS)
    ours, _ = fit_rolled(batches(nan=[3]), Rollback(publish=fail))
    errors = [line for line in events_of(caplog) if line["event"] == "dispatch_error"]
    assert [(line["error_type"], line["error"]) for line in errors] == [
        ("ConnectionError", "no route for level 1"),
        ("ConnectionError", "no route for level 2"),
    ]
    assert {line["severity"] for line in errors} == {"critical"}
    assert_same(ours, fit_rolled(batches(nan=[3]), Rollback())[0])


def test_publisher_that_hangs_is_left_behind(caplog: pytest.LogCaptureFixture) -> None:
    """Its time-out is an event, and the fit ends."""
    release = threading.Event()
    caplog.set_level(logging.INFO, logger=EVENTS)
    worker = DeadlineWorker()
    policy = RecoveryPolicy(publish_timeout_s=0.05)
    rollback = Rollback(policy=policy, publish=lambda _: release.wait(30.0), worker=worker)
    fit_rolled(batches(nan=[3]), rollback)
    kinds = [line["event"] for line in events_of(caplog)]
    release.set()
    worker.close()
    assert "dispatch_timeout" in kinds


def test_signals_that_never_arrive_make_the_run_conservative() -> None:
    """Three failures in a row open the breaker."""

    def fail(_: SafetySignal) -> None:
        raise ConnectionError

    modes = []

    class Waits(Callback):
        """Lets each signal fail before the next one."""

        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            publisher = rollback.run.alarm._publisher
            assert publisher is not None
            publisher.flush()

        def on_train_epoch_start(self, *_: Any) -> None:
            modes.append(rollback.mode)

    rollback = Rollback(publish=fail)
    model = Stateful()
    model.bad_at = [(0, 2), (0, 4)]
    fit_rolled(batches(), rollback, Waits(), model=model, epochs=2)
    assert modes == ["normal", "normal"]
    model.bad_at = [(0, 2), (2, 4)]
    rollback.reset()
    fit_rolled(batches(), rollback, Waits(), model=model, epochs=3)
    assert rollback.mode == "conservative"


# Other callbacks


def fit_both(folder: Path, model: Scripted, rollback: Rollback, **gate: Any) -> None:
    """Fit with Rollback before a training contract."""
    callbacks = [rollback, GateTrain(run_dir=folder, **gate)]
    trainer = make_trainer(1, strategy="auto", callbacks=callbacks)
    trainer.fit(model, make_loader(40), DataLoader(Numbered(8), batch_size=4))


@pytest.mark.parametrize("sync", ["immediate", "deferred"])
def test_contract_is_kept_by_a_step_that_is_undone(sync: str, tmp_path: Path) -> None:
    """It has an event and no record, and the next step takes its number."""
    rollback = Rollback()
    fit_both(tmp_path, Scripted(nan_at=6), rollback, sync=sync)
    steps = [line["step"] for line in lines_of(tmp_path / "train.jsonl")]
    undone = [line for line in lines_of(tmp_path / "events.jsonl") if line["event"] == "ROLLBACK"]
    assert steps == list(range(9))
    assert [line["step"] for line in undone] == [6]
    assert rollback.incidents == 1


class NoGradient(Scripted):
    """Has a gradient once that is no number, and a loss that is."""

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = super().training_step(batch, batch_idx)
        weights = self.layers[0].weight.sum()
        return loss + (0.0 * weights).sqrt() if batch_idx == 6 else loss


def test_gradient_that_the_contract_sees_is_undone_at_once(tmp_path: Path) -> None:
    """In the batch itself, rather than when parameters are found spoiled."""
    rollback = Rollback()
    fit_both(tmp_path, NoGradient(), rollback)
    assert (rollback.incidents, rollback.effective_step) == (1, 9)
    assert len(lines_of(tmp_path / "train.jsonl")) == 9


def test_contract_is_broken_where_nothing_can_be_undone(tmp_path: Path) -> None:
    """Without Rollback, a new fit of the same contract raises again."""
    gate = GateTrain(run_dir=tmp_path / "first")
    first = make_trainer(1, strategy="auto", callbacks=[Rollback(), gate])
    val = DataLoader(Numbered(8), batch_size=4)
    first.fit(Scripted(nan_at=6), make_loader(40), val)
    assert gate.recovery is None
    with pytest.raises(GateViolation, match="NUMERICAL_INSTABILITY at step 6"):
        make_trainer(1, strategy="auto", callbacks=[GateTrain(run_dir=tmp_path / "next")]).fit(
            Scripted(nan_at=6), make_loader(40), val
        )


def test_callbacks_in_the_wrong_order_are_refused(tmp_path: Path) -> None:
    """GateTrain and WeightAveraging would take in what is undone."""
    callbacks = pytest.importorskip("lightning.pytorch.callbacks.weight_averaging")
    val = DataLoader(Numbered(8), batch_size=4)
    for other in (GateTrain(run_dir=tmp_path), callbacks.WeightAveraging()):
        trainer = make_trainer(1, strategy="auto", callbacks=[other, Rollback()])
        with pytest.raises(ValueError, match=f"have Rollback before {type(other).__name__}"):
            trainer.fit(Scripted(), make_loader(40), val)


def test_sharded_parameters_are_refused() -> None:
    """A rank has no copy of them."""
    with pytest.raises(ValueError, match=r"whole copy of the parameters.*got FSDPStrategy"):
        check_strategy(FSDPStrategy())


def test_room_for_one_snapshot_is_refused_when_its_size_is_known() -> None:
    """After the first step, when the optimizer has a state."""
    with pytest.raises(ValueError, match="`max_bytes` must be at least"):
        fit_rolled(batches(), Rollback(RingConfig(max_bytes=15_000)))


def test_worker_without_a_publisher_is_refused() -> None:
    """It would have nothing to do."""
    with pytest.raises(ValueError, match="`worker` must come with `publish`"):
        Rollback(worker=DeadlineWorker())


def test_average_of_weights_takes_in_what_is_left() -> None:
    """It stays finite with Rollback before it."""
    callbacks = pytest.importorskip("lightning.pytorch.callbacks.weight_averaging")
    average = callbacks.WeightAveraging(device="cpu")
    _, model = fit_rolled(batches(nan=[5]), Rollback(), average)
    assert all(math.isfinite(float(value.detach().sum())) for value in model.parameters())
