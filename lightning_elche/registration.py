"""Makes `Trainer(strategy="elche")` known to Lightning without importing Lightning."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType

__all__ = ["register_strategies"]

LIGHTNING = "lightning.pytorch"
STRATEGY = "lightning_elche.strategies.elche"  # registers its names when it is imported


def register_strategies() -> None:
    """Register the strategy names, now if Lightning is imported, else as soon as it is."""
    if LIGHTNING in sys.modules:
        importlib.import_module(STRATEGY)
    else:
        sys.meta_path.insert(0, _RegisterAfterImport())


class _RegisterAfterImport(importlib.abc.MetaPathFinder):
    """Finds Lightning once, as everybody else would, and registers after it was executed."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        """Return Lightning's own spec with a loader that registers."""
        del path, target
        if fullname != LIGHTNING:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _RegisteringLoader(spec.loader)
        return spec


class _RegisteringLoader(importlib.abc.Loader):
    """Executes a module with its own loader, then registers."""

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        """Create the module as its own loader does."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Execute the module, then register."""
        self._loader.exec_module(module)
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self._loader
        importlib.import_module(STRATEGY)
