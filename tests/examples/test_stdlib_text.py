"""Tests of the text that the examples learn from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from stdlib_text import (
    StdlibText,
    Windows,
    encode,
    read_tokens,
    source_files,
    split_files,
    stdlib_folder,
)


@pytest.fixture
def sources(tmp_path: Path) -> list[Path]:
    """Twenty files of five characters each."""
    files = [tmp_path / f"m{index:02}.py" for index in range(20)]
    for index, file in enumerate(files):
        file.write_text(f"x{index:03}\n")
    return files


def test_text_becomes_ascii_codes() -> None:
    """Every character is one token."""
    assert encode("a\n~").tolist() == [97, 10, 126]


def test_characters_beyond_ascii_become_question_marks() -> None:
    """The vocabulary stays that of ASCII."""
    assert encode("\u00e9A").tolist() == [63, 65]


def test_no_text_becomes_no_tokens() -> None:
    """An empty file is legal."""
    assert encode("").tolist() == []


def test_one_file_of_ten_is_held_out(sources: list[Path]) -> None:
    """No file is in both roles."""
    train, val = split_files(sources)
    assert [file.name for file in val] == ["m09.py", "m19.py"]
    assert len(train) == 18
    assert not set(train) & set(val)


def test_reading_stops_one_token_after_the_limit(sources: list[Path]) -> None:
    """The token after the last is the target of the last."""
    assert bytes(read_tokens(sources, limit=7).tolist()) == b"x000\nx00"


def test_sources_are_sorted_and_only_python(sources: list[Path]) -> None:
    """The set of files does not depend on the order of the file system."""
    (sources[0].parent / "readme.txt").write_text("no")
    assert source_files(sources[0].parent) == sources


def test_a_folder_without_sources_is_refused(tmp_path: Path) -> None:
    """A Python without its sources cannot be learnt from, and the message says what to do."""
    with pytest.raises(FileNotFoundError, match="use another Python"):
        source_files(tmp_path)


def test_the_target_of_a_window_is_what_follows() -> None:
    """Windows follow each other, and every target is the next token."""
    windows = Windows(torch.arange(8), context=3)
    inputs, targets = windows[1]
    assert len(windows) == 2
    assert (inputs.tolist(), targets.tolist()) == ([3, 4, 5], [4, 5, 6])


def test_the_standard_library_of_this_python_is_enough_for_the_defaults() -> None:
    """An epoch reads as many characters as asked for."""
    data = StdlibText()
    data.setup()
    assert len(data.train) == 1_500_000 // 64
    assert len(data.val) == 131_072 // 64


def test_less_text_than_a_batch_is_refused() -> None:
    """An epoch has at least one full batch."""
    with pytest.raises(ValueError, match="at least one batch"):
        StdlibText(chars=100)


def test_two_modules_deal_the_same_batches() -> None:
    """Every rank builds its own loader, and all agree on the order."""
    first, second = StdlibText(chars=4096), StdlibText(chars=4096)
    for data in (first, second):
        data.setup()
    batches = zip(first.train_dataloader(), second.train_dataloader(), strict=True)
    assert all(torch.equal(one[0], other[0]) for one, other in batches)


def test_the_library_is_where_python_says() -> None:
    """The folder holds modules that every Python has."""
    assert (stdlib_folder() / "argparse.py").is_file()
