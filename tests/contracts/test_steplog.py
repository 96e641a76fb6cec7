"""Reading a whole step log: what counts, what is broken, and what is only noted."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from lightning_elche.contracts.steplog import reading as steplog
from lightning_elche.contracts.steplog.passes import BulkDecoder
from lightning_elche.contracts.steplog.plain import decode_plain
from lightning_elche.contracts.steplog.reading import read_steps
from lightning_elche.contracts.verdicts import Location, Severity
from tests.contracts.recorded_steps import RecordedSteps, line, record_steps

FEW = b"".join(line(step) for step in range(3))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "train.jsonl"


@pytest.mark.parametrize("decoders", [None, (decode_plain,), ()], ids=["fast", "plain", "slow"])
def test_clean_log_is_read_in_order(log: Path, decoders: tuple[BulkDecoder, ...] | None) -> None:
    """Every record gets to the sink, with its values."""
    sink, summary = record_steps(log, FEW, decoders=decoders)
    assert (sink.steps, summary.records, summary.findings) == ([0, 1, 2], 3, ())
    assert sink.records[1]["lr"] == 1e-05


def test_clean_lines_come_at_once(log: Path) -> None:
    """Nothing in a clean log has to be read slowly."""
    sink, _ = record_steps(log, FEW)
    assert (sink.in_bulk, sink.places) == (3, [])


def test_empty_file_has_no_records(log: Path) -> None:
    """A sink is told nothing, and has to judge that."""
    sink, summary = record_steps(log, b"")
    assert (sink, summary.records, summary.attempts) == (RecordedSteps(), 0, 0)


def test_last_line_without_its_end_counts(log: Path) -> None:
    """A complete record counts although its line is not."""
    sink, summary = record_steps(log, FEW + line(3, end=""))
    assert (sink.steps, summary.torn_tail) == ([0, 1, 2, 3], None)


def test_torn_tail_breaks_a_log_that_is_finished(log: Path) -> None:
    """Its place is the line, and the byte where it stops making sense."""
    sink, summary = record_steps(log, FEW + line(3)[:20])
    at = Location(path="train.jsonl", line=4, column=11, offset=len(FEW) + 10)
    assert sink.broken_lines == [("torn last line: not JSON: Unterminated string starting at", at)]
    assert summary.torn_tail == Location(path="train.jsonl", line=4, offset=len(FEW))


def test_torn_tail_is_noted_in_a_live_log(log: Path) -> None:
    """The writer may be about to complete it."""
    sink, summary = record_steps(log, FEW + line(3)[:20], is_live=True)
    assert sink.broken_lines == []
    assert [(one.severity, one.message) for one in summary.findings] == [
        (Severity.NOTE, "the last line is not complete yet")
    ]


def test_torn_character_is_a_torn_tail(log: Path) -> None:
    """A line may be cut within a character of several bytes."""
    sink, summary = record_steps(log, FEW + b'{"note":"\xc3', is_live=True)
    assert (sink.broken_lines, summary.torn_tail is None) == ([], False)


@pytest.mark.parametrize("tail", [b"\0" * 9, b"3", line(3) * 2], ids=["nul", "number", "two"])
def test_tail_that_cannot_become_good_breaks_a_live_log(log: Path, tail: bytes) -> None:
    """Whatever is appended to such a line, it will be no record."""
    sink, _ = record_steps(log, FEW + tail.replace(b"\n", b""), is_live=True)
    assert len(sink.broken_lines) == 1


def test_growing_log_is_read_up_to_its_size_at_the_begin(log: Path) -> None:
    """What is appended meanwhile is for the next time."""

    class Appends(RecordedSteps):
        def step(self, record: Mapping[str, object], at: Location, /) -> None:
            super().step(record, at)
            with log.open("ab") as file:
                file.write(line(99))

    sink, _ = record_steps(log, FEW, decoders=(), sink=Appends())
    assert sink.steps == [0, 1, 2]


def test_blank_lines_are_noted(log: Path) -> None:
    """They are no records and do no harm."""
    sink, summary = record_steps(log, line(0) + b"\n \t\n" + line(1))
    assert (sink.steps, sink.broken_lines) == ([0, 1], [])
    assert [(one.message, one.at) for one in summary.findings] == [
        (
            "2 blank lines, this is the first",
            Location(path="train.jsonl", line=2, offset=len(line(0))),
        )
    ]


@pytest.mark.parametrize("decoders", [None, (decode_plain,), ()], ids=["fast", "plain", "slow"])
def test_carriage_returns_are_noted(log: Path, decoders: tuple[BulkDecoder, ...] | None) -> None:
    """Windows ends lines so; that alone does not make them slow to read, either."""
    sink, summary = record_steps(log, FEW.replace(b"\n", b"\r\n"), decoders=decoders)
    assert (sink.steps, sink.in_bulk) == ([0, 1, 2], 0 if decoders == () else 3)
    assert [one.message for one in summary.findings] == ["3 lines end in CR LF"]


BROKEN = {
    "nul": (b"\0" * 64, "NUL bytes: this part of the file was never written"),
    "utf-8": (b'{"step":1,"x":"\xff"}', "not UTF-8: invalid start byte"),
    "two": (line(1, end="") * 2, "more than one JSON document on a line"),
    "extra": (line(1, end="") + b" oops", "not JSON: Extra data"),
    "cut": (line(1)[:12], "not JSON: Unterminated string starting at"),
    "array": (b"[1]", "not a JSON object"),
    "key": (line(1, end="")[:-1] + b',"lr":1}', 'key "lr" is there twice'),
    "inner key": (line(1, end="", x='{"a":1,"a":2}'), 'key "a" is there twice'),
    "nan": (line(1, end="", x="NaN"), "not JSON: NaN outside a measured field"),
    "inner nan": (line(1, end="", x="[-Infinity]"), "not JSON: -Infinity outside a measured field"),
    "deep array": (line(1, end="", x="[" * 1_000_000), "nested too deeply"),
    "deep object": (b'{"a":' * 200_000, "nested too deeply"),
    "long": (b" " * (1 << 20) + b"{}", "a line of more than 1048576 bytes"),
    "bom": (b"\xef\xbb\xbf" + line(1, end=""), "not JSON: Expecting value"),
}


@pytest.mark.parametrize(("bad", "reason"), BROKEN.values(), ids=BROKEN)
def test_broken_line_in_the_middle_is_located(log: Path, bad: bytes, reason: str) -> None:
    """The lines around it count, and it is reported at its own place."""
    sink, _ = record_steps(log, line(0) + bad + b"\n" + line(2))
    assert (sink.steps, sink.reasons) == ([0, 2], [reason])
    assert sink.broken_lines[0][1].line == 2


def test_long_line_may_have_a_mebibyte(log: Path) -> None:
    """That many bytes are no fault yet."""
    padding = b" " * ((1 << 20) - len(line(1)) + 1)
    sink, _ = record_steps(log, line(0) + padding + line(1) + line(2))
    assert (sink.steps, sink.broken_lines) == ([0, 1, 2], [])


def test_endless_line_is_broken_once(log: Path) -> None:
    """Many mebibytes without a line end are one broken line, also at the end of a live log."""
    sink, _ = record_steps(log, line(0) + b"x" * (5 << 20), is_live=True)
    assert (sink.steps, sink.reasons) == ([0], ["a line of more than 1048576 bytes"])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("NaN", "nan"),
        ("Infinity", "inf"),
        ("-Infinity", "-inf"),
        ("1e400", "inf"),
        ('"NaN"', "'NaN'"),
        ("null", "None"),
        ("true", "True"),
    ],
)
def test_value_for_the_gates_to_judge_is_passed_on(log: Path, text: str, value: str) -> None:
    """A loss that is no finite number is a bad record, not a broken line."""
    sink, _ = record_steps(log, line(0) + line(1, train_loss=text) + line(2))
    assert (sink.steps, sink.broken_lines) == ([0, 1, 2], [])
    assert repr(sink.records[1]["train_loss"]) == value


def test_record_out_of_line_comes_with_its_place(log: Path) -> None:
    """So that what is wrong with it can be reported there."""
    sink, _ = record_steps(log, line(0) + line(1, lr="NaN") + line(2))
    assert Location(path="train.jsonl", line=2, offset=len(line(0))) in sink.places


def test_sink_that_needs_mappings_gets_all_keys(log: Path) -> None:
    """Then no record comes without its place or its further keys."""
    text = line(0, extra="7") + line(1, extra="8")
    sink, _ = record_steps(log, text, sink=RecordedSteps(needs_mappings=True))
    assert ([record["extra"] for record in sink.records], sink.in_bulk) == ([7, 8], 0)


def test_columns_that_the_sink_refuses_come_one_by_one(log: Path) -> None:
    """And only those around the record that it does not like."""
    text = b"".join(line(step) for step in range(1000))
    sink = RecordedSteps(accepts=lambda columns: 500 not in columns.step)
    record_steps(log, text, sink=sink)
    assert (sink.steps, 0 < len(sink.places) < 150) == (list(range(1000)), True)


def test_standard_library_is_enough_where_msgspec_is_not_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The extra `fast` is one."""
    assert len(steplog.fastest_decoders()) == 2
    monkeypatch.setitem(sys.modules, "msgspec", None)
    monkeypatch.delitem(sys.modules, "lightning_elche.contracts.steplog.fast")
    assert steplog.fastest_decoders() == (decode_plain,)


def test_log_that_is_not_there_is_an_os_error(log: Path) -> None:
    """The caller decides what that means."""
    with pytest.raises(FileNotFoundError):
        read_steps(log, RecordedSteps(), name="train.jsonl")
