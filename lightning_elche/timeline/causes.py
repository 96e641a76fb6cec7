"""What each second of a rank was spent on: spans become causes that add up to its wall time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

__all__ = [
    "BUSY",
    "CAUSES",
    "Slice",
    "Span",
    "columns_of",
    "exposed",
    "slices_of",
    "totals_of",
    "window_causes",
]

CAUSES = (
    "compute",
    "input",
    "throttle",
    "hooks",
    "average_wait",
    "average_transfer",
    "validation",
    "checkpoint",
    "startup",
    "paused",
    "sit_out",
    "other",
)
BUSY = frozenset(("compute", "validation", "startup"))
PARTS = {
    "compute": "compute_ns",
    "input": "input_ns",
    "throttle": "throttle_ns",
    "average_wait": "wait_ns",
}


class Span(NamedTuple):
    """The main thread of a rank did one kind of thing, on the clock of the first rank."""

    kind: str
    start_ns: float
    end_ns: float
    a: Mapping[str, Any]


class Slice(NamedTuple):
    """A stretch of time, and how many nanoseconds of it went into each cause."""

    start_ns: float
    end_ns: float
    causes: dict[str, float]


def exposed(
    spans: Iterable[Span], begin_ns: float, end_ns: float
) -> Iterator[tuple[float, float, Span | None]]:
    """Yield what each moment belongs to: the innermost span, `None` where there is no span.

    A span within another one ends with that at the latest. Cost: O(n log n).
    """
    stack: list[Span] = []
    cursor = begin_ns
    for span in sorted(spans, key=lambda span: (span.start_ns, -span.end_ns)):
        start_ns = min(max(span.start_ns, begin_ns), end_ns)
        while stack and stack[-1].end_ns <= start_ns:
            inner = stack.pop()
            if inner.end_ns > cursor:
                yield cursor, inner.end_ns, inner
                cursor = inner.end_ns
        if start_ns > cursor:
            yield cursor, start_ns, stack[-1] if stack else None
            cursor = start_ns
        limit_ns = stack[-1].end_ns if stack else end_ns
        stack.append(span._replace(start_ns=start_ns, end_ns=min(span.end_ns, limit_ns)))
    for inner in reversed(stack):
        if inner.end_ns > cursor:
            yield cursor, inner.end_ns, inner
            cursor = inner.end_ns
    if end_ns > cursor:
        yield cursor, end_ns, None


def slices_of(spans: Sequence[Span], begin_ns: float, end_ns: float) -> list[Slice]:
    """Return slices from `begin_ns` to `end_ns` without a gap, with the causes of each."""
    pieces = list(exposed(spans, begin_ns, end_ns))
    own_ns: dict[float, float] = {}  # of each window, by its start
    for start_ns, stop_ns, span in pieces:
        if span is not None and span.kind == "window":
            own_ns[span.start_ns] = own_ns.get(span.start_ns, 0.0) + stop_ns - start_ns
    slices = []
    for start_ns, stop_ns, span in pieces:
        duration_ns = stop_ns - start_ns
        if span is not None and span.kind == "window":
            whole_ns = own_ns[span.start_ns]
            causes = window_causes(span.a, whole_ns)
            part = duration_ns / whole_ns
            slices.append(Slice(start_ns, stop_ns, {c: part * ns for c, ns in causes.items()}))
        else:
            slices.append(Slice(start_ns, stop_ns, {_cause(span): duration_ns}))
    return slices


def window_causes(a: Mapping[str, Any], own_ns: float) -> dict[str, float]:
    """Return the causes of a window, without those of spans inside it; they add up to `own_ns`.

    Args:
        a: The attributes of its record.
        own_ns: Its duration, less the spans inside it.
    """
    if a.get("sits_out"):
        return {"sit_out": own_ns}
    parts = {cause: float(a.get(name, 0)) for cause, name in PARTS.items()}
    if a.get("device_ns") is not None:
        # The host is ahead of a GPU and waits for it at the end; what counts is the device.
        device_ns = a["device_ns"] - parts["input"] - parts["throttle"]
        others_ns = sum(parts.values()) - parts["compute"]
        parts["compute"] = max(parts["compute"], min(device_ns, own_ns - others_ns))
    known_ns = sum(parts.values())
    if known_ns > own_ns:  # clocks are read one after the other
        parts = {cause: ns * own_ns / known_ns for cause, ns in parts.items()}
        known_ns = own_ns
    parts["hooks"] = own_ns - known_ns
    return {cause: ns for cause, ns in parts.items() if ns > 0.0}


def totals_of(slices: Iterable[Slice]) -> dict[str, float]:
    """Return the nanoseconds of each cause."""
    totals = dict.fromkeys(CAUSES, 0.0)
    for piece in slices:
        for cause, ns in piece.causes.items():
            totals[cause] += ns
    return totals


def columns_of(
    slices: Iterable[Slice], begin_ns: float, end_ns: float, count: int
) -> list[dict[str, float]]:
    """Return the nanoseconds of each cause in each of `count` equal parts of a stretch of time.

    Where the rank had not begun or was gone, a part is empty.
    """
    columns: list[dict[str, float]] = [{} for _ in range(count)]
    width_ns = (end_ns - begin_ns) / count
    for piece in slices:
        low, high = max(piece.start_ns, begin_ns), min(piece.end_ns, end_ns)
        if high <= low:
            continue
        first = min(int((low - begin_ns) / width_ns), count - 1)
        last = min(int((high - begin_ns) / width_ns), count - 1)
        length_ns = piece.end_ns - piece.start_ns
        if first == last:  # as most are in a long run
            _add(columns[first], piece.causes, (high - low) / length_ns)
            continue
        for index in range(first, last + 1):
            left = begin_ns + index * width_ns
            part = (min(high, left + width_ns) - max(low, left)) / length_ns
            if part > 0.0:  # else the slice ends where a column begins
                _add(columns[index], piece.causes, part)
    return columns


def _add(column: dict[str, float], causes: Mapping[str, float], part: float) -> None:
    for cause, ns in causes.items():
        column[cause] = column.get(cause, 0.0) + part * ns


def _cause(span: Span | None) -> str:
    if span is None:
        return "other"
    return "startup" if span.kind == "compile" else span.kind
