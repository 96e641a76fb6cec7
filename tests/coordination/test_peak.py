"""Peak hours against a clock on the wall that is read minute by minute."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_elche.coordination.schedule.peak import PeakHours
from lightning_elche.coordination.schedule.schedule import ScheduleConfig

HOUR_S = 3600.0
BERLIN = ZoneInfo("Europe/Berlin")
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe")
minutes = st.integers(0, 24 * 60 - 1)
# Round the days on which clocks are set, in spring and in autumn.
moments = st.one_of(
    st.floats(0.0, 4e9),
    st.sampled_from([datetime(2026, 3, 29), datetime(2026, 10, 25), datetime(2026, 4, 5)]).flatmap(
        lambda day: st.floats(
            (day - timedelta(days=2)).replace(tzinfo=timezone.utc).timestamp(),
            (day + timedelta(days=2)).replace(tzinfo=timezone.utc).timestamp(),
        )
    ),
)


def clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


def shows(moment: float, start: str, end: str, zone: str) -> bool:
    """Whether the clock on the wall shows a time in [start, end), by its text alone."""
    text = datetime.fromtimestamp(moment, ZoneInfo(zone)).strftime("%H:%M")
    return start <= text < end if start < end else text >= start or text < end


@given(moments, st.floats(0.0, 40 * HOUR_S), minutes, minutes, st.sampled_from(ZONES))
def test_overlap_is_what_the_minutes_say(
    now: float, duration_s: float, start_min: int, end_min: int, zone: str
) -> None:
    """For any hours, zone, begin and duration, midnight and changes of the clock included."""
    if start_min == end_min:
        end_min = (end_min + 1) % (24 * 60)
    hours = (clock(start_min), clock(end_min), zone)
    first = int(now // 60.0)
    looked_at = [now, *(60.0 * minute for minute in range(first + 1, first + 40 * 60 + 2))]
    inside = [moment for moment in looked_at if moment < now + duration_s or moment == now]
    expected = any(shows(moment, *hours) for moment in inside)
    assert PeakHours.parse(hours).overlaps(now, duration_s) is expected


@pytest.mark.parametrize(
    ("begin_h", "duration_h", "expected"),
    [
        (19, 4, True),  # ends at 23, after the hours
        (14, 8, True),  # ends when they do
        (10, 24, True),  # ends before them, on the next day
        (10, 4, False),
        (10, 4.01, True),
        (22, 16, False),
        (22, 16.01, True),
        (13.99, 0.001, False),
    ],
)
def test_overlap_counts_the_whole_run(begin_h: float, duration_h: float, expected: bool) -> None:
    """Not its end alone: peak is 14 to 22 here."""
    peak = PeakHours.parse(["14:00", "22:00", "UTC"])
    assert peak.overlaps(begin_h * HOUR_S, duration_h * HOUR_S) is expected


def test_hours_go_past_midnight() -> None:
    """From 22 in the evening to 6 in the morning."""
    peak = PeakHours.parse(["22:00", "06:00", "UTC"])
    assert [peak.is_peak(hour * HOUR_S) for hour in (21, 22, 24, 29, 30)] == [
        *(False, True, True, True, False)
    ]


def test_end_of_the_hours_is_found_across_a_change_of_the_clock() -> None:
    """From 1 to 4 lasts two hours on the day on which clocks are set forward, four in autumn."""
    peak = PeakHours.parse(["01:00", "04:00", "Europe/Berlin"])
    days = (datetime(2026, 3, 29, 1, tzinfo=BERLIN), datetime(2026, 10, 25, 1, tzinfo=BERLIN))
    left = [peak.seconds_until(day.timestamp(), is_peak=False) / HOUR_S for day in days]
    assert left == [2.0, 4.0]


@pytest.mark.parametrize(
    ("peak", "message"),
    [
        ("14:00", "begin, end and time zone"),
        (["14:00", "22:00"], "begin, end and time zone"),
        ([840, "22:00", "UTC"], "got 840. Quote them"),
        (["24:00", "22:00", "UTC"], "got '24:00'"),
        (["14:00", "14:00", "UTC"], "different times"),
        (["14:00", "22:00", "Mars/Olympus"], "got 'Mars/Olympus'"),
        (["14:00", "22:00", "../etc"], "got '../etc'"),
    ],
)
def test_hours_that_are_none_are_refused(peak: list[str], message: str) -> None:
    """The message says what is wrong with them."""
    with pytest.raises(ValueError, match=f"`peak` must .*{message}"):
        ScheduleConfig(peak=peak)
