"""`elche coord status`, `runs` and `eta`: how runs are."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence

from lightning_elche.cli.coord_places import (
    NO_RUN,
    NONE_KNOWN,
    NoRun,
    Seen,
    look,
    look_at_all,
    only_run,
    run_at,
)
from lightning_elche.cli.outcome import Line, Outcome, Problem
from lightning_elche.contracts.strictjson import number_of
from lightning_elche.coordination.monitoring.metrics_status import dig, part_of

__all__ = [
    "describe",
    "eta",
    "eta_of",
    "flattened",
    "runs",
    "status",
    "word_of",
]

UNHEALTHY, STALE = 1, 4
SEVERITY = (UNHEALTHY, STALE)
SHOWN = {"global_step": "step", "epoch": "epoch"}


def status(options: argparse.Namespace) -> Outcome:
    """Return how one run is."""
    try:
        seen = look(only_run() if options.folder is None else run_at(options.folder))
    except NoRun as err:
        return Outcome.error("NoRun", str(err), options.folder or "", NO_RUN)
    return _outcome([seen], options, {"run": _data(seen)})


def runs(options: argparse.Namespace) -> Outcome:
    """Return how all runs of this machine are."""
    found = look_at_all()
    if not found:
        return Outcome.error("NoRun", NONE_KNOWN, "", NO_RUN)
    return _outcome(found, options, {"runs": [_data(seen) for seen in found]})


def eta(options: argparse.Namespace) -> Outcome:
    """Return when a run will be over."""
    try:
        seen = look(run_at(options.folder))
    except NoRun as err:
        return Outcome.error("NoRun", str(err), options.folder, NO_RUN)
    found = eta_of(seen.status)
    if found is None or seen.has_ended:
        reason = "has ended" if seen.has_ended else "has told too little yet to say when it ends"
        return Outcome.error("TooLittle", f"{seen.folder} {reason}.", str(seen.folder), STALE)
    median_s, p90_s = (max(0.0, seconds - seen.age_s) for seconds in found)
    return Outcome(
        lines=(Line(f"{seen.folder} ends in {_clock(median_s)}, 9 of 10 within {_clock(p90_s)}"),),
        data={"run": str(seen.folder), "eta_s": {"median": median_s, "p90": p90_s}},
    )


def eta_of(status: Mapping[str, object]) -> tuple[float, float] | None:
    """Return how long a run will go on, the median and what 9 of 10 do not exceed, in seconds."""
    told = dig(part_of(status, "host"), "run")
    median_s, p90_s = (number_of(dig(told, name)) for name in ("eta_seconds", "eta_p90_seconds"))
    return None if median_s is None or p90_s is None else (median_s, p90_s)


def word_of(seen: Seen) -> str:
    """Return in a word how a run is."""
    if seen.has_ended:
        return "STOPPED" if seen.state == "STOPPED" else "GONE" if seen.is_gone else "ERROR"
    if seen.is_stale:
        return "STALE"
    return "HEALTHY" if seen.is_healthy else "UNHEALTHY"


def describe(seen: Seen) -> str:
    """Return in a line how a run is."""
    told = seen.status
    facts = [seen.state]
    facts += [f"{name} {told[key]}" for key, name in SHOWN.items() if key in told]
    facts.append(f"{seen.age_s:.1f} s ago")
    return f"{seen.folder}  {', '.join(facts)}"


def flattened(value: object, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield all that is in a status, each with its path."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from flattened(item, f"{path}.{key}" if path else str(key))
    elif value not in (None, [], {}):
        yield path, f"{value:.6g}" if isinstance(value, float) else str(value)


def _outcome(
    found: Sequence[Seen], options: argparse.Namespace, data: Mapping[str, object]
) -> Outcome:
    lines = [line for seen in found for line in _lines(seen, is_verbose=options.verbose)]
    codes = [_code(seen) for seen in found]
    problems = [
        Problem(str(seen.folder), word_of(seen), describe(seen))
        for seen, code in zip(found, codes, strict=True)
        if code
    ]
    return Outcome(
        lines=tuple(lines),
        data=data,
        problems=tuple(problems),
        exit_code=next((code for code in SEVERITY if code in codes), 0),
    )


def _lines(seen: Seen, *, is_verbose: bool) -> Iterator[Line]:
    is_calm = _code(seen) == 0
    yield Line(describe(seen), word_of(seen), is_calm)
    if not is_calm and seen.status.get("reason"):
        yield Line(f"  {seen.status['reason']}")
    if is_verbose:
        yield from (Line(f"  {path}: {text}") for path, text in flattened(seen.status))


def _code(seen: Seen) -> int:
    if seen.is_stale:
        return STALE
    return 0 if seen.is_healthy else UNHEALTHY


def _data(seen: Seen) -> dict[str, object]:
    return {
        "folder": str(seen.folder),
        "verdict": word_of(seen),
        "age_s": seen.age_s,
        "status": seen.status,
    }


def _clock(seconds: float) -> str:
    minutes, hours = int(seconds / 60.0 + 0.5) % 60, int(seconds / 60.0 + 0.5) // 60
    return f"{hours} h {minutes:02d} min" if hours else f"{seconds / 60.0:.1f} min"
