"""The errors that a caller may want to catch; everything else is a built-in exception."""

from __future__ import annotations

__all__ = ["MisalignedCollective", "PeerLost", "RankFailed", "RankMismatch"]


class MisalignedCollective(RuntimeError):
    """A collective was asked for between two averaging events, where ranks are not aligned.

    Attributes:
        call: What was called, for example `"Strategy.reduce"`.
    """

    def __init__(self, call: str, fix: str) -> None:
        super().__init__(
            f"`{call}` needs all ranks at once, but was called inside a training step, where each "
            "rank is at a step of its own. It would pair with another step of a peer, or hang. "
            f"{fix}"
        )
        self.call = call


class RankMismatch(RuntimeError):
    """Ranks were started with different models, data or samplers.

    Attributes:
        what: The thing that differs: `"model"` or `"data"`.
    """

    def __init__(self, what: str, message: str) -> None:
        super().__init__(message)
        self.what = what


class RankFailed(RuntimeError):
    """Another rank raised an exception, so this one stops too.

    Attributes:
        rank: The rank that failed first.
        cause: Its exception as text.
    """

    def __init__(self, rank: int, cause: str) -> None:
        super().__init__(
            f"Rank {rank} failed with {cause}. This rank stops because of it; the traceback of "
            f"rank {rank} is in its own output."
        )
        self.rank = rank
        self.cause = cause


class PeerLost(RuntimeError):
    """Peers did not arrive at an averaging event in time, or their connection closed.

    Attributes:
        missing: The ranks that had not announced themselves, if they are known.
    """

    def __init__(self, missing: tuple[int, ...], message: str) -> None:
        super().__init__(message)
        self.missing = missing
