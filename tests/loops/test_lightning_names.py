"""Canaries: every private name of Lightning that we rely on, so that an upgrade fails loudly."""

from __future__ import annotations

import inspect

import pytest
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, Timer
from lightning.pytorch.loops.fetchers import _DataFetcher, _DataLoaderIterDataFetcher
from lightning.pytorch.loops.fit_loop import _FitLoop
from lightning.pytorch.loops.optimization.automatic import _AutomaticOptimization
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.profilers import PyTorchProfiler
from lightning.pytorch.trainer import call

from lightning_elche.loops.checkpoint_state import AUTOMATIC, BATCHES, MANUAL, VALIDATION

SIGNATURES = {
    _TrainingEpochLoop: {
        "_broadcast_sigterm_tensor": ["self"],
        "_num_ready_batches_reached": ["self"],
        "_should_accumulate": ["self"],
        "_should_check_val_epoch": ["self"],
        "_should_check_val_fx": ["self", "data_fetcher"],
        "advance": ["self", "data_fetcher"],
        "on_advance_end": ["self", "data_fetcher"],
        "on_iteration_done": ["self"],
        "on_load_checkpoint": ["self", "state_dict"],
        "on_run_start": ["self", "data_fetcher"],
        "on_save_checkpoint": ["self"],
        "reset": ["self"],
        "run": ["self", "data_fetcher"],
        "update_lr_schedulers": ["self", "interval", "update_plateau_schedulers"],
    },
    _AutomaticOptimization: {"run": ["self", "optimizer", "batch_idx", "kwargs"]},
    _FitLoop: {
        "_should_accumulate": ["self"],
        "on_advance_end": ["self"],
        "run": ["self"],
        "setup_data": ["self"],
        "state_dict": ["self", "destination", "prefix"],
    },
}


@pytest.mark.parametrize(
    ("loop", "name"), [(loop, name) for loop, names in SIGNATURES.items() for name in names]
)
def test_method_of_the_stock_loop_has_the_known_signature(loop: type, name: str) -> None:
    """A method that we override or call takes the arguments we know."""
    parameters = list(inspect.signature(getattr(loop, name)).parameters)
    assert parameters == SIGNATURES[loop][name]


@pytest.mark.parametrize(
    ("loop", "name"),
    [
        (_TrainingEpochLoop, "done"),
        (_TrainingEpochLoop, "global_step"),
        (_TrainingEpochLoop, "_is_training_done"),
        (_FitLoop, "_can_stop_early"),
    ],
)
def test_property_of_the_stock_loop_exists(loop: type, name: str) -> None:
    """A property that we override or read is still one."""
    assert isinstance(getattr(loop, name), property)


def test_attributes_of_the_trainer_exist() -> None:
    """The attributes that we set or read are there after construction."""
    trainer = Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False)
    epoch_loop = trainer.fit_loop.epoch_loop
    assert type(trainer.fit_loop) is _FitLoop
    assert type(epoch_loop) is _TrainingEpochLoop
    assert type(epoch_loop.automatic_optimization) is _AutomaticOptimization
    assert LightningModule()._current_fx_name is None
    assert isinstance(epoch_loop._batches_that_stepped, int)
    assert isinstance(trainer._accelerator_connector.use_distributed_sampler, bool)
    assert trainer._signal_connector.received_sigterm is False
    assert trainer.fit_loop._combined_loader is None


def test_checkpoint_callback_tells_its_triggers() -> None:
    """What makes a ModelCheckpoint save at steps is where we look for it."""
    callback = ModelCheckpoint(every_n_train_steps=3)
    assert callback._every_n_train_steps == 3
    assert callback._train_time_interval is None
    assert callback._last_time_checked is None


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("_should_skip_saving_checkpoint", ["self", "trainer"]),
        ("_monitor_candidates", ["self", "trainer"]),
        ("_save_topk_checkpoint", ["self", "trainer", "monitor_candidates"]),
        ("_save_last_checkpoint", ["self", "trainer", "monitor_candidates"]),
    ],
)
def test_checkpoint_callback_saves_by_known_methods(name: str, parameters: list[str]) -> None:
    """What `on_train_batch_end` of a ModelCheckpoint calls once a save is due."""
    assert list(inspect.signature(getattr(ModelCheckpoint, name)).parameters) == parameters


def test_timer_tells_when_it_looks() -> None:
    """A limit is checked at steps or at the ends of epochs."""
    assert Timer(duration="00:00:01:00")._interval == "step"
    assert Timer(duration="00:00:01:00", interval="epoch")._interval != "step"


def test_profiler_knows_the_module_that_it_was_set_up_for() -> None:
    """None at first."""
    assert PyTorchProfiler()._lightning_module is None


def test_fit_loop_saves_its_progress_under_known_names() -> None:
    """Names in the checkpoint whose counts we replace by agreed ones."""
    trainer = Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False)
    state = trainer.fit_loop.state_dict()
    assert {"ready", "started", "processed", "completed"} == set(state[BATCHES]["current"])
    assert {"ready", "completed"} == set(state[AUTOMATIC]["optimizer"]["step"]["total"])
    assert {"ready", "completed"} == set(state[MANUAL]["total"])
    assert state[VALIDATION]["is_last_batch"] is False


def test_hooks_are_called_with_trainer_and_name() -> None:
    """The schedule step goes through the module's hook, as in the stock loop."""
    parameters = list(inspect.signature(call._call_lightning_module_hook).parameters)
    assert parameters[:2] == ["trainer", "hook_name"]


def test_fetchers_are_told_apart() -> None:
    """A step that takes `dataloader_iter` gets a fetcher of its own class."""
    assert issubclass(_DataLoaderIterDataFetcher, _DataFetcher)
