"""Ranks on nodes that a slow cable joins: two network namespaces."""

from __future__ import annotations

import ctypes
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from rate_limit import can_rate_limit, rate_limited_hosts

from lightning_elche import AveragingEvent, ElCheStrategy
from lightning_elche.testing import run_ranks
from tests.ranks import Recorder, fit, weights
from tests.strategies.test_nodes import move_to_node

CLONE_NEWNET = 0x40000000
LINK_MBIT = 20.0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not can_rate_limit(), reason="needs root, and the programs ip and tc"),
]


class Big(Recorder):
    """A network of 400 kB: 20 Mbit/s carry it in a fifth of a second."""

    def __init__(self) -> None:
        super().__init__(delays_ms=(2.0, 4.0))
        self.ballast = torch.nn.Linear(320, 320)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return super().training_step(batch, batch_idx) + self.ballast.weight.square().sum()


class Sizes(Callback):
    """Remembers what crossed the cable and how long it took."""

    def __init__(self) -> None:
        self.events: list[tuple[bool, float]] = []

    def on_average_end(self, event: AveragingEvent) -> None:
        self.events.append((event.crossed_nodes, event.transfer_ms))


def fit_across(namespaces: list[str], interfaces: list[str]) -> dict[str, Any]:
    move_to_node(int(os.environ["RANK"]))
    node = int(os.environ["NODE_RANK"])
    with Path(f"/run/netns/{namespaces[node]}").open() as namespace:
        assert ctypes.CDLL(None).setns(namespace.fileno(), CLONE_NEWNET) == 0
    os.environ["GLOO_SOCKET_IFNAME"] = interfaces[node]
    sizes = Sizes()
    _, model = fit(
        2,
        num_nodes=2,
        size=2400,
        model=Big(),
        callbacks=[sizes],
        strategy=ElCheStrategy(group="node", timeout_s=30.0),
    )
    return {"ids": model.ids[0], "weights": weights(model), "events": sizes.events}


def test_nodes_cross_a_slow_cable_seldom_and_end_equal() -> None:
    """Inside a node an exchange is fast, so that ranks there meet at every event."""
    with rate_limited_hosts(LINK_MBIT) as hosts:
        results = run_ranks(
            fit_across,
            world_size=4,
            env={"MASTER_ADDR": hosts[0].address},
            namespaces=[host.namespace for host in hosts],
            interfaces=[host.interface for host in hosts],
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
    assert max(inside) < min(across)
