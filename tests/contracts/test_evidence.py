"""Metadata of epochs that contradict themselves or each other."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import pytest

from lightning_elche.contracts.evidence.epochs import checkpoints_after_abort, epoch_contradictions
from lightning_elche.contracts.float32 import FLOAT32_MAX
from lightning_elche.contracts.records import EpochRecord
from lightning_elche.contracts.verdicts import Finding, Severity
from tests.contracts.epochs import epoch_record

REPEATED = "ab" * 32


def found_in(epochs: Sequence[EpochRecord], *, seed: int | None = None) -> tuple[Finding, ...]:
    return epoch_contradictions(
        epochs, seed=seed, paths={one.epoch: f"{one.epoch}.json" for one in epochs}
    )


def rules_in(*epochs: EpochRecord) -> list[str]:
    return [one.rule for one in found_in(epochs)]


def standin(seed: int, epoch: int, tokens: int) -> str:
    """Return the digest that the pretraining loop which is checked for makes up."""
    numbers = b"".join(number.to_bytes(8, "little") for number in (seed, epoch, tokens))
    return hashlib.sha256(b"aprender-train:pretrain:optstate:v1:" + numbers).hexdigest()


def test_healthy_epochs_are_not_contradicted() -> None:
    """Falling losses, new digests and growing tokens raise no finding."""
    assert rules_in(*(epoch_record(epoch) for epoch in range(4))) == []


@pytest.mark.parametrize(
    "digest",
    [
        hashlib.sha256().hexdigest(),
        "0" * 64,
        "f" * 64,
        standin(0, 1, 8192),
        standin(4095, 1, 8192),
    ],
)
def test_digest_is_a_standin_if_it_needs_no_optimizer(digest: str) -> None:
    """The digest of nothing, of the configuration and of a repeated digit are found."""
    assert rules_in(epoch_record(1, optimizer_state_sha=digest)) == ["EV-DIGEST-STANDIN"]


@pytest.mark.parametrize(
    "digest",
    ["0" * 63 + "1", standin(4096, 1, 8192), standin(7, 1, 8191), standin(7, 2, 8192)],
)
def test_digest_is_no_standin_if_the_configuration_is_another(digest: str) -> None:
    """Beyond the usual seeds, and for other tokens and epochs, nothing is claimed."""
    assert rules_in(epoch_record(1, optimizer_state_sha=digest)) == []


def test_digest_is_a_standin_for_the_seed_of_the_run() -> None:
    """The run's own seed is tried, however large."""
    epoch = epoch_record(1, optimizer_state_sha=standin(123_456_789, 1, 8192))
    assert [one.rule for one in found_in([epoch], seed=123_456_789)] == ["EV-DIGEST-STANDIN"]


@pytest.mark.parametrize(
    ("changed", "rules"),
    [
        ({}, ["EV-DIGEST-REPEATED"]),
        ({"optimizer_state_bytes": None}, ["EV-DIGEST-REPEATED"]),
        ({"optimizer_state_bytes": 0}, []),  # plain SGD
        ({"train_loss": 3.0, "val_loss": 3.25}, []),  # nothing was learned
        ({"train_loss": 3.0}, ["EV-DIGEST-REPEATED"]),
    ],
)
def test_digest_is_repeated_if_another_epoch_with_other_losses_has_it(
    changed: dict[str, Any], rules: list[str]
) -> None:
    """An optimizer with state cannot be where it was when the losses were others."""
    first = epoch_record(0, optimizer_state_sha=REPEATED)
    assert rules_in(first, epoch_record(1, optimizer_state_sha=REPEATED, **changed)) == rules


@pytest.mark.parametrize("field", ["train_ppl", "val_ppl"])
@pytest.mark.parametrize(
    ("ratio", "rules"),
    [(1.0000095, []), (1.000011, ["EV-PPL"]), (0.0, ["EV-PPL"]), (-1.0, ["EV-PPL"])],
)
def test_perplexity_is_compared_to_the_loss(field: str, ratio: float, rules: list[str]) -> None:
    """A perplexity may be off by 1e-5 of itself."""
    sound = epoch_record(0)
    assert rules_in(epoch_record(0, **{field: getattr(sound, field) * ratio})) == rules


def test_perplexity_of_a_large_loss_is_the_largest_number() -> None:
    """Beyond the range of 32-bit floats the perplexity is capped, and that is no contradiction."""
    assert rules_in(epoch_record(0, train_loss=99.0, train_ppl=FLOAT32_MAX, val_loss=80.0)) == []


@pytest.mark.parametrize(("tokens", "rules"), [(4097, []), (4096, ["EV-TOKENS-ORDER"])])
def test_tokens_have_to_rise(tokens: int, rules: list[str]) -> None:
    """An epoch that adds no token contradicts itself."""
    assert rules_in(epoch_record(0), epoch_record(1, tokens_seen=tokens)) == rules


@pytest.mark.parametrize(("norm", "rules"), [(0.0, []), (-1e-9, ["EV-SIGN"])])
def test_norm_is_not_negative(norm: float, rules: list[str]) -> None:
    """A gradient norm may be 0, and not less."""
    assert rules_in(epoch_record(0, grad_norm_max=norm)) == rules


@pytest.mark.parametrize(
    ("train_loss", "val_loss", "rules"),
    [
        (0.51, 0.05, ["EV-VAL-LOW"]),
        (0.51, 0.0511, []),
        (0.5, 0.001, []),
    ],
)
def test_validation_loss_is_suspicious_far_below_the_training_loss(
    train_loss: float, val_loss: float, rules: list[str]
) -> None:
    """Less than a tenth is, unless the training loss is small itself."""
    assert rules_in(epoch_record(0, train_loss=train_loss, val_loss=val_loss)) == rules


def test_low_validation_loss_is_a_warning_with_a_place() -> None:
    """A finding says in which file and field it was found, and whether it is an error."""
    (finding,) = found_in([epoch_record(0, train_loss=1.0, val_loss=0.01)])
    assert finding.severity is Severity.WARNING
    assert finding.at is not None
    assert (finding.at.path, finding.at.pointer) == ("0.json", "/val_loss")


def test_what_a_file_does_not_say_is_not_judged() -> None:
    """Absent fields are no contradictions: that they are absent is told elsewhere."""
    unknown = {
        "train_loss": math.nan,
        "train_ppl": math.nan,
        "val_ppl": math.nan,
        "grad_norm_max": math.nan,
        "tokens_seen": -1,
        "optimizer_state_sha": "",
    }
    assert rules_in(*(epoch_record(epoch, **unknown) for epoch in range(3))) == []


@pytest.mark.parametrize(("aborted", "files"), [(None, []), (0, ["a", "b"]), (1, ["b"]), (2, [])])
def test_checkpoint_of_an_aborted_epoch_is_found(aborted: int | None, files: list[str]) -> None:
    """The aborted epoch and all later ones must have none."""
    found = checkpoints_after_abort(aborted, paths={0: "a", 1: "b"})
    assert [one.at.path for one in found if one.at is not None] == files
