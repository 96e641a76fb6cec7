"""What held a rank up, in words, from shares of its time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from lightning_elche.timeline.causes import BUSY

__all__ = ["RankTimes", "Verdict", "idle_ratio", "judge", "told"]

LIMITS = {"input": 0.10, "hooks": 0.05, "checkpoint": 0.05, "throttle": 0.05, "other": 0.02}
WORDS = {
    "input": ("input-bound", "waiting for data (more loader workers, or faster storage)"),
    "average_transfer": (
        "link-bound",
        "exchanging parameters (a faster link, compression, or a larger max_anchor)",
    ),
    "hooks": ("hooks-bound", "callbacks, logging and the loop around its steps"),
    "checkpoint": ("checkpoint-bound", "saving checkpoints"),
    "throttle": ("throttled", "sleeping, since it shares its machine"),
    "other": ("unexplained", "what no span covers"),
}
MANY = 3  # ranks that are told about together
HARDLY_WAITS, IN_MOST_EVENTS, OTHERS_WAIT = 0.02, 0.80, 0.10


@dataclass(frozen=True, kw_only=True)
class RankTimes:
    """Where the time of a rank went.

    Attributes:
        rank: Which.
        device: On what it trained.
        totals: Nanoseconds of each cause.
        waits: Part of its time that it waited, of each averaging event and the window before it.
    """

    rank: int
    device: str
    totals: Mapping[str, float]
    waits: Sequence[float] = ()

    @property
    def running_ns(self) -> float:
        """Its wall time without the start."""
        return sum(self.totals.values()) - self.totals.get("startup", 0.0)

    def share(self, cause: str) -> float:
        """Return the part of its running time that went into a cause."""
        return self.totals.get(cause, 0.0) / self.running_ns if self.running_ns else 0.0


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Something that cost a rank time.

    Attributes:
        rank: Which rank.
        kind: Such as "input-bound".
        cause: What its time went into, or that of the ranks that wait for it.
        name: The rank and its device.
        text: The verdict as a sentence that names them.
        ratio: The share of its running time that it is about.
    """

    rank: int
    kind: str
    cause: str
    name: str
    text: str
    ratio: float


def idle_ratio(times: RankTimes) -> float:
    """Return the part of the running time that was neither computing nor validating."""
    busy_ns = sum(times.totals.get(cause, 0.0) for cause in BUSY - {"startup"})
    return 1.0 - busy_ns / times.running_ns if times.running_ns else 0.0


def judge(ranks: Sequence[RankTimes], *, overhead_target: float) -> list[Verdict]:
    """Return what cost the ranks time, the largest share first.

    Args:
        ranks: Of the run.
        overhead_target: What part of a rank's time exchanging parameters may take.
    """
    longest = max(ranks, key=lambda times: times.share("average_wait"), default=None)
    verdicts = []
    for times in ranks:
        found = [*_bounds(times, overhead_target)]
        if longest is not None and _holds_up(times, longest):
            ratio = longest.share("average_wait")
            text = (
                f"{_name(times)} is the straggler: it hardly ever waits, while rank {longest.rank} "
                f"waits {ratio:.1%} of its time for others."
            )
            found.append(_verdict(times, "straggler", "average_wait", text, ratio))
        verdicts += found
    return sorted(verdicts, key=lambda verdict: -verdict.ratio)


def told(verdicts: Sequence[Verdict]) -> list[tuple[str, str]]:
    """Return sentences, each with the cause that it is about, the largest share first.

    What is true of many ranks is one sentence.
    """
    by_kind: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        by_kind.setdefault(verdict.kind, []).append(verdict)
    found = []
    for verdict in verdicts:
        alike = by_kind[verdict.kind]
        if len(alike) < MANY:
            found.append((verdict.cause, verdict.text))
        elif verdict is alike[0]:
            found.append((verdict.cause, _of_many(alike)))
    return found


def _of_many(alike: Sequence[Verdict]) -> str:
    most, least = alike[0], alike[-1]
    if most.kind == "straggler":
        numbers = ", ".join(str(verdict.rank) for verdict in alike)
        return f"Ranks {numbers} are stragglers: others wait {most.ratio:.1%} of their time."
    kind, why = WORDS[most.cause]
    return (
        f"{len(alike)} ranks are {kind}, most of all {most.name[0].lower()}{most.name[1:]}: "
        f"{least.ratio:.1%} to {most.ratio:.1%} of their time went into {why}."
    )


def _verdict(times: RankTimes, kind: str, cause: str, text: str, ratio: float) -> Verdict:
    return Verdict(
        rank=times.rank, kind=kind, cause=cause, name=_name(times), text=text, ratio=ratio
    )


def _bounds(times: RankTimes, overhead_target: float) -> Iterator[Verdict]:
    """Yield each cause that took more of a rank's time than it may."""
    limits = {**LIMITS, "average_transfer": overhead_target}
    for cause, (kind, why) in WORDS.items():
        ratio = times.share(cause)
        if ratio >= limits[cause]:
            text = f"{_name(times)} is {kind}: {ratio:.1%} of its time went into {why}."
            yield _verdict(times, kind, cause, text, ratio)


def _holds_up(times: RankTimes, longest: RankTimes) -> bool:
    if times.rank == longest.rank or longest.share("average_wait") < OTHERS_WAIT or not times.waits:
        return False
    hardly = sum(wait < HARDLY_WAITS for wait in times.waits)
    return hardly >= IN_MOST_EVENTS * len(times.waits)


def _name(times: RankTimes) -> str:
    return f"Rank {times.rank} ({times.device})"
