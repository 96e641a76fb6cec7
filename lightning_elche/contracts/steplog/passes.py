"""One pass over a step log: clean lines many at once, all others one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import BinaryIO

from lightning_elche.contracts.records import StepColumns
from lightning_elche.contracts.steplog.file import MAX_LINE_BYTES, Lines, read_lines
from lightning_elche.contracts.steplog.line import WHITESPACE, BrokenLine, decode_line
from lightning_elche.contracts.steplog.sink import StepSink
from lightning_elche.contracts.verdicts import Location

__all__ = ["BulkDecoder", "StepReader"]

BulkDecoder = Callable[[bytes], StepColumns | None]

FEW_BYTES = 1 << 13
TOO_LONG = BrokenLine(f"a line of more than {MAX_LINE_BYTES} bytes")
BLANK = WHITESPACE.encode()


class StepReader:
    """Reads a step log into a sink.

    Args:
        sink: Takes in what is read.
        name: Of the log, for findings.
        is_live: The run may be going on, so that the last line need not be complete.
        decoders: They are asked in turn for the records of many lines; where none has an answer,
            lines are looked at one by one.

    Attributes:
        is_live: As given.
        records: Number of records read.
        blank: Number of blank lines.
        first_blank: Where the first one is.
        carriage_returns: Number of lines that end in CR LF.
        torn_tail: Where the last line is, if it is not complete.
    """

    def __init__(
        self, sink: StepSink, *, name: str, is_live: bool, decoders: Sequence[BulkDecoder]
    ) -> None:
        self.records = self.blank = self.carriage_returns = 0
        self.first_blank: Location | None = None
        self.torn_tail: Location | None = None
        self._sink = sink
        self._name = name
        self.is_live = is_live
        self._decoders = () if sink.needs_mappings else tuple(decoders)
        self._line = 1

    def read(self, file: BinaryIO, *, size: int) -> None:
        """Read the first `size` bytes of a file.

        Raises:
            OSError: If that fails.
        """
        for lines in read_lines(file, size=size):
            if lines.is_too_long:
                self._refuse(TOO_LONG, lines.offset)
            elif lines.text.endswith(b"\n"):
                self._take(lines)
            else:
                self._take_tail(lines)

    def _take(self, lines: Lines) -> None:
        """Take in whole lines at once, else in halves, and a few one by one."""
        text, offset = lines.text, lines.offset
        if self._take_at_once(text):
            return
        middle = text.find(b"\n", len(text) // 2) + 1
        if len(text) > FEW_BYTES and middle < len(text):
            self._take(Lines(text[:middle], offset))
            self._take(Lines(text[middle:], offset + middle))
            return
        for line in text[:-1].split(b"\n"):
            self._take_line(line, offset)
            offset += len(line) + 1

    def _take_at_once(self, text: bytes) -> bool:
        plain = text.replace(b"\r\n", b"\n") if b"\r" in text else text
        for decode in self._decoders:
            columns = decode(plain)
            if columns is None:
                continue
            if not self._sink.columns(columns):
                return False
            self.records += len(columns.step)
            self.carriage_returns += len(text) - len(plain)
            self._line += len(columns.step)
            return True
        return False

    def _take_line(self, line: bytes, offset: int) -> None:
        self.carriage_returns += line.endswith(b"\r")
        try:
            self._take_record(line, offset)
        except BrokenLine as err:
            self._refuse(err, offset)

    def _take_tail(self, lines: Lines) -> None:
        """Take in a last line that lacks its line end, and maybe more."""
        try:
            self._take_record(lines.text, lines.offset)
        except BrokenLine as err:
            if not err.may_be_torn:
                self._refuse(err, lines.offset)
                return
            self.torn_tail = self._at(lines.offset)
            if not self.is_live:
                self._refuse(err, lines.offset, prefix="torn last line: ")

    def _take_record(self, line: bytes, offset: int) -> None:
        if line.strip(BLANK):
            self._sink.step(decode_line(line), self._at(offset))
            self.records += 1
        else:
            self.first_blank = self.first_blank or self._at(offset)
            self.blank += 1
        self._line += 1

    def _refuse(self, err: BrokenLine, offset: int, *, prefix: str = "") -> None:
        at = Location(
            path=self._name, line=self._line, column=err.column, offset=offset + err.offset
        )
        self._sink.broken(prefix + err.reason, at)
        self._line += 1

    def _at(self, offset: int) -> Location:
        return Location(path=self._name, line=self._line, offset=offset)
