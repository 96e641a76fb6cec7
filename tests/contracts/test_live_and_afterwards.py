"""A run is judged afterwards, from its files, as it was judged live."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_elche.contracts.checking.check import check_run
from lightning_elche.contracts.evidence import digests as evidence_digests
from lightning_elche.contracts.verdicts import GateResult, Verdict
from tests.contracts.runs import Attempt, Epoch, Run, digest
from tests.contracts.traces import DEFAULT, Rules, attempts, rules

# Thousands take a minute; `ELCHE_TRACES=5000` draws them.
TRACES = int(os.environ.get("ELCHE_TRACES", "400"))
# What only the files tell, and what one run does not tell.
JUDGED_AFTERWARDS = {"GATE-TRAIN-002", "GATE-TRAIN-006"}


@pytest.fixture(scope="module")
def folders() -> Iterator[Iterator[Path]]:
    """Yield new folders, on a disk that is not waited for."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as root:
        patch.setattr(os, "fsync", lambda _: None)
        patch.setattr(evidence_digests, "USUAL_SEEDS", range(4))
        yield (Path(root) / str(number) for number in itertools.count())


def verdicts_of(results: Iterable[GateResult]) -> dict[str, Verdict]:
    return {
        one.gate: one.verdict
        for one in results
        if one.gate not in JUDGED_AFTERWARDS and one.verdict is not Verdict.NOT_DECLARED
    }


@pytest.mark.slow
@pytest.mark.timeout(900)
@settings(max_examples=TRACES)
@given(rules=rules, trace=attempts(), num_ranks=st.integers(1, 2))
def test_verdicts_are_those_of_the_live_run(
    folders: Iterator[Path], rules: Rules, trace: tuple[Attempt, ...], num_ranks: int
) -> None:
    """Whatever happens, every gate has the verdict that it had when the run ended."""
    run_dir, contract = next(folders), rules.contract()
    live = Run(run_dir, contract, num_ranks=num_ranks).go(*trace)
    afterwards = check_run(run_dir, contract=contract, digest=digest)
    assert verdicts_of(afterwards.gates) == verdicts_of(live)


def test_verdicts_differ_if_the_folder_is_not_what_the_run_wrote(tmp_path: Path) -> None:
    """The comparison above is one: a validation loss that was changed changes verdicts."""
    healthy = Attempt(epochs=tuple(Epoch(val_loss=loss) for loss in (3.0, 2.5, 2.1)))
    live = Run(tmp_path, DEFAULT).go(healthy)
    path = tmp_path / "ckpt" / "epoch-002.metadata.json"
    path.write_text(path.read_text().replace('"val_loss": 2.0999999', '"val_loss": 5.1'))
    afterwards = verdicts_of(check_run(tmp_path, digest=digest).gates)
    changed = {gate for gate, own in verdicts_of(live).items() if afterwards[gate] is not own}
    assert changed == {"GATE-TRAIN-003", "GATE-TRAIN-005"}
