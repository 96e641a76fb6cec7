"""What becomes a number for a monitoring system."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from lightning_elche.control.reports import Report
from lightning_elche.coordination.lifecycle import RunState
from lightning_elche.coordination.monitoring.exposition import expose
from lightning_elche.coordination.monitoring.metrics import METRICS
from lightning_elche.coordination.monitoring.metrics_host import mount_of, samples_of_host
from lightning_elche.coordination.monitoring.metrics_registry import samples_of_registry
from lightning_elche.coordination.monitoring.metrics_run import RunTotals
from lightning_elche.coordination.monitoring.metrics_status import samples_of_status
from tests.control.test_events import event_of

FAST = Report(batches=9, samples=36, compute_ms=900.0, wait_ms=80.0, transfer_ms=20.0)
SLOW = Report(
    batches=3, samples=12, compute_ms=1000.0, input_ms=250.0, throttle_ms=400.0, skipped=1
)
HOST = {
    "host": {"readings": {"cpu_pct": 50.0, "memory_pct": None}, "disk_full_s": 2580.0},
    "governor": {"signal": "gpu", "action": "hold", "in_target_range": True},
    "run": {"eta_seconds": 60.0},
    "checkpoints": {"count": 2, "p50_s": 1.5},
}


def status_of(**parts: object) -> dict[str, object]:
    components = {name: {"status": part} for name, part in parts.items()}
    return {"state": "PAUSED", "components": components, "batches": 12}


def test_reports_of_all_ranks_are_added_up() -> None:
    """In seconds, and by rank."""
    totals = RunTotals()
    for at in (100.0, 103.5):
        totals.add(event_of(FAST, SLOW), at)
    found = totals.samples()
    assert found["steps_total"] == {("0",): 18, ("1",): 6}
    assert found["samples_total"] == {("0",): 72, ("1",): 24}
    assert found["throughput_samples_per_second"] == {("0",): 36.0, ("1",): 12.0}
    assert found["batches_skipped_total"] == {("0", "oom"): 0, ("1", "oom"): 2}
    assert found["duty_ratio"] == {("0",): 1.0, ("1",): 0.6}
    assert found["average_seconds_total"]["wait", "0"] == pytest.approx(0.16)
    assert found["idle_seconds_total"]["1", "input"] == 0.5
    assert found["idle_seconds_total"]["1", "throttle"] == 0.8
    assert found["averages_total"] == {(): 2}
    assert found["average_period_seconds"] == {(): 3.5}
    assert found["last_average_timestamp_seconds"] == {(): 103.5}


def test_nothing_is_told_before_the_first_average() -> None:
    """And no period before the second."""
    totals = RunTotals()
    assert totals.samples() == {}
    totals.add(event_of(FAST, SLOW), 1.0)
    assert "average_period_seconds" not in totals.samples()


def test_clock_that_is_set_back_gives_no_negative_period() -> None:
    """It is that of the wall, which may be set."""
    totals = RunTotals()
    for at in (100.0, 50.0):
        totals.add(event_of(FAST, SLOW), at)
    assert totals.samples()["average_period_seconds"] == {(): 0.0}


def test_states_and_causes_are_one_number_each() -> None:
    """1 for the one that holds, so that each can be summed over time."""
    found = samples_of_status(status_of(stop={"stop": "SIGTERM"}))
    assert [name for (name,), value in found["run_state"].items() if value] == ["PAUSED"]
    assert len(found["run_state"]) == len(RunState)
    assert [name for (name,), value in found["stop_requested"].items() if value] == ["SIGTERM"]
    assert ("NONE",) not in found["stop_requested"]


def test_numbers_of_the_host_are_in_base_units() -> None:
    """Ratios and seconds; what is unknown is left out."""
    found = samples_of_status(status_of(host=HOST))
    assert found["cpu_utilization_ratio"] == {(): 0.5}
    assert found["disk_full_seconds"] == {(): 2580.0}
    assert found["eta_seconds"] == {(): 60.0}
    assert found["checkpoint_seconds"] == {(): 1.5}
    assert found["governor_action"] == {("scale_up",): 0.0, ("hold",): 1.0, ("scale_down",): 0.0}
    assert found["in_target_range"] == {("gpu",): 1.0}
    assert set(samples_of_status(status_of(host={"checkpoints": {"count": 0}}))) == {
        *("run_state", "steps_total")
    }


@pytest.mark.parametrize(
    "status", [{}, {"components": 3}, {"components": {"host": None}, "state": None}]
)
def test_status_of_another_shape_gives_no_numbers(status: dict[str, object]) -> None:
    """Rather than an error, when a run of another release is looked at."""
    found = samples_of_status(status)
    assert set(found) == {"run_state"}
    assert set(found["run_state"].values()) == {0.0}


def test_memory_and_disk_are_those_of_this_machine(tmp_path: Path) -> None:
    """Also of a folder that is not there yet."""
    found = samples_of_host(tmp_path / "none" / "yet")
    [mount] = found["disk_free_bytes"]
    assert mount == (str(mount_of(tmp_path)),)
    assert found["memory_available_bytes"][()] > 0


def test_scrape_takes_less_than_five_milliseconds_for_64_ranks() -> None:
    """The fastest of ten, since the machine may be busy."""
    totals = RunTotals()
    totals.add(event_of(*[FAST] * 64), 1.0)
    status, taken = status_of(host=HOST, stop={"stop": "NONE"}), []
    for _ in range(10):
        begun = time.perf_counter()
        text = expose(METRICS, {**samples_of_status(status), **totals.samples()})
        taken.append(time.perf_counter() - begun)
    assert text.count("\n") > 64 * 11
    assert min(taken) < 0.005


def test_totals_are_read_while_they_are_added_to() -> None:
    """Never with some ranks of an event and not the others."""
    totals, is_over = RunTotals(), threading.Event()

    def add() -> None:
        for at in range(300):
            totals.add(event_of(FAST, FAST), float(at))
        is_over.set()

    thread = threading.Thread(target=add)
    thread.start()
    seen = set()
    while not is_over.is_set():
        counts = totals.samples().get("steps_total", {})
        seen.add(len(set(counts.values())))
    thread.join(10.0)
    assert seen <= {0, 1}


def test_kinds_without_leases_are_zero_rather_than_absent() -> None:
    """So that a graph does not stop."""
    state = {"leases": [], "limits": {"train": {}}, "answers": {}, "breakers": {}, "opened": {}}
    assert samples_of_registry(state)["leases"] == {("train",): 0.0}
