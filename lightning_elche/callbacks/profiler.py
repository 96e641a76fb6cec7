"""Profiles a run without ever ending it."""

from __future__ import annotations

import contextlib
import os
import re
import warnings
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch.profilers import PyTorchProfiler
from lightning.pytorch.utilities import rank_zero_only
from torch.profiler import ProfilerAction, profile
from typing_extensions import override

from lightning_elche.callbacks.run_events import emit
from lightning_elche.loops.lightning_names import forget_module, trainer_of

__all__ = ["ElcheProfiler"]

STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"')
LONGEST_TAIL = 8192  # with a path in it, and what else follows the events
TRACE, SUMMARY = "pt.trace.json", "summary.txt"


class ElcheProfiler(PyTorchProfiler):
    """Lightning's PyTorchProfiler, with a file of its own for each trace and for each summary.

    A file is named `{filename}-{stage}-{time}-r{rank}-p{pid}-{number}` and never replaces another
    one. A file that cannot be written is counted and told in a warning, and the run goes on.

    Args:
        dirpath: Folder of the files; made if it is missing.
        filename: How their names begin.
        max_failures: Failures in a row after which nothing is written any more.
        row_limit: Rows of a summary; -1 for all.
        record_shapes: Record the shapes of the operators' inputs.
        with_stack: Record where in the source each operator was called.
        profile_memory: Record what operators allocate and free.
        schedule: Tells by the number of a step whether it is recorded; see
            `torch.profiler.schedule`. Default: wait 1, warm up 1, record 3.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> from lightning_elche import ElcheProfiler
        >>> trainer = Trainer(
        ...     accelerator="cpu",
        ...     profiler=ElcheProfiler("runs/a/profiles"),
        ...     logger=False,
        ... )
    """

    def __init__(
        self,
        dirpath: str | Path = "profiles",
        *,
        filename: str = "trace",
        max_failures: int = 3,
        row_limit: int = 20,
        record_shapes: bool = False,
        with_stack: bool = False,
        profile_memory: bool = False,
        schedule: Callable[[int], ProfilerAction] | None = None,
    ) -> None:
        # The parent takes a schedule of None for "record every step, and keep all in memory".
        chosen: dict[str, Any] = {} if schedule is None else {"schedule": schedule}
        super().__init__(
            dirpath=dirpath,
            filename=filename,
            row_limit=row_limit,
            record_shapes=record_shapes,
            with_stack=with_stack,
            profile_memory=profile_memory,
            on_trace_ready=self._export_trace,
            **chosen,
        )
        if max_failures < 1:
            raise ValueError(f"`max_failures` must be >= 1, got {max_failures}.")
        if not filename or Path(filename).name != filename:
            raise ValueError(f"`filename` must be a name without folders, got {filename!r}.")
        self._folder, self._stem, self._max_failures = Path(dirpath), filename, max_failures
        self._num_files = self._traces = self._failures = self._failures_in_a_row = 0
        self._run_stage = "run"

    @override
    def setup(self, stage: str, local_rank: int | None = None, log_dir: str | None = None) -> None:
        super().setup(stage, local_rank, log_dir)
        self._run_stage = str(getattr(stage, "value", stage))

    @override
    def describe(self) -> None:
        self._drop_unused()
        with self._guarded(SUMMARY):
            summary = self.summary()
            if summary:
                self._save(SUMMARY, partial(_write_text, summary))
        self.profiler = None  # stopped for the summary, or beyond repair
        self.teardown(stage=self._run_stage)

    @override
    def teardown(self, stage: str | None) -> None:
        self._drop_unused()
        super().teardown(stage)
        forget_module(self)

    def stats(self) -> dict[str, float]:
        """Return the number of traces written, and of files that could not be."""
        return {"traces": float(self._traces), "export_failures": float(self._failures)}

    def _drop_unused(self) -> None:
        """Let go of a profiler whose schedule never began; its events do not exist."""
        if isinstance(self.profiler, profile) and self.profiler.profiler is None:
            self.profiler.stop()
            self.profiler = None

    def _export_trace(self, profiler: profile) -> None:
        with self._guarded(TRACE):
            if self._save(TRACE, partial(_write_trace, profiler)):
                self._traces += 1
        self._log()

    def _save(self, suffix: str, write: Callable[[Path], None]) -> bool:
        """Write a new file, and return whether it was; it is not after too many failures."""
        if self._failures_in_a_row >= self._max_failures:
            return False
        self._folder.mkdir(parents=True, exist_ok=True)
        moment = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S_%fZ")
        rank = getattr(rank_zero_only, "rank", None) or 0
        start = f"{self._stem}-{self._run_stage}-{moment}-r{rank}-p{os.getpid()}"
        save_as_new(self._folder / f"{start}-{self._num_files:03d}.{suffix}", write)
        self._num_files += 1
        self._failures_in_a_row = 0
        return True

    @contextlib.contextmanager
    def _guarded(self, suffix: str) -> Iterator[None]:
        """Keep a failure away from the run, which may be ending with an error of its own."""
        try:
            yield
        except (OSError, RuntimeError) as err:
            self._failures += 1
            self._failures_in_a_row += 1
            error = f"{type(err).__name__}: {err}"
            emit(
                "export_failed",
                file=suffix,
                error=error,
                failures=self._failures,
                is_last=self._failures_in_a_row >= self._max_failures,
            )
            if self._failures == 1:
                warnings.warn(
                    f"A profile could not be written to {self._folder} ({error}). The run goes "
                    f"on; after {self._max_failures} failures in a row nothing is written.",
                    stacklevel=3,
                )

    def _log(self) -> None:
        # A module may be gone or without a Trainer by now, and a logger may write to the disk that
        # is full: it will say so itself, and not here, where an error would hide one of the run.
        with contextlib.suppress(OSError, ReferenceError, RuntimeError):
            trainer = trainer_of(self)
            if trainer is None or not trainer.is_global_zero:
                return
            metrics = {f"profiler/{name}": value for name, value in self.stats().items()}
            for logger in trainer.loggers:
                logger.log_metrics(metrics, step=trainer.global_step)


def save_as_new(path: Path, write: Callable[[Path], None]) -> None:
    """Write a file that must not exist, completely or not at all.

    Raises:
        FileExistsError: If it does.
        OSError: If it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.touch(exist_ok=False)
        write(temporary)
        path.touch(exist_ok=False)  # of two who write the same name, one fails here
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def is_complete(trace: bytes) -> bool:
    """Return whether the text of a trace was not cut off."""
    tail = trace[-LONGEST_TAIL:]
    if b'"traceName"' in tail:  # follows the events
        return tail.rstrip().endswith(b"}")
    skeleton = STRINGS.sub(b"", trace)
    return 0 < skeleton.count(b"{") == skeleton.count(b"}")


def _write_trace(profiler: profile, path: Path) -> None:
    profiler.export_chrome_trace(str(path))
    # The exporter writes to a file of its own first; where that fails it raises nothing, and
    # leaves it.
    path.with_name(f"{path.name}.tmp").unlink(missing_ok=True)
    if not is_complete(path.read_bytes()):
        raise OSError(f"the trace is not complete; is the disk full? ({path})")


def _write_text(text: str, path: Path) -> None:
    path.write_text(text, encoding="utf-8")
