"""Numbers in the text format that Prometheus reads."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = ["CONTENT_TYPE", "PREFIX", "Metric", "Samples", "expose"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PREFIX = "elche_"
EXACT = 2.0**53  # up to here every whole number is a float

Samples: TypeAlias = dict[str, dict[tuple[str, ...], float]]
"""By name of the metric and by the values of its labels."""


@dataclass(frozen=True)
class Metric:
    """A number that a run or a registry tells.

    Attributes:
        name: Without the prefix.
        kind: Whether it only grows.
        labels: Their names.
        text: What it is, in a few words.
    """

    name: str
    kind: Literal["counter", "gauge"]
    labels: tuple[str, ...]
    text: str


def expose(table: Iterable[Metric], samples: Mapping[str, Mapping[tuple[str, ...], float]]) -> str:
    """Return samples as text, in the order of the table; metrics without samples are left out.

    Raises:
        KeyError: If there are samples of a metric that the table does not have.

    Example:
        >>> leases = Metric("leases", "gauge", ("kind",), "What has started and not ended.")
        >>> print(expose([leases], {"leases": {("train",): 2.0}}), end="")
        # HELP elche_leases What has started and not ended.
        # TYPE elche_leases gauge
        elche_leases{kind="train"} 2
    """
    known = {metric.name: metric for metric in table}
    strangers = sorted(set(samples) - set(known))
    if strangers:
        raise KeyError(f"`samples` must be of metrics of the table, got {strangers}.")
    filled = (metric for metric in known.values() if samples.get(metric.name))
    lines = (line for metric in filled for line in _lines(metric, samples[metric.name]))
    return "".join(f"{line}\n" for line in lines)


def _lines(metric: Metric, values: Mapping[tuple[str, ...], float]) -> Iterator[str]:
    name = PREFIX + metric.name
    yield f"# HELP {name} {_escape_help(metric.text)}"
    yield f"# TYPE {name} {metric.kind}"
    for labels, value in values.items():
        pairs = zip(metric.labels, labels, strict=True)
        inside = ",".join(f'{key}="{_escape_value(text)}"' for key, text in pairs)
        yield f"{name}{{{inside}}} {_number(value)}" if inside else f"{name} {_number(value)}"


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0.0 else "-Inf"
    is_whole = abs(value) < EXACT and float(value).is_integer()
    return str(int(value)) if is_whole else repr(float(value))


def _escape_help(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _escape_value(text: str) -> str:
    return _escape_help(text).replace('"', '\\"') if not text.isalnum() else text
