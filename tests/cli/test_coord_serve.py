"""`elche coord serve`, as a process."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lightning_elche.cli.main import main
from lightning_elche.coordination.registry.client import RemoteRegistry
from lightning_elche.coordination.registry.request import Request

PROGRAM = "import sys; from lightning_elche.cli.main import main; sys.exit(main())"


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start a server with a token, and return it with its address."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "coord", "serve", "--port", "0"],
        env={**os.environ, "ELCHE_COORD_DIR": str(tmp_path / "head"), "ELCHE_TOKEN": "s3cret"},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        told = re.match(
            r"elche: (http://127\.0\.0\.1:\d+) can be read, and written with the token",
            process.stderr.readline(),
        )
        assert told is not None
        yield process, told[1]
    finally:
        process.kill()
        process.communicate(timeout=60.0)


@pytest.mark.slow
def test_verbs_use_the_registry_of_another_machine(
    serving: tuple[subprocess.Popen[str], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Where `ELCHE_COORD_URL` names it; changes take the token, and SIGTERM ends it cleanly."""
    process, url = serving
    monkeypatch.setenv("ELCHE_COORD_DIR", str(tmp_path / "own"))
    monkeypatch.setenv("ELCHE_COORD_URL", url)
    assert main(["coord", "halt"]) == 2
    assert "`ELCHE_TOKEN` must be that of the registry" in capsys.readouterr().err
    monkeypatch.setenv("ELCHE_TOKEN", "s3cret")
    assert [main(["coord", *words]) for words in (["halt"], ["why"], ["resume"])] == [0, 1, 0]
    assert RemoteRegistry(url, "s3cret").admit(Request(kind="train")).allowed
    assert not (tmp_path / "own" / "registry.db").exists()
    process.terminate()
    assert process.wait(timeout=60.0) == 0


def test_port_that_is_taken_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With what to do about it."""
    monkeypatch.setenv("ELCHE_COORD_DIR", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["coord", "serve", "--port", str(port)]) == 2
    assert f"another process listens on port {port} of 127.0.0.1" in capsys.readouterr().err
