"""`elche coord serve`: the registry of this machine for other ones."""

from __future__ import annotations

import argparse
import contextlib
import errno
import signal

from lightning_elche.cli.coord_output import complain
from lightning_elche.cli.coord_registry import configured
from lightning_elche.coordination.config import CoordinationConfig
from lightning_elche.coordination.monitoring.http_server import HttpServer
from lightning_elche.coordination.registry.place import local_registry
from lightning_elche.coordination.registry.serve import serve_registry

__all__ = ["serve"]

ENDING = frozenset({signal.SIGINT, signal.SIGTERM})
READ_ONLY = "read only, as ELCHE_TOKEN is not set"


def serve(options: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM."""
    config = configured(options)
    token = config.registry.token
    # Blocked before the threads of the server begin, which would be told instead.
    old_mask = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        server = _server(config, options)
        with contextlib.closing(server):
            if not options.quiet:
                rights = "read, and written with the token" if token else READ_ONLY
                place = f"http://{options.host}:{server.port}"
                complain(f"{place} can be {rights}. Ctrl-C ends it.")
            signal.sigwait(ENDING)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old_mask)
    return 0


def _server(config: CoordinationConfig, options: argparse.Namespace) -> HttpServer:
    """Start to listen.

    Raises:
        ValueError: If another process listens there.
        OSError: If that is not possible for another reason.
    """
    registry, token = local_registry(config), config.registry.token
    try:
        return serve_registry(registry, token=token, host=options.host, port=options.port)
    except OSError as err:
        if err.errno != errno.EADDRINUSE:
            raise
        raise ValueError(
            f"`--port` must be free, but another process listens on port {options.port} of "
            f"{options.host}. Name another one, or 0 for any."
        ) from err
