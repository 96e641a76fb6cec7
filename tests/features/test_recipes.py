"""Every feature that a user of Lightning relies on, at 2 and 3 ranks of unequal speed.

`ELCHE_DELAYS_SEED` draws other speeds for each rank and recipe.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections import Counter
from collections.abc import Iterable
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch import callbacks as callbacks_of_lightning
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_elche.testing import run_ranks
from tests.features.bench import SIZE
from tests.features.recipes import RECIPES, run_recipes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

Outcomes = list[dict[str, Any]]
SEED = int(os.environ.get("ELCHE_DELAYS_SEED") or 0)
BATCHES = SIZE // 4
VAL_CHECK_INTERVAL = signature(Trainer).parameters["val_check_interval"]
NEEDS = {
    "tensorboard_logger": importlib.util.find_spec("tensorboardX"),
    # These came with Lightning 2.6.
    "checkpoint_save_on_exception": "save_on_exception" in signature(ModelCheckpoint).parameters,
    "val_check_interval_time": "timedelta" in str(VAL_CHECK_INTERVAL),
    "weight_averaging": hasattr(callbacks_of_lightning, "EMAWeightAveraging"),
}
PRESENT = [name for name in RECIPES if NEEDS.get(name, True)]


def needs(recipe: str) -> pytest.MarkDecorator:
    """Skip a test where Lightning cannot run a recipe."""
    return pytest.mark.skipif(not NEEDS[recipe], reason="came with Lightning 2.6")


@pytest.fixture(scope="module", params=[2, 3])
def ranks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """Return the outcome of every recipe, by name, on every rank."""
    folder = tmp_path_factory.mktemp("recipes")
    results = run_ranks(
        run_recipes,
        world_size=request.param,
        timeout_s=250.0,
        env={"ELCHE_DELAYS_SEED": ""},  # each recipe draws its own
        folder=str(folder),
        names=PRESENT,
        seed=SEED,
    )
    return [result.value for result in results]


def of(ranks: Outcomes, name: str) -> Outcomes:
    """Return the outcomes of one recipe, which all ranks must have ended well and alike."""
    outcomes = [rank[name] for rank in ranks]
    assert [outcome.get("error") for outcome in outcomes] == [None] * len(ranks)
    for key in ("step", "epoch", "weights", "metrics", "at", "files", "val", "test"):
        values = [repr(outcome[key]) for outcome in outcomes if key in outcome]
        assert len(set(values)) <= 1, (key, values)
    return outcomes


def seen(outcomes: Outcomes) -> dict[int, Counter[int]]:
    """Return how often each sample was trained, by epoch."""
    counts: dict[int, Counter[int]] = {}
    for outcome in outcomes:
        for epoch, ids in outcome["ids"].items():
            counts.setdefault(epoch, Counter()).update(ids)
    return counts


def check_epochs(outcomes: Outcomes, epochs: int, *, samples: Iterable[int] = range(SIZE)) -> None:
    """Every epoch has each of the samples exactly once."""
    assert seen(outcomes) == {epoch: Counter(samples) for epoch in range(epochs)}


# (epochs, optimizer steps) of recipes that train whole epochs and claim nothing else
WHOLE = {
    "checkpoint_every_n_train_steps": (1, BATCHES),
    "checkpoint_train_time_interval": (2, 2 * BATCHES),
    "checkpoint_every_n_epochs": (4, 4 * BATCHES),
    "checkpoint_monitor": (4, 4 * BATCHES),
    "checkpoint_monitor_at_steps": (2, 2 * BATCHES),
    "early_stopping": (2, 2 * BATCHES),
    "min_epochs": (3, None),
    "val_check_interval_int": (1, BATCHES),
    "val_check_interval_float": (1, BATCHES),
    "val_check_interval_across_epochs": (3, 3 * BATCHES),
    "val_check_interval_time": (3, 3 * BATCHES),
    "check_val_every_n_epoch": (4, 4 * BATCHES),
    "sanity_check": (1, BATCHES),
    "log_in_branches": (2, 2 * BATCHES),
    "metrics": (1, BATCHES),
    "csv_logger": (2, 2 * BATCHES),
    "tensorboard_logger": (1, BATCHES),
    "stochastic_weight_averaging": (3, 3 * BATCHES),
    "weight_averaging": (2, 2 * BATCHES),
    "base_finetuning": (3, 3 * BATCHES),
    "accumulate_grad_batches": (1, None),
    "gradient_accumulation_scheduler": (2, None),
    "gradient_clip_norm": (1, BATCHES),
    "gradient_clip_value": (1, BATCHES),
    "precision_bf16_mixed": (1, BATCHES),
    "precision_64": (1, BATCHES),
    "manual_optimization": (1, 2 * BATCHES),
    "odd_parameters": (2, 2 * BATCHES),
    "iterable_dataset": (2, None),
    "custom_sampler": (1, BATCHES),
    "custom_batch_sampler": (1, 2 * BATCHES),
    "datamodule": (2, 2 * BATCHES),
    "reload_dataloaders": (3, 3 * BATCHES),
    "workers": (2, 2 * BATCHES),
    "persistent_workers": (2, 2 * BATCHES),
    "evaluate_after_fit": (1, BATCHES),
}


@pytest.mark.parametrize("name", [name for name in WHOLE if name in PRESENT])
def test_every_sample_is_trained_once_in_every_epoch(name: str, ranks: Outcomes) -> None:
    """And all ranks end with the same step count, weights and metrics."""
    outcomes, (epochs, steps) = of(ranks, name), WHOLE[name]
    if name not in ("min_epochs", "evaluate_after_fit"):
        check_epochs(outcomes, epochs)
    assert outcomes[0]["epoch"] == epochs
    assert steps is None or outcomes[0]["step"] == steps


REFUSED = {
    "stochastic_weight_averaging_of_batch_norm": "Use `WeightAveraging`",
    "spike_detection": "`callbacks` must not contain SpikeDetection",
    "batch_size_finder": "Batch size finder is not supported with distributed strategies",
    "learning_rate_finder": "Find the learning rate on one device first",
    "several_loaders": "`train_dataloaders` must be one DataLoader, got 2",
    "dataloader_iter": "`training_step` must take a batch",
    "log_on_step_over_ranks": "without `on_step=True`",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_work_is_refused_with_a_way_out(name: str, ranks: Outcomes) -> None:
    """On every rank, before anything hangs."""
    for rank in ranks:
        assert REFUSED[name] in rank[name]["error"]


def steps_of(files: list[str]) -> list[int]:
    return [int(file.removesuffix(".ckpt").split("=")[1]) for file in files]


def test_checkpoints_are_saved_when_the_agreed_count_crosses(ranks: Outcomes) -> None:
    """At the first averaging event at or after each tenth step."""
    steps = sorted(steps_of(of(ranks, "checkpoint_every_n_train_steps")[0]["files"]))
    assert steps
    assert len({step // 10 for step in steps}) == len(steps)
    assert max(steps) == BATCHES


def test_checkpoints_are_saved_by_the_clock(ranks: Outcomes) -> None:
    """At averaging events, by the clock of rank 0."""
    steps = steps_of(of(ranks, "checkpoint_train_time_interval")[0]["files"])
    assert len(steps) >= 2


def test_checkpoints_are_saved_every_second_epoch(ranks: Outcomes) -> None:
    """With the parameters of the end of these epochs."""
    files = of(ranks, "checkpoint_every_n_epochs")[0]["files"]
    assert files == ["epoch=1.ckpt", "epoch=3.ckpt"]


def test_best_checkpoints_are_kept(ranks: Outcomes) -> None:
    """Two and the last, and all ranks know the best one."""
    outcomes = of(ranks, "checkpoint_monitor")
    assert len(outcomes[0]["files"]) == 3
    assert "last.ckpt" in outcomes[0]["files"]
    assert len({outcome["best"] for outcome in outcomes}) == 1
    assert Path(outcomes[0]["best"]).name in outcomes[0]["files"]
    assert of(ranks, "checkpoint_monitor_at_steps")[0]["files"]


@needs("checkpoint_save_on_exception")
def test_checkpoint_is_saved_on_an_exception(ranks: Outcomes) -> None:
    """With the work of the other ranks, and each rank has an error that tells."""
    outcomes = [rank["checkpoint_save_on_exception"] for rank in ranks]
    assert outcomes[1]["error"] == "ArithmeticError: on purpose"
    assert "Rank 1 failed with ArithmeticError: on purpose" in outcomes[0]["error"]
    assert "last-stopped.ckpt" in outcomes[0]["files"]
    assert len(outcomes[0]["files"]) == 2


def test_stops_are_agreed(ranks: Outcomes) -> None:
    """Within an epoch, wherever they come from, and not before the minimum."""
    # One event may cross several validations, and the second validation is the last.
    assert 10 < of(ranks, "early_stopping_in_epoch")[0]["step"] <= 2 * BATCHES
    assert 0 < of(ranks, "should_stop_on_one_rank")[0]["step"] <= BATCHES
    assert 100 <= of(ranks, "min_steps")[0]["step"] < 100 + BATCHES
    assert of(ranks, "max_steps")[0]["step"] == 100
    for name in ("max_time", "timer"):
        assert of(ranks, name)[0]["step"] > 0
    assert not of(ranks, "timer")[0]["hooks"]


@pytest.mark.parametrize(
    ("name", "batches_per_rank"),
    [
        ("overfit_batches_int", 5),
        ("fast_dev_run", 1),
        ("fast_dev_run_of_several_batches", 4),
        ("limit_train_batches_int", 6),
    ],
)
def test_limits_in_batches_count_by_rank(name: str, batches_per_rank: int, ranks: Outcomes) -> None:
    """The pool of an epoch is as large as DDP's."""
    outcomes = of(ranks, name)
    batches = batches_per_rank * len(ranks)
    if name.startswith("fast"):  # which limits the steps, too
        batches = max(batches_per_rank, len(ranks))
    assert {sum(counts.values()) for counts in seen(outcomes).values()} == {4 * batches}
    assert all(max(counts.values()) == 1 for counts in seen(outcomes).values())


