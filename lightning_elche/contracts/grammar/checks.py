"""What a contract says against the rules of contracts, beyond what a schema can tell."""

from __future__ import annotations

import datetime
import itertools
import re
from collections.abc import Callable, Iterator

from lightning_elche.contracts.grammar.families import (
    family_of,
    gate_entries,
    is_training,
    mapping_at,
)
from lightning_elche.contracts.grammar.gate_checks import (
    claims,
    gate_ids,
    missing_blocks,
    thresholds,
)
from lightning_elche.contracts.grammar.key_checks import near_misses, unknown_gate_keys
from lightning_elche.contracts.grammar.problem import Data, GrammarProblem, Steps
from lightning_elche.contracts.grammar.vocabulary import KINDS, SEVERITIES, STATUSES, VERDICTS
from lightning_elche.contracts.grammar.yamltree import Document
from lightning_elche.contracts.template import PathTemplate
from lightning_elche.contracts.verdicts import Finding

__all__ = ["grammar_findings"]

DAY = re.compile("[0-9]{4}-[0-9]{2}-[0-9]{2}")


def grammar_findings(document: Document, data: Data, *, today: datetime.date) -> Iterator[Finding]:
    """Yield the findings of all rules but those of YAML and of the schema.

    Args:
        document: The file, for places.
        data: Its value.
        today: The day by which suppressions may have expired.
    """
    problems = itertools.chain(*(check(data) for check in CHECKS), _suppressions(data, today=today))
    for problem in problems:
        at = document.locate(problem.steps, is_key=problem.is_key)
        severity = SEVERITIES[problem.rule]
        yield Finding(rule=problem.rule, severity=severity, message=problem.message, at=at)


def _templates(data: Data) -> Iterator[GrammarProblem]:
    if not is_training(data):
        return
    for block in ("checkpoint", "metadata_json"):
        template = mapping_at(data, "per_epoch_artifacts", block).get("path_template")
        if isinstance(template, str):
            try:
                PathTemplate.parse(template)
            except ValueError as err:
                steps = ("per_epoch_artifacts", block, "path_template")
                yield GrammarProblem(rule="CT-TEMPLATE", message=str(err), steps=steps)


def _words(data: Data) -> Iterator[GrammarProblem]:
    """Warn of statuses, kinds and verdicts that nobody knows."""
    places: list[tuple[Steps, Data, str, frozenset[str], str]] = [
        ((), data, "status", STATUSES, "CT-STATUS"),
        (("metadata",), mapping_at(data, "metadata"), "status", STATUSES, "CT-STATUS"),
        (("metadata",), mapping_at(data, "metadata"), "kind", KINDS, "CT-KIND"),
    ]
    gates = gate_entries(data)
    places += [(("gates", i), gate, "verdict", VERDICTS, "CT-VERDICT") for i, gate in gates]
    for steps, mapping, key, known, rule in places:
        word = mapping.get(key)
        if isinstance(word, str) and word.lower() not in known:
            message = f"`{key}` {word!r} is not known"
            yield GrammarProblem(rule=rule, message=message, steps=(*steps, key))


def _top_level(data: Data) -> Iterator[GrammarProblem]:
    """Compare what the top says with the metadata."""
    if "kind" in data:
        message = "`kind` at top level is ignored; write `metadata.kind`"
        yield GrammarProblem(rule="CT-TOPKIND", message=message, steps=("kind",), is_key=True)
    version, own = data.get("version"), mapping_at(data, "metadata").get("version")
    if version is not None and own is not None and version != own:
        message = f"`version` {version!r} is not `metadata.version` {own!r}, which counts"
        yield GrammarProblem(rule="CT-VERSION", message=message, steps=("version",))


def _coverage(data: Data) -> Iterator[GrammarProblem]:
    """Tell what the contract does not check."""
    gates = gate_entries(data)
    if not gates:
        message = "the contract has no gates: it is valid, but there is nothing to run"
        yield GrammarProblem(rule="CT-NOGATES", message=message)
    elif family_of(data) == "B" and all(gate["id"] != "GATE-TRAIN-005" for _, gate in gates):
        message = "no gate GATE-TRAIN-005: a run that diverges is not stopped"
        yield GrammarProblem(rule="CT-NODIVERGENCE", message=message, steps=("gates",), is_key=True)


def _suppressions(data: Data, *, today: datetime.date) -> Iterator[GrammarProblem]:
    entries = data.get("suppress")
    for i, entry in enumerate(entries if isinstance(entries, list) else ()):
        until = entry.get("until") if isinstance(entry, dict) else None
        if not isinstance(until, str) or DAY.fullmatch(until) is None:
            continue  # an error by the schema
        steps = ("suppress", i, "until")
        try:
            is_over = datetime.date.fromisoformat(until) < today
        except ValueError:
            message = f'`until` must be a day such as "2026-12-31", got {until!r}'
            yield GrammarProblem(rule="CT-SCHEMA", message=message, steps=steps)
            continue
        if is_over:
            message = f"`until` {until} is over: remove the entry, or extend it with a reason"
            yield GrammarProblem(rule="CT-EXPIRED", message=message, steps=steps)


CHECKS: tuple[Callable[[Data], Iterator[GrammarProblem]], ...] = (
    near_misses,
    unknown_gate_keys,
    gate_ids,
    missing_blocks,
    thresholds,
    claims,
    _templates,
    _words,
    _top_level,
    _coverage,
)
