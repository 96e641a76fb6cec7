"""The layer contract: every file of the package keeps to contracts/layers-v1.yaml.

Files beside the package, such as this one, keep to its limit of lines. The checkers take source
text, so that the falsifiers below can feed them code that breaks a rule.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
CONTRACT: dict[str, Any] = yaml.safe_load(
    (ROOT / "contracts" / "layers-v1.yaml").read_text(encoding="utf-8")
)
PACKAGE: str = CONTRACT["package"]
LIMITS: dict[str, int] = CONTRACT["limits"]
LAYERS: list[dict[str, Any]] = CONTRACT["layers"]
HEIGHT = {module: -i for i, layer in enumerate(LAYERS) for module in layer["modules"]}
LAYER_OF = {module: layer for layer in LAYERS for module in layer["modules"]}
FILES = sorted((ROOT / PACKAGE).rglob("*.py"))
BESIDE = ("benchmarks", "examples", "tests")  # the folders whose files are as short


def _is_type_checking(test: ast.expr) -> bool:
    return ast.unparse(test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    """Yield every node that can run: all but the bodies of `if TYPE_CHECKING:`."""
    yield node
    if isinstance(node, ast.If) and _is_type_checking(node.test):
        children: Iterator[ast.AST] = iter(node.orelse)
    else:
        children = ast.iter_child_nodes(node)
    for child in children:
        yield from _walk(child)


def _names(node: ast.AST) -> list[str]:
    """Return the dotted names that an import statement binds, none for any other node."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        # A relative import keeps its leading dots, and so belongs to no layer.
        origin = "." * node.level + (node.module or "")
        return [f"{origin}.{alias.name}" for alias in node.names]
    return []


def imported(source: str) -> list[str]:
    """Return the dotted names that `source` imports when it runs, wherever the statement stands."""
    return [name for node in _walk(ast.parse(source)) for name in _names(node)]


def forbidden_imports(module: str, source: str) -> list[str]:
    """Return the third-party imports that the layer of the top-level `module` may not have."""
    layer = LAYER_OF[module]
    banned = {*layer.get("forbidden", ()), *CONTRACT["forbidden_everywhere"]}
    roots = {name.split(".")[0] for name in imported(source)}
    third_party = roots - sys.stdlib_module_names - {PACKAGE}
    strangers = third_party - set(layer["allowed"]) if "allowed" in layer else set()
    return sorted(third_party & banned | strangers)


def _target(name: str) -> str | None:
    """Return the top-level module of the package that `name` reaches, None for a stranger."""
    root, *rest = name.split(".")
    if not root:
        return name
    if root != PACKAGE or (rest and rest[0].startswith("__")):
        return None
    return rest[0] if rest and rest[0] in HEIGHT else "__init__"


def upward_imports(module: str, source: str) -> list[str]:
    """Return the imports that do not go down; one's own layer counts as down."""
    own = HEIGHT[module]
    targets = ((name, _target(name)) for name in imported(source))
    return [name for name, to in targets if to is not None and HEIGHT.get(to, 1) > own]


def private_lightning_names(source: str) -> list[str]:
    """Return the private names of Lightning that `source` imports, for type checking or not."""
    names = [name.split(".") for node in ast.walk(ast.parse(source)) for name in _names(node)]
    return [
        ".".join(parts)
        for parts in names
        if parts[0] == "lightning" and any(part.startswith("_") for part in parts)
    ]


def long_functions(source: str, limit: int = LIMITS["lines_per_function"]) -> list[str]:
    """Return the functions of more than `limit` lines, signature and docstring included."""
    kinds = ast.FunctionDef, ast.AsyncFunctionDef
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, kinds)]
    return [f.name for f in functions if (f.end_lineno or f.lineno) - f.lineno + 1 > limit]


def is_too_deep(path: str) -> bool:
    """Return whether `path`, relative to the package, lies below too many folders."""
    return path.count("/") > LIMITS["folders_below_package"]


def is_too_long(source: str) -> bool:
    """Return whether `source` has too many lines."""
    return len(source.splitlines()) > LIMITS["lines_per_file"]


def _module(path: Path) -> str:
    return path.relative_to(ROOT / PACKAGE).parts[0].removesuffix(".py")


def _label(path: Path) -> str:
    return path.relative_to(ROOT / PACKAGE).as_posix()


each_file = pytest.mark.parametrize("path", FILES, ids=_label)


@each_file
def test_layer_is_known_for_every_file(path: Path) -> None:
    """Every file belongs to a layer of the contract."""
    assert _module(path) in HEIGHT


@each_file
def test_third_party_imports_are_allowed_in_every_file(path: Path) -> None:
    """No file imports a third-party package that its layer forbids."""
    assert forbidden_imports(_module(path), path.read_text(encoding="utf-8")) == []


@each_file
def test_imports_go_down_in_every_file(path: Path) -> None:
    """No file imports from a layer above its own."""
    assert upward_imports(_module(path), path.read_text(encoding="utf-8")) == []


@each_file
def test_size_is_within_limits_for_every_file(path: Path) -> None:
    """No file is too deep or too long, and no function in it is too long."""
    source = path.read_text(encoding="utf-8")
    assert not is_too_deep(_label(path))
    assert not is_too_long(source)
    assert long_functions(source) == []


@pytest.mark.parametrize("folder", BESIDE)
def test_length_is_within_the_limit_beside_the_package(folder: str) -> None:
    """No test, example or benchmark is longer than a file of the package may be."""
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    assert [str(p) for p in files if is_too_long(p.read_text(encoding="utf-8"))] == []


