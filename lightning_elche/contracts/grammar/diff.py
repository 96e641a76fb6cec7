"""What a new version of a contract changes: where it asks for less, and where for more."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator

from lightning_elche.contracts.grammar.changes import (
    NEUTRAL,
    TIGHTER,
    WEAKER,
    Change,
    became,
    lowered,
    raised,
    removed,
)
from lightning_elche.contracts.model import (
    Contract,
    Convergence,
    Gate,
    Hyperparameters,
    Suppression,
    ThresholdCheck,
)

__all__ = ["Change", "diff_contracts", "version_bump"]

BUMPS = {WEAKER: "major", TIGHTER: "minor", NEUTRAL: "patch"}


def diff_contracts(old: Contract, new: Contract) -> tuple[Change, ...]:
    """Return what `new` changes; nothing if both ask for the same.

    Weaker is whatever lets a run pass that `old` would not have let pass.

    Args:
        old: The contract in force.
        new: What is to replace it.
    """
    return tuple(
        itertools.chain(
            _words(old, new),
            _fields(old, new),
            raised("sampling_period_steps", old.sampling_period_steps, new.sampling_period_steps),
            _convergence(old.convergence, new.convergence),
            _rows(old, new),
            _first_epoch(old, new),
            _gates(old, new),
            _suppressions(old, new),
        )
    )


def version_bump(old: Contract, new: Contract) -> str:
    """Return which part of the version must rise: "major", "minor", "patch" or "none".

    A weaker contract asks for a major version, because whoever relies on its verdicts must look at
    it; a tighter one for a minor, any other change for a patch.

    Args:
        old: The contract in force.
        new: What is to replace it.
    """
    kinds = {change.kind for change in diff_contracts(old, new)}
    return next((bump for kind, bump in BUMPS.items() if kind in kinds), "none")


def _words(old: Contract, new: Contract) -> Iterator[Change]:
    """Compare what no gate reads, and where files lie."""
    for name in ("contract_id", "kind", "family", "checkpoint_template", "metadata_template"):
        before, after = getattr(old, name), getattr(new, name)
        if before != after:
            message = f"{_text(before)} became {_text(after)}"
            yield Change(rule=name, kind=NEUTRAL, message=message)


def _text(value: object) -> str:
    text = getattr(value, "text", value)
    return "nothing" if text is None else repr(text)


def _fields(old: Contract, new: Contract) -> Iterator[Change]:
    names = [tuple(field.name for field in contract.required) for contract in (old, new)]
    yield from removed("field", *names)
    yield from removed("metadata field", old.metadata_fields, new.metadata_fields)
    yield from _types(old, new)


def _types(old: Contract, new: Contract) -> Iterator[Change]:
    """Compare the types of fields; an integer is also a float, so that "u64" asks for more."""
    before = {field.name: field.type for field in old.required}
    for field in new.required:
        was = before.get(field.name, field.type)
        if was != field.type:
            kind = TIGHTER if field.type == "u64" else WEAKER
            yield Change(rule=field.name, kind=kind, message=f"type {was} became {field.type}")


def _convergence(old: Convergence, new: Convergence) -> Iterator[Change]:
    yield from raised("target_val_loss", old.target_val_loss, new.target_val_loss)
    yield from raised("patience_epochs", old.patience_epochs, new.patience_epochs)
    name = "min_epochs_before_early_stop"
    yield from raised(name, old.min_epochs_before_early_stop, new.min_epochs_before_early_stop)
    was, now = old.early_stop_on_patience_exhausted, new.early_stop_on_patience_exhausted
    if was != now:
        kind = TIGHTER if now else WEAKER
        yield Change(rule="early_stop_on_patience_exhausted", kind=kind, message=became(was, now))


def _rows(old: Contract, new: Contract) -> Iterator[Change]:
    before, after = old.hyperparameter_defaults, new.hyperparameter_defaults
    yield from removed("hyperparameter row", tuple(before), tuple(after))
    for mode in before:
        if mode in after:
            yield from _row(mode, before[mode], after[mode])


def _row(mode: str, old: Hyperparameters, new: Hyperparameters) -> Iterator[Change]:
    yield from raised(f"{mode}.lr_max", old.lr_max, new.lr_max)
    yield from raised(f"{mode}.target_val_loss", old.target_val_loss, new.target_val_loss)
    if old.warmup_steps != new.warmup_steps:
        message = became(old.warmup_steps, new.warmup_steps)
        yield Change(rule=f"{mode}.warmup_steps", kind=NEUTRAL, message=message)


def _first_epoch(old: Contract, new: Contract) -> Iterator[Change]:
    """Compare the limit of the first epoch, which training from scratch raises."""
    if old.knows_from_scratch != new.knows_from_scratch:
        is_raised = new.knows_from_scratch
        message = f"from_scratch is {'' if is_raised else 'not '}mentioned now"
        kind = WEAKER if is_raised else TIGHTER
        yield Change(rule="epoch_zero_cap", kind=kind, message=message)


def _gates(old: Contract, new: Contract) -> Iterator[Change]:
    before = {gate.id: gate for gate in old.gates}
    after = {gate.id: gate for gate in new.gates}
    yield from removed("gate", tuple(before), tuple(after))
    for name, gate in before.items():
        if name in after:
            yield from _gate(gate, after[name])


def _gate(old: Gate, new: Gate) -> Iterator[Change]:
    if old.ship_blocking != new.ship_blocking:
        kind = TIGHTER if new.ship_blocking else WEAKER
        message = f"ship_blocking {became(old.ship_blocking, new.ship_blocking)}"
        yield Change(rule=old.id, kind=kind, message=message)
    for name in ("rule", "binds_to"):
        if getattr(old, name) != getattr(new, name):
            yield Change(rule=old.id, kind=NEUTRAL, message=f"`{name}` has another text")
    yield from _check(old.id, old.check, new.check)


def _check(gate: str, old: ThresholdCheck | None, new: ThresholdCheck | None) -> Iterator[Change]:
    """Compare thresholds; one of something else is no longer the old one, but a new one."""
    if old is not None and new is not None and _subject(old) == _subject(new):
        yield from lowered(gate, old.min, new.min)
        yield from raised(gate, old.max, new.max)
        return
    if old is not None:
        yield Change(rule=gate, kind=WEAKER, message=f"{_subject(old)} is not checked now")
    if new is not None:
        yield Change(rule=gate, kind=TIGHTER, message=f"{_subject(new)} is checked now")


def _subject(check: ThresholdCheck) -> str:
    """Return what a threshold is about."""
    window = "all steps" if check.steps is None else f"steps {list(check.steps)}"
    where = window if check.epochs is None else f"epochs {list(check.epochs)}"
    return f"{check.stat} of {check.metric} over {where}"


def _suppressions(old: Contract, new: Contract) -> Iterator[Change]:
    """Compare what is silenced, and until when."""
    before, after = _last_days(old.suppressions), _last_days(new.suppressions)
    for rule in sorted({*before, *after}):
        was, now = before.get(rule, ""), after.get(rule, "")
        if was != now:
            kind = WEAKER if now > was else TIGHTER
            message = f"suppressed until {was or 'never'}, now until {now or 'never'}"
            yield Change(rule=rule, kind=kind, message=message)


def _last_days(suppressions: Collection[Suppression]) -> dict[str, str]:
    """Return the last day of each rule; days in ISO 8601 sort as text."""
    days: dict[str, str] = {}
    for one in suppressions:
        days[one.rule] = max(one.until, days.get(one.rule, ""))
    return days
