"""Small JSON files of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightning_elche.contracts.runfolder import jsonfile
from lightning_elche.contracts.runfolder.jsonfile import parse_object, read_object


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is no JSON"),
        (b"[1]", "is no JSON object but a list"),
        (b'{"a": 1, "a": 1}', "key 'a' is there twice"),
        (b'{"a": {"b": 1, "b": 2}}', "key 'b' is there twice"),
        (b'{"a": "\xff"}', "is no JSON: 'utf-8' codec can't decode"),
        (b"[" * 100_000, "is nested too deeply"),
        (b'{"a": 1} {}', "is no JSON: Extra data"),
        (b'{"a": ' + b"9" * 5000 + b"}", "is no JSON"),
    ],
)
def test_text_is_refused_unless_it_is_one_clear_object(content: bytes, problem: str) -> None:
    """Whatever two readers might understand differently is refused, with the reason."""
    with pytest.raises(ValueError, match=problem):
        parse_object(content)


def test_numbers_that_are_none_are_read() -> None:
    """It is for others to say what NaN means where it stands."""
    assert str(parse_object(b'{"a": NaN, "b": -Infinity, "c": 1e999}')) == (
        "{'a': nan, 'b': -inf, 'c': inf}"
    )


def test_file_is_refused_if_it_is_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody fills the memory of the checker."""
    monkeypatch.setattr(jsonfile, "MAX_BYTES", 8)
    (tmp_path / "fits").write_bytes(b'{"a": 1}')
    (tmp_path / "large").write_bytes(b'{"a": 10}')
    assert read_object(tmp_path / "fits") == {"a": 1}
    with pytest.raises(ValueError, match="has more than 8 bytes"):
        read_object(tmp_path / "large")