def test_private_lightning_names_stay_in_one_file() -> None:
    """At most one file of the package imports private names of Lightning."""
    files = [_label(p) for p in FILES if private_lightning_names(p.read_text(encoding="utf-8"))]
    assert len(files) <= LIMITS["files_with_private_lightning_names"], files


def test_import_of_the_package_loads_neither_torch_nor_lightning() -> None:
    """A bare `import lightning_elche` leaves the heavy packages out of the process."""
    code = (
        f"import sys, {PACKAGE}\n"
        "print(*{'torch', 'lightning', 'pytorch_lightning', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")


def test_contract_opens_with_a_schema_that_exists() -> None:
    """The first line of the contract names a schema that lies beside it."""
    first = (ROOT / "contracts" / "layers-v1.yaml").read_text(encoding="utf-8").splitlines()[0]
    modeline, _, schema = first.partition("$schema=")
    assert modeline == "# yaml-language-server: "
    assert (ROOT / "contracts" / schema).is_file()


@pytest.mark.parametrize(
    ("module", "source", "expected"),
    [
        ("control", "import torch", ["torch"]),
        ("control", "import numpy as np", ["numpy"]),
        ("control", "def f():\n    from jsonschema import validate", ["jsonschema"]),
        ("contracts", "from lightning.pytorch import Trainer", ["lightning"]),
        ("partition", "import lightning", ["lightning"]),
        ("coordination", "import torch.distributed", ["torch"]),
        ("timeline", "try:\n    import lightning\nexcept ImportError:\n    pass", ["lightning"]),
        ("ops", "from lightning.pytorch import Trainer", ["lightning"]),
        ("distributed", "import lightning.pytorch", ["lightning"]),
        ("strategies", "import pytorch_lightning", ["pytorch_lightning"]),
        ("control", "if TYPE_CHECKING:\n    pass\nelse:\n    import torch", ["torch"]),
    ],
)
def test_forbidden_import_is_found(module: str, source: str, expected: list[str]) -> None:
    """A third-party import that a layer may not have is reported, wherever it stands."""
    assert forbidden_imports(module, source) == expected


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("control", "import math\nfrom collections import abc"),
        ("control", "if TYPE_CHECKING:\n    import torch"),
        ("timeline", "import psutil"),
        ("contracts", "import yaml, jsonschema"),
        ("partition", "import numpy, torch"),
        ("distributed", "import torch.distributed as dist"),
        ("strategies", "from lightning.pytorch.strategies import DDPStrategy"),
        ("testing", "import torch, lightning"),
    ],
)
def test_allowed_import_is_not_reported(module: str, source: str) -> None:
    """An import that a layer may have, or that never runs, passes."""
    assert forbidden_imports(module, source) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("control", "from lightning_elche.contracts import model"),
        ("control", "from lightning_elche import distributed"),
        ("exceptions", "import lightning_elche.control.schedule"),
        ("timeline", "from lightning_elche.partition.plan import Plan"),
        ("distributed", "def f():\n    from lightning_elche.data.sampler import Sampler"),
        ("loops", "import lightning_elche.strategies"),
        ("callbacks", "from lightning_elche.cli import main"),
        ("callbacks", "from lightning_elche import ElCheStrategy"),
        ("cli", "from lightning_elche.testing import FakeClock"),
        ("data", "from .sampler import Sampler"),
    ],
)
def test_upward_import_is_found(module: str, source: str) -> None:
    """An import from a higher layer, from the package itself or a relative one is reported."""
    assert len(upward_imports(module, source)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("control", "from lightning_elche.control.schedule import Plan"),
        ("control", "from lightning_elche.exceptions import ElCheError"),
        ("strategies", "from lightning_elche.loops.epoch import ElCheLoop"),
        ("control", "if TYPE_CHECKING:\n    from lightning_elche.strategies import ElCheStrategy"),
        ("timeline", "from lightning_elche import __version__"),
        ("testing", "import lightning_elche.strategies"),
    ],
)
def test_downward_import_is_not_reported(module: str, source: str) -> None:
    """An import from one's own layer, a lower one or for type checking only passes."""
    assert upward_imports(module, source) == []


@pytest.mark.parametrize(
    "source",
    [
        "from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop",
        "from lightning.pytorch.loops._private import name",
        "import lightning.pytorch._private",
        "if TYPE_CHECKING:\n    from lightning.fabric import _Name",
    ],
)
def test_private_lightning_name_is_found(source: str) -> None:
    """A private name of Lightning is reported, be it a module, a class or for type checking."""
    assert len(private_lightning_names(source)) == 1


def test_public_lightning_name_is_not_reported() -> None:
    """Public names of Lightning and private names of others pass."""
    source = "from lightning.pytorch import Trainer\nfrom torch._C import _name"
    assert private_lightning_names(source) == []


@pytest.mark.parametrize("keyword", ["def", "async def"])
def test_long_function_is_found_beyond_fifty_lines(keyword: str) -> None:
    """A function may have 50 lines, and a method of 51 is reported."""
    fits = f"{keyword} fits():\n" + "    x = 1\n" * 49
    long = f"class A:\n    {keyword} long(self):\n" + "        x = 1\n" * 50
    assert long_functions(fits + long) == ["long"]


def test_long_file_is_found_beyond_350_lines() -> None:
    """A file may have 350 lines and not one more."""
    assert not is_too_long("x = 1\n" * 350)
    assert is_too_long("x = 1\n" * 351)


def test_deep_file_is_found_beyond_two_folders() -> None:
    """A file may lie two folders below the package and not three."""
    assert not is_too_deep("contracts/schemas/file.py")
    assert is_too_deep("contracts/schemas/old/file.py")


def test_file_outside_all_layers_is_not_known() -> None:
    """A module that no layer lists is not part of the contract."""
    assert "helpers" not in HEIGHT
