"""`elche coord admit` with real commands."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lightning_elche.coordination.registry.database import Database
from lightning_elche.coordination.registry.liveness import started_at
from lightning_elche.coordination.registry.place import DATABASE_NAME
from lightning_elche.coordination.registry.registry import Registry
from tests.coordination.calls import eventually

pytestmark = pytest.mark.slow
ELCHE = (
    sys.executable,
    "-c",
    "import sys; from lightning_elche.cli.main import main; sys.exit(main())",
)
SLEEP = ("sh", "-c", "echo begun; exec sleep 60")

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Return what starts a command under `admit`, without a pause between two starts."""
    config = tmp_path / "coordination.yaml"
    config.write_text("version: 1\nlimits: {cooldown_s: 0, per_host: {train: 1}}\n")

    processes = []

    def started(*command: str, options: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*ELCHE, "coord", "admit", "--config", str(config), *options, "--", *command],
            env={**os.environ, "ELCHE_COORD_DIR": str(tmp_path / "coord")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield started
    for process in processes:
        process.kill()
        process.communicate(timeout=60.0)


def registry(tmp_path: Path) -> Registry:
    return Registry(Database(tmp_path / "coord" / DATABASE_NAME))


def begun(process: subprocess.Popen[str]) -> subprocess.Popen[str]:
    """Return a command that has said that it runs."""
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    return process


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60.0)
    return process.returncode, out, err


def test_exit_code_output_and_lease_are_those_of_the_command(start: Start, tmp_path: Path) -> None:
    """And the lease is given back; a command that is not there is told as a shell does."""
    code, out, err = ended(start("sh", "-c", "echo ${#ELCHE_LEASE}; sleep 1.1; exit 7"))
    assert (code, out, err) == (7, "32\n", "")
    state = registry(tmp_path).state()
    assert state["leases"] == []
    assert state["breakers"]["kind:train"]["failures"] == 1
    assert ended(start("true"))[0] == 0
    assert "kind:train" not in registry(tmp_path).state()["breakers"]
    code, _, err = ended(start("no-such-program"))
    assert (code, err) == (127, "elche: no-such-program: No such file or directory\n")


def test_second_of_two_is_refused_or_waits_for_its_turn(start: Start, tmp_path: Path) -> None:
    """With the exit code that was asked for, where the limit is 1."""
    first = begun(start(*SLEEP))
    code, out, err = ended(start("echo", "second", options=("--refused-code", "75")))
    assert (code, out) == (75, "")
    assert err.startswith("elche: echo was not started: host_limit: 1 of kind train on ")
    assert err.endswith(" `--wait` waits for its turn.\n")
    code, out, err = ended(start("echo", options=("--format", "json")))
    assert (code, json.loads(out)["decision"]["code"], err) == (1, "host_limit", "")
    waiting = start("echo", "second", options=("--wait",))
    assert eventually(lambda: len(registry(tmp_path).state()["queues"]) == 1)
    first.terminate()
    assert ended(first)[0] == 143
    assert ended(waiting)[:2] == (0, "second\n")


def test_waiting_ends_with_its_time_or_with_a_signal(start: Start, tmp_path: Path) -> None:
    """Its place in the queue is given up, and the command never begins."""
    first = begun(start(*SLEEP))
    late = start("echo", "late", options=("--wait", "--timeout", "0.3"))
    assert ended(late)[:2] == (1, "")
    waiting = start("echo", "stopped", options=("--wait",))
    assert eventually(lambda: len(registry(tmp_path).state()["queues"]) == 1)
    waiting.terminate()
    assert ended(waiting)[:2] == (143, "")
    assert registry(tmp_path).state()["queues"] == {}
    first.kill()
    ended(first)


def test_signal_is_passed_on_and_the_command_decides(start: Start, tmp_path: Path) -> None:
    """Here it ends by itself after SIGUSR1; a stop from outside is no failure of a start."""
    script = "trap 'echo saved; exit 5' USR1; echo begun; while :; do sleep 0.01; done"
    process = begun(start("sh", "-c", script))
    process.send_signal(signal.SIGUSR1)
    assert ended(process)[:2] == (5, "saved\n")
    assert registry(tmp_path).state()["breakers"].get("kind:train", {}).get("failures", 0) == 0


def test_kill_of_admit_ends_the_command_and_frees_its_place(start: Start, tmp_path: Path) -> None:
    """Both with the first question after it."""
    process = begun(start(*SLEEP))
    [lease] = registry(tmp_path).leases()
    process.kill()
    assert eventually(lambda: started_at(lease.process.pid) is None)
    assert ended(start("echo", "next"))[:2] == (0, "next\n")


@pytest.mark.parametrize(
    ("choice", "code", "out", "words"),
    [("deny", 1, "", "unreachable: "), ("allow", 0, "x\n", "starts without a lease, as ")],
)
def test_registry_that_does_not_answer_refuses_or_allows(
    start: Start, tmp_path: Path, choice: str, code: int, out: str, words: str
) -> None:
    """As `on_unreachable` says."""
    text = f"limits: {{on_unreachable: {choice}}}\nregistry: {{url: 'http://127.0.0.1:9'}}\n"
    (tmp_path / "coordination.yaml").write_text(f"version: 1\n{text}")
    found = ended(start("echo", "x"))
    assert found[:2] == (code, out)
    assert words in found[2]


def test_command_that_never_fits_is_advised_to_ask_for_less(start: Start) -> None:
    """Waiting would not help."""
    code, _, err = ended(start("true", options=("--ram", "99999TB")))
    assert code == 1
    assert err.endswith("it never fits. Ask for less, or on another machine.\n")


def test_timeout_of_no_wait_is_refused(start: Start) -> None:
    """It would mean nothing."""
    code, _, err = ended(start("true", options=("--timeout", "1")))
    assert (code, err.split(":")[1]) == (2, " `--timeout` must be given with `--wait`")
