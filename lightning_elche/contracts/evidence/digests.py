"""Digests that are none: made up from the configuration, of nothing, or of another epoch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

from lightning_elche.contracts.evidence.contradiction import contradiction
from lightning_elche.contracts.records import EpochRecord
from lightning_elche.contracts.verdicts import Finding

__all__ = ["repeated_digests", "standin_digests"]

STANDIN_TAG = b"aprender-train:pretrain:optstate:v1:"
OF_NOTHING = hashlib.sha256().hexdigest()
USUAL_SEEDS = range(4096)
U64_END = 1 << 64
FIELD = "optimizer_state_sha"


def standin_digests(
    epochs: Sequence[EpochRecord], *, seed: int | None, paths: Mapping[int, str]
) -> tuple[Finding, ...]:
    """Find digests that can be made without an optimizer.

    Args:
        epochs: The epochs.
        seed: That of the run, tried before the usual ones.
        paths: Where their metadata lie.
    """
    seeds = USUAL_SEEDS if seed is None else (seed, *USUAL_SEEDS)
    reasons = ((epoch, _standin(epoch, seeds)) for epoch in epochs)
    return tuple(
        contradiction(
            "EV-DIGEST-STANDIN",
            f"{FIELD} of epoch {epoch.epoch} is {reason}",
            path=paths[epoch.epoch],
            field=FIELD,
        )
        for epoch, reason in reasons
        if reason is not None
    )


def repeated_digests(
    epochs: Sequence[EpochRecord], *, paths: Mapping[int, str]
) -> tuple[Finding, ...]:
    """Find digests of an earlier epoch, although the losses have changed since.

    An optimizer without any state, such as plain SGD, has the same digest forever.
    """
    first: dict[str, EpochRecord] = {}
    found = []
    for epoch in epochs:
        before = first.setdefault(epoch.optimizer_state_sha, epoch)
        if epoch.optimizer_state_sha and _has_moved_on(before, epoch):
            message = f"{FIELD} of epoch {epoch.epoch} is that of epoch {before.epoch}"
            found.append(
                contradiction("EV-DIGEST-REPEATED", message, path=paths[epoch.epoch], field=FIELD)
            )
    return tuple(found)


def _has_moved_on(before: EpochRecord, epoch: EpochRecord) -> bool:
    has_state = epoch.optimizer_state_bytes != 0
    losses = (epoch.train_loss, epoch.val_loss)
    return (
        has_state and epoch.epoch != before.epoch and losses != (before.train_loss, before.val_loss)
    )


def _standin(epoch: EpochRecord, seeds: Iterable[int]) -> str | None:
    digest = epoch.optimizer_state_sha
    if digest == OF_NOTHING:
        return "the digest of nothing"
    if len(set(digest)) == 1:
        return "one digit repeated"
    if not 0 <= epoch.tokens_seen < U64_END or not 0 <= epoch.epoch < U64_END:
        return None
    made_of = _made_of(epoch)
    for seed in seeds:
        if digest == _formula(seed, made_of):
            return f"made from seed {seed}, epoch and tokens_seen, not from an optimizer"
    return None


def _made_of(epoch: EpochRecord) -> bytes:
    return b"".join(number.to_bytes(8, "little") for number in (epoch.epoch, epoch.tokens_seen))


def _formula(seed: int, made_of: bytes) -> str:
    own = (seed % U64_END).to_bytes(8, "little")
    return hashlib.sha256(STANDIN_TAG + own + made_of).hexdigest()
