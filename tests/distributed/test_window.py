"""What a rank has done since the last event."""

from __future__ import annotations

import math

import pytest
import torch

from lightning_elche.control.reports import Report
from lightning_elche.control.schedule import Window
from lightning_elche.distributed.timing import HostTimer
from lightning_elche.distributed.window import WindowTracker
from tests.distributed.threads import FakeClock


def window_of(*steps: dict[str, object]) -> WindowTracker:
    """Return a window with these steps of 10 ms each."""
    clock = FakeClock()
    window = WindowTracker(HostTimer(clock))
    for step in steps:
        window.begin_step()
        clock.now += 0.01
        defaults = {"samples": 4, "is_optimizer_step": True}
        window.end_step(**{**defaults, **step})
    return window


def test_new_window_reports_nothing() -> None:
    """Without a step all counts are zero."""
    assert repr(window_of().report()) == repr(Report())


def test_steps_are_counted_and_timed() -> None:
    """Batches, samples, weights and times of the steps are summed."""
    report = window_of({}, {"samples": 3}).report()
    assert (report.batches, report.optimizer_steps, report.samples) == (2, 2, 7)
    assert (report.weight, report.compute_ms) == (7.0, pytest.approx(20.0))


def test_accumulated_batches_are_no_optimizer_steps() -> None:
    """A batch without an optimizer step counts as a batch only."""
    window = window_of({"is_optimizer_step": False}, {})
    assert (window.batches, window.optimizer_steps) == (2, 1)
    assert not window.progress(is_drained=False).is_accumulating


def test_window_is_accumulating_after_a_batch_without_optimizer_step() -> None:
    """The schedule learns that parameters are in the midst of a step."""
    window = window_of({}, {"is_optimizer_step": False})
    assert window.progress(is_drained=False).is_accumulating


def test_progress_tells_what_the_schedule_needs() -> None:
    """Steps, time and whether data is left."""
    progress = window_of({}).progress(is_drained=True)
    assert progress == Window(steps=1, compute_ms=pytest.approx(10.0), is_drained=True)


def test_losses_are_summed_without_their_graph() -> None:
    """Losses of a window are added up, and no graph is kept alive."""
    window = window_of({}, {})
    for value in (1.0, 2.5):
        window.add_loss(torch.tensor(value, requires_grad=True) * 2.0)
    report = window.report()
    assert (report.loss_sum, report.loss_count) == (7.0, 2)


def test_loss_of_a_window_is_not_overwritten_in_place() -> None:
    """The first loss tensor belongs to the user and keeps its value."""
    window, loss = window_of(), torch.tensor(1.0)
    window.add_loss(loss)
    window.add_loss(torch.tensor(2.0))
    assert loss.item() == 1.0


def test_reset_starts_a_new_window() -> None:
    """After a reset nothing of the last window is left."""
    window = window_of({"is_optimizer_step": False})
    window.add_loss(torch.tensor(1.0))
    window.waited_s = 3.0
    window.reset()
    assert (repr(window.report()), window.waited_s) == (repr(Report()), 0.0)
    assert not window.progress(is_drained=False).is_accumulating


def test_rank_weighs_one_without_weighing_samples() -> None:
    """A rank with a stream of its own counts as a rank, if it has trained at all."""
    window = window_of({}, {})
    window.weighs_samples = False
    assert window.report().weight == 1.0
    window.reset()
    assert window.report().weight == 0.0


def test_steps_since_a_report_are_kept_when_it_is_subtracted() -> None:
    """Steps made while an earlier report was on its way belong to the next window."""
    clock = FakeClock()
    window = WindowTracker(HostTimer(clock))
    taken = Report()
    for step in range(3):
        window.begin_step()
        clock.now += 0.01
        window.add_loss(torch.tensor(float(step)))
        window.end_step(samples=4, is_optimizer_step=True)
        taken = window.report() if step == 1 else taken
    window.subtract(taken)
    report = window.report()
    assert (report.batches, report.optimizer_steps, report.samples, report.weight) == (1, 1, 4, 4)
    assert (report.loss_sum, report.loss_count) == (2.0, 1)
    assert report.compute_ms == pytest.approx(10.0)


def test_nothing_is_left_when_the_latest_report_is_subtracted() -> None:
    """Without a step since the report the new window is empty."""
    window = window_of({}, {})
    window.add_loss(torch.tensor(1.0))
    window.subtract(window.report())
    assert repr(window.report()) == repr(Report())


def test_batches_of_the_next_epoch_are_counted_apart() -> None:
    """They are part of the window, and told from the others."""
    report = window_of({}, {"samples": 3, "is_ahead": True}).report()
    assert (report.batches, report.ahead_batches) == (2, 1)
    assert (report.samples, report.ahead_samples) == (7, 3)


