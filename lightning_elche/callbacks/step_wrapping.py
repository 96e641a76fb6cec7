"""Stands around a method of one object, and steps aside again."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn

__all__ = ["WrappedMethod"]


class WrappedMethod:
    """Lets `around` be called in the place of a method of an object, until `restore`.

    Args:
        owner: The object; its class stays as it is.
        name: Of the method.
        around: Called with the method and its arguments.
    """

    def __init__(self, owner: object, name: str, around: Callable[..., Any]) -> None:
        self._owner, self._name = owner, name
        self._had = vars(owner).get(name)  # such as what `torch.compile` has put there
        self._is_active = True
        method = getattr(owner, name)

        # A plain function, since copies of the module are to share it.
        @functools.wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            if not self._is_active:
                return method(*args, **kwargs)
            return around(method, *args, **kwargs)

        # Lightning decides on the arguments by the signature one step below, which may be a wrapper
        # itself, such as that of `torch.compile`.
        call.__wrapped__ = inspect.unwrap(method)
        self._call = call
        vars(owner)[name] = call

    def restore(self) -> None:
        """Put back what was there before; a second call does nothing."""
        if not self._is_active:
            return
        self._is_active = False
        if vars(self._owner).get(self._name) is not self._call:
            rank_zero_warn(
                f"`{self._name}` of {type(self._owner).__name__} was wrapped once more while it "
                "was wrapped by us: it is left as it is, and ours passes everything on."
            )
        elif self._had is None:
            del vars(self._owner)[self._name]
        else:
            vars(self._owner)[self._name] = self._had
