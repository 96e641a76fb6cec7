"""`Trainer(strategy="elche")`, whichever package is imported first."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NAMES = "elche:popen elche_fork:fork elche_notebook:fork elche_spawn:spawn"
SHOW_NAMES = """
from lightning.pytorch.strategies import StrategyRegistry
names = sorted(name for name in StrategyRegistry.available_strategies() if "elche" in name)
print(*(f"{name}:{StrategyRegistry.get(name)._start_method}" for name in names))
"""


def output_of(code: str) -> str:
    """Run `code` in a new interpreter and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.slow
def test_names_are_registered_for_any_order_of_imports() -> None:
    """Each name stands for the strategy with its start method, whoever is imported first."""
    orders = (
        "import lightning_elche, lightning.pytorch",
        "import lightning.pytorch, lightning_elche",
        "import lightning_elche; from lightning.pytorch.strategies import DDPStrategy",
    )
    with ThreadPoolExecutor() as pool:
        assert list(pool.map(output_of, [order + SHOW_NAMES for order in orders])) == [NAMES] * 3


def test_import_loads_neither_torch_nor_lightning() -> None:
    """A bare import is cheap."""
    code = (
        "import sys, lightning_elche\n"
        "print({'torch', 'lightning', 'numpy', 'matplotlib'} & set(sys.modules))"
    )
    assert output_of(code) == "set()"


@pytest.mark.slow
def test_import_hook_is_gone_after_it_has_registered() -> None:
    """Nothing of ours stays on the import path, and Lightning keeps its own loader."""
    code = (
        "import sys, lightning_elche, lightning.pytorch as pl\n"
        "print([f for f in sys.meta_path if 'elche' in type(f).__module__],"
        " 'elche' in type(pl.__spec__.loader).__module__)"
    )
    assert output_of(code) == "[] False"


def test_import_hook_leaves_other_modules_alone() -> None:
    """Before Lightning is imported, other imports work as ever."""
    code = "import lightning_elche, json, importlib.util as u; print(u.find_spec('no_such_module'))"
    assert output_of(code) == "None"


def test_unknown_name_of_the_package_is_an_attribute_error() -> None:
    """The lazy package says what it does not have."""
    import lightning_elche

    with pytest.raises(AttributeError, match="no_such_name"):
        lightning_elche.no_such_name  # noqa: B018  # the access is what is tested


@pytest.mark.slow
def test_every_public_name_can_be_imported() -> None:
    """`__all__` lists what the package gives, in order."""
    import lightning_elche

    assert all(hasattr(lightning_elche, name) for name in lightning_elche.__all__)
    assert list(lightning_elche.__all__) == sorted(lightning_elche.__all__)
    assert set(lightning_elche.__all__) <= set(dir(lightning_elche))
