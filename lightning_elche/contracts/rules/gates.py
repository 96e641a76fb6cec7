"""Texts of the gates."""

from __future__ import annotations

from lightning_elche.contracts.rules.rule import Rule
from lightning_elche.contracts.verdicts import Abort

__all__ = ["GATE_RULES"]

GATE_RULES = (
    Rule(
        id="GATE-TRAIN-001",
        title="Every step is logged",
        rule="The step log has records; each has the declared fields with their types, none of "
        "them null; steps are 0, k, 2k, ... with k the sampling period.",
        evidence="train.jsonl and train.rank{r}.jsonl; RUN_START and ABORT events",
        remedy="Let the training loop write all declared fields of every step, as GateTrain does; "
        "never edit or concatenate logs.",
        abort=Abort.METRIC_MISSING,
    ),
    Rule(
        id="GATE-TRAIN-002",
        title="Every epoch leaves its artifacts",
        rule="There are as many checkpoints and metadata files as completed epochs; metadata has "
        "its required fields and its own epoch number; the digest of the optimizer states is the "
        "one that the checkpoint gives; no evidence contradicts itself.",
        evidence="checkpoints and metadata files, run.json; the digest is recomputed, with torch, "
        "or without it from the files of PartitionCheckpoint",
        remedy="Free space and keep all checkpoints of the run; a checkpoint that does not match "
        "its metadata must not ship.",
        abort=Abort.ARTIFACT_WRITE_FAILED,
    ),
    Rule(
        id="GATE-TRAIN-003",
        title="The run has converged",
        rule="The validation loss of the last completed epoch is at most the target; the target "
        "is an override, else that of the mode, else that of `convergence`.",
        evidence="metadata files, status and hyperparameters in run.json",
        remedy="Train for more epochs or tune the learning rate; ship no model that missed its "
        "target.",
    ),
    Rule(
        id="GATE-TRAIN-004",
        title="Patience decides when to stop",
        rule="An epoch that is no new best (strictly smaller, against the best so far) is a miss; "
        "the run stops at the first epoch with more misses than `patience_epochs`, though not "
        "before `min_epochs_before_early_stop`.",
        evidence="validation losses of all epochs, status in run.json",
        remedy="Let GateTrain or GateSession.close_epoch decide; remove other early stopping.",
    ),
    Rule(
        id="GATE-TRAIN-005",
        title="Validation loss never doubles",
        rule="The validation loss is finite, not negative and at most 2.0 times that of the epoch "
        "before. In epoch 0 it is at most 10.0 in finetuning and 2 ln(vocabulary) from scratch.",
        evidence="validation losses of all epochs, ABORT events, status in run.json",
        remedy="Lower the learning rate or lengthen the warm-up, check the data of the epoch, and "
        "restart from the checkpoint before.",
        abort=Abort.DIVERGENCE,
    ),
    Rule(
        id="GATE-TRAIN-006",
        title="The run can be reproduced",
        rule="Steps 0 to 99 of two runs have equal steps and learning rates, and losses and "
        "gradient norms within 1e-6.",
        evidence="train.jsonl of both runs, seeds and run ids in run.json",
        remedy="Seed everything, use deterministic algorithms and the same data order, then run "
        "`elche contract compare RUN_A RUN_B`.",
    ),
    Rule(
        id="GATE-TRAIN-007",
        title="Numbers stay finite",
        rule="Training loss, gradient norm and learning rate of every step, and the validation "
        "loss of every epoch, are finite.",
        evidence="step logs, validation losses, ABORT events, status in run.json",
        remedy="Lower the learning rate, clip gradients, look for logarithms or divisions of zero; "
        "in 16 bits use bfloat16 or a loss scaler.",
        abort=Abort.NUMERICAL_INSTABILITY,
    ),
    Rule(
        id="GATE-TRAIN-008",
        title="Telemetry is possible",
        rule="Throughput is finite and not negative, utilization within 0 and 100 %, and the time "
        "of a step, if there is one, finite and not negative.",
        evidence="step logs, gpu_util_source in run.json",
        remedy="Measure with a monotonic clock; install nvidia-ml-py where a GPU has no readings.",
        abort=Abort.THROUGHPUT_OUT_OF_RANGE,
    ),
    Rule(
        id="GATE-TRAIN-009",
        title="Hyperparameters are those of the mode",
        rule="Hyperparameters that the user did not set are those of the mode's row in "
        "`hyperparameter_defaults`, the regime always is, and no logged learning rate is above "
        "`lr_max` by more than one in a million.",
        evidence="mode, hyperparameters and explicit names in run.json; learning rates in the log",
        remedy="Take the values from resolve_hyperparameters, or set them with `overrides`, which "
        "records them as explicit.",
    ),
    Rule(
        id="GATE-TRAIN-010",
        title="The run trained on real data",
        rule="The provenance is known; data are not synthetic, fast_dev_run is off and "
        "overfit_batches is 0.",
        evidence="provenance in run.json",
        remedy="Train again with the real data and without debugging options.",
    ),
    Rule(
        id="GATE-TRAIN-EXHAUST",
        title="No placeholder stands in for training",
        rule="No step has loss and gradient norm 1.0; no epoch has both at 1.0, the perplexity e "
        "and takes less than 1 s on a GPU or 10 s on a CPU; no epoch lacks planned batches without "
        "a CYCLE event that names its tokens.",
        evidence="step logs, metadata files, CYCLE and ABORT events, device and planned_batches in "
        "run.json",
        remedy="Give the loader enough data, or wrap it in lightning_elche.data.Cycle, which "
        "records that data are repeated.",
        abort=Abort.STREAM_EXHAUSTED,
    ),
)
