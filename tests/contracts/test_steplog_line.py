"""One line of a log: its record, or what is wrong with it and where."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_elche.contracts.steplog.line import BrokenLine, decode_line

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@pytest.mark.slow
@given(st.dictionaries(st.text(), JSON))
def test_any_object_is_a_record(record: dict[str, object]) -> None:
    """What is in it is for others to judge."""
    assert decode_line(json.dumps(record).encode()) == record


@given(st.binary(max_size=40) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_a_record_or_a_broken_line(line: bytes) -> None:
    """No bytes lead to another error, and every place lies on the line."""
    try:
        offset = 0 if isinstance(decode_line(line), dict) else -1
    except BrokenLine as err:
        offset = err.offset
    assert 0 <= offset <= len(line)


@pytest.mark.parametrize(
    ("line", "column", "offset"),
    [
        (b'{"\xc3\xa9": x}', 7, 7),
        (b'{"\xc3\xa9": "\xff"}', 8, 8),
        (b'{"a": 1}{}', 9, 8),
        (b'{"a": \x00}', 7, 6),
    ],
    ids=["json", "utf-8", "two", "nul"],
)
def test_place_counts_characters_and_bytes(line: bytes, column: int, offset: int) -> None:
    """Columns are in characters from 1, offsets in bytes from 0."""
    with pytest.raises(BrokenLine) as caught:
        decode_line(line)
    assert (caught.value.column, caught.value.offset) == (column, offset)


def test_whitespace_around_a_record_is_allowed() -> None:
    """JSON says so; a carriage return is whitespace, too."""
    assert decode_line(b'\t{"step": 1} \r') == {"step": 1}


def test_number_of_thousands_of_digits_is_a_broken_line() -> None:
    """Python does not read it, so that it takes no time."""
    with pytest.raises(BrokenLine, match="digits"):
        decode_line(b'{"step":' + b"1" * 5000 + b"}")


def test_measured_fields_keep_plain_numbers_for_constants() -> None:
    """Nothing tells them from numbers that were computed."""
    record = decode_line(b'{"lr":NaN,"wall_ms":-Infinity}')
    assert [type(value) for value in record.values()] == [float, float]
    assert repr(record) == "{'lr': nan, 'wall_ms': -inf}"


def test_constant_hidden_behind_a_measured_one_is_found() -> None:
    """A record may have both."""
    with pytest.raises(BrokenLine, match="not JSON: NaN outside a measured field"):
        decode_line(b'{"lr":NaN,"x":[NaN]}')
