"""Real ranks, each in a process of its own, with a hard timeout."""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import multiprocessing
import os
import pickle
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

__all__ = ["RankResult", "run_ranks"]


@dataclass(frozen=True, kw_only=True)
class RankResult:
    """How one rank ended.

    Attributes:
        value: What the function returned; `None` if it did not.
        returncode: Exit code of the process, negative for a signal.
        output: What it printed, standard error included.
    """

    value: Any
    returncode: int
    output: str


def run_ranks(
    function: Callable[..., object],
    *,
    world_size: int,
    timeout_s: float = 90.0,
    check: bool = True,
    env: Mapping[str, str] | None = None,
    **kwargs: object,
) -> list[RankResult]:
    """Call `function(**kwargs)` on every rank of a new group of processes.

    The environment is the one that torchrun sets, so that a Trainer in `function` starts nothing by
    itself. When the time is up, all processes and their children are killed.

    Args:
        function: A function at the top level of a module; what it returns must be picklable.
        world_size: Number of ranks.
        timeout_s: Time for all ranks together, in seconds.
        check: Raise if a rank fails.
        env: Additional environment variables.
        **kwargs: Arguments of the function, picklable.

    Returns:
        One result per rank, in rank order.

    Raises:
        TimeoutError: If a rank is still running when the time is up.
        RuntimeError: If `check` and a rank ended with another code than 0; with its output.
    """
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        call = (inspect.getsourcefile(function), function.__qualname__, kwargs)
        (work / "call").write_bytes(pickle.dumps(call))
        port = str(_free_port())
        ranks = [_start(rank, world_size, work, port, env or {}) for rank in range(world_size)]
        try:
            _wait(ranks, timeout_s)
        except TimeoutError as err:
            outputs = "\n".join(_output(work, rank) for rank in range(world_size))
            raise TimeoutError(f"{err}\n{outputs}") from None
        finally:
            for process in ranks:
                _kill_group(process)
        results = [_result(rank, process, work) for rank, process in enumerate(ranks)]
    if check and any(result.returncode for result in results):
        codes = [result.returncode for result in results]
        outputs = "\n".join(result.output for result in results if result.returncode)
        raise RuntimeError(f"Ranks ended with exit codes {codes}:\n{outputs}")
    return results


def _start(
    rank: int, world_size: int, work: Path, port: str, env: Mapping[str, str]
) -> BaseProcess:
    variables = {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "LOCAL_WORLD_SIZE": str(world_size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        **env,
    }
    # A server that has imported the heavy packages once forks the ranks: seconds saved per rank.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lightning.pytorch", "lightning_elche.strategies.elche"])
    process = context.Process(target=_run_rank, args=(work, variables))
    process.start()
    return process


def _wait(ranks: list[BaseProcess], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    for process in ranks:
        process.join(max(0.0, deadline - time.monotonic()))
    running = [rank for rank, process in enumerate(ranks) if process.exitcode is None]
    if running:
        raise TimeoutError(f"Ranks {running} were still running after {timeout_s:g} seconds.")


def _kill_group(process: BaseProcess) -> None:
    assert process.pid is not None
    with contextlib.suppress(ProcessLookupError):  # it and its children have ended
        os.killpg(process.pid, signal.SIGKILL)
    process.join()


def _result(rank: int, process: BaseProcess, work: Path) -> RankResult:
    value = work / f"value-{rank}"
    assert process.exitcode is not None
    return RankResult(
        value=pickle.loads(value.read_bytes()) if value.exists() else None,
        returncode=process.exitcode,
        output=_output(work, rank),
    )


def _output(work: Path, rank: int) -> str:
    output = work / f"output-{rank}"
    return output.read_text(errors="replace") if output.exists() else ""


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _run_rank(work: Path, variables: Mapping[str, str]) -> None:
    """Call the function in this process and leave its value for the parent."""
    os.setsid()  # a process group of its own, so that its children can be killed with it
    os.environ.update(variables)
    rank = variables["RANK"]
    with (work / f"output-{rank}").open("wb", buffering=0) as output:
        os.dup2(output.fileno(), sys.stdout.fileno())
        os.dup2(output.fileno(), sys.stderr.fileno())
    torch.set_num_threads(1)
    source, name, kwargs = pickle.loads((work / "call").read_bytes())
    spec = importlib.util.spec_from_file_location("ranks", source)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["ranks"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    value = getattr(module, name)(**kwargs)
    (work / f"value-{rank}").write_bytes(pickle.dumps(value))
    sys.stdout.flush()
