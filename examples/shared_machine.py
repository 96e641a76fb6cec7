"""Two ranks train with `Coordination`; meanwhile no other run may start on this machine.

Start it twice at the same time: the second is refused, and says why.
"""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from classify_digits import DigitClassifier, digit_loaders
from lightning.pytorch import Callback, Trainer, seed_everything
from quiet_lightning import quiet_lightning

from lightning_elche import Coordination, ElCheStrategy
from lightning_elche.coordination import CoordinationConfig, Request, open_registry

if TYPE_CHECKING:
    from lightning_elche.control.events import AveragingEvent

CONFIG = Path(__file__).with_name("coordination.yaml")
OUT = Path("runs/shared_machine")


def may_another_start() -> str:
    """Return what the registry would say to one more run; that changes nothing."""
    registry = open_registry(CoordinationConfig.load(CONFIG, os.environ))
    decision = registry.why(Request(kind="train", host=socket.gethostname()))
    return "yes" if decision.allowed else f"no: {decision.reason}"


class Asks(Callback):
    """Asks whether another run may start, at the third averaging event."""

    def on_average_end(self, event: AveragingEvent) -> None:
        """Called after each averaging event."""
        if event.index == 2 and os.environ.get("LOCAL_RANK", "0") == "0":
            print(f"may another run start now? {may_another_start()}", flush=True)


def main() -> None:
    """Train, and show what the run has told of itself."""
    quiet_lightning()
    seed_everything(0, verbose=False)
    told: list[str] = []
    coordination = Coordination(CONFIG, subscribers=[("*", lambda kind, _: told.append(kind))])
    trainer = Trainer(
        accelerator="cpu",
        devices=2,
        strategy=ElCheStrategy(),
        callbacks=[coordination, Asks()],
        max_epochs=5,
        default_root_dir=OUT,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    trainer.fit(DigitClassifier(), *digit_loaders())
    if trainer.is_global_zero:
        status = json.loads((OUT / "elche" / "status.json").read_text())
        print(f"{status['state']} after {told.count('epoch_end')} epochs, healthy: ", end="")
        print(f"{status['healthy']}\nmay another run start now? {may_another_start()}")


if __name__ == "__main__":
    main()
