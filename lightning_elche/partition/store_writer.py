"""Saves in the background, one checkpoint at a time, and loses no error."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

__all__ = ["BackgroundWriter"]

T = TypeVar("T")


class BackgroundWriter(Generic[T]):
    """Runs one job at a time on a thread of its own.

    An error of a job is raised once: by the next `poll`, `submit` or `wait`.

    Example:
        >>> writer = BackgroundWriter()
        >>> writer.submit(lambda: "step-00000042")
        >>> writer.wait()
        'step-00000042'
        >>> writer.close()
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="elche-checkpoint")
        self._job: Future[T] | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a job is running."""
        return self._job is not None and not self._job.done()

    def submit(self, job: Callable[[], T]) -> None:
        """Start a job, once the one before it has ended; none is left out.

        Raises:
            Exception: What the job before raised; this one is not started then.
        """
        self.wait()
        self._job = self._pool.submit(job)

    def poll(self) -> T | None:
        """Return the result of a job that has ended since the last call, and do not wait.

        Raises:
            Exception: What the job raised.
        """
        return None if self.is_busy else self.wait()

    def wait(self) -> T | None:
        """Wait for the job, and return its result; `None` if that was told before.

        Raises:
            Exception: What the job raised.
        """
        job, self._job = self._job, None
        return None if job is None else job.result()

    def close(self) -> None:
        """Wait for the job, and end the thread.

        Raises:
            Exception: What the job raised.
        """
        try:
            self.wait()
        finally:
            self._pool.shutdown()
