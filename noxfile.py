"""Runs the tests on the releases that the package allows: `nox -s lowest`, `nox -s newest`."""

from __future__ import annotations

from pathlib import Path

import nox

nox.options.default_venv_backend = "uv|virtualenv"
nox.options.sessions = ["tests", "docs", "package"]

PYTHONS = ["3.10", "3.11", "3.12", "3.13"]
# Old releases among those of others call each other in ways that new ones deprecate.
KINDS = ("DeprecationWarning", "PendingDeprecationWarning", "FutureWarning")
OF_OTHERS = tuple(part for kind in KINDS for part in ("-W", f"ignore::{kind}"))


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Test with the releases that CI tests with."""
    session.install("-c", ".ci/constraints.txt", "-e", ".[test]")
    session.run("pytest", *session.posargs)


@nox.session(venv_backend="uv", python=PYTHONS[0:2])
def lowest(session: nox.Session) -> None:
    """Test with the lowest release of every dependency that the metadata allows."""
    session.install("--resolution", "lowest-direct", "-e", ".[test]")
    session.run("pytest", *OF_OTHERS, *session.posargs)


@nox.session(python=PYTHONS)
def newest(session: nox.Session) -> None:
    """Test with the newest release of every dependency."""
    session.install("--upgrade", "-e", ".[test]")
    session.run("pytest", *OF_OTHERS, *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation; a warning is an error."""
    session.install("-c", ".ci/constraints.txt", "-e", ".[docs]")
    session.run("sphinx-build", "-W", "--keep-going", "docs", "docs/_build")


@nox.session
def package(session: nox.Session) -> None:
    """Build what is released, and check what is said of it."""
    session.install("build", "twine")
    session.run("python", "-m", "build")
    built = sorted(str(path) for path in Path("dist").iterdir())
    session.run("twine", "check", "--strict", *built)
