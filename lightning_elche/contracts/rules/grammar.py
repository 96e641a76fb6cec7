"""Texts of the rules for contract files."""

from __future__ import annotations

from lightning_elche.contracts.grammar.vocabulary import SEVERITIES
from lightning_elche.contracts.rules.rule import Rule
from lightning_elche.contracts.verdicts import Severity

__all__ = ["GRAMMAR_RULES"]


def _rule(id_: str, title: str, rule: str, remedy: str) -> Rule:
    return Rule(
        id=id_,
        title=title,
        rule=rule,
        evidence="the contract file",
        remedy=remedy,
        severity=SEVERITIES.get(id_, Severity.ERROR),
    )


GRAMMAR_RULES = (
    _rule(
        "CT-READ",
        "The file cannot be read",
        "What a command is given exists and may be read; exit code 3 otherwise.",
        "Correct the path or its permissions.",
    ),
    _rule(
        "CT-YAML",
        "The file is not plain YAML",
        "One document of YAML 1.2 in UTF-8, without duplicate keys, tags, merge keys or recursive "
        "anchors; at most 4 MiB, 100 levels and 200,000 nodes.",
        "Correct the place that is named; write values out instead of merging them.",
    ),
    _rule(
        "CT-SCHEMA",
        "A key is missing, unknown, or has a wrong value",
        "The file follows the JSON Schema of its dialect.",
        "Compare with `elche contract schema` and `elche contract new`.",
    ),
    _rule(
        "CT-NONFINITE",
        "A number is not finite",
        "No number is NaN, infinite or too large for a float.",
        "Write a finite limit, or leave the limit out.",
    ),
    _rule(
        "CT-TEMPLATE",
        "A path template is not usable",
        "A template begins with `{run_dir}/`, has one `{epoch}` or `{epoch:0Nd}` and no `..`.",
        'Write it like "{run_dir}/ckpt/epoch-{epoch:03d}.ckpt".',
    ),
    _rule(
        "CT-DUPLICATE",
        "Two gates have one id",
        "Every gate has an id of its own.",
        "Rename one, or remove it.",
    ),
    _rule(
        "CT-EXPIRED",
        "A suppression has expired",
        "The last day of an entry in `suppress` is not over.",
        "Solve what it hides and remove it, or set a later day and say why.",
    ),
    _rule(
        "CT-NEARMISS",
        "An unknown key looks like a known one",
        "No unknown key is within two letters of a known one.",
        "Correct the spelling; otherwise the key would be ignored.",
    ),
    _rule(
        "CT-STATUS",
        "The status is not known",
        "`status` has one of the known values.",
        "Use one that the message lists; it decides nothing.",
    ),
    _rule(
        "CT-KIND",
        "The kind is not known",
        "`metadata.kind` has one of the known values.",
        "Use one that the message lists, such as training-loop.",
    ),
    _rule(
        "CT-TOPKIND",
        "`kind` stands in the wrong place",
        "`kind` is a key of `metadata`; at top level it is ignored.",
        "Move it into `metadata`.",
    ),
    _rule(
        "CT-VERDICT",
        "A claimed verdict is not known",
        "`verdict` of a gate has one of the known values.",
        "Remove it: verdicts in files are never believed.",
    ),
    _rule(
        "CT-GATEKEY",
        "A gate has an unknown key",
        "The keys of a gate are those of the schema.",
        "Correct the spelling, or begin keys of your own with `x-`.",
    ),
    _rule(
        "CT-GATEID",
        "Nothing checks a gate of this id",
        "A gate is built in, or has a `check` of its own.",
        "Give it a `check`; otherwise its verdict is always INDETERMINATE.",
    ),
    _rule(
        "CT-VERSION",
        "Two versions are given",
        "`version` at top level equals `metadata.version`.",
        "Keep `metadata.version` only.",
    ),
    _rule(
        "CT-NODIVERGENCE",
        "A training loop may diverge",
        "A contract of a training loop declares GATE-TRAIN-005.",
        "Add the gate: without it, a run that diverges is not stopped.",
    ),
    _rule(
        "CT-NOGATES",
        "There is nothing to run",
        "A contract that runs are judged by has gates.",
        "Add `gates`, or keep the file as documentation.",
    ),
    _rule(
        "CT-CLAIM",
        "A claim is not believed",
        "`verdict` and `evidence_discharged_by` are claims; only files of a run are evidence.",
        "Let `elche contract check RUN_DIR` tell the verdict.",
    ),
)
