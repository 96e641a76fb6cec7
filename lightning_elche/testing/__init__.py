"""For tests of distributed code and of storage: real ranks, and file systems that fail."""

from __future__ import annotations

from lightning_elche.testing.fault_fs import FaultFs
from lightning_elche.testing.ranks import RankResult, run_ranks
from lightning_elche.testing.recording_fs import RecordingFs

__all__ = ["FaultFs", "RankResult", "RecordingFs", "run_ranks"]