@pytest.mark.parametrize(
    ("name", "part"), [("overfit_batches_float", 0.5), ("limit_train_batches_float", 0.5)]
)
def test_limits_as_a_fraction_count_over_all_ranks(name: str, part: float, ranks: Outcomes) -> None:
    """Half of the epoch is half of its batches, whoever trains them."""
    for counts in seen(of(ranks, name)).values():
        assert sum(counts.values()) == part * SIZE
        assert max(counts.values()) == 1


def test_overfitting_shows_the_same_samples_in_every_epoch(ranks: Outcomes) -> None:
    """The sampler is sequential then, as in stock Lightning."""
    first, second = seen(of(ranks, "overfit_batches_int")).values()
    assert first == second == Counter(range(20 * len(ranks)))


@pytest.mark.parametrize(
    ("name", "at"),
    [
        ("val_check_interval_int", [10, 20, 30, 40]),
        ("val_check_interval_float", [10, 20, 30, 40]),
        ("val_check_interval_across_epochs", [30, 60, 90, 120]),
        ("check_val_every_n_epoch", [80, 160]),
        ("sanity_check", [0, 40]),
    ],
)
def test_validation_is_at_or_soon_after_its_step(name: str, at: list[int], ranks: Outcomes) -> None:
    """One event may cross several multiples, and is followed by one validation then."""
    happened = of(ranks, name)[0]["at"]
    assert happened[-1] == at[-1]
    assert len(happened) <= len(at)
    assert all(any(0 <= step - due < BATCHES for due in at) for step in happened)


