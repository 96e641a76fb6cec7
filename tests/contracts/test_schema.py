"""JSON schemas and what is said where a value does not fit."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jsonschema import Draft7Validator

from lightning_elche.contracts.grammar.loader import DEFAULT_TEXT
from lightning_elche.contracts.grammar.schema import (
    SCHEMAS,
    SchemaProblem,
    schema_problems,
    schema_text,
)
from lightning_elche.contracts.grammar.yamltree import read_document

EPOCH: dict[str, Any] = {
    "epoch": 0,
    "train_loss": 2.5,
    "val_loss": 2.25,
    "train_ppl": 12.182494,
    "val_ppl": 9.487736,
    "optimizer_state_sha": "0123456789abcdef" * 4,
    "wall_seconds": 1.5,
    "tokens_seen": 4096,
    "grad_norm_max": 3.0,
}
RUN: dict[str, Any] = {
    "schema": "elche/run-v1",
    "run_id": "r",
    "attempt": 0,
    "status": "RUNNING",
    "epochs_completed": 0,
    "steps": 0,
    "contract": {"path": None, "id": "C-X", "version": "1.0.0", "sha256": "0" * 64},
    "mode": "finetune",
    "device": "cpu",
    "world_size": 1,
    "logged_ranks": [0],
}


def default() -> Any:
    """Return the values of the default contract."""
    return read_document(DEFAULT_TEXT, path="c.yaml").value


def messages(value: object, schema: str = "gate-train-v1") -> list[str]:
    """Return what is wrong with `value`."""
    return [problem.message for problem in schema_problems(value, schema=schema)]


@pytest.mark.parametrize("name", SCHEMAS)
def test_schema_is_one_of_draft_7(name: str) -> None:
    """Every schema is valid and says which draft it is."""
    schema = json.loads(schema_text(name))
    Draft7Validator.check_schema(schema)
    assert schema["$schema"] == "http://json-schema.org/draft-07/schema#"


def test_unknown_schema_is_refused_by_name() -> None:
    """A name that could be a path is no schema."""
    with pytest.raises(ValueError, match="`name` must be one of contract-v1"):
        schema_text("../model")


@pytest.mark.parametrize("schema", ["gate-train-v1", "contract-v1"])
def test_default_contract_fits_both_dialects(schema: str) -> None:
    """The closed dialect is part of the open one."""
    assert schema_problems(default(), schema=schema) == ()


@pytest.mark.parametrize(("value", "schema"), [(EPOCH, "epoch-metadata-v1"), (RUN, "run-v1")])
def test_smallest_record_fits_its_schema(value: dict[str, Any], schema: str) -> None:
    """The required fields are enough, and one less is not."""
    assert messages(value, schema) == []
    for name in value:
        less = {key: one for key, one in value.items() if key != name}
        assert messages(less, schema) == [f"`{name}` is missing"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epoch": 1.0}, "`epoch` must be an integer, got 1.0"),
        ({"epoch": True}, "`epoch` must be an integer, got true"),
        ({"epoch": -1}, "`epoch` must be at least 0, got -1"),
        ({"val_loss": "2"}, '`val_loss` must be a number, got the text "2"'),
        ({"val_loss": None}, "`val_loss` must be a number, got null"),
        (
            {"optimizer_state_sha": "A" * 64},
            f'`optimizer_state_sha` must be 64 lower-case hex digits, got the text "{"A" * 57}..."',
        ),
        (
            {"optimizer_state_sha": "a" * 64 + "\n"},
            f'`optimizer_state_sha` must be 64 lower-case hex digits, got the text "{"a" * 57}..."',
        ),
    ],
)
def test_metadata_of_an_epoch_are_refused(change: dict[str, Any], message: str) -> None:
    """Types are strict: an integer is no float, no bool and no text."""
    assert messages({**EPOCH, **change}, "epoch-metadata-v1") == [message]


@pytest.mark.parametrize(
    ("block", "change", "message"),
    [
        ("convergence", {"patience_epochs": -1}, "`patience_epochs` must be at least 0, got -1"),
        ("convergence", {"patience_epochs": 2.0}, "`patience_epochs` must be an integer, got 2.0"),
        (
            "convergence",
            {"target_val_loss": 1e39},
            "`target_val_loss` must be at most 3.40282e+38, got 1e+39",
        ),
        ("convergence", {"patience": 2}, "`patience` is not known"),
        ("non_divergence", {"max_ratio": 3.0}, "`max_ratio` must be 2.0, got 3.0"),
        (
            "non_divergence",
            {"epoch_zero_cap": {"finetune": 11.0}},
            "`finetune` must be 10.0, got 11.0",
        ),
        ("non_divergence", {"epoch_zero_cap": {}}, "`finetune` is missing here"),
        (
            "per_step_metrics",
            {"sampling_period_steps": 0},
            "`sampling_period_steps` must be at least 1, got 0",
        ),
        (
            "per_step_metrics",
            {"required": []},
            "`required` must be a list of at least 1, got a list of 0",
        ),
        (
            "per_step_metrics",
            {"required": [{"name": "lr", "type": "f64"}]},
            '`type` must be one of the text "u64" or the text "f32", got the text "f64"',
        ),
        (
            "metadata",
            {"version": 1.0},
            '`version` must be a version of three parts in quotes, such as "1.0.0", got 1.0',
        ),
        (
            "metadata",
            {"version": "1.0"},
            "`version` must be a version of three parts in quotes, "
            'such as "1.0.0", got the text "1.0"',
        ),
        (
            "metadata",
            {"version": "1.0.0\n"},
            "`version` must be a version of three parts in "
            'quotes, such as "1.0.0", got the text "1.0.0\\n"',
        ),
    ],
)
def test_block_is_refused(block: str, change: dict[str, Any], message: str) -> None:
    """Limits, types and unknown keys of blocks have one message each."""
    contract = default()
    contract[block].update(change)
    assert messages(contract) == [message]


def test_lr_max_must_be_above_zero() -> None:
    """A learning rate of zero is refused, and the smallest above it is not."""
    contract = default()
    contract["hyperparameter_defaults"]["finetune"]["lr_max"] = 0
    assert messages(contract) == ["`lr_max` must be above 0, got 0"]
    contract["hyperparameter_defaults"]["finetune"]["lr_max"] = 5e-324
    assert messages(contract) == []


@pytest.mark.parametrize("name", ["dialect", "contract_id", "metadata", "gates"])
def test_top_level_key_is_required(name: str) -> None:
    """The closed dialect names four keys that must be there."""
    contract = default()
    del contract[name]
    assert messages(contract) == [f"`{name}` is missing"]


def test_unknown_key_is_found_at_its_own_place() -> None:
    """Each unknown key is a problem of its own, and keys for one's own use are none."""
    gate = {"id": "GATE-TRAIN-007", "rule": "r", "rul": 1, "x-own": 2, "discharge_by": 3}
    problems = schema_problems(
        {**default(), "gates": [gate], "more": 1, "x-y": 2}, schema="gate-train-v1"
    )
    assert problems == (
        SchemaProblem(steps=("more",), message="`more` is not known", is_unknown_key=True),
        SchemaProblem(steps=("gates", 0, "rul"), message="`rul` is not known", is_unknown_key=True),
    )


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1], "the document must be a mapping, got a list of 1"),
        (5, "the document must be a mapping, got 5"),
        (None, "the document must be a mapping, got null"),
    ],
)
def test_document_must_be_a_mapping(value: object, message: str) -> None:
    """Anything else is refused as a whole."""
    assert messages(value, "contract-v1") == [message]