def test_subtracted_report_takes_its_batches_ahead_along() -> None:
    """After a snapshot only what was trained ahead since then is left."""
    window = window_of({}, {"is_ahead": True})
    snapshot = window.report()
    window.begin_step()
    window.end_step(samples=5, is_optimizer_step=True, is_ahead=True)
    window.subtract(snapshot)
    report = window.report()
    assert (report.batches, report.ahead_batches, report.ahead_samples) == (1, 1, 5)


def learning(*losses: float, samples: int = 4) -> WindowTracker:
    """Return a window with a step of each of these losses."""
    window = window_of()
    for loss in losses:
        window.begin_step()
        window.add_loss(torch.tensor(loss))
        window.end_step(samples=samples, is_optimizer_step=True)
    return window


def test_forgotten_batches_weigh_nothing() -> None:
    """They were trained, but neither their samples nor their losses count as learnt."""
    window = learning(1.0, 2.0, math.nan)
    window.forget(2)
    report = window.report()
    assert (report.batches, report.samples, report.weight) == (3, 12, 4.0)
    assert (report.loss_sum, report.loss_count) == (1.0, 1)


def test_batch_under_way_is_forgotten_first() -> None:
    """Its loss at once, its samples when it ends."""
    window = learning(1.0, 2.0)
    window.begin_step()
    window.add_loss(torch.tensor(math.nan))
    window.forget(1)
    window.end_step(samples=4, is_optimizer_step=True)
    report = window.report()
    assert (report.batches, report.weight, report.loss_sum / report.loss_count) == (3, 8.0, 1.5)


def test_batches_are_forgotten_once() -> None:
    """Those that were taken back are not among the latest any more."""
    window = learning(1.0, 2.0, 3.0)
    window.forget(1)
    window.forget(1)
    assert (window.report().weight, window.report().loss_sum) == (4.0, 1.0)


def test_step_after_a_forgotten_one_counts() -> None:
    """Only the step under way is meant."""
    window = learning(1.0)
    window.forget(5)
    window.begin_step()
    window.add_loss(torch.tensor(7.0))
    window.end_step(samples=4, is_optimizer_step=True)
    assert (window.report().weight, window.report().loss_sum) == (4.0, 7.0)


def test_reported_batches_cannot_be_forgotten() -> None:
    """Their parameters are on their way to the others."""
    window = learning(1.0, 2.0)
    taken = window.report()
    window.begin_step()
    window.end_step(samples=4, is_optimizer_step=True)
    window.forget(3)
    window.subtract(taken)
    assert (window.report().weight, window.report().batches) == (0.0, 1)


def test_rank_spoiled_after_its_report_sits_out_in_the_next_window() -> None:
    """What it has handed in was sound."""
    window = learning(1.0)
    taken = window.report()
    window.sits_out = True
    window.subtract(taken)
    assert window.report().sits_out
    window.subtract(window.report())
    assert not window.sits_out


def test_rank_that_sits_out_weighs_nothing() -> None:
    """For one window, whatever it has learnt."""
    window = learning(1.0)
    window.sits_out = True
    report = window.report()
    assert (report.weight, report.sits_out) == (0.0, True)
    window.reset()
    assert not window.sits_out


def skipping(*steps: int) -> WindowTracker:
    """Return a window of steps of 10 ms, after which as many batches were skipped as named."""
    clock = FakeClock()
    window = WindowTracker(HostTimer(clock))
    for batches in steps:
        window.begin_step()
        clock.now += 0.01
        if batches:
            window.skip(batches)
        window.end_step(samples=4, is_optimizer_step=not batches)
    return window


def test_skipped_batch_is_counted_and_weighs_nothing() -> None:
    """And takes no time, which would say nothing of the rank's speed."""
    report = skipping(0, 1, 0).report()
    assert (report.batches, report.skipped, report.weight) == (3, 1, 8.0)
    assert report.compute_ms == pytest.approx(20.0)


def test_group_of_batches_is_skipped_together() -> None:
    """What had been learnt of it weighs nothing, either."""
    report = skipping(0, 0, 2).report()
    assert (report.batches, report.skipped, report.weight) == (3, 2, 4.0)


def test_skipped_batches_are_reported_once() -> None:
    """Also where a report is taken in the background."""
    window = skipping(0, 1)
    window.subtract(window.report())
    assert window.report().skipped == 0


def test_idle_rank_agrees_at_once() -> None:
    """In the midst of a group of batches, too; it still has data."""
    window = skipping(0, 1)
    window.is_idle = True
    progress = window.progress(is_drained=False)
    assert (progress.is_drained, progress.is_accumulating) == (True, False)
    window.reset()
    assert not window.is_idle
