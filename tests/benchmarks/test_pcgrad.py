"""Tests of the benchmark of PCGrad, on few parameters."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pcgrad_parts import Net, aggregation_ms, gram_error, literal, our_step, plain_step, step_ms

from lightning_elche.ops.order import step_generator
from lightning_elche.ops.projection import pcgrad
from tests.examples.script import run_script


def test_the_literal_algorithm_is_what_ours_computes() -> None:
    """So that their times can be compared."""
    rows = list(torch.randn(4, 100, generator=torch.Generator().manual_seed(0)))
    ours = pcgrad(rows, generator=step_generator(0, 0)).combined
    torch.testing.assert_close(literal(rows), ours, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("is_direct", [True, False])
def test_our_step_makes_gradients_for_all_parameters(is_direct: bool) -> None:
    """Those of the heads are those of the sum of the losses."""
    net, plain = Net(3, 300), Net(3, 300)
    plain.load_state_dict(net.state_dict())
    our_step(net, is_direct=is_direct)(0)
    plain_step(plain)(0)
    assert all(parameter.grad is not None for parameter in net.parameters())
    torch.testing.assert_close(net.heads[1].weight.grad, plain.heads[1].weight.grad)


def test_times_and_errors_are_positive() -> None:
    """Of rows that do not fill a block, and of steps of few parameters."""
    times = [*aggregation_ms(3, 1000, 1).values(), *step_ms(3, 300, 1).values()]
    assert len(times) >= 6
    assert min(times) > 0.0
    assert 0.0 <= gram_error(3, 1000) < 1e-6


@pytest.mark.slow
def test_the_benchmark_prints_what_it_was_asked_for(tmp_path: Path) -> None:
    """With few repeats."""
    few = ["--numel", "30000", "--error-numel", "20000", "--repeats", "1"]
    finished = run_script("benchmarks/pcgrad.py", *few, "--parts", "aggregation", folder=tmp_path)
    assert finished.code == 0, finished.stderr
    assert "x floor" in finished.stdout
    assert "error of a cosine, 0.02 M elements" in finished.stdout
    assert "hooks" not in finished.stdout
