"""How fast a step log is read and judged, beside decoders that do not judge, and in what memory."""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import jsonschema
import msgspec
from machine import cpu_model

from lightning_elche.contracts.gates.stepgates import StepGates
from lightning_elche.contracts.model import Contract
from lightning_elche.contracts.records import StepRecord
from lightning_elche.contracts.runfolder.stepline import format_step
from lightning_elche.contracts.steplog.passes import BulkDecoder
from lightning_elche.contracts.steplog.plain import decode_plain
from lightning_elche.contracts.steplog.reading import fastest_decoders, read_steps
from lightning_elche.contracts.verdicts import Verdict

STEPS_PER_EPOCH = 10_000
SAMPLED_LINES = 2_000
SCHEMA = {
    "type": "object",
    "required": ["step", "train_loss", "grad_norm", "lr", "tokens_per_sec", "gpu_util_pct"],
    "properties": {
        "step": {"type": "integer", "minimum": 0},
        "train_loss": {"type": "number"},
        "grad_norm": {"type": "number"},
        "lr": {"type": "number"},
        "tokens_per_sec": {"type": "number", "minimum": 0},
        "gpu_util_pct": {"type": "number", "minimum": 0, "maximum": 100},
        "wall_ms": {"type": "number", "minimum": 0},
        "epoch": {"type": "integer", "minimum": 0},
        "attempt": {"type": "integer", "minimum": 0},
    },
}


class Line(msgspec.Struct):
    """What bare msgspec decodes a line to."""

    step: int
    train_loss: float
    grad_norm: float
    lr: float
    tokens_per_sec: float
    gpu_util_pct: float
    wall_ms: float | None = None
    epoch: int | None = None
    attempt: int | None = None


def write_log(path: Path, *, lines: int) -> None:
    """Write the log of a healthy run."""
    draw = random.Random(0).random
    with path.open("wb") as file:
        for step in range(lines):
            record = StepRecord(
                step=step,
                train_loss=2.0 + draw(),
                grad_norm=3.0 * draw(),
                lr=5e-5 * draw(),
                tokens_per_sec=1e4 * (1.0 + draw()),
                gpu_util_pct=float(int(101 * draw())),
                wall_ms=100.0 * draw(),
                epoch=step // STEPS_PER_EPOCH,
            )
            file.write(format_step(record, attempt=0))


def read_raw(path: Path) -> None:
    """Read the file and nothing else."""
    with path.open("rb") as file:
        while file.read(1 << 20):
            pass


def decode_each(path: Path, decode: Callable[[bytes], object]) -> None:
    """Decode line by line and keep nothing."""
    with path.open("rb") as file:
        for line in file:
            decode(line)


def judge(path: Path, decoders: tuple[BulkDecoder, ...]) -> None:
    """Read and judge the log by all gates on steps; all must pass."""
    gates = StepGates(Contract.default())
    read_steps(path, gates, name=path.name, decoders=decoders)
    verdicts = {result.gate: result.verdict for result in gates.results()}
    if set(verdicts.values()) != {Verdict.PASS}:
        raise RuntimeError(f"The log should pass all gates, got {verdicts}.")


def validate_some(path: Path) -> None:
    """Decode the first lines with json and validate each with jsonschema."""
    validator = jsonschema.Draft7Validator(SCHEMA)
    with path.open("rb") as file:
        for line in islice(file, SAMPLED_LINES):
            validator.validate(json.loads(line))


def us_per_line(path: Path, *, lines: int, repeats: int) -> dict[str, float]:
    """Measure all ways of reading in turns and return medians."""
    msgspec_decode = msgspec.json.Decoder(Line).decode
    ways: dict[str, tuple[int, Callable[[], None]]] = {
        "raw reading": (lines, lambda: read_raw(path)),
        "bare msgspec": (lines, lambda: decode_each(path, msgspec_decode)),
        "bare json": (lines, lambda: decode_each(path, json.loads)),
        "judged, msgspec": (lines, lambda: judge(path, fastest_decoders())),
        "judged, json": (lines, lambda: judge(path, (decode_plain,))),
        "jsonschema": (min(lines, SAMPLED_LINES), lambda: validate_some(path)),
    }
    took: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, (count, read) in ways.items():
            began = time.perf_counter()
            read()
            took[name].append(1e6 * (time.perf_counter() - began) / count)
    return {name: statistics.median(times) for name, times in took.items()}


def peak_mib() -> float:
    """Return the most memory that this process has held so far (Linux)."""
    status = Path("/proc/self/status").read_text()
    (kib,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    return int(kib) / 1024


def print_peaks(path: Path) -> None:
    """Print the peak of this process before and after judging a log."""
    before = peak_mib()
    judge(path, fastest_decoders())
    print(f"{before:.1f} {peak_mib():.1f}")


def peaks_of_new_process(path: Path) -> list[float]:
    """Return what `print_peaks` prints in a process that does nothing else."""
    code = f"import pathlib, contract_reading as c; c.print_peaks(pathlib.Path({str(path)!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return [float(part) for part in done.stdout.split()]


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=1_000_000, help="length of the log")
    parser.add_argument("--repeats", type=int, default=5, help="how often to measure; medians")
    parser.add_argument(
        "--memory-lines",
        type=int,
        nargs="*",
        default=[1_000_000, 4_000_000],
        help="lengths of logs for which the peak of memory is measured",
    )
    options = parser.parse_args()
    print(f"{cpu_model()}, Python {sys.version.split()[0]}, {options.lines} lines")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.jsonl"
        write_log(path, lines=options.lines)
        us = us_per_line(path, lines=options.lines, repeats=options.repeats)
        for name, took in us.items():
            print(
                f"{name:16} {took:7.3f} us a line: {us['bare msgspec'] / took:5.2f} x msgspec, "
                f"{us['bare json'] / took:5.2f} x json, {us['jsonschema'] / took:6.1f} x jsonschema"
            )
        for lines in options.memory_lines:
            write_log(path, lines=lines)
            before, peak = peaks_of_new_process(path)
            print(f"{lines} lines: peak of {peak:.1f} MiB, {before:.1f} MiB of them before reading")


if __name__ == "__main__":
    main()
