"""A call in a process of its own, which can be ended by force."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from lightning_elche.coordination.calls.task import Token

__all__ = ["answer", "call_isolated"]

GRACE_S = 0.5  # between asking a process to end and ending it
LOOK_S = 0.05  # how often a call that waits looks whether it is cancelled
SIZE_BYTES = 8
START = "import sys; sys.path[:] = {path!r}; from {module} import answer; answer({fd})"

T = TypeVar("T")


def call_isolated(token: Token, fn: Callable[..., T], args: tuple[Any, ...]) -> T:
    """Return `fn(*args)`, called in a new interpreter.

    It is started anew, not forked, which would copy locks that other threads hold; and does not
    import the script that runs, which might have no guard against being run again.

    Args:
        token: When to give up; the process is ended then.
        fn: Function of an importable module.
        args: Picklable, as must be the value.

    Raises:
        RuntimeError: If the process ends without an answer.
        TypeError: If `fn` or `args` cannot be pickled.
        ValueError: If `fn` is part of the script that runs.
        Exception: What `fn` raised.
    """
    request = _request(fn, args)
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            child = _start(theirs)
        try:
            _send(ours, request, token)
            has_value, payload = pickle.loads(_receive(ours, token))
        except (EOFError, ConnectionError) as err:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(GRACE_S)
            raise RuntimeError(
                f"The process of task {token.name!r} ended without a value, "
                f"exit code {child.returncode}."
            ) from err
        finally:
            _end(child)
    if has_value:
        value: T = payload
        return value
    error, text = payload
    raise error from RuntimeError(f"In the process of task {token.name!r}:\n{text}")


def answer(fd: int) -> None:
    """Take a call from a socket, make it, send its value back, and end the process."""
    link = socket.socket(fileno=fd)
    request = _read(link)
    threading.Thread(target=_end_with_parent, args=(link,), daemon=True).start()
    link.sendall(_framed(_outcome(request)))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # waits for no thread that the call has left behind


def _request(fn: Callable[..., object], args: tuple[Any, ...]) -> bytes:
    if getattr(fn, "__module__", None) == "__main__":
        raise ValueError(
            f"`fn` must be a function of an importable module, got {fn!r}, which is part of the "
            "script that runs. Move it to a module of its own."
        )
    try:
        return _framed(pickle.dumps((fn, args)))
    except Exception as err:  # whatever an object raises when it is pickled
        raise TypeError(f"`fn` and `args` must be picklable, got {fn!r}: {err}") from err


def _framed(data: bytes) -> bytes:
    return len(data).to_bytes(SIZE_BYTES, "big") + data


def _start(theirs: socket.socket) -> subprocess.Popen[bytes]:
    path = [str(entry) for entry in sys.path]
    code = START.format(path=path, module=__name__, fd=theirs.fileno())
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.DEVNULL,
        pass_fds=[theirs.fileno()],
        start_new_session=True,  # so that what it starts can be ended with it
    )


def _send(link: socket.socket, data: bytes, token: Token) -> None:
    rest = memoryview(data)
    while rest:
        _limit_wait(link, token)
        with contextlib.suppress(TimeoutError):
            rest = rest[link.send(rest) :]


def _receive(link: socket.socket, token: Token) -> bytes:
    size, data = SIZE_BYTES, bytearray()
    while len(data) < size:
        _limit_wait(link, token)
        with contextlib.suppress(TimeoutError):
            chunk = link.recv(2**20)
            if not chunk:
                raise EOFError
            data += chunk
        if size == SIZE_BYTES <= len(data):
            size += int.from_bytes(data[:SIZE_BYTES], "big")
    return bytes(data[SIZE_BYTES:])


def _limit_wait(link: socket.socket, token: Token) -> None:
    """Let the next call on `link` wait until it is time to look again, or for the deadline."""
    token.check()
    remaining_s = token.remaining_s()
    link.settimeout(LOOK_S if remaining_s is None else max(0.001, min(LOOK_S, remaining_s)))


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.returncode is not None:
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):  # all of them have ended
            os.killpg(child.pid, number)
        # Not even SIGKILL ends a process that waits for a dead disk: it is left behind.
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(GRACE_S)
            return


def _read(link: socket.socket) -> bytes:
    with link.makefile("rb") as file:
        return file.read(int.from_bytes(file.read(SIZE_BYTES), "big"))


def _end_with_parent(link: socket.socket) -> None:
    link.recv(1)  # nothing more is sent, so that this returns when the other side is gone
    os._exit(1)


def _outcome(request: bytes) -> bytes:
    try:
        fn, args = pickle.loads(request)
        return pickle.dumps((True, fn(*args)))
    except BaseException as err:
        return pickle.dumps((False, (_portable(err), traceback.format_exc())))


def _portable(err: BaseException) -> Exception:
    """Return the error itself if it can travel and may be raised elsewhere."""
    try:
        copy = pickle.loads(pickle.dumps(err))
        if isinstance(copy, Exception):
            return copy
    except Exception:  # whatever its class raises when it is copied
        pass
    return RuntimeError(f"{type(err).__name__}: {err}")
