"""What a run tells the registry of its machine."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lightning_elche.callbacks import admission
from lightning_elche.callbacks.admission import Admission
from lightning_elche.coordination.registry.capacity import Machine
from lightning_elche.coordination.registry.limits import LimitsConfig
from lightning_elche.coordination.registry.request import Decision, Request
from lightning_elche.exceptions import AdmissionDenied


@pytest.mark.parametrize(
    ("device", "listed", "asked", "there"),
    [("cuda", 0, 2, 2), ("cuda", 8, 2, 8), ("cpu", 0, 0, 0)],
)
def test_gpus_that_a_run_trains_on_are_there(
    device: str, listed: int, asked: int, there: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where neither a tool nor a driver lists any; else they are those that are listed."""
    told: list[Request] = []

    def admit(request: Request) -> Decision:
        told.append(request)
        return Decision(allowed=False, code="halted", reason="enough")

    registry: Any = SimpleNamespace(admit=admit)
    strategy = SimpleNamespace(root_device=torch.device(device), broadcast=lambda value: value)
    trainer: Any = SimpleNamespace(
        strategy=strategy, is_global_zero=True, num_nodes=1, num_devices=2, default_root_dir="."
    )
    monkeypatch.setattr(admission, "read_machine", lambda: Machine(gpus=listed, cores=8.0))
    asks = Admission(LimitsConfig(admission="enforce"), lambda: registry, environment={})
    with pytest.raises(AdmissionDenied):
        asks.setup(trainer, trainer, "fit")
    assert (told[0].gpus, told[0].machine.gpus) == (asked, there)
