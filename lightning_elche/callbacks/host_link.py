"""Whether averaging parameters takes more of a link than it should."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning.pytorch.utilities import rank_zero_warn

from lightning_elche.coordination.bandwidth.budget import interval_floor_s

if TYPE_CHECKING:
    from lightning.pytorch.strategies import Strategy

    from lightning_elche.control.events import AveragingEvent
    from lightning_elche.coordination.bandwidth.budget import BandwidthConfig

__all__ = ["LinkAdvice"]


class LinkAdvice:
    """Compares the first windows with what the link allows, once speeds and sizes are known.

    If they are too short, it says so and lengthens them once; from then on the cadence follows
    what exchanges really cost. All ranks have the same options and the same events, and so the same
    cadence.

    Args:
        strategy: `ElCheStrategy`, its run under way.
        config: The link.
    """

    def __init__(self, strategy: Strategy, config: BandwidthConfig) -> None:
        self._strategy, self._config = strategy, config
        self._is_done = config.link_mbps is None
        self.floor_s: float | None = None

    def on_average_end(self, event: AveragingEvent) -> None:
        """Look at an event."""
        if self._is_done or not (event.plan.is_calibrated and event.exchanged_bytes):
            return
        self._is_done = True
        config = self._config
        self.floor_s = floor_s = interval_floor_s(
            config, num_bytes=event.exchanged_bytes, world_size=len(event.reports)
        )
        window_ms = event.plan.anchor_wall_ms
        if window_ms < 1000.0 * floor_s:
            rank_zero_warn(
                f"Ranks average {event.exchanged_bytes / 1e6:.3g} MB every {window_ms / 1e3:.3g} "
                f"s. To take no more than {config.averaging_ratio:.0%} of a link of "
                f"{config.link_mbps:g} Mbit/s they should meet every {floor_s:.3g} s. Windows are "
                "lengthened once; raise `anchor` or `max_anchor` of `CadenceConfig` to keep it so."
            )
            self._strategy.run.rounds.controller.elche.lengthen(1000.0 * floor_s)  # type: ignore[attr-defined]  # ElCheStrategy
