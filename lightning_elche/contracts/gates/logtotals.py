"""What the records of one step log add up to."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import Any

from lightning_elche.contracts.gates.columns import ColumnTotals
from lightning_elche.contracts.gates.totals import EpochTotals, UtilTotals
from lightning_elche.contracts.records import StepColumns, StepLike
from lightning_elche.contracts.strictjson import jsonable
from lightning_elche.contracts.values import read_float

__all__ = ["LogTotals"]


class LogTotals:
    """Totals of a log, by epoch where records name theirs.

    Attributes:
        records: Number of records.
        epochs: What the steps of each epoch add up to.
        grad_norm_min: Smallest gradient norm if it is negative, else 0.
        lr_min: Smallest learning rate if it is negative, else 0.
        util: The values of `gpu_util_pct`.
    """

    def __init__(self) -> None:
        self.records = 0
        self.epochs: dict[int, EpochTotals] = {}
        self.grad_norm_min = 0.0
        self.lr_min = 0.0
        self.util = UtilTotals()

    def add(self, record: StepLike) -> None:
        """Add a record."""
        self.records += 1
        self.grad_norm_min = min(self.grad_norm_min, record.grad_norm)
        self.lr_min = min(self.lr_min, record.lr)
        self.util.add(1, record.gpu_util_pct, record.gpu_util_pct, record.gpu_util_pct)
        if record.epoch is None:
            return
        epoch = self._epoch(record.epoch)
        epoch.add((record.train_loss,), record.grad_norm)
        if record.wall_ms is not None:
            epoch.add_times((record.wall_ms,), (record.tokens_per_sec,))

    def add_any(self, record: StepLike | None) -> None:
        """Add a record, `None` for one whose fields are not all numbers."""
        if record is None:
            self.records += 1
        else:
            self.add(record)

    def add_columns(self, columns: StepColumns, totals: ColumnTotals) -> None:
        """Add many records, whose own totals are known."""
        self.records += len(columns.step)
        self.grad_norm_min = min(self.grad_norm_min, totals.grad_norm_min)
        self.lr_min = min(self.lr_min, totals.lr_min)
        self.util.add(len(columns.step), totals.util_min, totals.util_max, totals.util_sum)
        if columns.epoch is None:
            return
        if columns.epoch.count(columns.epoch[0]) == len(columns.epoch):
            self._add_epoch(columns, slice(None), totals.grad_norm_max)
            return
        start = 0
        for _, steps in groupby(columns.epoch):
            own = slice(start, start := start + sum(1 for _ in steps))
            self._add_epoch(columns, own, max(columns.grad_norm[own]))

    def _add_epoch(self, columns: StepColumns, own: slice, grad_norm_max: float) -> None:
        assert columns.epoch is not None
        epoch = self._epoch(columns.epoch[own][0])
        epoch.add(columns.train_loss[own], grad_norm_max)
        if columns.wall_ms is not None:
            epoch.add_times(columns.wall_ms[own], columns.tokens_per_sec[own])

    def _epoch(self, number: int) -> EpochTotals:
        return self.epochs.setdefault(number, EpochTotals())

    def state_dict(self) -> dict[str, Any]:
        """Return the state as JSON has it, of all epochs only the last."""
        util = self.util
        return {
            "records": self.records,
            "epochs": {str(e): own.state_dict() for e, own in list(self.epochs.items())[-1:]},
            "extremes": jsonable([self.grad_norm_min, self.lr_min]),
            "util": jsonable([util.count, util.low, util.high, util.total]),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`."""
        self.records = state["records"]
        self.epochs = {}
        for epoch, own in state["epochs"].items():
            self._epoch(int(epoch)).load_state_dict(own)
        self.grad_norm_min, self.lr_min = map(read_float, state["extremes"])
        count, *rest = state["util"]
        self.util = UtilTotals(count, *map(read_float, rest))
