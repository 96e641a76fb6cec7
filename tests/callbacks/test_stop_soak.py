"""Stops at random times of random ranks, again and again."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from lightning_elche.callbacks.stop_files import is_loadable, newest_stop
from lightning_elche.testing import run_ranks
from tests.callbacks.stopped import Acts, train
from tests.ranks import Recorder

WITHIN_S = 90.0
SIZE = 40000


class SignalsItself(Callback):
    """Gets a signal at a moment that has nothing to do with its steps; times itself and them."""

    def __init__(self, rank: int, after_s: float) -> None:
        self.rank, self.after_s = rank, after_s
        self.at: float | None = None
        self.slowest_s, self._began, self._num = 0.0, 0.0, 0
        self.saving = 0.0

    def on_train_start(self, trainer: Any, module: Any) -> None:
        if trainer.global_rank == self.rank:
            timer = threading.Timer(self.after_s, self._send)
            timer.daemon = True
            timer.start()

    def on_save_checkpoint(self, trainer: Any, module: Any, checkpoint: dict[str, Any]) -> None:
        self.saving = time.monotonic()

    def _send(self) -> None:
        self.at = time.monotonic()
        os.kill(os.getpid(), signal.SIGTERM)

    def on_train_batch_start(self, *_: Any) -> None:
        self._began = time.monotonic()

    def on_train_batch_end(self, *_: Any) -> None:
        self._num += 1
        if self._num > 3:  # the first ones warm up
            self.slowest_s = max(self.slowest_s, time.monotonic() - self._began)


def stop(folder: str, rank: int, after_s: float, delays_ms: Any) -> Any:
    signals = SignalsItself(rank, after_s)
    world_size, model = int(os.environ["WORLD_SIZE"]), Recorder(delays_ms)
    found = train(world_size, folder, signals, model=model, size=SIZE)
    ended = time.monotonic()
    return {
        "code": found["code"],
        "digest": found["digest"],
        "ids": found["ids"].get(0, []),
        "at": signals.at,
        "ended": ended,
        "slowest_s": signals.slowest_s,
        "save_s": ended - signals.saving,
    }


def trial(draw: random.Random, folder: Path) -> tuple[float, float]:
    """Stop one run, check it, and return how long that took and how long it may take."""
    world_size = draw.choice((2, 3))
    delays_ms = tuple(draw.choice((1.0, 5.0, 20.0, 80.0)) for _ in range(world_size))
    results = run_ranks(
        stop,
        world_size=world_size,
        timeout_s=WITHIN_S,
        folder=str(folder),
        rank=draw.randrange(world_size),
        after_s=draw.uniform(0.02, 2.0),
        delays_ms=delays_ms,
    )
    ended = [one.value for one in results]
    assert [one["code"] for one in ended] == [143] * world_size
    assert len({one["digest"] for one in ended}) == 1
    (path,) = folder.iterdir()
    assert is_loadable(path)
    assert newest_stop(folder) == str(path)
    ids = [i for one in ended for i in one["ids"]]
    assert len(ids) == len(set(ids)) == 4 * int(path.stem.partition("-")[2])
    began = next(one["at"] for one in ended if one["at"] is not None)
    slowest_s, save_s = (max(one[name] for one in ended) for name in ("slowest_s", "save_s"))
    return max(one["ended"] for one in ended) - began, slowest_s + 0.5 + save_s


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_twenty_stops_of_twenty_are_clean(tmp_path: Path) -> None:
    """Any rank, any time: one checkpoint, equal parameters, each sample counted once, in time."""
    draw = random.Random(int(os.environ.get("ELCHE_DELAYS_SEED", "0")))
    found = [trial(draw, tmp_path / str(number)) for number in range(20)]
    seconds = [one for one, _ in found]
    late = sorted(one - bound for one, bound in found)
    print("\n", [f"{one:.2f}/{bound:.2f}" for one, bound in found])
    print(f"latency p50 {sorted(seconds)[10]:.3f} s, p95 {sorted(seconds)[18]:.3f} s")
    print(f"over slowest batch + 0.5 s + save: p50 {late[10]:+.3f} s, p95 {late[18]:+.3f} s")
    assert max(seconds) < 20.0
    assert late[18] <= 0.0


class Killed(Callback):
    """Is killed some time after the last checkpoint was begun; or only says how long that takes."""

    def __init__(self, after_s: float | None) -> None:
        self.after_s, self.began = after_s, 0.0

    def on_save_checkpoint(self, trainer: Any, module: Any, checkpoint: dict[str, Any]) -> None:
        self.began = time.monotonic()
        if self.after_s is not None and trainer.global_rank == 0:
            threading.Timer(self.after_s, os.kill, (os.getpid(), signal.SIGKILL)).start()


class Large(Recorder):
    """Has 40 MB to be saved."""

    def __init__(self) -> None:
        super().__init__((1.0,))
        self.register_buffer("ballast", torch.ones(10_000_000))


def save_at_stop(folder: str, killed_after_s: float | None) -> float:
    killed = Killed(killed_after_s)
    acts = Acts(1, 5, lambda _: os.kill(os.getpid(), signal.SIGTERM))
    train(int(os.environ["WORLD_SIZE"]), folder, acts, killed, model=Large())
    return time.monotonic() - killed.began


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_last_checkpoint_loads_when_the_next_stop_is_killed_in_its_save(tmp_path: Path) -> None:
    """At fifty moments of it: the one before is there, or this one is whole."""
    draw = random.Random(int(os.environ.get("ELCHE_DELAYS_SEED", "0")))
    first = run_ranks(save_at_stop, world_size=2, folder=str(tmp_path), killed_after_s=None)
    before, ended = newest_stop(tmp_path), Counter[bool]()
    for _ in range(50):
        after_s = draw.uniform(0.0, first[0].value)
        run = {"folder": str(tmp_path), "killed_after_s": after_s}
        ranks = run_ranks(save_at_stop, world_size=2, timeout_s=WITHIN_S, check=False, **run)
        ended[ranks[0].returncode == -signal.SIGKILL] += 1
        found = newest_stop(tmp_path)
        assert found is not None
        torch.load(found, weights_only=False)
        for path in set(tmp_path.iterdir()) - {Path(before), Path(found)}:
            path.unlink()
    print("\nkilled in the save, and after it:", ended[True], ended[False])
    assert ended[True] >= 25


SCRIPT = """
import signal
import sys
import time
from pathlib import Path

from lightning.pytorch import Callback

from lightning_elche import Coordination
from tests.ranks import Recorder, make_loader, make_trainer


class BusyAtTheEnd(Callback):
    def on_train_batch_end(self, trainer, *_):
        if trainer.global_rank == 0:
            Path(sys.argv[1], "trains").touch()

    def on_exception(self, trainer, *_):
        if trainer.global_rank == 0:
            time.sleep(12.0)
            Path(sys.argv[1], "was-busy").touch()


if __name__ == "__main__":
    callbacks = [Coordination(), BusyAtTheEnd()]
    trainer = make_trainer(2, strategy="elche", callbacks=callbacks, default_root_dir=sys.argv[1])
    trainer.fit(Recorder((2.0, 8.0)), make_loader(40000))
"""


@pytest.mark.soak
def test_launched_rank_zero_may_be_busy_long_after_the_others_have_left(tmp_path: Path) -> None:
    """Lightning's launcher, which it waits in, does not kill it; the job ends with 143."""
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + WITHIN_S
        while not (tmp_path / "trains").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.terminate()
        assert process.wait(WITHIN_S) == 143
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert (tmp_path / "was-busy").exists()
    assert newest_stop(tmp_path) is not None