def test_item_of_a_list_is_named_with_its_index() -> None:
    """A value without a key has the name of the list."""
    contract = {**default(), "gates": [5]}
    assert messages(contract) == ["`gates[0]` must be a mapping, got 5"]


@pytest.mark.parametrize("schema", ["gate-train-v1", "contract-v1"])
def test_gates_are_limited_to_a_thousand(schema: str) -> None:
    """A longer list is refused as a whole, without a look at its items."""
    gates = [{"id": f"GATE-TRAIN-{i}", "rule": "r"} for i in range(1000)]
    assert messages({**default(), "gates": gates}, schema) == []
    assert messages({**default(), "gates": [*gates, 5]}, schema) == [
        "`gates` must be a list of at most 1000, got a list of 1001"
    ]


def test_problems_are_limited_to_a_hundred() -> None:
    """A hostile file does not fill the memory with problems."""
    assert len(messages({**default(), **{f"key{i}": 1 for i in range(300)}})) == 100


@pytest.mark.parametrize(
    "gates",
    [[], ["text"], {"a": 1}, "text", None, [{"name": "n"}], [{"id": "G-1", "check": "text"}]],
)
def test_gates_of_other_families_are_free(gates: object) -> None:
    """Without a gate of training the open dialect takes gates of any shape."""
    contract = {"metadata": {"version": "1.0.0"}, "gates": gates, "convergence": "quadratic"}
    assert messages(contract, "contract-v1") == []


def test_blocks_have_types_beside_a_gate_of_training() -> None:
    """With one the open dialect knows what the blocks mean."""
    contract = {
        "metadata": {"version": "1.0.0"},
        "gates": [{"id": "GATE-TRAIN-003"}],
        "convergence": {"target_val_loss": "low", "own": 1},
    }
    assert messages(contract, "contract-v1") == [
        '`target_val_loss` must be a number, got the text "low"'
    ]
