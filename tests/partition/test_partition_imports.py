"""What importing the package loads."""

from __future__ import annotations

import subprocess
import sys

from lightning_elche import partition


def test_public_names_are_there() -> None:
    """Each public name can be imported, and is listed."""
    assert [name for name in partition.__all__ if not hasattr(partition, name)] == []
    assert set(partition.__all__) <= set(dir(partition))
    assert sorted(partition.__all__) == partition.__all__


def test_public_names_load_neither_torch_nor_lightning() -> None:
    """All of it works where there is no torch."""
    code = (
        "import sys\nfrom lightning_elche.partition import *\n"
        "print({'torch', 'lightning', 'pytorch_lightning'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("set()\n", "")