@needs("val_check_interval_time")
def test_validation_by_the_clock(ranks: Outcomes) -> None:
    """By rank 0's, on all ranks at the same events."""
    assert len(of(ranks, "val_check_interval_time")[0]["at"]) >= 2


def test_values_are_reduced_over_the_ranks_that_logged_them(ranks: Outcomes) -> None:
    """A key of one rank, and a constant with unequal counts, keep their value."""
    logged = of(ranks, "log_in_branches")[0]["metrics"]
    assert logged["seldom"] == 3.0
    assert logged["ones"] == pytest.approx(1.0)


def test_metric_objects_see_all_samples_once(ranks: Outcomes) -> None:
    """Means, maxima and sums over the epoch are exact."""
    logged = of(ranks, "metrics")[0]["metrics"]
    assert logged["mean_id_epoch"] == pytest.approx((SIZE - 1) / 2)
    assert logged["max_id"] == SIZE - 1
    assert logged["sum_id"] == sum(range(SIZE))
    assert logged["val_id"] == pytest.approx(7.5, abs=1.0)  # padded as with DDP


def test_logger_counts_the_steps_of_all_ranks(ranks: Outcomes) -> None:
    """Learning rates and device statistics are there, on an axis that does not fall back."""
    head, *rows = of(ranks, "csv_logger")[0]["csv"].splitlines()
    column = head.split(",").index("step")
    steps = [int(row.split(",")[column]) for row in rows]
    assert steps == sorted(steps)
    assert 70 < steps[-1] < 2 * BATCHES
    assert "lr-SGD" in head
    assert "DeviceStatsMonitor.on_train_batch_start/" in head


@needs("weight_averaging")
def test_weight_average_counts_the_steps_of_all_ranks(ranks: Outcomes) -> None:
    """As often as on one device, so that a decay means the same."""
    assert of(ranks, "weight_averaging")[0]["updates"] == 2 * BATCHES


def test_evaluation_gives_all_ranks_the_same(ranks: Outcomes) -> None:
    """Alone and after `fit`; every sample is predicted, as with DDP."""
    for name in ("evaluate_alone", "evaluate_after_fit"):
        outcomes = of(ranks, name)
        assert outcomes[0]["test"][0]["test_ids"] == pytest.approx(7.5, abs=1.0)
        predicted = {index for outcome in outcomes for index in outcome["ids"][0]}
        assert predicted == set(range(16))


@pytest.mark.parametrize("name", ["boring_model", "manual_boring_model", "compiled_module"])
def test_models_that_lightning_ships_run(name: str, ranks: Outcomes) -> None:
    """Unchanged."""
    assert of(ranks, name)[0]["step"] == 2 * 64


def test_every_recipe_is_tested() -> None:
    """None is run for nothing."""
    source = Path(__file__).read_text()
    assert [name for name in RECIPES if f'"{name}"' not in source] == []


def test_the_table_of_features_names_every_recipe_and_only_tests_that_exist() -> None:
    """`docs/compatibility.md` says for each feature which test shows it."""
    tests = Path(__file__).parents[1]
    table = (tests.parent / "docs/compatibility.md").read_text()
    rows = [line.split("|") for line in table.splitlines() if line.startswith("| ")]
    named = {name for row in rows for name in re.findall(r"`([^`]+)`", row[-2])}
    files = {path.name for path in tests.rglob("test_*.py")}
    assert named - files == set(RECIPES)
    assert named & files == {name for name in named if name.endswith(".py")}
