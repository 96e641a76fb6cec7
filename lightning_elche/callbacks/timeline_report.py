"""The report of a run that is written when training ends."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch.utilities import rank_zero_info

from lightning_elche.timeline.aligned import load
from lightning_elche.timeline.report import write_page
from lightning_elche.timeline.swimlane import draw_run, require_matplotlib

__all__ = ["ReportTarget"]

IN_RUN_FOLDER = "html"
PAGE, PICTURE = ".html", ".png"


class ReportTarget:
    """Where a report goes, and with that its form.

    Args:
        report: A file that ends in .html or .png, or "html" for a page in the folder of the run.

    Raises:
        ValueError: If it is neither.
    """

    def __init__(self, report: str | Path) -> None:
        self._path = None if report == IN_RUN_FOLDER else Path(report)
        if self._path is not None and self._path.suffix not in (PAGE, PICTURE):
            raise ValueError(
                f"`report` must end in {PAGE} or {PICTURE}, or be {IN_RUN_FOLDER!r}, got {report}."
            )

    def check(self) -> None:
        """Check now what would otherwise fail after hours of training.

        Raises:
            FileNotFoundError: If the folder is missing.
            ModuleNotFoundError: If matplotlib is.
        """
        path = self._path
        if path is None:
            return
        if path.suffix == PICTURE:
            require_matplotlib(f"`report` ({path})")
        if not path.resolve().parent.is_dir():
            raise FileNotFoundError(f"`report` must be in an existing folder, got {path}.")

    def write(self, run_folder: Path) -> None:
        """Write the report of the run in `run_folder`."""
        path = self._path or run_folder / "report.html"
        timeline = load(run_folder / "events")
        if path.suffix == PICTURE:
            draw_run(timeline, path)
        else:
            write_page(timeline, path)
        for note in timeline.notes:
            rank_zero_info(f"{path}: {note}")
