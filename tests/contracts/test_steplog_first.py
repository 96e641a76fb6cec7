"""The first steps of a log, for comparing two runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightning_elche.contracts.steplog.first import iter_steps
from lightning_elche.contracts.steplog.reading import UnreadableLog
from tests.contracts.recorded_steps import line


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "train.jsonl"


def test_steps_below_the_limit_come_with_their_lines(log: Path) -> None:
    """The step at the limit does not."""
    log.write_bytes(b"".join(line(step) for step in range(4)))
    first = list(iter_steps(log, limit=3))
    assert [(one.step, one.at.line) for one in first] == [(0, 1), (1, 2), (2, 3)]
    assert first[1].text.encode() == line(1, end="")


def test_values_are_those_of_the_line(log: Path) -> None:
    """Optional fields are `None` where they are absent or no numbers."""
    log.write_bytes(line(0, train_loss="3", wall_ms="", epoch='"0"'))
    (only,) = iter_steps(log, limit=3)
    assert (only.train_loss, only.lr, only.wall_ms, only.epoch) == (3.0, 1e-05, None, None)


def test_steps_of_a_later_attempt_count(log: Path) -> None:
    """Even if it stands far behind."""
    early = b"".join(line(step, attempt="0") for step in range(2000))
    log.write_bytes(early + line(1, attempt="1", lr="7") + line(2, attempt="1"))
    assert [(one.step, one.lr) for one in iter_steps(log, limit=100)] == [
        (0, 1e-05),
        (1, 7.0),
        (2, 1e-05),
    ]


@pytest.mark.parametrize(
    "bad", [b"x\n", line(1, lr=""), line(1, lr="null"), line("1.0"), line("-1")]
)
def test_what_is_no_record_is_passed_over(log: Path, bad: bytes) -> None:
    """Nothing can be compared to it."""
    log.write_bytes(line(0) + bad + line(2))
    assert [one.step for one in iter_steps(log, limit=3)] == [0, 2]


def test_number_that_is_not_finite_stays(log: Path) -> None:
    """It is not the same as any other."""
    log.write_bytes(line(0, train_loss="NaN"))
    assert [repr(one.train_loss) for one in iter_steps(log, limit=3)] == ["nan"]


def test_repeated_step_comes_once(log: Path) -> None:
    """Of records that break the order the first is taken."""
    log.write_bytes(line(0) + line(0, lr="7") + line(1))
    assert [(one.step, one.lr) for one in iter_steps(log, limit=3)] == [(0, 1e-05), (1, 1e-05)]


def test_compressed_log_is_refused(log: Path) -> None:
    """As it is by whoever judges it."""
    log.write_bytes(b"\x1f\x8b\x08")
    with pytest.raises(UnreadableLog, match="decompress"):
        list(iter_steps(log, limit=3))
