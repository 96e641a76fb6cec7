"""Reading many lines at once: the fast ways and the slow one tell a sink the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_elche.contracts.records import StepColumns
from lightning_elche.contracts.steplog import file as steplog_file
from lightning_elche.contracts.steplog import passes as steplog_reader
from lightning_elche.contracts.steplog.fast import decode_fast
from lightning_elche.contracts.steplog.passes import BulkDecoder
from lightning_elche.contracts.steplog.plain import decode_plain
from tests.contracts.recorded_steps import RecordedSteps, line, record_steps

each_decoder = pytest.mark.parametrize("decode", [decode_fast, decode_plain])
TWO = line(0) + line(1)
NUMBER = st.from_regex(
    r"-?(0|[1-9][0-9]{0,24})(\.[0-9]{1,24})?([eE][+-]?[0-9]{1,3})?", fullmatch=True
)
TEXT = NUMBER | st.sampled_from(
    ["NaN", "Infinity", "1e400", "null", "true", '"1"', "01", "1.", "[1]", "[]", "{}", "", " 1 "]
)
NAMES = (*StepColumns.__slots__, "extra")
STRANGE = st.sampled_from(
    [
        b"\n",
        b" \r\n",
        b"\r\r\n",
        b"\0\n",
        b"{}\n",
        b"[]\n",
        b"7\n",
        b"{\n",
        b"}\n",
        b"\xff\n",
        b"\xc3\xa9\n",
        TWO.replace(b"\n", b"") + b"\n",
        TWO.replace(b"\n", b",") + b"\n",
        line(4).replace(b",", b",\n", 1),
        line(5).replace(b"step", b"st\\u0065p"),
        line(5).replace(b":", b" : "),
        b" " + line(6),
        line(6, end="\r\n"),
        line(7).replace(b'"epoch":0', b'"lr":3'),
        line(8).replace(b'"epoch"', b'"lr"'),
        line(9, extra='"a:b"'),
        line(9, extra='"\\""'),
        line("1.0"),
        line("1e2"),
        line("-0"),
        line(10, attempt="0.0"),
        line(11, train_loss="1" + "0" * 400),
        line(12, lr="9007199254740993"),
    ]
)
MIXED = st.lists(
    st.integers(0, 9).map(line)
    | st.builds(lambda name, text: line(3, **{name: text}), st.sampled_from(NAMES), TEXT)
    | STRANGE
    | st.binary(max_size=8),
    max_size=30,
).map(lambda lines: b"".join([b"\n", *lines]))


def told(path: Path, text: bytes, decoders: tuple[BulkDecoder, ...]) -> tuple[Any, ...]:
    """Return all that a sink is told and all that is returned, numbers as floats."""
    sink, summary = record_steps(path, text, decoders=decoders)
    records = [
        {name: _plain(record[name]) for name in StepColumns.__slots__ if name in record}
        for record in sink.records
    ]
    return records, sink.broken_lines, summary


def _plain(value: object) -> object:
    """Return a number that a 64-bit float holds as its shortest text, and all else as it is."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return repr(float(value)) if is_number and abs(value) < 1e308 else repr(value)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("log") / "train.jsonl"


@pytest.mark.slow
@settings(max_examples=400)
@given(text=MIXED, block=st.sampled_from([7, 150, 1 << 17]))
def test_all_ways_of_reading_tell_the_same(log: Path, text: bytes, block: int) -> None:
    """Whatever lines are mixed, and however they fall into blocks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steplog_file, "BLOCK_BYTES", block)
        patch.setattr(steplog_reader, "FEW_BYTES", 200)
        slow = told(log, text, ())
        assert told(log, text, (decode_fast,)) == slow
        assert told(log, text, (decode_plain,)) == slow


@each_decoder
@given(text=NUMBER)
def test_numbers_are_read_to_the_last_bit(decode: BulkDecoder, text: str) -> None:
    """All decoders round like Python, however many digits there are."""
    columns = decode(line(0, lr=text))
    assert columns is None or columns.lr == [float(text)]
    assert (columns is None) <= (abs(float(text)) > 1e308)


@each_decoder
def test_columns_have_the_values_of_the_lines(decode: BulkDecoder) -> None:
    """Fields that no line has have no column."""
    assert decode(line(0) + line(1, lr="2e-05")) == StepColumns(
        step=[0, 1],
        train_loss=[2.5, 2.5],
        grad_norm=[0.5, 0.5],
        lr=[1e-05, 2e-05],
        tokens_per_sec=[900.0, 900.0],
        gpu_util_pct=[40.0, 40.0],
        wall_ms=[12.5, 12.5],
        epoch=[0, 0],
    )


@each_decoder
@pytest.mark.parametrize(
    "second",
    [
        line(1).replace(b'"epoch":0', b'"lr":3'),
        line(1)[:-2] + b',"lr":1e-05}\n',
        line(1, epoch=""),
        line(1, attempt="0"),
        line("1.0"),
        line(1, epoch="0.0"),
        line(1, epoch="true"),
        line(1, lr="true"),
        line(1, lr="null"),
        line(1, lr='"1"'),
        line(1, lr="NaN"),
        line(1, lr=""),
        line(1, end="") + line(2),
        line(1).replace(b",", b",\n", 1),
        b"\n",
        b"[]\n",
        b"\0\n",
        b"\xff\n",
    ],
)
def test_dirty_line_is_left_to_the_slow_way(decode: BulkDecoder, second: bytes) -> None:
    """One line that is not like the others is enough."""
    assert decode(line(0) + second) is None


def test_further_numbers_do_not_hinder_the_standard_library() -> None:
    """Logs often have more fields; columns leave them out."""
    assert decode_fast(line(0, scale="1024")) is None
    columns = decode_plain(line(0, scale="1024"))
    assert (columns and columns.step) == [0]


@each_decoder
def test_spaces_between_tokens_do_not_hinder(decode: BulkDecoder) -> None:
    """`json.dumps` writes them."""
    columns = decode(TWO.replace(b":", b" : ").replace(b",", b", "))
    assert (columns and columns.step) == [0, 1]


@each_decoder
def test_integers_are_numbers(decode: BulkDecoder) -> None:
    """A loss of 3 may be written so, and becomes a float."""
    columns = decode(line(0, train_loss="3") + line(1, train_loss="2.5"))
    assert repr(columns and columns.train_loss) == "[3.0, 2.5]"


def test_few_lines_around_a_dirty_one_are_read_slowly(log: Path) -> None:
    """The blocks before and behind it are not, nor most of its own."""
    lines = [line(step) for step in range(3000)]
    lines[1500] = line(1500, lr="NaN")
    sink, _ = record_steps(log, b"".join(lines), sink=RecordedSteps())
    assert (sink.steps, 0 < len(sink.places) < 100) == (list(range(3000)), True)


def test_place_is_right_behind_many_lines_read_at_once(log: Path) -> None:
    """Lines are counted and bytes are added up whichever way they were read."""
    lines = [line(step) for step in range(3000)]
    lines[2500] = b"x\n"
    sink, _ = record_steps(log, b"".join(lines))
    ((_, at),) = sink.broken_lines
    assert (at.line, at.offset) == (2501, sum(map(len, lines[:2500])))
