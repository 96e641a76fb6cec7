"""Methods of the module are put back as they were."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_elche.callbacks.pcgrad import PCGrad
from lightning_elche.callbacks.step_wrapping import WrappedMethod
from tests.callbacks.two_tasks import ThreeTasks, fit, flat, seeded


class Counter:
    def count(self, step: int = 1) -> int:
        return step


def doubled(method: Any, *args: Any, **kwargs: Any) -> int:
    result: int = 2 * method(*args, **kwargs)
    return result


def test_method_is_wrapped_until_it_is_restored() -> None:
    """Of this object only; its class and others stay."""
    counter = Counter()
    wrapped = WrappedMethod(counter, "count", doubled)
    assert (counter.count(step=3), Counter().count(3)) == (6, 3)
    wrapped.restore()
    wrapped.restore()
    assert counter.count(3) == 3
    assert "count" not in vars(counter)


def test_attribute_of_the_object_comes_back() -> None:
    """Such as what `torch.compile` has put there."""
    counter = Counter()
    own = vars(counter)["count"] = lambda: 5
    wrapped = WrappedMethod(counter, "count", doubled)
    assert counter.count() == 10
    wrapped.restore()
    assert vars(counter)["count"] is own


def test_wrapper_around_ours_is_left() -> None:
    """With a warning; ours passes everything on from then on."""
    counter = Counter()
    first = WrappedMethod(counter, "count", doubled)
    WrappedMethod(counter, "count", doubled)
    with pytest.warns(UserWarning, match="`count` of Counter was wrapped once more"):
        first.restore()
    assert counter.count(3) == 6


def test_module_is_as_before_after_fit() -> None:
    """And can be fitted again, with the same callback."""
    model, callback = seeded(), PCGrad()
    before = set(vars(model))
    fit(model, callback)
    assert not {"training_step", "backward"} & set(vars(model))
    assert before <= set(vars(model))
    fit(model, callback)
    assert callback.step == 12


def test_module_is_as_before_after_an_exception() -> None:
    """And no losses are kept."""

    class Fails(ThreeTasks):
        def losses(self, batch: Any) -> list[Tensor]:
            raise ArithmeticError("a spoiled batch")

    model, callback = Fails(), PCGrad()
    with pytest.raises(ArithmeticError):
        fit(model, callback)
    assert not {"training_step", "backward"} & set(vars(model))
    assert callback._stash is None


def test_signature_is_that_of_the_user() -> None:
    """Lightning passes the number of the batch only where it is asked for."""

    class Indexed(ThreeTasks):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            seen.append(batch_idx)
            return self.losses(batch)

    seen: list[int] = []
    fit(Indexed(), PCGrad(), batches=2)
    assert seen == [0, 1]


def test_compiled_module_is_trained_as_another() -> None:
    """To the last bit, with the compiler's wrapper in place before and after."""
    model = seeded()
    compiled = torch.compile(model, backend="aot_eager")
    fit(compiled, PCGrad(), batches=3)
    assert flat(model).equal(flat(fit(seeded(), PCGrad(), batches=3)[1]))
