"""Metadata of epochs that contradict themselves or each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from lightning_elche.contracts.evidence.contradiction import contradiction
from lightning_elche.contracts.evidence.digests import repeated_digests, standin_digests
from lightning_elche.contracts.float32 import perplexity, to_float32
from lightning_elche.contracts.records import EpochRecord
from lightning_elche.contracts.verdicts import Finding

__all__ = ["checkpoints_after_abort", "epoch_contradictions"]

PPL_TOLERANCE = 1e-5
NOTABLE_LOSS = 0.5
LEAST_VAL_SHARE = 0.1


def epoch_contradictions(
    epochs: Sequence[EpochRecord], *, seed: int | None, paths: Mapping[int, str]
) -> tuple[Finding, ...]:
    """Find what is wrong in the metadata of epochs without a look at the step logs.

    Args:
        epochs: The epochs in order. What a file does not say is NaN, -1 or empty, and not judged.
        seed: That of the run.
        paths: Where the metadata of each epoch lie.
    """
    return (
        *standin_digests(epochs, seed=seed, paths=paths),
        *repeated_digests(epochs, paths=paths),
        *_perplexities(epochs, paths),
        *_tokens_order(epochs, paths),
        *_signs(epochs, paths),
        *_low_val_losses(epochs, paths),
    )


def checkpoints_after_abort(
    aborted_epoch: int | None, *, paths: Mapping[int, str]
) -> tuple[Finding, ...]:
    """Find checkpoints of the aborted epoch, or of later ones.

    Args:
        aborted_epoch: `None` if no abort happened before a checkpoint.
        paths: Where the checkpoint of each epoch lies.
    """
    if aborted_epoch is None:
        return ()
    return tuple(
        contradiction(
            "EV-CKPT-AFTER-ABORT",
            f"epoch {epoch} has a checkpoint, but the run was aborted in epoch {aborted_epoch}",
            path=path,
        )
        for epoch, path in sorted(paths.items())
        if epoch >= aborted_epoch
    )


def _perplexities(epochs: Sequence[EpochRecord], paths: Mapping[int, str]) -> Iterator[Finding]:
    for epoch in epochs:
        for field, loss, ppl in (
            ("train_ppl", epoch.train_loss, epoch.train_ppl),
            ("val_ppl", epoch.val_loss, epoch.val_ppl),
        ):
            expected = perplexity(to_float32(loss))
            if abs(expected - ppl) > PPL_TOLERANCE * ppl:
                message = (
                    f"{field} of epoch {epoch.epoch} is {ppl:.9g}, exp(loss) is {expected:.9g}"
                )
                yield contradiction("EV-PPL", message, path=paths[epoch.epoch], field=field)


def _tokens_order(epochs: Sequence[EpochRecord], paths: Mapping[int, str]) -> Iterator[Finding]:
    known = [epoch for epoch in epochs if epoch.tokens_seen >= 0]
    for before, epoch in pairwise(known):
        if epoch.tokens_seen <= before.tokens_seen:
            yield contradiction(
                "EV-TOKENS-ORDER",
                f"tokens_seen of epoch {epoch.epoch} is {epoch.tokens_seen}, not more than "
                f"{before.tokens_seen} of epoch {before.epoch}",
                path=paths[epoch.epoch],
                field="tokens_seen",
            )


def _signs(epochs: Sequence[EpochRecord], paths: Mapping[int, str]) -> Iterator[Finding]:
    for epoch in epochs:
        if epoch.grad_norm_max < 0.0:
            message = f"grad_norm_max of epoch {epoch.epoch} is {epoch.grad_norm_max:.9g}"
            yield contradiction("EV-SIGN", message, path=paths[epoch.epoch], field="grad_norm_max")


def _low_val_losses(epochs: Sequence[EpochRecord], paths: Mapping[int, str]) -> Iterator[Finding]:
    for epoch in epochs:
        if epoch.train_loss > NOTABLE_LOSS and epoch.val_loss < LEAST_VAL_SHARE * epoch.train_loss:
            yield contradiction(
                "EV-VAL-LOW",
                f"val_loss of epoch {epoch.epoch} is {epoch.val_loss:.9g}, less than a tenth of "
                f"train_loss {epoch.train_loss:.9g}",
                path=paths[epoch.epoch],
                field="val_loss",
            )
