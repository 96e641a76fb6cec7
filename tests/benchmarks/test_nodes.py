"""Ranks on nodes that a slow cable joins: two network namespaces."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from nodes import parse_arguments, render
from rate_limit import Host, can_rate_limit, rate_limited_hosts

from lightning_elche import AveragingEvent, CadenceConfig, ElCheStrategy, GuardConfig
from lightning_elche.testing import run_ranks
from tests.examples.script import run_script
from tests.ranks import Recorder, fit, move_to_node, weights

LINK_MBIT = 20.0

needs_hosts = pytest.mark.skipif(
    not can_rate_limit(), reason="needs root, and the programs ip, tc and nsenter"
)


class Big(Recorder):
    """A network of 400 kB: 20 Mbit/s carry it in a fifth of a second."""

    def __init__(self) -> None:
        super().__init__(delays_ms=(2.0, 4.0))
        self.ballast = torch.nn.Linear(320, 320)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return super().training_step(batch, batch_idx) + self.ballast.weight.mean()


class Sizes(Callback):
    """Remembers what crossed the cable and how long it took."""

    def __init__(self) -> None:
        self.events: list[tuple[bool, float]] = []

    def on_average_end(self, event: AveragingEvent) -> None:
        self.events.append((event.crossed_nodes, event.transfer_ms))


def fit_across(hosts: tuple[Host, Host]) -> dict[str, Any]:
    move_to_node(int(os.environ["RANK"]))
    hosts[int(os.environ["NODE_RANK"])].enter()
    sizes = Sizes()
    _, model = fit(
        2,
        num_nodes=2,
        size=2400,
        model=Big(),
        callbacks=[sizes],
        strategy=ElCheStrategy(
            group="node",
            cadence=CadenceConfig(anchor=3, max_anchor=3),
            guard=GuardConfig(enabled=False),
            timeout_s=30.0,
        ),
    )
    return {"ids": model.ids[0], "weights": weights(model), "events": sizes.events}


@pytest.mark.slow
@needs_hosts
def test_nodes_cross_a_slow_cable_seldom_and_end_equal() -> None:
    """Inside a node an exchange is fast, so that ranks there meet at every event."""
    with rate_limited_hosts(LINK_MBIT) as hosts:
        results = run_ranks(
            fit_across,
            world_size=4,
            env={"MASTER_ADDR": hosts[0].address},
            hosts=hosts,
        )
    ranks = [result.value for result in results]
    assert Counter(i for rank in ranks for i in rank["ids"]) == Counter(range(2400))
    for rank in ranks[1:]:
        for name, value in ranks[0]["weights"].items():
            assert torch.equal(rank["weights"][name], value), name
    events = ranks[0]["events"]
    across = [transfer_ms for crossed, transfer_ms in events if crossed]
    inside = [transfer_ms for crossed, transfer_ms in events if not crossed]
    assert len(inside) > len(across)
    assert median(inside) < median(across)


@pytest.mark.parametrize("arguments", [["--mbit", "0"], ["--batches", "-1"], ["--repeats", "nan"]])
def test_wrong_arguments_are_named(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is measured."""
    with pytest.raises(SystemExit, match="2"):
        parse_arguments(arguments)
    assert f"argument {arguments[0]}: " in capsys.readouterr().err


def test_table_shows_medians_and_ratios_within_a_repeat() -> None:
    """DDP has no averaging events."""
    repeats = [
        {"ddp": (8.0, 0, 0), "world": (2.0, 6, 6), "node": (1.0, 28, 4)},
        {"ddp": (16.0, 0, 0), "world": (4.0, 8, 8), "node": (2.0, 30, 6)},
    ]
    head, ddp, world, node = render(repeats, samples=600).splitlines()
    assert ddp.split()[-4:] == ["50", "1.00", "-", "-"]
    assert world.split()[1:] == ["200", "4.00", "7", "7"]
    assert node.split()[1:] == ["400", "8.00", "29", "5"]
    assert len({len(line) for line in (head, ddp, world, node)}) == 1


@pytest.mark.whole
@pytest.mark.timeout(300)
@needs_hosts
def test_a_short_run_measures_every_row(tmp_path: Path) -> None:
    """Four ranks on two nodes, three times."""
    short = ["--repeats", "1", "--batches", "80", "--mbit", "1000", "--width", "50"]
    finished = run_script("benchmarks/nodes.py", *short, folder=tmp_path)
    assert (finished.code, finished.stderr) == (0, ""), finished.stdout
    assert 'group="node"' in finished.stdout
