"""What the documentation shows is what happens."""

from __future__ import annotations

import doctest
import importlib
import os
import re
from pathlib import Path
from typing import Any

import pytest

import lightning_elche
from lightning_elche.testing import run_ranks
from tests.ranks import Recorder, make_loader

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lightning_elche"
WITH_EXAMPLES = [
    str(path.relative_to(ROOT).with_suffix("")).replace(os.sep, ".")
    for path in sorted(PACKAGE.rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]
PARTS = ("contracts", "coordination", "exceptions", "ops", "partition", "testing", "typing")
PUBLIC = ["lightning_elche", *(f"lightning_elche.{part}" for part in PARTS)]


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_in_docstrings_run(name: str) -> None:
    """Each shows what it really gives."""
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize("name", lightning_elche.__all__)
def test_public_name_shows_how_it_is_used(name: str) -> None:
    """Every name of the top level has an example in its docstring, which runs (see above)."""
    value = getattr(lightning_elche, name)
    examples = doctest.DocTestParser().get_examples(value.__doc__)
    assert any(name in example.source for example in examples)
    assert value.__module__ in WITH_EXAMPLES


def test_reference_lists_every_public_name_with_a_docstring() -> None:
    """Whatever module has an `__all__` that `docs/reference` shows."""
    pages = "".join(path.read_text() for path in (ROOT / "docs" / "reference").glob("*.md"))
    modules = re.findall(r"automodule:: (\S+)\n +:members:", pages)
    for name in [*PUBLIC, "lightning_elche.partition.errors"]:
        module = importlib.import_module(name)
        assert name in modules
        assert [part for part in module.__all__ if not getattr(module, part).__doc__] == []


def logged_names() -> set[str]:
    """Return what looks like the name of a metric in callbacks, whoever logs it."""
    kinds = "elche|emergency|gate|partition|pcgrad|profiler|replay|rollback"
    sources = (path.read_text(encoding="utf-8") for path in (PACKAGE / "callbacks").glob("*.py"))
    return {name for text in sources for name in re.findall(rf'"((?:{kinds})/[a-z_/]+)"', text)}


def test_pages_name_every_metric() -> None:
    """In a table of some page; `/median` may stand for the name before it with another ending."""
    pages = [path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")]
    rows = [line for page in pages for line in page.splitlines() if line.startswith("| `")]
    cells = "".join(row.split(" | ")[0] for row in rows)
    names = logged_names()
    assert len(names) > 40
    missing = {name for name in names if f"`{name}`" not in cells}
    assert {name for name in missing if f"`/{name.rpartition('/')[2]}`" not in cells} == set()


def test_page_of_security_names_tests_that_exist() -> None:
    """Each line of what we defend against has some."""
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| .* \| .* \| (.*) \|$", text, re.MULTILINE)
    named = [re.findall(r"`(tests/\S+\.py)`", row) for row in rows]
    assert len(named) == 5
    assert all(named)
    assert [path for paths in named for path in paths if not (ROOT / path).is_file()] == []


def first_block_of_readme() -> list[str]:
    block = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert block is not None
    return block.group(1).splitlines()


def run_readme(folder: str, lines: list[str]) -> list[int]:
    os.chdir(folder)
    model = Recorder((1.0, 4.0))
    names: dict[str, Any] = {"model": model, "datamodule": make_loader(200)}
    exec("\n".join(lines), names)
    return sorted(index for ids in model.ids.values() for index in ids)


@pytest.mark.slow
def test_first_code_of_the_readme_trains(tmp_path: Path) -> None:
    """Copied as it is, it trains on both ranks and draws the picture."""
    lines = first_block_of_readme()
    ranks = run_ranks(run_readme, world_size=2, folder=str(tmp_path), lines=lines)
    seen = sorted(index for rank in ranks for index in rank.value)
    assert seen == sorted([*range(200)] * 3)
    assert (tmp_path / "swimlane.png").exists()


def test_trainer_of_pytorch_lightning_refuses_the_strategy() -> None:
    """As the README says: it is another class, with other strategies."""
    other = pytest.importorskip("pytorch_lightning")
    with pytest.raises(ValueError, match="invalid strategy name"):
        other.Trainer(strategy=lightning_elche.ElCheStrategy(), accelerator="cpu", devices=2)
