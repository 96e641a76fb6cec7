"""What saving checkpoints costs: how long training is blocked, and how fast files are written.

Each figure is the median of several rounds, in which all variants take turns; only ratios within a
run say something. Run `python benchmarks/checkpoints.py [--mb 200] [--rounds 5] [--folder DIR]`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed.checkpoint as dcp

from lightning_elche.partition.rml import tensor_lanes
from lightning_elche.partition.store_config import StoreConfig
from lightning_elche.strategies.checkpoint_io import PartitionCheckpointIO, SaveOptions


def state_of(megabytes: int) -> dict[str, Any]:
    """Return the state of a model of equal layers, and of AdamW."""
    sizes = [(1024, 256)] * max(1, megabytes // 3)
    model = {f"layer.{i}.weight": torch.randn(size) for i, size in enumerate(sizes)}
    moments = {
        i: {"step": torch.tensor(7.0), "exp_avg": torch.randn(size), "exp_avg_sq": torch.rand(size)}
        for i, size in enumerate(sizes)
    }
    optimizer = {"state": moments, "param_groups": [{"lr": 1e-3, "params": list(moments)}]}
    return {"state_dict": model, "optimizer_states": [optimizer], "global_step": 7, "epoch": 0}


def tensors_of(state: dict[str, Any]) -> list[torch.Tensor]:
    """Return all tensors of a state."""
    moments = state["optimizer_states"][0]["state"].values()
    return [*state["state_dict"].values(), *(one for own in moments for one in own.values())]


def blocked(state: dict[str, Any], folder: Path) -> dict[str, Callable[[], object]]:
    """Return what blocks training: our copy, and the least copy that there can be."""
    io = PartitionCheckpointIO(store=StoreConfig(durability="flush"))
    options = SaveOptions(submit=lambda _: None)  # what is written later does not block
    sources = tensors_of(state)
    warm = [torch.empty_like(one) for one in sources]
    return {
        "blocked": lambda: io.save_checkpoint(state, folder / "step-00000007", options),
        "copy": lambda: torch._foreach_copy_(warm, sources),
        "clone": lambda: [one.clone() for one in sources],
    }


def saved(state: dict[str, Any], folder: Path) -> dict[str, Callable[[], object]]:
    """Return ways to save a state so that it outlasts a power cut."""
    io = PartitionCheckpointIO(store=StoreConfig())
    flat = {str(i): one for i, one in enumerate(tensors_of(state))}

    def raw() -> None:
        with (folder / "raw").open("wb", buffering=0) as file:
            for one in flat.values():
                file.write(one.numpy().reshape(-1).view(np.uint8).data)
            os.fsync(file.fileno())

    def torch_save() -> None:
        with (folder / "a.pt").open("wb") as file:
            torch.save(state, file)
            os.fsync(file.fileno())

    def safetensors() -> None:
        from safetensors.torch import save_file

        save_file(flat, folder / "a.safetensors")
        with (folder / "a.safetensors").open("rb") as file:
            os.fsync(file.fileno())

    return {
        "ours": lambda: io.save_checkpoint(state, folder / "step-00000007"),
        "raw": raw,
        "torch.save": torch_save,
        "safetensors": safetensors,
        "dcp": lambda: dcp.save(dict(flat), checkpoint_id=folder / "dcp"),
    }


def fingerprinted(state: dict[str, Any], _: Path) -> dict[str, Callable[[], object]]:
    """Return our fingerprint, and a copy of the same bytes."""
    arrays = [one.numpy() for one in tensors_of(state)]
    warm = [np.empty_like(one) for one in arrays]
    return {
        "lanes": lambda: [tensor_lanes("m/w", "F32", one.shape, one) for one in arrays],
        "numpy copy": lambda: [
            np.copyto(into, one) for into, one in zip(warm, arrays, strict=True)
        ],
    }


def measure(ways: dict[str, Callable[[], object]], folder: Path, rounds: int) -> dict[str, float]:
    """Return the median seconds of each way."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for round_index in range(rounds + 1):
        for name, way in ways.items():
            for old in folder.iterdir():
                shutil.rmtree(old) if old.is_dir() else old.unlink()
            began = time.perf_counter()
            way()
            if round_index:  # the first one allocates
                seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(own) for name, own in seconds.items()}


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=int, default=200, help="size of the state")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", help="where to write, by default where temporary files are")
    options = parser.parse_args()
    state = state_of(options.mb)
    size = sum(one.nbytes for one in tensors_of(state))
    print(f"{size / 1e6:.0f} MB in {len(tensors_of(state))} tensors, torch {torch.__version__}")
    for ways in (blocked, saved, fingerprinted):
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            folder = Path(name)
            medians = measure(ways(state, folder), folder, options.rounds)
        least = medians.get("copy") or medians.get("raw") or medians["numpy copy"]
        for way, seconds in medians.items():
            speed, ratio = size / seconds / 1e9, seconds / least
            print(f"{way:>12}: {seconds * 1000:8.1f} ms {speed:6.2f} GB/s {ratio:6.2f}x")


if __name__ == "__main__":
    main()
