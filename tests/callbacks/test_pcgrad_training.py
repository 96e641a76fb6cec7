"""PCGrad under automatic optimization: what becomes of the parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor

from lightning_elche import ElCheStrategy
from lightning_elche.callbacks.pcgrad import PCGrad
from lightning_elche.ops.order import step_generator
from lightning_elche.ops.projection import pcgrad
from tests.callbacks.two_tasks import FirstGradient, ThreeTasks, fit, flat, seeded


def fitted(form: str = "list", *callbacks: Callback, model: Any = None, **options: Any) -> Tensor:
    _, model = fit(model or seeded(form), *callbacks, **options)
    return flat(model)


def scaled(scale: float) -> dict[str, Any]:
    """Return options of a Trainer in fp16 on a CPU, which Lightning itself refuses."""
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    return {"plugins": [MixedPrecision("16-mixed", "cpu", scaler)]}


@pytest.mark.parametrize("scope", ["shared", "all"])
@pytest.mark.parametrize(
    ("options", "tolerance"),
    [
        ({"accumulate_grad_batches": 2, "gradient_clip_val": 0.5}, 3e-7),
        ({"precision": "bf16-mixed", "batches": 1}, 2e-3),  # 2^-8 of an update of up to 0.2
        ({"scaled": 2.0**10, "batches": 1}, 2e-4),  # 2^-11
    ],
    ids=["accumulated and clipped", "bf16", "fp16"],
)
def test_both_modes_agree(scope: Any, options: dict[str, Any], tolerance: float) -> None:
    """Up to the rounding of the precision, far less than what both differ by from the plain sum."""
    results = []
    for form, callbacks in (
        ("list", [PCGrad(scope=scope)]),
        ("list", [PCGrad(mode="direct", scope=scope)]),
        ("sum", []),
    ):
        more = dict(options)
        if "scaled" in more:
            more |= scaled(more.pop("scaled"))
        results.append(fitted(form, *callbacks, **more))
    reweighted, direct, plain = results
    torch.testing.assert_close(reweighted, direct, rtol=0.0, atol=tolerance)
    assert not torch.allclose(reweighted, plain, rtol=0.0, atol=2.0 * tolerance)


class UpToFour(ThreeTasks):
    """Has 1 to 4 tasks."""

    def __init__(self, num_tasks: int) -> None:
        super().__init__()
        self.heads = torch.nn.ModuleList(torch.nn.Linear(8, 1) for _ in range(num_tasks))

    def losses(self, batch: Any) -> list[Tensor]:
        features, targets = batch
        return super().losses((features, torch.cat([targets, -targets[:, :1]], dim=1)))


@pytest.mark.parametrize("mode", ["reweight", "direct"])
@pytest.mark.parametrize("num_tasks", [1, 2, 3, 4])
@pytest.mark.parametrize(
    ("precision", "tolerance"),
    [
        ("fp32", 1e-6),
        ("bf16", 2.0**-6),  # a few times the rounding of 8 bits, of gradients of about 1
        ("fp16", 2.0**-9),
    ],
)
def test_gradient_is_that_of_the_published_algorithm(
    precision: str, tolerance: float, num_tasks: int, mode: Any
) -> None:
    """As plain Python computes it aside, with the same orders; the sum would be another one."""
    options: dict[str, Any] = {"fp32": {}, "bf16": {"precision": "bf16-mixed"}}.get(
        precision, scaled(2.0**8)
    )
    torch.manual_seed(3)
    seen = FirstGradient()
    fit(UpToFour(num_tasks), seen, PCGrad(mode=mode), batches=1, **options)
    expected = seen.published.float()
    torch.testing.assert_close(seen.own, expected, rtol=0.0, atol=tolerance)
    if num_tasks > 2:
        assert not torch.allclose(seen.plain, expected, rtol=0.0, atol=10.0 * tolerance)


@pytest.mark.parametrize("form", ["tuple", "dict", "losses", "named"])
def test_all_ways_to_return_losses_are_the_same(form: str) -> None:
    """To the last bit."""
    assert fitted(form, PCGrad()).equal(fitted("list", PCGrad()))


def test_task_weights_multiply_the_losses_first() -> None:
    """As if the user had multiplied them, in a list or by name."""

    class Weighted(ThreeTasks):
        def losses(self, batch: Any) -> list[Tensor]:
            return [
                w * loss for w, loss in zip((2.0, 1.0, 0.5), super().losses(batch), strict=True)
            ]

    torch.manual_seed(3)
    own = Weighted()
    own.load_state_dict(seeded().state_dict())
    expected = fitted("list", PCGrad(), model=own)
    assert fitted("list", PCGrad(task_weights=[2.0, 1.0, 0.5])).equal(expected)
    by_name = {"c": 0.5, "a": 2.0, "b": 1.0}
    assert fitted("dict", PCGrad(task_weights=by_name)).equal(expected)


def test_overflow_of_the_scaler_leaves_the_parameters() -> None:
    """The scaler sees what is not finite, skips the step, and lowers the scale."""
    callback = PCGrad()
    model = seeded("list", scale=1e30)
    before = flat(model)
    trainer, _ = fit(model, callback, **scaled(2.0**60))
    assert flat(model).equal(before)
    assert trainer.precision_plugin.scaler.get_scale() < 2.0**60  # type: ignore[attr-defined]
    assert callback.step == 6


@pytest.mark.parametrize("mode", ["reweight", "direct"])
def test_loss_that_is_not_finite_reaches_the_parameters(mode: Any) -> None:
    """It is not masked, so that gates and loggers notice it."""

    class Spoiled(ThreeTasks):
        def losses(self, batch: Any) -> list[Tensor]:
            first, *rest = super().losses(batch)
            return [first * torch.nan, *rest]

    model = Spoiled()
    fit(model, PCGrad(mode=mode), batches=1)
    assert not bool(flat(model.trunk).isfinite().any())
    assert bool(flat(model.heads[1]).isfinite().all())


def test_one_loss_in_a_list_is_plain_training() -> None:
    """To the last bit."""

    class One(ThreeTasks):
        def losses(self, batch: Any) -> list[Tensor]:
            return super().losses(batch)[:1]

    results = []
    for form, callbacks in (("list", [PCGrad()]), ("sum", [])):
        torch.manual_seed(3)
        results.append(fitted("", *callbacks, model=One(form)))
    assert results[0].equal(results[1])


@pytest.mark.parametrize(
    ("options", "num_skipped"), [({"every_k": 3}, 4), ({"start_step": 2}, 2), ({}, 0)]
)
def test_other_steps_train_on_the_plain_sum(options: dict[str, int], num_skipped: int) -> None:
    """Surgery begins with `start_step`, and is made every `every_k` steps."""
    callback = PCGrad(**options)  # type: ignore[arg-type]
    fitted("list", callback)
    assert callback._meter.num_skipped == num_skipped
    if options.get("start_step"):
        late = PCGrad(start_step=6)
        assert fitted("list", late).equal(fitted("sum"))


def test_batches_of_an_accumulation_are_tasks() -> None:
    """Windows of 3, 3 and 2, each combined as PCGrad would combine its gradients."""

    class Windows(Callback):
        def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
            taken.append(torch.cat([p.grad.flatten() for p in pl_module.parameters()]))

    class Plain(Callback):
        def on_before_zero_grad(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
            rows.clear()

        def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
            sums = torch.cat([p.grad.flatten() for p in pl_module.parameters()]).clone()
            rows.append(sums - sum(rows, torch.zeros(())))

        def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
            order = step_generator(0, len(expected))
            expected.append(pcgrad(rows, generator=order).combined)

    taken: list[Tensor] = []
    expected: list[Tensor] = []
    rows: list[Tensor] = []
    options = {"accumulate_grad_batches": 3, "batches": 8}
    still = {"lr": 0.0}
    fit(seeded("sum", **still), PCGrad("microbatches"), Windows(), **options)
    fit(seeded("sum", **still), Plain(), **options)
    assert len(taken) == 3
    torch.testing.assert_close(taken, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.filterwarnings("ignore:`training_step` returned `None`:UserWarning")
def test_window_whose_last_batch_has_no_loss_is_combined_all_the_same() -> None:
    """Gradients that were taken away come back."""

    class Skips(ThreeTasks):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return None if batch_idx % 2 else sum(self.losses(batch))

    model = Skips("sum")
    before = flat(model)
    fit(model, PCGrad("microbatches"), accumulate_grad_batches=2, batches=2)
    assert not flat(model).equal(before)


def test_resumed_run_repeats_the_orders(tmp_path: Path) -> None:
    """The step count is in the checkpoint, so that the result is bit-equal to one run."""
    path = str(tmp_path / "after-one.ckpt")
    trainer, _ = fit(seeded(), PCGrad(), max_epochs=1)
    trainer.save_checkpoint(path)
    state = torch.load(path, weights_only=False)["callbacks"]["PCGrad"]
    assert state == {"step": 6, "epoch": [0.0, 0]}
    resumed = fitted("list", PCGrad(), max_epochs=2, ckpt_path=path)
    assert resumed.equal(fitted("list", PCGrad(), max_epochs=2))
    assert not resumed.equal(fitted("list", PCGrad(seed=1), max_epochs=2))


def test_single_device_of_elche_allows_to_write_gradients() -> None:
    """There is nobody to average them with."""
    options = {"strategy": ElCheStrategy()}
    assert fitted("list", PCGrad(mode="direct"), **options).equal(
        fitted("list", PCGrad(mode="direct"))
    )


def test_weighting_of_torchjd_can_be_used() -> None:
    """It gets the matrix of inner products, and its weights count."""
    torchjd = pytest.importorskip("torchjd.aggregation")
    total = fitted("list", PCGrad(weighting=torchjd.SumWeighting()))
    torch.testing.assert_close(total, fitted("sum"), rtol=0.0, atol=3e-7)
    shortest = fitted("list", PCGrad(weighting=torchjd.MGDAWeighting()))
    assert not torch.allclose(shortest, total, atol=1e-3)
