"""`elche coord serve`: the registry of this machine for other ones."""

from __future__ import annotations

import argparse
import contextlib
import signal

from lightning_elche.cli.coord_output import complain
from lightning_elche.cli.coord_registry import configured
from lightning_elche.coordination.registry.place import local_registry
from lightning_elche.coordination.registry.serve import serve_registry

__all__ = ["serve"]

ENDING = frozenset({signal.SIGINT, signal.SIGTERM})


def serve(options: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM."""
    config = configured(options)
    token = config.registry.token
    # Blocked before the threads of the server begin, which would be told instead.
    old_mask = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        server = serve_registry(
            local_registry(config), token=token, host=options.host, port=options.port
        )
        with contextlib.closing(server):
            if not options.quiet:
                rights = "read and written with the token" if token else "only read: no ELCHE_TOKEN"
                complain(f"http://{options.host}:{server.port} can be {rights}")
            signal.sigwait(ENDING)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old_mask)
    return 0
