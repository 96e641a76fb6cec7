"""Texts of the rules that find evidence contradicting itself."""

from __future__ import annotations

from lightning_elche.contracts.rules.rule import Rule
from lightning_elche.contracts.verdicts import Severity

__all__ = ["EVIDENCE_RULES"]

METADATA = "metadata files of the epochs"
STEPS_AND_METADATA = "step logs and metadata files"
SAVE_AGAIN = "Let GateTrain write checkpoints and metadata; discard the epochs in question."
MEASURE = "Log what was measured in this very run, with one monotonic clock."

EVIDENCE_RULES = (
    Rule(
        id="EV-DIGEST-STANDIN",
        title="A digest stands in for another",
        rule="optimizer_state_sha is no digest of the configuration (seed, epoch, tokens), of "
        "nothing, and not one digit repeated.",
        evidence=f"{METADATA}, seed in run.json",
        remedy=SAVE_AGAIN,
    ),
    Rule(
        id="EV-DIGEST-REPEATED",
        title="Two epochs share their optimizer states",
        rule="Epochs of different losses have different optimizer_state_sha, unless the optimizer "
        "has no state.",
        evidence=METADATA,
        remedy=SAVE_AGAIN,
    ),
    Rule(
        id="EV-PPL",
        title="Perplexity and loss disagree",
        rule="A perplexity is exp(loss), within 1e-5 of it.",
        evidence=METADATA,
        remedy="Compute perplexities from the mean loss of the epoch.",
    ),
    Rule(
        id="EV-TOKENS-ORDER",
        title="Tokens do not increase",
        rule="tokens_seen rises from epoch to epoch.",
        evidence=METADATA,
        remedy="Count the tokens of the whole run, also over a resume.",
    ),
    Rule(
        id="EV-SIGN",
        title="A value has an impossible sign",
        rule="Gradient norms and learning rates are not negative.",
        evidence="step logs",
        remedy=MEASURE,
    ),
    Rule(
        id="EV-CKPT-AFTER-ABORT",
        title="An aborted epoch has a checkpoint",
        rule="The epoch in which a run was aborted leaves no checkpoint.",
        evidence="checkpoints, ABORT events",
        remedy="Delete the checkpoint: its weights are those that broke the rule. Let GateTrain "
        "save, and no callback on an exception.",
    ),
    Rule(
        id="EV-TRAIN-LOSS",
        title="The epoch's training loss is not that of its steps",
        rule="train_loss of an epoch is the mean of its steps, or of the last 100, within 1e-4.",
        evidence=STEPS_AND_METADATA,
        remedy="Write the mean over all steps of the epoch.",
        severity=Severity.WARNING,
    ),
    Rule(
        id="EV-TOKENS-CLOCK",
        title="Throughput and step time disagree",
        rule="tokens_per_sec * wall_ms / 1000 is the number of tokens in a step, within 1 %.",
        evidence=STEPS_AND_METADATA,
        remedy=MEASURE,
        severity=Severity.WARNING,
    ),
    Rule(
        id="EV-WALL",
        title="Steps took longer than their epoch",
        rule="The wall_ms of an epoch add up to at most 1.05 times its wall_seconds.",
        evidence=STEPS_AND_METADATA,
        remedy=MEASURE,
        severity=Severity.WARNING,
    ),
    Rule(
        id="EV-VAL-LOW",
        title="Validation loss is far below training loss",
        rule="With a training loss above 0.5 the validation loss is at least a tenth of it.",
        evidence=METADATA,
        remedy="Look for validation data that leaked into training, and for a validation loss "
        "that is summed or averaged in another way.",
        severity=Severity.WARNING,
    ),
    Rule(
        id="EV-UTIL-NOISE",
        title="GPU utilization looks invented",
        rule="Over at least 50 records utilization is not spread evenly around 50 %, and over at "
        "least 100 it is not one non-zero value.",
        evidence="step logs",
        remedy="Read it from the driver, or log 0.0 where it cannot be read.",
        severity=Severity.WARNING,
    ),
    Rule(
        id="EV-UTIL-NO-GPU",
        title="A GPU is utilized on a CPU",
        rule="On a CPU gpu_util_pct is 0.",
        evidence="step logs, device in run.json",
        remedy="Log 0.0 without a GPU.",
        severity=Severity.WARNING,
    ),
    Rule(
        id="EV-SELF-COMPARE",
        title="A run was compared with itself",
        rule="Two runs that are compared differ in their run ids and in their clock values.",
        evidence="run.json and train.jsonl of both runs",
        remedy="Train a second time, into a folder of its own.",
    ),
    Rule(
        id="EV-CONTRACT-DRIFT",
        title="The run was made under another contract",
        rule="The contract of --contract is the one that the run was trained under.",
        evidence="contract.yaml in the folder of the run",
        remedy="See what changed with `elche contract diff RUN_DIR/contract.yaml FILE`.",
        severity=Severity.WARNING,
    ),
)
