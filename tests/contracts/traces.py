"""Traces of training runs, healthy and not, as properties are tested with."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from hypothesis import strategies as st

from lightning_elche.contracts.model import Contract, Convergence, Gate, ThresholdCheck
from tests.contracts.runs import Attempt, Epoch, Step

DEFAULT = Contract.default()
# A log cannot hold what these refuse, so that no run goes on without them.
NEVER_LEFT_OUT = frozenset({"GATE-TRAIN-001", "GATE-TRAIN-007", "GATE-TRAIN-008"})
OWN_GATES = (
    Gate(
        id="GATE-MY-001",
        check=ThresholdCheck(metric="wall_ms", stat="median", steps=(1, 4), max=500.0),
    ),
    Gate(id="GATE-MY-002", check=ThresholdCheck(metric="lr", stat="max", max=5e-5)),
    Gate(
        id="GATE-MY-003",
        check=ThresholdCheck(metric="val_loss", stat="last", epochs=(0, 2), max=3.3),
    ),
    Gate(
        id="GATE-MY-004",
        check=ThresholdCheck(metric="train_loss", stat="mean", epochs=(1, 9), min=2.2),
    ),
    Gate(id="GATE-MY-005", rule="nobody knows how to check this"),
)

poison = st.sampled_from([math.nan, math.inf, -math.inf, 1e39, -1.0, 100.1, None])
plausible = st.one_of(
    st.sampled_from([0.0, 1.0, 5e-5, 5.00001e-5, 1e-45, 3.4e38, 500.1]),
    st.floats(min_value=0.0, max_value=100.0),
)
fields = st.sampled_from(
    ["train_loss", "grad_norm", "lr", "tokens_per_sec", "gpu_util_pct", "wall_ms"]
)
healthy_steps = st.just(Step())
odd_steps = st.builds(
    Step,
    changed=st.dictionaries(fields, plausible, max_size=3),
    rank=st.integers(0, 1),
)
sick_steps = st.builds(
    Step,
    changed=st.dictionaries(fields, poison, max_size=1),
    skips=st.sampled_from([0] * 6 + [1, -1]),
    rank=st.integers(0, 1),
)
steps = st.sampled_from([healthy_steps] * 6 + [odd_steps] * 3 + [sick_steps]).flatmap(
    lambda one: one
)
healthy_losses = st.one_of(
    st.sampled_from([3.5, 7.0, 2.2, 2.2000000001, 10.0, 0.0, 1.0, 3.3]),
    st.floats(min_value=1.5, max_value=3.0),
)
odd_losses = st.sampled_from([math.nan, math.inf, 1e39, -1.0, 7.000001, 10.00001, "absent", "none"])
val_losses = st.sampled_from([healthy_losses] * 9 + [odd_losses]).flatmap(lambda one: one)
placeholders = st.sampled_from(
    [
        {},
        {},
        {},
        {"train_loss": 1.0, "grad_norm_max": 1.0, "train_ppl": 2.7182817, "wall_seconds": 9.0},
        {"train_loss": 1.0, "grad_norm_max": 1.0, "train_ppl": 2.7182817, "wall_seconds": 10.0},
    ]
)
seldom = st.sampled_from([False] * 9 + [True])
epochs = st.builds(
    Epoch,
    steps=st.lists(steps, min_size=1, max_size=3).map(tuple),
    val_loss=val_losses,
    is_short=seldom,
    is_cycled=seldom,
    fault=st.sampled_from([""] * 9 + ["checkpoint", "metadata"]),
    changed=placeholders,
)
tails = st.sampled_from([b"", b"", b'{"step":', b"\x00\x00", b'{"step":99'])


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What a contract has that differs from the default one, in few words."""

    without: frozenset[str]
    convergence: Convergence

    def contract(self) -> Contract:
        """Return the contract."""
        gates = (one for one in (*DEFAULT.gates, *OWN_GATES) if one.id not in self.without)
        return replace(DEFAULT, gates=tuple(gates), convergence=self.convergence)


rules = st.builds(
    Rules,
    without=st.frozensets(
        st.sampled_from([one.id for one in (*DEFAULT.gates, *OWN_GATES)]), max_size=6
    ).map(lambda gates: gates - NEVER_LEFT_OUT),
    convergence=st.builds(
        Convergence,
        target_val_loss=st.just(2.2),
        patience_epochs=st.integers(0, 2),
        min_epochs_before_early_stop=st.integers(0, 3),
        early_stop_on_patience_exhausted=st.booleans(),
    ),
)


@st.composite
def attempts(draw: st.DrawFn) -> tuple[Attempt, ...]:
    """Draw a run that may be interrupted and resumed, from any of its epochs."""
    drawn: list[Attempt] = []
    num_epochs = 0
    for _ in range(draw(st.sampled_from([1, 1, 2, 3]))):
        attempt = Attempt(
            epochs=tuple(draw(st.lists(epochs, min_size=draw(st.integers(0, 5)), max_size=6))),
            from_epoch=draw(st.integers(0, num_epochs)),
            status="INTERRUPTED",
            tail=draw(tails),
            is_stubborn=draw(seldom),
        )
        num_epochs = attempt.from_epoch + len(attempt.epochs)
        drawn.append(attempt)
    end = draw(st.sampled_from(["OK"] * 6 + ["INTERRUPTED", "RUNNING", "EARLY_STOP"]))
    return (*drawn[:-1], replace(drawn[-1], status=end, tail=b""))
