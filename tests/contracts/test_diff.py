"""What a new version of a contract changes."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_elche.contracts.grammar.changes import Change
from lightning_elche.contracts.grammar.diff import diff_contracts, version_bump
from lightning_elche.contracts.grammar.loader import DEFAULT_TEXT, default_contract
from lightning_elche.contracts.model import Contract
from tests.contracts.contract_texts import OPEN, contract

DEFAULT = DEFAULT_TEXT.decode()
CHECK = OPEN + "gates: [{id: MY-1, check: {metric: lr, stat: max, min: 1, max: 3}}]\n"
SUPPRESS = OPEN + "suppress: [{rule: EV-PPL, until: 2026-07-01, reason: r}]\n"

# The text of the default contract, and what makes it weaker.
WEAKENINGS = [
    ("  - {id: GATE-TRAIN-008, rule: Throughput within its range, binds_to: INV-TRAIN-008}\n", ""),
    ("binds_to: INV-TRAIN-005, ship_blocking: true", "binds_to: INV-TRAIN-005"),
    ("    - {name: lr, type: f32}\n", ""),
    ("[epoch, train_loss,", "[epoch,"),
    ("{name: step, type: u64}", "{name: step, type: f32}"),
    ("sampling_period_steps: 1", "sampling_period_steps: 10"),
    ("  target_val_loss: 2.2\n", "  target_val_loss: 2.3\n"),
    ("  target_val_loss: 2.2\n", ""),
    ("patience_epochs: 2", "patience_epochs: 3"),
    ("min_epochs_before_early_stop: 3", "min_epochs_before_early_stop: 4"),
    ("early_stop_on_patience_exhausted: true", "early_stop_on_patience_exhausted: false"),
    ("lr_max: 5e-5", "lr_max: 6e-5"),
    ("warmup_steps: 100, target_val_loss: 2.2", "warmup_steps: 100, target_val_loss: 2.3"),
    ("warmup_steps: 100, target_val_loss: 2.2", "warmup_steps: 100"),
]
# The same for other contracts.
OTHER_WEAKENINGS = [
    (CHECK, CHECK.replace("max: 3", "max: 4")),
    (CHECK, CHECK.replace(", max: 3", "")),
    (CHECK, CHECK.replace("min: 1", "min: 0")),
    (CHECK, CHECK.replace("min: 1, ", "")),
    (CHECK, OPEN + "gates: [{id: MY-1}]\n"),
    (SUPPRESS, SUPPRESS.replace("2026-07", "2026-08")),
    (OPEN, SUPPRESS),
]
PAIRS = [(DEFAULT, DEFAULT.replace(before, after)) for before, after in WEAKENINGS]
PAIRS += OTHER_WEAKENINGS


def kinds(old: str | Contract, new: str | Contract) -> list[str]:
    """Return the kinds of the changes."""
    pair = [contract(one) if isinstance(one, str) else one for one in (old, new)]
    return [change.kind for change in diff_contracts(*pair)]


@pytest.mark.parametrize(("strong", "weak"), PAIRS)
def test_weaker_contract_is_told_from_a_tighter_one(strong: str, weak: str) -> None:
    """Whatever lets more runs pass is weaker, and the way back is tighter."""
    assert kinds(strong, weak) == ["weaker"]
    assert kinds(weak, strong) == ["tighter"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("warmup_steps: 100,", "warmup_steps: 200,"),
        ("rule: Non-divergence", "rule: No divergence"),
        ("binds_to: INV-TRAIN-005", "binds_to: INV-5"),
        ("contract_id: C-GATE-TRAIN", "contract_id: C-MINE"),
        ("epoch-{epoch:03d}.ckpt", "epoch-{epoch:04d}.ckpt"),
    ],
)
def test_change_of_words_and_places_is_neutral(before: str, after: str) -> None:
    """What no verdict depends on is neither weaker nor tighter."""
    assert kinds(DEFAULT, DEFAULT.replace(before, after)) == ["neutral"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("description: Rules of a healthy training run", "description: Rules"),
        ("version: 1.0.0", "version: 1.0.1"),
        ("  - {name: step, type: u64}\n", "  - {type: u64, name: step}\n"),
        ("[epoch, train_loss,", "[train_loss, epoch,"),
        ("\ngates:\n", "\n\n# comment\ngates:\n"),
    ],
)
def test_form_of_the_file_is_no_change(before: str, after: str) -> None:
    """Descriptions, order, comments and the version itself do not count."""
    assert before in DEFAULT
    assert kinds(DEFAULT, DEFAULT.replace(before, after)) == []


def test_threshold_of_something_else_is_both() -> None:
    """The old one is gone, and a new one is there; its bounds cannot be compared."""
    assert kinds(CHECK, CHECK.replace("stat: max", "stat: mean")) == ["weaker", "tighter"]


def test_training_from_scratch_raises_the_limit_of_the_first_epoch() -> None:
    """A contract that begins to mention it is weaker there, whatever else it adds."""
    row = "  from_scratch: {regime: from_scratch, lr_max: 3e-4, warmup_steps: 1000, "
    row += "target_val_loss: 3.0}\n"
    without = DEFAULT.replace(row, "").replace(", from_scratch: 2*ln(vocab_size)", "")
    changes = diff_contracts(contract(without), contract(DEFAULT))
    assert [(change.rule, change.kind) for change in changes] == [
        ("from_scratch", "tighter"),
        ("epoch_zero_cap", "weaker"),
    ]


def test_change_tells_both_values() -> None:
    """A reader sees what was and what is."""
    new = contract(DEFAULT.replace("patience_epochs: 2", "patience_epochs: 5"))
    assert diff_contracts(default_contract(), new) == (
        Change(rule="patience_epochs", kind="weaker", message="2 became 5"),
    )


@pytest.mark.parametrize(
    ("before", "after", "bump"),
    [
        ("patience_epochs: 2", "patience_epochs: 3", "major"),
        ("patience_epochs: 2", "patience_epochs: 1", "minor"),
        ("rule: Non-divergence", "rule: No divergence", "patch"),
        ("version: 1.0.0", "version: 9.0.0", "none"),
    ],
)
def test_version_must_rise_by_the_largest_change(before: str, after: str, bump: str) -> None:
    """Weaker asks for a major version, tighter for a minor, anything else for a patch."""
    new = contract(DEFAULT.replace(before, after))
    assert version_bump(default_contract(), new) == bump


def test_version_rises_by_the_weakest_of_several_changes() -> None:
    """One weaker rule among tighter ones decides."""
    text = DEFAULT.replace("patience_epochs: 2", "patience_epochs: 1").replace("5e-5", "9e-5")
    assert version_bump(default_contract(), contract(text)) == "major"


@functools.cache
def applied(chosen: tuple[int, ...]) -> Contract:
    """Return the default contract with some of the weakenings."""
    text = DEFAULT
    for index in chosen:
        text = text.replace(*WEAKENINGS[index])
    return contract(text)


subsets = st.lists(st.integers(0, len(WEAKENINGS) - 1), unique=True).map(tuple)


@given(chosen=subsets)
def test_contract_does_not_differ_from_itself(chosen: tuple[int, ...]) -> None:
    """There is nothing between equal contracts."""
    assert diff_contracts(applied(chosen), applied(chosen)) == ()


@given(chosen=subsets)
def test_weaker_is_never_called_tighter(chosen: tuple[int, ...]) -> None:
    """Any number of weakenings at once are weaker, each of them."""
    found = kinds(default_contract(), applied(chosen))
    assert set(found) <= {"weaker"}
    assert bool(found) == bool(chosen)


@settings(max_examples=50)
@given(one=subsets, other=subsets)
def test_way_back_is_the_opposite(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    """What is weaker in one direction is tighter in the other."""
    flipped = {"weaker": "tighter", "tighter": "weaker", "neutral": "neutral"}
    there = [(change.rule, change.kind) for change in diff_contracts(applied(one), applied(other))]
    back = diff_contracts(applied(other), applied(one))
    assert sorted(there) == sorted((change.rule, flipped[change.kind]) for change in back)


def test_every_field_of_a_contract_is_compared_or_is_no_rule() -> None:
    """A field that is added to contracts must be added to the comparison, too."""
    no_rules = {"version", "findings", "text", "path"}
    changed: dict[str, Any] = {
        "contract_id": "C-MINE", "kind": "library", "family": "D", "gates": (), "required": (),
        "sampling_period_steps": 2, "checkpoint_template": None, "metadata_template": None,
        "metadata_fields": (), "convergence": contract(OPEN).convergence,
        "hyperparameter_defaults": {}, "knows_from_scratch": False,
        "suppressions": contract(SUPPRESS).suppressions,
    }  # fmt: skip
    names = {field.name for field in dataclasses.fields(Contract)}
    assert names == no_rules | set(changed)
    others = (dataclasses.replace(default_contract(), **{k: v}) for k, v in changed.items())
    assert all(diff_contracts(default_contract(), other) for other in others)


@pytest.mark.parametrize(
    ("one", "other"), list(itertools.permutations([OPEN, CHECK, SUPPRESS, DEFAULT], 2))
)
def test_contracts_of_all_kinds_can_be_compared(one: str, other: str) -> None:
    """No pair of contracts is an error, and every change has a message."""
    assert all(change.message for change in diff_contracts(contract(one), contract(other)))
