"""Shows a run to monitoring systems: by HTTP, or in a file."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lightning.pytorch.utilities import rank_zero_warn

from lightning_elche.callbacks.exporter_facts import RunFacts
from lightning_elche.callbacks.run_events import subscribe
from lightning_elche.coordination.atomic_file import replace_file
from lightning_elche.coordination.export import ExportConfig
from lightning_elche.coordination.health import Health
from lightning_elche.coordination.monitoring.exposition import Samples, expose
from lightning_elche.coordination.monitoring.http_run_routes import run_routes
from lightning_elche.coordination.monitoring.http_server import HttpServer
from lightning_elche.coordination.monitoring.metrics import METRICS
from lightning_elche.coordination.monitoring.metrics_run import RunTotals
from lightning_elche.coordination.monitoring.metrics_status import samples_of_status

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

    from lightning_elche.control.events import AveragingEvent

__all__ = ["Exporter"]

log = logging.getLogger(__name__)

CLOSE_S = 2.0
SAVED = ("checkpoint_saved", "checkpoint")  # by the Trainer; by PartitionCheckpoint, once in place


class Exporter:
    """Serves metrics, health and state of a run on rank zero, as far as that was asked for.

    Args:
        config: Where.
        status: Returns what `status.json` holds.
        health: Whether the run moves on.
        is_ready: Whether it trains, or pauses and would.
    """

    name = "export"

    def __init__(
        self,
        config: ExportConfig,
        *,
        status: Callable[[], Mapping[str, object]],
        health: Callable[[], Health],
        is_ready: Callable[[], bool],
    ) -> None:
        self._config = config
        self._read_status, self._health, self._is_ready = status, health, is_ready
        self._totals = RunTotals()
        self._facts: RunFacts | None = None
        self._saved_at: float | None = None
        self._server: HttpServer | None = None
        self._path = Path(config.textfile or "").absolute()
        self._thread: threading.Thread | None = None
        self._is_over = threading.Event()
        self._has_complained = False
        self._forget: Callable[[], None] = lambda: None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin to serve."""
        port, textfile = self._config.port, self._config.textfile
        is_wanted = port is not None or textfile is not None
        if stage != "fit" or not is_wanted or not trainer.is_global_zero:
            return
        self._facts = RunFacts(trainer, pl_module)
        self._forget = subscribe(self._hear)
        if port is not None:
            self._serve(port)
        if textfile is not None:
            self._keep_file()

    def on_average_end(self, event: AveragingEvent) -> None:
        """Count what the ranks have done."""
        if self._facts is not None:
            self._totals.add(event, time.time())

    def on_exception(self, *_: object) -> None:
        """End, as `teardown` is not called then."""
        self.close()

    def teardown(self, *_: object) -> None:
        """End."""
        self.close()

    def close(self) -> None:
        """Stop serving, and remove the file: what it says would not be true for long."""
        self._forget()
        if self._server is not None:
            self._server.close(CLOSE_S)
            self._server = None
        if self._thread is not None:
            self._is_over.set()
            self._thread.join(CLOSE_S)
            self._thread = None
            with contextlib.suppress(OSError):
                self._path.unlink()

    def status(self) -> dict[str, object]:
        """Return where the run can be seen."""
        port = None if self._server is None else self._server.port
        return {"port": port, "textfile": self._config.textfile}

    def text(self) -> str:
        """Return the metrics as Prometheus reads them."""
        return expose(METRICS, self._samples())

    def _samples(self) -> Samples:
        samples = samples_of_status(self._read_status())
        if self._facts is not None:
            samples |= self._facts.samples()
            if self._facts.has_averages:  # they count for all ranks, and must not go back
                samples.pop("steps_total", None)
        samples |= self._totals.samples()
        if self._saved_at is not None:
            samples["last_checkpoint_timestamp_seconds"] = {(): self._saved_at}
        return samples

    def _serve(self, port: int) -> None:
        routes = run_routes(
            metrics=self.text,
            state=self._read_status,
            health=self._health,
            is_ready=self._is_ready,
        )
        try:
            self._server = HttpServer(routes, host=self._config.host, port=port)
        except OSError as err:
            rank_zero_warn(
                f"Nothing is served at `port` {port} of {self._config.host}: {err}. Another run "
                "may have it; 0 takes a free one, and status.json tells which."
            )

    def _keep_file(self) -> None:
        """Write the file now, and each period from now on.

        Raises:
            OSError: If it cannot be written.
        """
        self._is_over.clear()
        self._write()
        self._thread = threading.Thread(
            target=self._keep_writing, name="elche-textfile", daemon=True
        )
        self._thread.start()

    def _write(self) -> None:
        replace_file(self._path, self.text().encode("utf-8", "backslashreplace"))

    def _keep_writing(self) -> None:
        while not self._is_over.wait(self._config.status_period_s):
            self._try_to_write()

    def _try_to_write(self) -> None:
        try:
            self._write()
        except Exception:  # of a full disk, or of a status that cannot be told at present
            if not self._has_complained:
                self._has_complained = True
                log.exception("%s could not be written. Told once.", self._path)

    def _hear(self, kind: str, data: dict[str, object]) -> None:
        del data
        if kind in SAVED:
            self._saved_at = time.time()
